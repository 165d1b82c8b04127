"""The awaiting family, for asyncio: the names of `workload_identity`, with methods that are awaited."""

from __future__ import annotations

from workload_identity import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.awaiting import get_bearer_token_provider
    from workload_identity.chain import AsyncChainedTokenCredential as ChainedTokenCredential
    from workload_identity.default import AsyncDefaultAzureCredential as DefaultAzureCredential
    from workload_identity.managed import AsyncManagedIdentityCredential as ManagedIdentityCredential
    from workload_identity.placeholders import AsyncVisualStudioCodeCredential as VisualStudioCodeCredential
    from workload_identity.protocols import AsyncSupportsTokenInfo, AsyncTokenCredential
    from workload_identity.tools import AsyncAzureCliCredential as AzureCliCredential
    from workload_identity.tools import AsyncAzureDeveloperCliCredential as AzureDeveloperCliCredential
    from workload_identity.tools import AsyncAzurePowerShellCredential as AzurePowerShellCredential
    from workload_identity.workload import AsyncWorkloadIdentityCredential as WorkloadIdentityCredential

__all__ = [
    "AsyncSupportsTokenInfo",
    "AsyncTokenCredential",
    "AzureCliCredential",
    "AzureDeveloperCliCredential",
    "AzurePowerShellCredential",
    "ChainedTokenCredential",
    "DefaultAzureCredential",
    "ManagedIdentityCredential",
    "VisualStudioCodeCredential",
    "WorkloadIdentityCredential",
    "get_bearer_token_provider",
]

__getattr__, __dir__ = lazy.names(
    globals(),
    {
        "AsyncSupportsTokenInfo": "protocols",
        "AsyncTokenCredential": "protocols",
        "AzureCliCredential": "tools:AsyncAzureCliCredential",
        "AzureDeveloperCliCredential": "tools:AsyncAzureDeveloperCliCredential",
        "AzurePowerShellCredential": "tools:AsyncAzurePowerShellCredential",
        "ChainedTokenCredential": "chain:AsyncChainedTokenCredential",
        "DefaultAzureCredential": "default:AsyncDefaultAzureCredential",
        "ManagedIdentityCredential": "managed:AsyncManagedIdentityCredential",
        "VisualStudioCodeCredential": "placeholders:AsyncVisualStudioCodeCredential",
        "WorkloadIdentityCredential": "workload:AsyncWorkloadIdentityCredential",
        "get_bearer_token_provider": "awaiting",
    },
)
