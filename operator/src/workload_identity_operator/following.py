"""Edge: knows, at any time, what the API server holds of a resource: lists, watches, begins anew."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from workload_identity_operator.kube import ApiError
from workload_identity_operator.shapes import Json

AGAIN_AFTER: Final = 0.5
"""Seconds from a watch's end to the next, which may end as soon."""
RETRY_AFTER: Final = 2.0
"""Seconds."""
RESOURCE_AFTER: Final = 5.0
"""Seconds between looks for what is not served, or not ours to see."""
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
_PASSING: Final = frozenset({410, 429})
"""The watch is too old, or the resource too new: the next look may succeed."""

_DOUBLINGS: Final = 64
"""More than any bound needs; and no number is too large for what fails for days."""

_log = logging.getLogger(__name__)


def pause_after(failures: int, first: float, longest: float) -> float:
    """Return how many seconds to wait after so many failures in a row, twice as long each time."""
    return min(first * 2.0 ** min(failures - 1, _DOUBLINGS), longest)


async def follow(watch: Callable[[], Awaitable[None]], lose: Callable[[ApiError], None]) -> None:
    """Watch for ever.

    Args:
        watch: Goes through `KubeApi.changes` once.
        lose: Called when that failed, unless it passes by itself.
    """
    while True:
        pause = AGAIN_AFTER
        try:
            await watch()
        except ApiError as error:
            if error.status not in _PASSING:
                pause = RESOURCE_AFTER if error.status in {FORBIDDEN, NOT_FOUND} else RETRY_AFTER
                lose(error)
        await asyncio.sleep(pause)


async def follow_all(
    what: str,
    changes: Callable[[], AsyncIterator[tuple[str, Json]]],
    take: Callable[[Mapping[str, Json]], None],
) -> None:
    """Tell, for ever, what there is of a resource without namespaces.

    Args:
        what: Its name in the log.
        changes: Lists and watches once, as `KubeApi.changes` does.
        take: Called with all objects by name at first and after each change; with none where the
            resource is not served. What was told last holds while the API server is away.
    """
    told = ""

    async def watch() -> None:
        nonlocal told
        objects: dict[str, Json] = {}
        listed = False
        async for kind, found in changes():
            if kind == "SYNCED":
                listed, told = True, ""
            elif kind == "DELETED":
                objects.pop(found["metadata"]["name"], None)
            else:
                objects[found["metadata"]["name"]] = found
            if listed:
                take(objects)

    def lose(error: ApiError) -> None:
        nonlocal told
        if error.status == NOT_FOUND:
            take({})
        elif str(error) != told:
            told = str(error)
            _log.warning("%s cannot be followed: %s", what, told)

    await follow(watch, lose)
