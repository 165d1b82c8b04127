"""Edge: restarts owners of pods that are not wired as they should be, where the chart and they permit it.

One at a time: the next one's turn comes when the roll-out of the last is through and a pause is over. What
would not help is not done; what did not help is not done again, which the template itself remembers for
whichever replica comes next. Where three in a row did not help, something else is wrong, and healing rests.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

from workload_identity_operator import events, healing
from workload_identity_operator.accounts import ours
from workload_identity_operator.audit import fingerprint, would_help
from workload_identity_operator.auditor import Auditor, Owner
from workload_identity_operator.health import Health
from workload_identity_operator.kube import ApiError, KubeApi
from workload_identity_operator.labels import selects, written
from workload_identity_operator.lease import Lease
from workload_identity_operator.metrics import Metrics
from workload_identity_operator.settings import Settings
from workload_identity_operator.shapes import Json

T = TypeVar("T")

LOOK_EVERY: Final = 1.0
"""Seconds between looks at a roll-out."""
STUCK_AFTER: Final = 10 * 60.0
"""Seconds in which nothing of a roll-out moves, after which it is given up; see `healing.patience`."""
UNSEEN_AFTER: Final = 30 * 60.0
"""Seconds in which the API server has trouble, and so its controllers, after which it is given up as well."""
ONCE_IN: Final = 24 * 3600.0
"""Seconds in which an owner is restarted once for the same identity."""
MOST_FAILURES: Final = 3
"""Restarts in a row that did not help."""
REST: Final = 3600.0
"""Seconds that healing then rests."""
NEVER: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})
"""Nothing is restarted in these namespaces, whatever the configuration says; nor in the operator's own."""

_TOO_MANY_REQUESTS: Final = 429
_SERVERS: Final = 500
"""HTTP statuses from here on are the API server's own trouble."""
_CHANGED: Final = 409

_log = logging.getLogger(__name__)


