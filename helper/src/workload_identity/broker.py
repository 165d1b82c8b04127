"""Sign-in through the system's broker of accounts: not here, under a name that programs may have.

Source: azure-identity-broker, `InteractiveBrowserBrokerCredential`.
"""

from __future__ import annotations

from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.credentials import Credential
from workload_identity.errors import CredentialUnavailableError
from workload_identity.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    from workload_identity.cache import Held
    from workload_identity.steps import Flow


class InteractiveBrowserBroker(Credential):
    """Stands where azure-identity-broker's credential would: there is never a token, and a chain goes on.

    The brokers of Windows and macOS are reached through a library of Microsoft's that is no part of this
    package. InteractiveBrowserCredential signs a person in without one.

    Args:
        options: Those of azure-identity-broker; all are taken, none has an effect.
    """

    _holds = False

    def __init__(self, **options: Any) -> None:
        del options
        super().__init__(Options({}), shared_cache=False)

    def __repr__(self) -> str:
        return f"<{self._name()}>"

    def _identity(self) -> tuple[Hashable, ...]:
        return ("broker",)

    def _tenant(self, requested: str | None) -> str:
        return requested or ""

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        del scopes, tenant, claims, background
        yield from ()
        raise CredentialUnavailableError(
            "workload-identity has no account broker; sign in with InteractiveBrowserCredential or"
            " DeviceCodeCredential"
        )


class InteractiveBrowserBrokerCredential(InteractiveBrowserBroker, Blocking):  # noqa: D101 - it has, see below
    # The same words for both families.
    __doc__ = InteractiveBrowserBroker.__doc__


class AsyncInteractiveBrowserBrokerCredential(InteractiveBrowserBroker, Awaiting):  # noqa: D101 - likewise
    __doc__ = InteractiveBrowserBroker.__doc__
