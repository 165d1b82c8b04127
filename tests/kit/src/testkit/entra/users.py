"""Users who signed in: what a sign-in leaves, codes and refresh tokens, each of one application and one user.

Signing in itself has no page here: a test says who did, and where the browser would have been sent back to.
"""

import base64
import json
import secrets
import threading
import uuid
from dataclasses import dataclass

from testkit.entra.errors import RequestRefused

_CODE_SECONDS = 600  # what Entra gives a code


@dataclass(frozen=True, slots=True)
class User:
    """A user of a tenant, by the name they sign in with."""

    tenant_id: str
    name: str

    @property
    def object_id(self) -> str:
        """The user's object id; the same name is the same user."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.tenant_id.lower()}/{self.name.lower()}"))

    @property
    def client_info(self) -> str:
        """What an answer's client_info says of them."""
        text = json.dumps({"uid": self.object_id, "utid": self.tenant_id.lower()})
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@dataclass(slots=True)
class _Code:
    client_id: str
    redirect_uri: str
    user: User
    until: float
    redeemed: bool = False


@dataclass(frozen=True, slots=True)
class _RefreshToken:
    client_id: str
    user: User


class SignIns:
    """What is left of all sign-ins so far.

    A refresh token that was used stays good beside the new one, as with Entra.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._codes: dict[str, _Code] = {}
        self._refresh_tokens: dict[str, _RefreshToken] = {}
        self._revoked: set[str] = set()

    def code(self, client_id: str, redirect_uri: str, user: User, now: float) -> str:
        """Return a new authorization code."""
        code = f"1.{secrets.token_urlsafe(40)}"
        self._codes[code] = _Code(client_id.lower(), redirect_uri, user, now + _CODE_SECONDS)
        return code

    def redeem(self, code: str, client_id: str, redirect_uri: str, now: float) -> User:
        """Return whose code it is; RequestRefused tells why it will not do. It works once."""
        with self._changing:
            known = self._codes.get(code)
            if known is None or known.client_id != client_id.lower():
                raise RequestRefused(70000, name="code")
            if known.redeemed:
                raise RequestRefused(54005)
            if now >= known.until:
                raise RequestRefused(70008)
            if redirect_uri != known.redirect_uri:
                raise RequestRefused(500112, found=redirect_uri, registered=known.redirect_uri)
            known.redeemed = True
            return known.user

    def refresh_token(self, client_id: str, user: User) -> str:
        """Return a new refresh token."""
        token = f"1.{secrets.token_urlsafe(60)}"
        self._refresh_tokens[token] = _RefreshToken(client_id.lower(), user)
        return token

    def refreshed(self, token: str, client_id: str) -> User:
        """Return whose refresh token it is; RequestRefused tells why it will not do."""
        known = self._refresh_tokens.get(token)
        if known is None or known.client_id != client_id.lower():
            raise RequestRefused(70000, name="refresh_token")
        if token in self._revoked:
            raise RequestRefused(50173)
        return known.user

    def whose(self, proof: str) -> User | None:
        """Return whose code or refresh token this is, good or not."""
        known = self._codes.get(proof) or self._refresh_tokens.get(proof)
        return None if known is None else known.user

    def revoke(self) -> None:
        """Let no refresh token of before be good any more."""
        self._revoked |= self._refresh_tokens.keys()
