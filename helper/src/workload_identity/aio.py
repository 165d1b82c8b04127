"""The awaiting family, for asyncio: the names of `workload_identity`, with methods that are awaited."""

from __future__ import annotations

from workload_identity import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.awaiting import get_bearer_token_provider
    from workload_identity.broker import (
        AsyncInteractiveBrowserBrokerCredential as InteractiveBrowserBrokerCredential,
    )
    from workload_identity.delegated import AsyncAuthorizationCodeCredential as AuthorizationCodeCredential
    from workload_identity.delegated import AsyncOnBehalfOfCredential as OnBehalfOfCredential
    from workload_identity.environment import AsyncEnvironmentCredential as EnvironmentCredential
    from workload_identity.principals import AsyncAzurePipelinesCredential as AzurePipelinesCredential
    from workload_identity.principals import AsyncCertificateCredential as CertificateCredential
    from workload_identity.principals import AsyncCertificateCredential as ClientCertificateCredential
    from workload_identity.principals import AsyncClientAssertionCredential as ClientAssertionCredential
    from workload_identity.principals import AsyncClientSecretCredential as ClientSecretCredential
    from workload_identity.protocols import AsyncSupportsTokenInfo, AsyncTokenCredential
    from workload_identity.shared_cache import AsyncSharedTokenCacheCredential as SharedTokenCacheCredential
    from workload_identity.users import AsyncDeviceCodeCredential as DeviceCodeCredential
    from workload_identity.users import AsyncInteractiveBrowserCredential as InteractiveBrowserCredential
    from workload_identity.users import AsyncUsernamePasswordCredential as UsernamePasswordCredential
    from workload_identity.workload import AsyncWorkloadIdentityCredential as WorkloadIdentityCredential

__all__ = [
    "AsyncSupportsTokenInfo",
    "AsyncTokenCredential",
    "AuthorizationCodeCredential",
    "AzurePipelinesCredential",
    "CertificateCredential",
    "ClientAssertionCredential",
    "ClientCertificateCredential",
    "ClientSecretCredential",
    "DeviceCodeCredential",
    "EnvironmentCredential",
    "InteractiveBrowserBrokerCredential",
    "InteractiveBrowserCredential",
    "OnBehalfOfCredential",
    "SharedTokenCacheCredential",
    "UsernamePasswordCredential",
    "WorkloadIdentityCredential",
    "get_bearer_token_provider",
]

__getattr__, __dir__ = lazy.names(
    globals(),
    {
        "AsyncSupportsTokenInfo": "protocols",
        "AsyncTokenCredential": "protocols",
        "AuthorizationCodeCredential": "delegated:AsyncAuthorizationCodeCredential",
        "AzurePipelinesCredential": "principals:AsyncAzurePipelinesCredential",
        "CertificateCredential": "principals:AsyncCertificateCredential",
        "ClientAssertionCredential": "principals:AsyncClientAssertionCredential",
        "ClientCertificateCredential": "principals:AsyncCertificateCredential",
        "ClientSecretCredential": "principals:AsyncClientSecretCredential",
        "DeviceCodeCredential": "users:AsyncDeviceCodeCredential",
        "EnvironmentCredential": "environment:AsyncEnvironmentCredential",
        "InteractiveBrowserBrokerCredential": "broker:AsyncInteractiveBrowserBrokerCredential",
        "InteractiveBrowserCredential": "users:AsyncInteractiveBrowserCredential",
        "OnBehalfOfCredential": "delegated:AsyncOnBehalfOfCredential",
        "SharedTokenCacheCredential": "shared_cache:AsyncSharedTokenCacheCredential",
        "UsernamePasswordCredential": "users:AsyncUsernamePasswordCredential",
        "WorkloadIdentityCredential": "workload:AsyncWorkloadIdentityCredential",
        "get_bearer_token_provider": "awaiting",
    },
)
