"""The token store that Microsoft's developer tools share: who signed in to one of them is signed in here.

Source: azure-identity 1.27.0, `SharedTokenCacheCredential`.
"""

from __future__ import annotations

import os
import sys

from workload_identity.authority import AzureAuthorityHosts, normal_authority, valid_tenant
from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.credentials import (
    Credential,
    Order,
    allowed_tenant,
    allowed_tenants,
    guarded,
    named_scopes,
)
from workload_identity.options import options_of
from workload_identity.persistence import TokenCachePersistenceOptions, persistence_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from typing import Unpack

    from workload_identity.authentication_record import AuthenticationRecord
    from workload_identity.cache import Held
    from workload_identity.msal_applications import Keyring, Visit
    from workload_identity.options import SendingOptions
    from workload_identity.steps import Flow


class SharedTokenCache(Credential):
    """Uses a sign-in that a developer tool of Microsoft's left in the store that they share.

    Args:
        username: Whose sign-in, where there are several.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud.
        tenant_id: Only a person whose home this is, where there are several. With a record: where they sign
            in.
        authentication_record: Whose sign-in, and to which application, as `authenticate` returned it.
        cache_persistence_options: Which store; by default the tools' own, in a plain file where it cannot be
            encrypted.
        disable_instance_discovery: Trust the authority without asking Entra whether it knows it.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        timeout: As in `workload_identity.options.Options`.
        options: See there.

    Raises:
        ValueError: A value cannot work; the message names it.

    Source: azure-identity 1.27.0, `SharedTokenCacheCredential`.
    """

    def __init__(
        self,
        username: str | None = None,
        *,
        authority: str | None = None,
        tenant_id: str | None = None,
        authentication_record: AuthenticationRecord | None = None,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        disable_instance_discovery: bool = False,
        additionally_allowed_tenants: Iterable[str] | None = None,
        timeout: float | None = None,
        **options: Unpack[SendingOptions],
    ) -> None:
        known = ("username", "authority", "tenant_id", "authentication_record", "cache_persistence_options")
        own = ("disable_instance_discovery", "additionally_allowed_tenants")
        given = options_of({**options, "timeout": timeout}, known + own)
        self._record = record = authentication_record
        self._username = username
        host = record.authority if record is not None else authority
        host = host or os.environ.get("AZURE_AUTHORITY_HOST") or AzureAuthorityHosts.AZURE_PUBLIC_CLOUD
        self._authority = normal_authority(host)
        self._home = valid_tenant(tenant_id) if tenant_id else None
        self._tenant_id = "organizations" if record is None else self._home or valid_tenant(record.tenant_id)
        stored = persistence_options(cache_persistence_options)
        self._persistence = stored or TokenCachePersistenceOptions(allow_unencrypted_storage=True)
        self._discovery = not disable_instance_discovery
        self._allowed_tenants = allowed_tenants(additionally_allowed_tenants)
        super().__init__(given, shared_cache=False)

    def __repr__(self) -> str:
        return f"<{self._name()} username={self._username!r} authority={self._authority!r}>"

    @staticmethod
    def supported() -> bool:
        """Tell whether this system can have such a store."""
        return sys.platform in {"darwin", "linux", "win32"}

    def _open(self) -> None:
        super()._open()
        self._keyring: Keyring | None = None

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy in another process needs: no token goes there."""
        return {name: value for name, value in super().__getstate__().items() if name != "_keyring"}

    def _identity(self) -> tuple[Hashable, ...]:
        return "shared cache", self._authority.lower()

    def _tenant(self, requested: str | None) -> str:
        return allowed_tenant(self._tenant_id, requested, self._allowed_tenants)

    def _order(
        self, asked: tuple[object, ...], claims: str | None, tenant_id: str | None, enable_cae: bool
    ) -> Order:
        order = super()._order(asked, claims, tenant_id, enable_cae)
        scopes, tenant = named_scopes(asked), self._tenant(tenant_id or None)

        def flow(background: bool) -> Flow[Held]:
            from workload_identity import shared_sign_ins  # noqa: PLC0415 - what a token request needs

            visit = self._visit(scopes, tenant, claims or None, enable_cae)
            if self._record is not None:
                return (yield from shared_sign_ins.of_record(visit, self._record, renew=background))
            return (
                yield from shared_sign_ins.of_account(visit, self._username, self._home, renew=background)
            )

        order.flow = lambda background: guarded(flow(background))
        return order

    def _visit(self, scopes: tuple[str, ...], tenant: str, claims: str | None, cae: bool) -> Visit:
        from workload_identity.msal_applications import (  # noqa: PLC0415 - not before a token is asked for
            Keyring,
            Visit,
        )
        from workload_identity.users import DEVELOPER_SIGN_ON  # noqa: PLC0415 - likewise

        if self._keyring is None:
            self._keyring = Keyring(self._persistence)
        client_id = DEVELOPER_SIGN_ON if self._record is None else self._record.client_id
        return Visit(
            self._authority,
            tenant,
            client_id,
            scopes,
            claims,
            cae,
            self._discovery,
            self._keyring,
            self._options,
        )


class SharedTokenCacheCredential(SharedTokenCache, Blocking):  # noqa: D101 - it has, see below
    # The same words for both families.
    __doc__ = SharedTokenCache.__doc__


class AsyncSharedTokenCacheCredential(SharedTokenCache, Awaiting):  # noqa: D101 - likewise
    __doc__ = SharedTokenCache.__doc__
