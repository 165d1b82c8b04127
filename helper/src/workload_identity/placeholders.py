"""Credentials that never give a token, and say why: in place of those that cannot be had or made here."""

from __future__ import annotations

from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.credentials import Credential
from workload_identity.errors import CredentialUnavailableError, another
from workload_identity.options import options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from typing import Unpack

    from workload_identity.cache import Held
    from workload_identity.errors import ClientAuthenticationError
    from workload_identity.options import TransportOptions
    from workload_identity.steps import Flow


class Placeholder(Credential):
    """Stands in a chain for a member that could not be made.

    Args:
        name: The class it stands for.
        failure: What each call raises.
    """

    _holds = False

    def __init__(self, name: str, failure: ClientAuthenticationError) -> None:
        super().__init__(options_of({}, ()), shared_cache=False)
        self._stands_for = name
        self._failure = failure

    def __repr__(self) -> str:
        return f"<no {self._stands_for}: {self._failure}>"

    def _name(self) -> str:
        return self._stands_for

    def _identity(self) -> tuple[Hashable, ...]:
        return ("placeholder",)

    def _tenant(self, requested: str | None) -> str:
        return requested or ""

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        del scopes, tenant, claims, background
        raise another(self._failure)
        yield  # type: ignore[unreachable] # makes it a flow


class PlaceholderCredential(Placeholder, Blocking):
    """Stands in a blocking chain."""


class AsyncPlaceholderCredential(Placeholder, Awaiting):
    """Stands in an awaiting one."""


class VisualStudioCode(Placeholder):
    """The user who signed in to Visual Studio Code: never available.

    That takes Microsoft's authentication broker, a program of desktops which this package does not speak to.
    The class is there so that code written for azure-identity runs, and a chain goes on.

    Args:
        tenant_id: Without effect.
        additionally_allowed_tenants: Without effect.
        options: Without effect.

    Source: azure-identity 1.27.0, `VisualStudioCodeCredential`.
    """

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        del tenant_id, additionally_allowed_tenants
        options_of(options, ("tenant_id", "additionally_allowed_tenants"))
        super().__init__(
            "VisualStudioCodeCredential",
            CredentialUnavailableError(
                "this takes Microsoft's authentication broker, which this package does not speak to; use"
                " AzureCliCredential after `az login`, or azure-identity with azure-identity-broker."
            ),
        )


class VisualStudioCodeCredential(VisualStudioCode, Blocking):  # noqa: D101 - it has, see below
    __doc__ = VisualStudioCode.__doc__


class AsyncVisualStudioCodeCredential(VisualStudioCode, Awaiting):  # noqa: D101 - likewise
    __doc__ = VisualStudioCode.__doc__
