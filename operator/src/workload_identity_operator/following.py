"""Edge: knows, at any time, what the API server holds of one resource."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from workload_identity_operator.kube import ApiError
from workload_identity_operator.shapes import Json

AGAIN_AFTER: Final = 0.5
"""Seconds from a watch's end to the next, which may end as soon."""
RETRY_AFTER: Final = 2.0
"""Seconds."""
RESOURCE_AFTER: Final = 10.0
"""Seconds between looks for a resource that the API server does not serve."""
NOT_FOUND: Final = 404
PASSING: Final = frozenset({410, 429})
"""The watch is too old, or the resource too new: the next look may succeed."""

_log = logging.getLogger(__name__)


async def follow(
    what: str,
    events: Callable[[], AsyncIterator[tuple[str, Json]]],
    take: Callable[[Mapping[str, Json]], None],
) -> None:
    """Tell, for ever, what there is of a resource without namespaces.

    Args:
        what: Its name in the log.
        events: Lists and watches once, as `KubeApi.pod_wirings` does.
        take: Called with all objects by name at first and after each change; with none where the
            resource is not served. What was told last holds while the API server is away.
    """
    told = ""
    while True:
        pause = AGAIN_AFTER
        try:
            async for objects in _states(events()):
                told = ""
                take(objects)
        except ApiError as error:
            if error.status == NOT_FOUND:
                take({})
                pause = RESOURCE_AFTER
            elif error.status not in PASSING:
                pause = RETRY_AFTER
                if str(error) != told:
                    told = str(error)
                    _log.warning("%s cannot be followed: %s", what, told)
        await asyncio.sleep(pause)


async def _states(events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[Mapping[str, Json]]:
    """Yield all objects by name, once they are listed and after each change."""
    objects: dict[str, Json] = {}
    listed = False
    async for kind, found in events:
        if kind == "SYNCED":
            listed = True
        elif kind == "DELETED":
            objects.pop(found["metadata"]["name"], None)
        else:
            objects[found["metadata"]["name"]] = found
        if listed:
            yield objects
