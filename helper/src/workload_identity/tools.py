"""Credentials that run a developer's tool: `az`, `azd`, PowerShell.

Nothing is held unless asked for, as the tools hold tokens themselves and a developer may sign in as somebody
else at any time. Calls at the same time for the same thing run one process.
"""

from __future__ import annotations

import os

from workload_identity.authority import valid_tenant
from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.credentials import (
    Credential,
    allowed_tenant,
    allowed_tenants,
    named_scopes,
    resource_of,
    seconds_of,
)
from workload_identity.errors import CredentialUnavailableError
from workload_identity.options import options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from typing import ClassVar, Unpack

    from workload_identity.cache import Held
    from workload_identity.credentials import Order
    from workload_identity.options import TransportOptions
    from workload_identity.steps import Flow

_TIMEOUT = 10.0
_WORD = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.")
_SCOPE = _WORD | frozenset(":/")
_SUBSCRIPTION = _WORD | frozenset(" ")
_OWN = ("tenant_id", "additionally_allowed_tenants", "process_timeout", "cache_tokens")


class Tool(Credential):
    """What the three share."""

    _kind: ClassVar[str]
    _late = CredentialUnavailableError  # as when the tool takes too long for this one itself

    def __init__(
        self,
        *,
        tenant_id: str = "",
        additionally_allowed_tenants: Iterable[str] | None = None,
        process_timeout: float | None = _TIMEOUT,
        cache_tokens: bool = False,
        **options: Unpack[TransportOptions],
    ) -> None:
        super().__init__(options_of(options, (*_OWN, "subscription")), shared_cache=True)
        self._tenant_id = valid_tenant(tenant_id) if tenant_id else ""
        self._allowed_tenants = allowed_tenants(additionally_allowed_tenants)
        self._process_timeout = seconds_of("process_timeout", process_timeout, _TIMEOUT)
        self._holds = bool(cache_tokens)

    def __repr__(self) -> str:
        return f"<{self._name()} tenant_id={self._tenant_id!r}>"

    def _identity(self) -> tuple[Hashable, ...]:
        return (self._kind,)

    def _tenant(self, requested: str | None) -> str:
        if not self._tenant_id and requested and not os.environ.get("AZURE_IDENTITY_DISABLE_MULTITENANTAUTH"):
            return valid_tenant(requested)
        return allowed_tenant(self._tenant_id, requested, self._allowed_tenants)

    def _patience(self) -> float:
        return self._process_timeout

    def _order(
        self, asked: tuple[object, ...], claims: str | None, tenant_id: str | None, enable_cae: bool
    ) -> Order:
        del enable_cae  # no tool knows of it
        scopes = named_scopes(asked)
        for scope in scopes:
            if not _SCOPE.issuperset(scope) or scope.startswith("-"):
                raise ValueError(
                    f"scope {scope!r}: wanted letters, digits and _-.:/ only, as it goes to a command line"
                )
        order = super()._order(self._normal(scopes), claims, tenant_id, False)
        # However long each may take: two of them at once would disturb each other.
        order.way = (claims or None, tenant_id or None)
        words = self._unmet(claims, tenant_id, scopes[0]) if claims else ""
        if words:
            from workload_identity.commands import refusing  # noqa: PLC0415 - hardly ever

            order.flow = lambda _background: refusing(words)
        return order

    def _unmet(self, claims: str, tenant_id: str | None, scope: str) -> str:
        """Return what to do about a claims challenge that the tool cannot meet; "" if it can."""
        del claims, tenant_id, scope
        return ""

    def _normal(self, scopes: tuple[str, ...]) -> tuple[str, ...]:
        """Return one spelling for all that mean the same resource."""
        return (f"{resource_of(scopes)}/.default",)

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        raise NotImplementedError


