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


class Asking:
    """Lets members know who asks, for the length of a `with`."""

    def __init__(self, *, default: bool) -> None:
        self._default = default

    def __enter__(self) -> None:
        self._tokens = IN_CHAIN.set(True), IN_DEFAULT_CHAIN.set(self._default)

    def __exit__(self, *_: object) -> None:
        chain, default = self._tokens
        try:
            IN_DEFAULT_CHAIN.reset(default)
            IN_CHAIN.reset(chain)
        except ValueError:
            # Given up and swept away by somebody else: the context that they were set in is gone.
            return
