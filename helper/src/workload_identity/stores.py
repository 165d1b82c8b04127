"""Applications' tokens in a store, under the names that azure-identity gives them; all of it blocks."""

from __future__ import annotations

from urllib.parse import urlsplit

from workload_identity.cache import OVER
from workload_identity.msal_applications import held_of, token_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from workload_identity.cache import Held
    from workload_identity.clock import Instant
    from workload_identity.msal_applications import Keyring


class Store:
    """The place of one token in a store.

    Args:
        keyring: Opens the store.
        authority: The token service.
        tenant_id: Whose token endpoint.
        client_id: Under which name.
        scopes: What for.
        cae: Tokens of continuous access evaluation are stored apart.
        reads: Whether a stored one will do.
        of_users: Whether they are users' tokens under that name, and not the application's own.
    """

    def __init__(
        self,
        keyring: Keyring,
        authority: str,
        tenant_id: str,
        client_id: str,
        scopes: tuple[str, ...],
        *,
        cae: bool,
        reads: bool,
        of_users: bool,
    ) -> None:
        self._keyring = keyring
        self._authority = authority
        self._tenant_id = tenant_id
        self._client_id = client_id
        self._scopes = scopes
        self._cae = cae
        self._reads = reads
        self._of_users = of_users

    def open(self) -> Any:
        """Return MSAL's cache over the store.

        Raises:
            ClientAuthenticationError: It cannot be opened.
        """
        return self._keyring.cache(cae=self._cae)

    def find(self, now: Instant) -> Held | None:
        """Return the token, if one is there, will do and is good yet.

        Raises:
            ClientAuthenticationError: The store cannot be opened or read.
        """
        cache = self.open()
        if not self._reads:
            return None
        query = {
            "client_id": self._client_id,
            "environment": urlsplit(self._authority).hostname,
            "realm": self._tenant_id,
        }
        for entry in cache.search("AccessToken", target=list(self._scopes), query=query):
            held = held_of(entry, now)
            whose = entry.get("home_account_id") is not None
            if held is not None and whose is self._of_users and held.freshness(now) is not OVER:
                return held
        return None

    def keep(self, answer: Mapping[str, Any]) -> None:
        """Store what the token service answered."""
        event = token_event(self._authority, self._tenant_id, self._client_id, self._scopes, answer)
        self.open().add(event)
