"""Who is asking: what a chain lets its members know while they run.

A member of a chain logs more quietly, and a managed identity looks first whether its endpoint is there. Both
are set with `ContextVar.set` and put back with `reset`, so that chains nest.
"""

from __future__ import annotations

from contextvars import ContextVar

IN_CHAIN: ContextVar[bool] = ContextVar("workload_identity.in_chain", default=False)
"""Whether a chain asks."""
IN_DEFAULT_CHAIN: ContextVar[bool] = ContextVar("workload_identity.in_default_chain", default=False)
"""Whether it is DefaultAzureCredential."""
