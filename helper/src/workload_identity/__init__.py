"""Azure credentials for pods, under azure-identity's names.

The blocking family is here, the awaiting one in `workload_identity.aio`. Importing this package costs next to
nothing: a name is loaded when it is first used, an HTTP client when a token is first asked for.
"""

from __future__ import annotations

from workload_identity import lazy

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.authority import AzureAuthorityHosts, KnownAuthorities
    from workload_identity.blocking import get_bearer_token_provider
    from workload_identity.errors import (
        AuthenticationRequiredError,
        ClientAuthenticationError,
        CredentialUnavailableError,
    )
    from workload_identity.protocols import SupportsTokenInfo, TokenCredential, TokenRequestOptions
    from workload_identity.tokens import AccessToken, AccessTokenInfo
    from workload_identity.workload import WorkloadIdentityCredential

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

__getattr__, __dir__ = lazy.names(
    globals(),
    {
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
        "WorkloadIdentityCredential": "workload",
        "get_bearer_token_provider": "blocking",
    },
)
