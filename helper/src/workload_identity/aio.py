"""The awaiting family, for asyncio: the names of `workload_identity`, with methods that are awaited."""

from __future__ import annotations

from workload_identity import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.awaiting import get_bearer_token_provider
    from workload_identity.broker import (
        AsyncInteractiveBrowserBrokerCredential as InteractiveBrowserBrokerCredential,
    )
    from workload_identity.chain import AsyncChainedTokenCredential as ChainedTokenCredential
    from workload_identity.default import AsyncDefaultAzureCredential as DefaultAzureCredential
    from workload_identity.delegated import AsyncAuthorizationCodeCredential as AuthorizationCodeCredential
    from workload_identity.delegated import AsyncOnBehalfOfCredential as OnBehalfOfCredential
    from workload_identity.environment import AsyncEnvironmentCredential as EnvironmentCredential
    from workload_identity.managed import AsyncManagedIdentityCredential as ManagedIdentityCredential
    from workload_identity.placeholders import AsyncVisualStudioCodeCredential as VisualStudioCodeCredential
    from workload_identity.principals import AsyncAzurePipelinesCredential as AzurePipelinesCredential
    from workload_identity.principals import AsyncCertificateCredential as CertificateCredential
    from workload_identity.principals import AsyncCertificateCredential as ClientCertificateCredential
    from workload_identity.principals import AsyncClientAssertionCredential as ClientAssertionCredential
    from workload_identity.principals import AsyncClientSecretCredential as ClientSecretCredential
    from workload_identity.protocols import AsyncSupportsTokenInfo, AsyncTokenCredential
    from workload_identity.shared_cache import AsyncSharedTokenCacheCredential as SharedTokenCacheCredential
    from workload_identity.tools import AsyncAzureCliCredential as AzureCliCredential
    from workload_identity.tools import AsyncAzureDeveloperCliCredential as AzureDeveloperCliCredential
    from workload_identity.tools import AsyncAzurePowerShellCredential as AzurePowerShellCredential
    from workload_identity.users import AsyncDeviceCodeCredential as DeviceCodeCredential
    from workload_identity.users import AsyncInteractiveBrowserCredential as InteractiveBrowserCredential
    from workload_identity.users import AsyncUsernamePasswordCredential as UsernamePasswordCredential
    from workload_identity.workload import AsyncWorkloadIdentityCredential as WorkloadIdentityCredential

__all__ = [
    "AsyncSupportsTokenInfo",
    "AsyncTokenCredential",
    "AuthorizationCodeCredential",
    "AzureCliCredential",
    "AzureDeveloperCliCredential",
    "AzurePipelinesCredential",
    "AzurePowerShellCredential",
    "CertificateCredential",
    "ChainedTokenCredential",
    "ClientAssertionCredential",
    "ClientCertificateCredential",
    "ClientSecretCredential",
    "DefaultAzureCredential",
    "DeviceCodeCredential",
    "EnvironmentCredential",
    "InteractiveBrowserBrokerCredential",
    "InteractiveBrowserCredential",
    "ManagedIdentityCredential",
    "OnBehalfOfCredential",
    "SharedTokenCacheCredential",
    "UsernamePasswordCredential",
    "VisualStudioCodeCredential",
    "WorkloadIdentityCredential",
    "get_bearer_token_provider",
]

_HOMES = {
    "AsyncSupportsTokenInfo": "protocols",
    "AsyncTokenCredential": "protocols",
    "AuthorizationCodeCredential": "delegated:AsyncAuthorizationCodeCredential",
    "AzureCliCredential": "tools:AsyncAzureCliCredential",
    "AzureDeveloperCliCredential": "tools:AsyncAzureDeveloperCliCredential",
    "AzurePipelinesCredential": "principals:AsyncAzurePipelinesCredential",
    "AzurePowerShellCredential": "tools:AsyncAzurePowerShellCredential",
    "CertificateCredential": "principals:AsyncCertificateCredential",
    "ChainedTokenCredential": "chain:AsyncChainedTokenCredential",
    "ClientAssertionCredential": "principals:AsyncClientAssertionCredential",
    "ClientCertificateCredential": "principals:AsyncCertificateCredential",
    "ClientSecretCredential": "principals:AsyncClientSecretCredential",
    "DefaultAzureCredential": "default:AsyncDefaultAzureCredential",
    "DeviceCodeCredential": "users:AsyncDeviceCodeCredential",
    "EnvironmentCredential": "environment:AsyncEnvironmentCredential",
    "InteractiveBrowserBrokerCredential": "broker:AsyncInteractiveBrowserBrokerCredential",
    "InteractiveBrowserCredential": "users:AsyncInteractiveBrowserCredential",
    "ManagedIdentityCredential": "managed:AsyncManagedIdentityCredential",
    "OnBehalfOfCredential": "delegated:AsyncOnBehalfOfCredential",
    "SharedTokenCacheCredential": "shared_cache:AsyncSharedTokenCacheCredential",
    "UsernamePasswordCredential": "users:AsyncUsernamePasswordCredential",
    "VisualStudioCodeCredential": "placeholders:AsyncVisualStudioCodeCredential",
    "WorkloadIdentityCredential": "workload:AsyncWorkloadIdentityCredential",
    "get_bearer_token_provider": "awaiting",
}
if not TYPE_CHECKING:  # a type checker that saw this would take any name for there
    __getattr__, __dir__ = lazy.names(globals(), _HOMES)
