"""Edge: keeps each namespace's PodWiring what its ServiceAccounts' annotations say.

Every replica does, and all write the same. Changes by hand are put right at once. What another replica
wrote is given a few seconds before we disagree: it may have heard of a ServiceAccount before us. With whoever
has other settings we would disagree for ever. Of the operators of two releases: a PodWiring says whose it is,
and stays theirs as long as that release is there. Of the replicas of one release, which an upgrade gives
other settings: the release declares which hold, and who has others writes nothing.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from workload_identity_operator import contract
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.compiling import compile_identities, status_of
from workload_identity_operator.following import FORBIDDEN, NOT_FOUND, RETRY_AFTER, follow, pause_after
from workload_identity_operator.kube import FIELD_MANAGER, ApiError, KubeApi
from workload_identity_operator.metrics import Tables
from workload_identity_operator.settings import Settings
from workload_identity_operator.shapes import Json, is_object_name

T = TypeVar("T")

BATCH: Final = 0.05
"""Seconds after a change in which more of them make one write."""
RECONSIDER: Final = 5.0
"""Seconds until we disagree with what another replica wrote."""
AT_ONCE: Final = 8
"""Namespaces written at the same time."""
THERE_FOR: Final = 10.0
"""Seconds that another release which was there is taken to be still there."""
_NEVER_TAKEN: Final = frozenset({400, 413, 422})
"""Unreadable, too large, or invalid: statuses of a write that cannot succeed as it is."""
_LONGEST_RETRY: Final = 60.0
"""Seconds between tries in a namespace where nothing can be written."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the API server holds of a namespace.

    Attributes:
        spec: Its digest; the spec itself can be large.
        status: As it is, but for what it says of pods.
        pods: That: how many are wired, and how.
        generation: That of the spec.
        keeper: The webhook configuration of the release that wrote it; "" when it does not say.
    """

    spec: bytes
    status: Json
    pods: Json
    generation: int
    keeper: str


class PodWirings:
    """Keeps them. `run` must be running, and `start` be called once the table is complete."""

    def __init__(self, api: KubeApi, accounts: Accounts, settings: Settings) -> None:
        self._api = api
        self._accounts = accounts
        self._settings = settings
        self._stored: dict[str, _Stored] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._complete = asyncio.Event()
        self._served = asyncio.Event()
        # Of a replica that starts during an upgrade it is not known yet.
        self._ours: bool | None = None if settings.checksum else True
        self._known = False
        self._said = ""
        self._faults: dict[str, int] = {}
        self._others: dict[str, float] = {}
        self._told: set[str] = set()
        self._left: set[str] = set()
        self._pods: dict[str, Mapping[str, int]] = {}

    def start(self) -> None:
        """Take that the table is complete, and that the policy may wire from what is written now."""
        self._complete.set()

    def changed(self, namespace: str) -> None:
        """Take that the table, or the PodWiring, of a namespace has changed."""
        self._changed.add(namespace)
        self._wake.set()

    def take_declared(self, checksum: str) -> None:
        """Take the checksum of the settings that the release declares; "" when it declares none.

        While others than ours are declared nothing is written.
        """
        former, self._ours = self._ours, not checksum or self._settings.checksum in {"", checksum}
        if self._ours == former:
            return
        if not self._ours:
            self._faults.clear()
            _log.info(
                "PodWirings are left to replicas with the settings that ConfigMap %s/%s declares: "
                "ours are others",
                self._settings.namespace,
                self._settings.declaration,
            )
            return
        if former is not None:
            _log.info("PodWirings are kept again: our settings are those declared")
        for namespace in {*self._stored, *self._accounts.namespaces()}:
            self.changed(namespace)

    def state(self) -> Tables | None:
        """Return how they are; None until that is known, and where there is no such resource."""
        if not self._known:
            return None
        left_out = sum(held.status.get("leftOut") or 0 for held in self._stored.values())
        return Tables(self._served.is_set(), len(self._stored), len(self._faults), left_out)

    def is_settled(self, namespace: str) -> bool:
        """Whether the policy, where there is one, wires pods as their ServiceAccounts say now."""
        if not self._served.is_set():
            return True
        wanted = compile_identities(self._accounts.identities(namespace), self._settings)
        held = self._stored.get(namespace)
        return wanted is None or (held is not None and held.spec == _digest(wanted.spec))

    def take_audit(self, namespace: str, pods: Mapping[str, int]) -> None:
        """Take how many pods of a namespace are wired, and how; see `audit.Audit.by_state`."""
        if namespace not in self._accounts.namespaces():
            self._pods.pop(namespace, None)
            return
        self._pods[namespace] = pods
        if namespace in self._stored and self._stored[namespace].pods != pods:
            self.changed(namespace)

    def forget_audits(self) -> None:
        """Take that another replica audits: what PodWirings say of pods is its."""
        self._pods.clear()

    async def run(self) -> None:
        """Keep them for ever."""
        async with asyncio.TaskGroup() as both:
            both.create_task(follow(self._watch, self._lose))
            both.create_task(self._write())

    # What the API server holds.

    async def _watch(self) -> None:
        found: dict[str, _Stored] = {}
        async for kind, wiring in self._api.pod_wirings():
            if kind == "LISTED":
                found[wiring["metadata"]["namespace"]] = _held(wiring)
            elif kind == "SYNCED":
                suspects = {*self._stored, *found, *self._accounts.namespaces()}
                self._stored = found
                self._served.set()
                self._known = True
                self._say("PodWirings are kept")
                for namespace in suspects:
                    self.changed(namespace)
            else:
                self._take(kind, wiring)

    def _lose(self, error: ApiError) -> None:
        self._served.clear()
        self._known = error.status != NOT_FOUND
        if error.status == NOT_FOUND:
            self._say("PodWirings are not installed: every pod is wired by the webhook", logging.WARNING)
        else:
            self._say(f"PodWirings cannot be kept: {error}", logging.WARNING)

    def _take(self, kind: str, wiring: Json) -> None:
        namespace = wiring["metadata"]["namespace"]
        former = self._stored.get(namespace)
        if kind == "DELETED":
            self._stored.pop(namespace, None)
            self.changed(namespace)
            return
        held = self._stored[namespace] = _held(wiring)
        if held == former:
            return
        if _is_ours(wiring):
            asyncio.get_running_loop().call_later(RECONSIDER, self.changed, namespace)
        else:
            self.changed(namespace)

    # What it should hold.

    async def _write(self) -> None:
        """Write what has changed, many changes of a namespace at once."""
        await self._complete.wait()
        while True:
            await self._wake.wait()
            await self._served.wait()
            await asyncio.sleep(BATCH)
            self._wake.clear()
            namespaces, self._changed = self._changed, set()
            limit = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(_within(limit, self._put_right(namespace)) for namespace in namespaces))

    async def _put_right(self, namespace: str) -> None:
        if not self._ours:
            return  # `take_declared` brings all of them up again
        try:
            await self._settle(namespace)
        except ApiError as error:
            times = self._faults[namespace] = self._faults.get(namespace, 0) + 1
            if times == 2:  # noqa: PLR2004 - in a namespace that is going the first one always fails
                _log.warning("the PodWiring of namespace %s cannot be written: %s", namespace, error)
            if error.status in _NEVER_TAKEN and namespace in self._stored:
                await self._withdraw(namespace)
            delay = pause_after(times, RETRY_AFTER, _LONGEST_RETRY)
            asyncio.get_running_loop().call_later(delay, self.changed, namespace)
        else:
            self._faults.pop(namespace, None)

    async def _withdraw(self, namespace: str) -> None:
        """Delete what cannot be put right: a table of former identities is worse than none."""
        try:
            await self._api.delete_pod_wiring(namespace)
        except ApiError as error:
            _log.warning("the outdated PodWiring of namespace %s cannot be deleted: %s", namespace, error)

    async def _settle(self, namespace: str) -> None:
        """Write what differs, and nothing when nothing does."""
        wanted = compile_identities(self._accounts.identities(namespace), self._settings)
        held = self._stored.get(namespace)
        if wanted is None:
            if held:
                await self._api.delete_pod_wiring(namespace)
                self._stored.pop(namespace, None)
            return
        digest, ours = _digest(wanted.spec), self._settings.webhook_configuration
        if held is None or (held.spec, held.keeper) != (digest, ours):
            # Whoever may not look takes over only what is wrong: two of them would do so for ever.
            if held and await self._is_anothers(held.keeper, unless_known=held.spec == digest):
                if held.spec != digest:
                    self._leave(namespace, held.keeper)
                    return
            else:
                held = _held(await self._api.apply_pod_wiring(namespace, wanted.spec, ours))
                self._stored[namespace] = held
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = status_of(wanted, held.generation, held.status, now)
        if held.status != status:
            written = await self._api.apply_pod_wiring_status(namespace, status)
            held = self._stored[namespace] = _held(written)
        pods = self._pods.get(namespace)
        if pods is not None and held.pods != pods:
            self._stored[namespace] = _held(await self._api.apply_audit(namespace, pods))

    def _leave(self, namespace: str, keeper: str) -> None:
        """Say once of whoever keeps it that it does, and look again later whether it is still there."""
        if keeper not in self._told:
            self._told.add(keeper)
            _log.warning(
                "PodWirings, such as that of namespace %s, are kept by the release of "
                "MutatingWebhookConfiguration %s with settings other than ours, and left to it: give both "
                "the same tenant, authority host and audience, or uninstall one",
                namespace,
                keeper,
            )
        if namespace not in self._left:
            self._left.add(namespace)
            asyncio.get_running_loop().call_later(THERE_FOR, self._reconsider, namespace)

    def _reconsider(self, namespace: str) -> None:
        self._left.discard(namespace)
        self.changed(namespace)

    async def _is_anothers(self, keeper: str, *, unless_known: bool) -> bool:
        """Whether another release keeps a PodWiring, and is still there; as given where we may not look."""
        if keeper in {"", self._settings.webhook_configuration} or not is_object_name(keeper):
            return False
        now = asyncio.get_running_loop().time()
        if now - self._others.get(keeper, -THERE_FOR) < THERE_FOR:
            return True
        try:
            found = await self._api.webhook_configuration(keeper)
        except ApiError as error:
            if error.status == FORBIDDEN:
                return unless_known
            raise
        webhooks = (found or {}).get("webhooks") or ()
        if not any(webhook["name"] == contract.WEBHOOK_NAME for webhook in webhooks):
            self._others.pop(keeper, None)
            self._told.discard(keeper)
            return False
        self._others[keeper] = now
        return True

    def _say(self, what: str, level: int = logging.INFO) -> None:
        """Log it, unless it was the last thing said."""
        if what != self._said:
            _log.log(level, what)
            self._said = what


def _held(wiring: Json) -> _Stored:
    meta = wiring["metadata"]
    keeper = (meta.get("annotations") or {}).get(contract.POD_WIRING_KEEPER, "")
    status = dict(wiring.get("status") or {})
    pods = status.pop("pods", {})
    return _Stored(_digest(wiring.get("spec")), status, pods, meta["generation"], keeper)


def _digest(spec: object) -> bytes:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).digest()


def _is_ours(wiring: Json) -> bool:
    """Whether the spec is as we or another replica wrote it; it is one field, with one owner."""
    return any(
        owner.get("manager") == FIELD_MANAGER and "f:spec" in (owner.get("fieldsV1") or {})
        for owner in wiring["metadata"].get("managedFields") or ()
    )


async def _within(limit: asyncio.Semaphore, work: Awaitable[T]) -> T:
    async with limit:
        return await work