class Healer:
    """Heals. `run` is for one replica at a time."""

    def __init__(
        self,
        api: KubeApi,
        lease: Lease,
        health: Health,
        settings: Settings,
        metrics: Metrics,
        auditor: Auditor,
    ) -> None:
        self._api = api
        self._lease = lease
        self._health = health
        self._settings = settings
        self._metrics = metrics
        self._auditor = auditor
        self._waiting: dict[str, dict[str, Owner]] = {}
        self._wake = asyncio.Event()
        self._told = events.Told(api)
        self._failures = 0
        self._no_help: dict[str, str] = {}
        self._remembers = False

    def take(self, namespace: str, owners: Collection[Owner]) -> None:
        """Take all owners of a namespace whose pods are not wired as they should be."""
        reach = self._auditor.reach
        if not owners or reach is None or reach.plan.mode == "off":
            self._waiting.pop(namespace, None)
            return
        self._waiting[namespace] = {owner.reference["uid"]: owner for owner in owners}
        self._wake.set()

    async def run(self) -> None:
        """Heal for ever, one owner after the other."""
        self._waiting.clear()
        try:
            await self._take_over()
        except ApiError as error:
            _log.warning("whether a roll-out is to be waited for cannot be told: %s", error)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while owner := self._next():
                try:
                    acted = await self._heal(owner)
                except ApiError as error:
                    acted = False
                    _log.warning("%s cannot be healed: %s", _named(owner), error)
                except Exception:  # noqa: BLE001 - see below
                    # Whatever an owner holds that nobody has heard of: others are healed all the same.
                    acted = True
                    _log.exception("%s cannot be healed", _named(owner))
                if acted:
                    await self._pause()
                await self._forget()
                if self._failures >= MOST_FAILURES:
                    _log.warning("restarts do not help: healing rests", extra={"seconds": REST})
                    await asyncio.sleep(REST)
                    self._failures = 0

    async def _take_over(self) -> None:
        """Wait for the roll-out that whoever held the Lease before us waited for, if there is one."""
        path, _, uid = (await _answer(self._lease.remembered)).partition(" ")
        if not uid:
            return
        self._remembers = True
        _log.info("a roll-out is waited for", extra={"path": path})
        try:
            why = await self._roll_out(path, uid)
        except ApiError as error:
            why = str(error)  # such as where healing was switched off, and its rights are gone
        if why:
            self._metrics.healed("no-help")
            _log.warning("that roll-out is waited for no longer: %s", why, extra={"path": path})
        await self._pause()
        await self._forget()

    async def _pause(self) -> None:
        reach = self._auditor.reach
        await asyncio.sleep(reach.plan.pause if reach else healing.DEFAULT_PAUSE)

    async def _forget(self) -> None:
        """Have nobody wait for a roll-out any more: it is through, and the pause after it over."""
        if not self._remembers:
            return
        try:
            await _answer(lambda: self._lease.remember(""))
        except ApiError as error:
            _log.warning("whoever audits next will wait for a roll-out that is through: %s", error)
        self._remembers = False

    def _next(self) -> Owner | None:
        """Return who is next; each is looked at once an audit."""
        for namespace in sorted(self._waiting):
            if owners := self._waiting[namespace]:
                return owners.pop(min(owners, key=lambda uid: str(owners[uid].reference["name"])))
            del self._waiting[namespace]
        return None

    async def _heal(self, owner: Owner) -> bool:
        """Do what may be done for an owner now; return whether something was done."""
        path = self._path_of(owner)
        workload = await self._api.get(path) if path else None
        if path is None or workload is None or workload["metadata"]["uid"] != owner.reference["uid"]:
            return False
        name = (healing.template_of(workload).get("spec") or {}).get("serviceAccountName") or "default"
        found = await self._api.metadata(f"/api/v1/namespaces/{owner.namespace}/serviceaccounts/{name}")
        account = (found or {}).get("annotations") or {}
        reach = self._auditor.reach
        plan = reach.plan if reach else healing.Plan()
        mode = healing.mode_for(plan, workload["metadata"].get("annotations") or {}, account)
        if mode == "off":
            return False
        pods = await self._evictable(owner, workload)
        why = f"ServiceAccount {name} is not there"
        if found:
            why = await self._obstacle(workload, ours(account), evicts=pods is not None)
        if mode == "dryRun" and not why:
            await self._tell(
                owner, events.WOULD_RESTART, "would-restart", _would(owner, evicts=pods is not None)
            )
            return False
        faulty = await self._faulty(owner, workload)
        if faulty is None or why:
            if faulty:  # else it was healed since it was audited, such as by hand
                await self._tell(owner, events.WITHHELD, "withheld", f"not restarted: {why}")
            return False
        wanted = fingerprint(healing.template_of(workload), ours(account), self._settings)
        if pods is not None:
            return await self._evict(faulty, workload, wanted, pods)
        return await self._restart(faulty, path, workload, wanted)

    def _path_of(self, owner: Owner) -> str | None:
        """Return where an owner is; None for those that nothing may be done for now."""
        excluded = owner.namespace in NEVER or owner.namespace == self._settings.namespace
        healable = owner.reference["kind"] in healing.RESTARTED | healing.EVICTED
        # Before all is in place, pods that are made might not be wired.
        able = self._health.ready and self._auditor.may_wire(owner.namespace)
        if excluded or not healable or not able:
            return None
        return healing.path_of(owner.reference, owner.namespace)

    async def _evictable(self, owner: Owner, workload: Json) -> Collection[str] | None:
        """Return the pods of which one may be evicted; None where it is a restart that replaces them."""
        if workload["kind"] in healing.EVICTED:
            return owner.mendable.examples
        if not healing.kept_by_order(workload):
            return None
        living = await self._living(owner.namespace, _pods_of(workload))
        pod = healing.holds_up(workload, {name: ready for name, (_, ready) in living.items()})
        if not pod:
            return None
        found = await self._auditor.examine(owner.namespace, [("", f"metadata.name={pod}")])
        itself = found.owners.get(owner.reference["uid"])
        return itself.mendable.examples if itself else None

    async def _obstacle(self, workload: Json, account: Mapping[str, str], *, evicts: bool) -> str:
        """Return why a workload is not to be restarted, or a pod of it evicted, now; "" when it may be."""
        template = healing.template_of(workload)
        if why := healing.kept(workload) if evicts else healing.obstacle(workload):
            return why
        labels = (template.get("metadata") or {}).get("labels") or {}
        if why := would_help(template, account, self._auditor.rules()):
            return f"it would not help: {why}"
        reach = self._auditor.reach
        if reach and not selects(reach.pods, labels):
            return "it would not help: its template lacks labels of mutatingWebhookObjectSelector"
        wanted = fingerprint(template, account, self._settings)
        why = _tried(workload, wanted)
        if self._no_help.get(workload["metadata"]["uid"]) == wanted:
            why = "that was done for this before, and did not help"
        if why or evicts:
            return why  # the budgets of an eviction the API server asks, and knows which pod it is
        budgets = await self._api.budgets(workload["metadata"]["namespace"])
        return healing.budget_in_the_way(budgets, labels, healing.taken_at_once(workload))

    async def _restart(self, owner: Owner, path: str, workload: Json, wanted: str) -> bool:
        """Restart a workload and see it through; return whether it was restarted."""
        await self._lease.remember(f"{path} {workload['metadata']['uid']}")
        self._remembers = True
        stored = await self._store(path, workload, wanted)
        if stored is None:
            return False  # it was changed since it was read: next time
        counts = {state: count for state, count in owner.counts.items() if count}
        _log.info("restarted %s", _named(owner), extra={"pods": counts})
        self._metrics.healed("restarted")
        note = f"so that its pods are wired: {owner.counts.total()} of them were not as they should be"
        await events.tell(self._api, stored, events.RESTARTED, note)
        try:
            await self._see_through(owner, path, workload, wanted)
        except ApiError as error:
            _log.warning("whether %s is healed cannot be told: %s", _named(owner), error)
        return True

    async def _store(self, path: str, workload: Json, wanted: str) -> Json | None:
        """Store a restart; return the workload as stored, None where it was changed since it was read."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            return await self._api.merge(path, healing.restart_patch(workload, now, wanted), _MANAGER)
        except ApiError as error:
            if error.status == _CHANGED:
                return None
            if not _passes(error):
                raise
            found = await _answer(lambda: self._api.get(path))  # it may be stored all the same
            if found is None or healing.restarted(found) != (now, wanted):
                raise
            return found

    async def _see_through(self, owner: Owner, path: str, workload: Json, wanted: str) -> None:
        """Wait until a workload that was restarted is healed, or is not."""
        stuck = await self._roll_out(path, workload["metadata"]["uid"])
        self._auditor.changed(owner.namespace)
        if stuck is None:
            return  # it is gone
        again = await _answer(lambda: self._faulty(owner, workload))
        now = await _answer(lambda: self._api.get(path))
        if again and now and healing.restarted(now)[1] != wanted:
            # The template does not remember it any more; whoever did this wants it so.
            self._no_help[owner.reference["uid"]] = wanted
            stuck = f"somebody undid it, and {again.counts.total()} of its pods: {again.reason}"
        elif again and not stuck:
            stuck = f"{again.counts.total()} of its new pods: {again.reason}"
        elif not again and now and healing.is_as_before(now, workload):
            stuck = ""  # pods that are missing were missing before, as where a node is down
        if stuck:
            self._failures += 1
            await self._tell(owner, events.NO_HELP, "no-help", f"it is not restarted again: {stuck}")
            return
        self._failures = 0
        self._metrics.healed("healed")
        _log.info("%s is healed", _named(owner))

    async def _roll_out(self, path: str, uid: str) -> str | None:
        """Wait until a roll-out is through; return why it is not, None when its owner is gone."""
        wait = _Wait()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                workload = await self._api.get(path)
            except ApiError as error:
                if why := wait.unseen(error):
                    return why
                continue
            if workload is None or workload["metadata"]["uid"] != uid:
                return None
            if healing.is_complete(workload):
                return ""
            if why := healing.has_failed(workload):
                return f"its roll-out does not go on: {why}"
            if why := wait.seen(healing.progress(workload), healing.patience(workload)):
                return why

    async def _faulty(self, owner: Owner, workload: Json) -> Owner | None:
        """Return an owner as it is now; None when nothing is wrong with its pods any more."""
        found = await self._auditor.examine(owner.namespace, [(_pods_of(workload), "")])
        return found.owners.get(owner.reference["uid"])

    async def _evict(self, owner: Owner, workload: Json, wanted: str, pods: Collection[str]) -> bool:
        """Evict one of these pods, which its workload would not replace by itself; see its successor come."""
        query, namespace = _pods_of(workload), owner.namespace
        before = await self._living(namespace, query)
        pod = next((name for name in pods if name in before), "")
        if not pod:
            return False  # it is gone: what came since is seen by the next audit
        try:
            await self._api.evict(namespace, pod, before[pod][0])
        except ApiError as error:
            if error.status == _TOO_MANY_REQUESTS:
                why = "not evicted: a PodDisruptionBudget does not allow it now"
                await self._tell(owner, events.WITHHELD, "withheld", why)
            if error.status in {404, _CHANGED, _TOO_MANY_REQUESTS}:
                return False
            if not _passes(error):
                raise
            # Where the API server has trouble it may be evicted all the same.
            if not _is_gone(pod, before, await _answer(lambda: self._living(namespace, query))):
                await self._tell(owner, events.WITHHELD, "withheld", f"not evicted: {error}")
                return False
        _log.info("evicted pod %s of %s", pod, _named(owner))
        self._metrics.healed("evicted")
        await self._told.tell(owner.regarding(), events.EVICTED, f"evicted pod {pod}: it {owner.reason}")
        try:
            why = await self._successor(owner, workload, pod, before)
        except ApiError as error:
            _log.warning("whether pod %s is replaced cannot be told: %s", pod, error)
            return True
        if why:
            self._failures += 1
            self._no_help[owner.reference["uid"]] = wanted
            await self._tell(owner, events.NO_HELP, "no-help", f"pod {pod} was evicted, no more are: {why}")
        else:
            self._failures = 0
        return True

    async def _successor(
        self, owner: Owner, workload: Json, pod: str, before: Mapping[str, tuple[str, bool]]
    ) -> str:
        """Wait for the successor of a pod that was evicted; return why it is no better, "" when it is."""
        namespace = owner.namespace
        replaced = await self._is_replaced(namespace, _pods_of(workload), pod, before)
        self._auditor.changed(namespace)
        again = await _answer(lambda: self._faulty(owner, workload))
        if not replaced:
            return "no successor became ready"
        if again and again.counts.total() >= owner.counts.total():
            return f"its successor {again.reason}"
        if again:
            self._waiting.setdefault(namespace, {})[owner.reference["uid"]] = again
        else:
            self._metrics.healed("healed")
            _log.info("%s is healed", _named(owner))
        return ""

    async def _living(self, namespace: str, query: str) -> dict[str, tuple[str, bool]]:
        """Return uid, and whether it is ready, of pods that are not on their way out, by name."""
        return {
            pod["metadata"]["name"]: (pod["metadata"]["uid"], _is_ready(pod))
            async for page in self._api.pods(namespace, query)
            for pod in page
            if not pod["metadata"].get("deletionTimestamp")
        }

    async def _is_replaced(
        self, namespace: str, query: str, pod: str, before: Mapping[str, tuple[str, bool]]
    ) -> bool:
        """Wait until there are as many pods as before, and as many of them ready, without that one.

        A successor of the same name is ready too: nothing else comes before.
        """
        wait = _Wait()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                now = await self._living(namespace, query)
            except ApiError as error:
                if wait.unseen(error):
                    return False
                continue
            complete = len(now) >= len(before) and _ready_among(now) >= _ready_among(before)
            if complete and _is_gone(pod, before, now) and now.get(pod, ("", True))[1]:
                return True
            if wait.seen((len(now), _ready_among(now))):
                return False

    async def _tell(self, owner: Owner, reason: events.Reason, outcome: str, note: str) -> None:
        """Tell, count and log what is news."""
        if await self._told.tell(owner.regarding(), reason, note):
            self._metrics.healed(outcome)
            level = logging.WARNING if reason.warning else logging.INFO
            _log.log(level, "%s: %s", _named(owner), note)


_MANAGER: Final = "workload-identity-operator-healing"
"""Field manager of what a restart writes."""


class _Wait:
    """How long something is waited for: not for ever, and longer where the API server has trouble."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._still = self._unseen = 0.0
        self._known: set[tuple[int, ...]] = set()

    def seen(self, now: tuple[int, ...], patience: float = 0.0) -> str:
        """Take how it stands, and how many seconds it may; return why it is given up, "" when it is not.

        What was so before is no progress: pods that crash are ready now and then.
        """
        self._still += self._passed()
        if now not in self._known:
            self._known.add(now)
            self._still = self._unseen = 0.0
        if self._still > (most := max(STUCK_AFTER, patience)):
            return f"nothing of its roll-out moved for {most / 60:.0f} minutes"
        return ""

    def unseen(self, error: ApiError) -> str:
        """Take why it could not be looked at; return as above.

        Raises:
            ApiError: That does not pass.
        """
        if not _passes(error):
            raise error
        self._unseen += self._passed()
        if self._unseen > UNSEEN_AFTER:
            return f"for {UNSEEN_AFTER / 60:.0f} minutes it could not be looked at: {error}"
        return ""

    def _passed(self) -> float:
        """Return the seconds since this was asked last."""
        before, self._looked = self._looked, time.monotonic()
        return self._looked - before


