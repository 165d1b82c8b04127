"""Edge: a Lease, by which replicas agree on the one that does what must not be done twice.

Serving needs none, and what all replicas would write alike needs none. Auditing is the one's whose the Lease
is: twice the listings would cost twice, and two that restart would restart twice.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from workload_identity_operator import contract
from workload_identity_operator.kube import ApiError, KubeApi
from workload_identity_operator.shapes import Json

DURATION: Final = 15.0
"""Seconds from its last renewal until a Lease of ours may be taken over; it says so itself."""
RENEW_EVERY: Final = 5.0
"""Seconds."""
_GIVE_UP_AFTER: Final = DURATION - RENEW_EVERY / 2
"""Seconds without a renewal after which we stop, ahead of whoever takes it over."""
_RELEASE_WITHIN: Final = 2.0
"""Seconds; at the end there are not many."""

_log = logging.getLogger(__name__)


class Lease:
    """Holds it whenever it can."""

    def __init__(self, api: KubeApi, namespace: str, name: str) -> None:
        """Take which; it is created if need be."""
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        self._meta = {"name": name, "namespace": namespace}
        self.us = f"{os.uname().nodename}_{secrets.token_hex(4)}"
        self._seen = ""
        self._seen_at = 0.0
        self._version = ""
        self._said = ""

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work as long as the Lease is ours, anew each time that it becomes ours; for ever.

        Args:
            work: Is cancelled when the Lease is lost, and done anew after it failed: serving goes on.
        """
        working: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        renewed = -DURATION
        try:
            while True:
                started = loop.time()
                # Whoever waits for an answer does not stop: the other one does not wait.
                patience = renewed + _GIVE_UP_AFTER - started if working else _GIVE_UP_AFTER
                try:
                    async with asyncio.timeout(patience):
                        held = await self._hold()
                    self._said = ""
                    renewed = started if held else -DURATION
                except (ApiError, TimeoutError) as error:
                    self._say(str(error) or "no answer in time")
                    held = loop.time() - renewed < _GIVE_UP_AFTER
                if held and working is None:
                    _log.info("pods are audited from here", extra={"lease": self._meta["name"]})
                    working = asyncio.create_task(_as_coroutine(work))
                elif not held and working:
                    _log.info("pods are audited elsewhere", extra={"lease": self._meta["name"]})
                    await _ended(working)
                    working = None
                rest = renewed + _GIVE_UP_AFTER - loop.time() if working else RENEW_EVERY
                if await _ends(working, max(0.0, min(rest, RENEW_EVERY))):
                    working = None
        finally:
            if working:
                await _ended(working)
                with suppress(ApiError, TimeoutError):
                    async with asyncio.timeout(_RELEASE_WITHIN):
                        await self._release()

    async def remember(self, what: str) -> None:
        """Have whoever holds it next know this; "" for nothing."""
        await self._api.merge(self._path, {"metadata": {"annotations": {contract.HEALING: what or None}}})

    async def remembered(self) -> str:
        """Return what whoever held it last wanted to be known."""
        meta = await self._api.metadata(self._path)
        return str(((meta or {}).get("annotations") or {}).get(contract.HEALING, ""))

    async def _hold(self) -> bool:
        """Take the Lease, or renew it, where that is possible; tell whether it is ours."""
        held = await self._try()
        # What was read can have been written by `remember` meanwhile: that is no loss.
        return held if held is not None else bool(await self._try())

    async def _try(self) -> bool | None:
        """Do it once; None where somebody wrote first."""
        now = asyncio.get_running_loop().time()
        found = await self._api.get(self._path)
        if found is None:
            return await self._create()
        spec, self._version = found.get("spec") or {}, found["metadata"]["resourceVersion"]
        holder = spec.get("holderIdentity") or ""
        if self._version != self._seen:
            # By our clock, from when we saw it: clocks of two nodes need not agree.
            self._seen, self._seen_at = self._version, now
        if holder == self.us:
            return await self._write({}) or None
        if holder and now - self._seen_at < (spec.get("leaseDurationSeconds") or DURATION):
            return False
        changes = int(spec.get("leaseTransitions") or 0) + 1
        return await self._write({"acquireTime": _now(), "leaseTransitions": changes})

    async def _create(self) -> bool:
        """Create it. Of two that do at once the API server refuses one: each applies under its own name.

        Raises:
            ApiError: Also where its namespace is not there.
        """
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": self._meta,
            "spec": self._ours({"acquireTime": _now(), "leaseTransitions": 0}),
        }
        return await _won(self._api.apply(self._path, body, self.us, force=False), {409})

    async def _write(self, more: Json) -> bool:
        """Write that it is ours, unless somebody wrote it since it was read."""
        body = {"metadata": {"resourceVersion": self._version}, "spec": self._ours(more)}
        return await _won(self._api.merge(self._path, body))

    async def _release(self) -> None:
        found = await self._api.get(self._path)
        if found and (found.get("spec") or {}).get("holderIdentity") == self.us:
            version = found["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}}
            await _won(self._api.merge(self._path, body))

    def _ours(self, more: Json) -> Json:
        return {
            "holderIdentity": self.us,
            "leaseDurationSeconds": int(DURATION),
            "renewTime": _now(),
            **more,
        }

    def _say(self, what: str) -> None:
        if what != self._said:
            _log.warning("whether pods are to be audited from here cannot be told: %s", what)
            self._said = what


async def _won(writing: Awaitable[Json], lost: frozenset[int] | set[int] = frozenset({404, 409})) -> bool:
    """Whether a write came first; not when what it was to change is gone, or is not what was read."""
    try:
        await writing
    except ApiError as error:
        if error.status in lost:
            return False
        raise
    return True


async def _as_coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def _ends(working: asyncio.Task[None] | None, seconds: float) -> bool:
    """Sleep so long; return whether the work has failed."""
    await asyncio.sleep(seconds)
    if working is None or not working.done():
        return False
    _log.error("the audit failed, and begins anew", exc_info=working.exception())
    return True


async def _ended(working: asyncio.Task[None]) -> None:
    working.cancel()
    await asyncio.wait({working})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
