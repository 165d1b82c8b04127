"""Azure credentials for pods, under azure-identity's names.

The blocking family is here, the awaiting one in `workload_identity.aio`. Importing this package costs next to
nothing: a name is loaded when it is first used, an HTTP client when a token is first asked for.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.authority import AzureAuthorityHosts, KnownAuthorities
    from workload_identity.blocking import WorkloadIdentityCredential, get_bearer_token_provider
    from workload_identity.errors import (
        AuthenticationRequiredError,
        ClientAuthenticationError,
        CredentialUnavailableError,
    )
    from workload_identity.protocols import SupportsTokenInfo, TokenCredential, TokenRequestOptions
    from workload_identity.tokens import AccessToken, AccessTokenInfo

_HOMES = {
    "AccessToken": "tokens",
    "AccessTokenInfo": "tokens",
    "AuthenticationRequiredError": "errors",
    "AzureAuthorityHosts": "authority",
    "ClientAuthenticationError": "errors",
    "CredentialUnavailableError": "errors",
    "KnownAuthorities": "authority",
    "SupportsTokenInfo": "protocols",
    "TokenCredential": "protocols",
    "TokenRequestOptions": "protocols",
    "WorkloadIdentityCredential": "blocking",
    "get_bearer_token_provider": "blocking",
}

__all__ = [
    "AccessToken",
    "AccessTokenInfo",
    "AuthenticationRequiredError",
    "AzureAuthorityHosts",
    "ClientAuthenticationError",
    "CredentialUnavailableError",
    "KnownAuthorities",
    "SupportsTokenInfo",
    "TokenCredential",
    "TokenRequestOptions",
    "WorkloadIdentityCredential",
    "get_bearer_token_provider",
]


def __getattr__(name: str) -> object:
    """Load a public name's module when the name is first used."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only who uses a name pays for its module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