class AzureCli(Tool):
    """The identity that is signed in to the Azure CLI: runs `az account get-access-token`.

    Args:
        tenant_id: Whose token; by default that of the current account.
        subscription: Whose account, by the id or the name of a subscription; by default the current one.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
            Without `tenant_id` a call may name any.
        process_timeout: Seconds that the tool may take; then it is ended, with all that it started.
        cache_tokens: Hold tokens until they end, though the tool may know another account by then.
        options: Without effect: the tool sends the requests.

    Raises:
        ValueError: A value that cannot go to a command line.

    Source: azure-identity 1.27.0, `AzureCliCredential`.
    """

    _kind = "az"

    def __init__(
        self,
        *,
        tenant_id: str = "",
        subscription: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        process_timeout: float | None = _TIMEOUT,
        cache_tokens: bool = False,
        **options: Unpack[TransportOptions],
    ) -> None:
        super().__init__(
            tenant_id=tenant_id,
            additionally_allowed_tenants=additionally_allowed_tenants,
            process_timeout=process_timeout,
            cache_tokens=cache_tokens,
            **options,
        )
        if subscription and (not _SUBSCRIPTION.issuperset(subscription) or subscription.startswith("-")):
            raise ValueError(
                f"subscription {subscription!r}: wanted the id or the name of one, of letters, digits, blanks"
                " and _-. only; `az account list` prints them"
            )
        self._subscription = subscription or ""

    def _identity(self) -> tuple[Hashable, ...]:
        return self._kind, self._subscription

    def _unmet(self, claims: str, tenant_id: str | None, scope: str) -> str:
        from workload_identity.commands import az_claims  # noqa: PLC0415 - hardly ever

        return az_claims(claims, tenant_id, scope)

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        from workload_identity.commands import azure_cli  # noqa: PLC0415 - what a token request needs

        del claims, background
        return azure_cli(resource_of(scopes), tenant, self._subscription, self._process_timeout)


class AzureDeveloperCli(Tool):
    """The identity that is signed in to the Azure Developer CLI: runs `azd auth token`.

    Args:
        tenant_id: Whose token; by default that of the current account.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
            Without `tenant_id` a call may name any.
        process_timeout: Seconds that the tool may take; then it is ended, with all that it started.
        cache_tokens: Hold tokens until they end, though the tool may know another account by then.
        options: Without effect: the tool sends the requests.

    Raises:
        ValueError: A value that cannot go to a command line.

    Source: azure-identity 1.27.0, `AzureDeveloperCliCredential`.
    """

    _kind = "azd"

    def _normal(self, scopes: tuple[str, ...]) -> tuple[str, ...]:
        return scopes

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        from workload_identity.commands import azure_developer_cli  # noqa: PLC0415 - what a request needs

        del background
        return azure_developer_cli(scopes, tenant, claims, self._process_timeout)


class AzurePowerShell(Tool):
    """The identity that is signed in to Azure PowerShell: runs `Get-AzAccessToken` of the module Az.Accounts.

    Args:
        tenant_id: Whose token; by default that of the current context.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
            Without `tenant_id` a call may name any.
        process_timeout: Seconds that the tool may take; then it is ended, with all that it started.
        cache_tokens: Hold tokens until they end, though the tool may know another account by then.
        options: Without effect: the tool sends the requests.

    Raises:
        ValueError: A value that cannot go to a command line.

    Source: azure-identity 1.27.0, `AzurePowerShellCredential`.
    """

    _kind = "pwsh"

    def _unmet(self, claims: str, tenant_id: str | None, scope: str) -> str:
        from workload_identity.commands import powershell_claims  # noqa: PLC0415 - hardly ever

        del scope
        return powershell_claims(claims, tenant_id)

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        from workload_identity.commands import azure_powershell  # noqa: PLC0415 - what a token request needs

        del claims, background
        return azure_powershell(resource_of(scopes), tenant, self._process_timeout)


class AzureCliCredential(AzureCli, Blocking):  # noqa: D101 - it has, see below
    __doc__ = AzureCli.__doc__


class AsyncAzureCliCredential(AzureCli, Awaiting):  # noqa: D101 - likewise
    __doc__ = AzureCli.__doc__


class AzureDeveloperCliCredential(AzureDeveloperCli, Blocking):  # noqa: D101 - likewise
    __doc__ = AzureDeveloperCli.__doc__


class AsyncAzureDeveloperCliCredential(AzureDeveloperCli, Awaiting):  # noqa: D101 - likewise
    __doc__ = AzureDeveloperCli.__doc__


class AzurePowerShellCredential(AzurePowerShell, Blocking):  # noqa: D101 - likewise
    __doc__ = AzurePowerShell.__doc__


class AsyncAzurePowerShellCredential(AzurePowerShell, Awaiting):  # noqa: D101 - likewise
    __doc__ = AzurePowerShell.__doc__
