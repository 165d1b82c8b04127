"""The awaiting family, for asyncio: the names of `workload_identity`, with methods that are awaited."""

from __future__ import annotations

from workload_identity import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.awaiting import get_bearer_token_provider
    from workload_identity.protocols import AsyncSupportsTokenInfo, AsyncTokenCredential
    from workload_identity.workload import AsyncWorkloadIdentityCredential as WorkloadIdentityCredential

__all__ = [
    "AsyncSupportsTokenInfo",
    "AsyncTokenCredential",
    "WorkloadIdentityCredential",
    "get_bearer_token_provider",
]

__getattr__, __dir__ = lazy.names(
    globals(),
    {
        "AsyncSupportsTokenInfo": "protocols",
        "AsyncTokenCredential": "protocols",
        "WorkloadIdentityCredential": "workload:AsyncWorkloadIdentityCredential",
        "get_bearer_token_provider": "awaiting",
    },
)