async def _answer(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the API server answers.

    Raises:
        ApiError: It refuses, or has had trouble for too long.
    """
    wait = _Wait()
    while True:
        try:
            return await ask()
        except ApiError as error:
            if wait.unseen(error):
                raise
        await asyncio.sleep(LOOK_EVERY)


def _passes(error: ApiError) -> bool:
    """Whether an error is the API server's own trouble: it is away, or has too much to do."""
    return not error.status or error.status >= _SERVERS or error.status == _TOO_MANY_REQUESTS


def _tried(workload: Json, wanted: str) -> str:
    """Return that a workload was restarted for the same identity not long ago; "" when it was not."""
    when, made_for = healing.restarted(workload)
    if made_for != wanted:
        return ""
    try:
        then = datetime.fromisoformat(when)
    except ValueError:
        return ""
    recent = then.tzinfo is not None and (datetime.now(UTC) - then).total_seconds() < ONCE_IN
    return f"it was restarted for this before, at {when}" if recent else ""


def _would(owner: Owner, *, evicts: bool) -> str:
    does = "relieved of these pods, one by one," if evicts else "restarted"
    return f"would be {does} for {owner.counts.total()} of its pods, were healing no dry run: {owner.reason}"


def _named(owner: Owner) -> str:
    return f"{owner.reference['kind']} {owner.namespace}/{owner.reference['name']}"


def _pods_of(workload: Json) -> str:
    """Return the label selector of a workload's pods, as a query has it."""
    selector = (workload.get("spec") or {}).get("selector") or {}
    return written({"matchLabels": selector} if workload["kind"] == "ReplicationController" else selector)


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(found.get("type") == "Ready" and found.get("status") == "True" for found in conditions)


def _is_gone(pod: str, before: Mapping[str, tuple[str, bool]], now: Mapping[str, tuple[str, bool]]) -> bool:
    return pod not in now or now[pod][0] != before[pod][0]


def _ready_among(pods: Mapping[str, tuple[str, bool]]) -> int:
    return sum(ready for _, ready in pods.values())
