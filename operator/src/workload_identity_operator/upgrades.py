"""Edge: follows the API server's version, which tells whether the proxy is a native sidecar.

It is read at start and again every few minutes: a cluster is upgraded under a running operator.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from workload_identity_operator.health import Health
from workload_identity_operator.kube import ApiError, KubeApi
from workload_identity_operator.sidecar import runs_native_sidecars

_log = logging.getLogger(__name__)

LOOK_EVERY: Final = 300.0
"""Seconds; an upgrade takes longer."""
RETRY_AFTER: Final = 2.0
"""Seconds until the next question to an API server that did not answer."""


async def follow(
    api: KubeApi, health: Health, take: Callable[[bool], None], every: float = LOOK_EVERY
) -> None:
    """Tell, for ever, whether the cluster runs native sidecars.

    A version that is withheld or means nothing is told once in the log; what was known, or assumed, stays.

    Args:
        api: Whom to ask.
        health: Learns that an answer came, readable or not.
        take: Called with each answer that could be read.
        every: Seconds between two looks.
    """
    told = ""
    while True:
        answered = True
        try:
            version = await api.version()
            native = runs_native_sidecars(version)
        except (ApiError, ValueError) as error:
            answered = not isinstance(error, ApiError) or error.status > 0
            level, line = logging.WARNING, f"the cluster's version cannot be read: {error}"
        else:
            take(native)
            kind = "a native sidecar" if native else "an ordinary container"
            level, line = logging.INFO, f"Kubernetes is {version}: the proxy is injected as {kind}"
        if answered:
            health.met("version")
        if line != told:
            _log.log(level, line)
            told = line
        await asyncio.sleep(every if answered else RETRY_AFTER)
