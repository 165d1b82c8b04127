"""Azure credentials for pods, under azure-identity's names.

The blocking family is here, the awaiting one in `workload_identity.aio`. Importing this package costs next to
nothing: a name is loaded when it is first used, an HTTP client when a token is first asked for.
"""

from __future__ import annotations

from workload_identity import lazy

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.authentication_record import AuthenticationRecord
    from workload_identity.authority import AzureAuthorityHosts, KnownAuthorities
    from workload_identity.blocking import get_bearer_token_provider
    from workload_identity.broker import InteractiveBrowserBrokerCredential
    from workload_identity.chain import ChainedTokenCredential
    from workload_identity.default import DefaultAzureCredential
    from workload_identity.delegated import AuthorizationCodeCredential, OnBehalfOfCredential
    from workload_identity.environment import EnvironmentCredential
    from workload_identity.errors import (
        AuthenticationRequiredError,
        ClientAuthenticationError,
        CredentialUnavailableError,
    )
    from workload_identity.managed import ManagedIdentityCredential
    from workload_identity.persistence import TokenCachePersistenceOptions
    from workload_identity.placeholders import VisualStudioCodeCredential
    from workload_identity.principals import (
        AzurePipelinesCredential,
        CertificateCredential,
        ClientAssertionCredential,
        ClientSecretCredential,
    )
    from workload_identity.principals import CertificateCredential as ClientCertificateCredential
    from workload_identity.protocols import SupportsTokenInfo, TokenCredential, TokenRequestOptions
    from workload_identity.shared_cache import SharedTokenCacheCredential
    from workload_identity.tokens import AccessToken, AccessTokenInfo
    from workload_identity.tools import (
        AzureCliCredential,
        AzureDeveloperCliCredential,
        AzurePowerShellCredential,
    )
    from workload_identity.users import (
        DeviceCodeCredential,
        InteractiveBrowserCredential,
        UsernamePasswordCredential,
    )
    from workload_identity.workload import WorkloadIdentityCredential

__all__ = [
    "AccessToken",
    "AccessTokenInfo",
    "AuthenticationRecord",
    "AuthenticationRequiredError",
    "AuthorizationCodeCredential",
    "AzureAuthorityHosts",
    "AzureCliCredential",
    "AzureDeveloperCliCredential",
    "AzurePipelinesCredential",
    "AzurePowerShellCredential",
    "CertificateCredential",
    "ChainedTokenCredential",
    "ClientAssertionCredential",
    "ClientAuthenticationError",
    "ClientCertificateCredential",
    "ClientSecretCredential",
    "CredentialUnavailableError",
    "DefaultAzureCredential",
    "DeviceCodeCredential",
    "EnvironmentCredential",
    "InteractiveBrowserBrokerCredential",
    "InteractiveBrowserCredential",
    "KnownAuthorities",
    "ManagedIdentityCredential",
    "OnBehalfOfCredential",
    "SharedTokenCacheCredential",
    "SupportsTokenInfo",
    "TokenCachePersistenceOptions",
    "TokenCredential",
    "TokenRequestOptions",
    "UsernamePasswordCredential",
    "VisualStudioCodeCredential",
    "WorkloadIdentityCredential",
    "get_bearer_token_provider",
]

_HOMES = {
    "AccessToken": "tokens",
    "AccessTokenInfo": "tokens",
    "AuthenticationRecord": "authentication_record",
    "AuthenticationRequiredError": "errors",
    "AuthorizationCodeCredential": "delegated",
    "AzureAuthorityHosts": "authority",
    "AzureCliCredential": "tools",
    "AzureDeveloperCliCredential": "tools",
    "AzurePipelinesCredential": "principals",
    "AzurePowerShellCredential": "tools",
    "CertificateCredential": "principals",
    "ChainedTokenCredential": "chain",
    "ClientAssertionCredential": "principals",
    "ClientAuthenticationError": "errors",
    "ClientCertificateCredential": "principals:CertificateCredential",
    "ClientSecretCredential": "principals",
    "CredentialUnavailableError": "errors",
    "DefaultAzureCredential": "default",
    "DeviceCodeCredential": "users",
    "EnvironmentCredential": "environment",
    "InteractiveBrowserBrokerCredential": "broker",
    "InteractiveBrowserCredential": "users",
    "KnownAuthorities": "authority",
    "ManagedIdentityCredential": "managed",
    "OnBehalfOfCredential": "delegated",
    "SharedTokenCacheCredential": "shared_cache",
    "SupportsTokenInfo": "protocols",
    "TokenCachePersistenceOptions": "persistence",
    "TokenCredential": "protocols",
    "TokenRequestOptions": "protocols",
    "UsernamePasswordCredential": "users",
    "VisualStudioCodeCredential": "placeholders",
    "WorkloadIdentityCredential": "workload",
    "get_bearer_token_provider": "blocking",
}
if not TYPE_CHECKING:  # a type checker that saw this would take any name for there
    __getattr__, __dir__ = lazy.names(globals(), _HOMES)
