"""Edge: lists pods now and then, and tells which are not wired as they should be.

A namespace is audited at start, when a ServiceAccount of it was changed, and on a timer: seldom where all is
well, more often where something was found. Pods are never watched. What is found is told by Events on whoever
made the pods, by metrics and by the status of the namespace's PodWiring. One replica does all this.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from workload_identity_operator import contract, events
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.audit import (
    STATES,
    Finding,
    Origin,
    Rules,
    State,
    audit,
    was_unchanged,
    written_in,
)
from workload_identity_operator.errors import PodRefused
from workload_identity_operator.following import pause_after
from workload_identity_operator.healing import (
    ALONE,
    Plan,
    by_hand,
    is_restartable,
    path_of,
    plan_of,
    template_of,
)
from workload_identity_operator.kube import PODS_AT_ONCE, ApiError, KubeApi
from workload_identity_operator.labels import selects, written
from workload_identity_operator.metrics import Metrics
from workload_identity_operator.podwirings import PodWirings
from workload_identity_operator.settings import Settings
from workload_identity_operator.shapes import Json

EVERY: Final = 15 * 60.0
"""Seconds between audits of a namespace in which all is well."""
PACE: Final = 1.0
"""Seconds for each namespace, where there are so many that the time above is not enough."""
FIRST_AGAIN: Final = 15.0
"""Seconds until a namespace in which something was found is audited again; twice that each time."""
REST_PER_POD: Final = 0.01
"""Seconds that a namespace is left alone for each pod that was listed, however often it changes."""
SETTLE: Final = 1.0
"""Seconds after a change of a ServiceAccount in which more of them make one audit."""
AT_ONCE: Final = 4
"""Namespaces audited, and Events written, at the same time."""
RETRY_AFTER: Final = 10.0
"""Seconds after an audit that failed; twice that each time."""
FEW: Final = 3
"""ServiceAccounts of a namespace up to which their pods are asked for by name."""
_ALL: Final = ""
"""Stands for all namespaces where one is due: which of them have labelled pods."""
_MOST_CHANGED: Final = 10_000
"""Namespaces that a replica which does not audit knows to have changed: some of them are gone by then."""
_EXAMPLES: Final = 3
"""Pods of an owner that are named."""

_LABELLED: Final = f"{contract.USE_LABEL}=true"
_UNLABELLED: Final = f"{contract.USE_LABEL} notin (true,false)"
_NOT_OPTED_OUT: Final = f"{contract.USE_LABEL}!=false"
_REASONS: Final = {"unwired": events.UNWIRED, "outdated": events.OUTDATED, "wrong": events.WRONG}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reach:
    """Which pods the release wires, as the configuration of its webhook says.

    Attributes:
        namespaces: Selector of the namespaces.
        pods: Selector of the pods, beside the label that opts in and the one by which the policy marks them.
        label_only: Whether pods without that label are left alone.
        plan: What is done for owners.
    """

    namespaces: Json
    pods: Json
    label_only: bool
    plan: Plan


def reach_of(configuration: Json) -> Reach | None:
    """Return what a MutatingWebhookConfiguration says; None where our webhook is not in it."""
    annotations = configuration["metadata"].get("annotations") or {}
    for webhook in configuration.get("webhooks") or ():
        if webhook["name"] == contract.WEBHOOK_NAME:
            pods = dict(webhook.get("objectSelector") or {})
            labels = dict(pods.get("matchLabels") or {})
            labels.pop(contract.USE_LABEL, None)
            terms = [one for one in pods.get("matchExpressions") or () if one["key"] != contract.WIRED_BY]
            return Reach(
                namespaces=webhook.get("namespaceSelector") or {},
                pods={"matchLabels": labels, "matchExpressions": terms},
                label_only=annotations.get(contract.SELECTION) == "label",
                plan=plan_of(annotations),
            )
    return None


@dataclass(slots=True)
class Pods:
    """Pods of one owner that are not wired as they should be.

    Attributes:
        counts: How many are in which state.
        examples: Names of some of them.
        reasons: What is wrong with the first of each state.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    reasons: dict[State, str] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The worst of their states."""
        return next(state for state in STATES if state in self.reasons)

    def add(self, finding: Finding) -> None:
        """Count one."""
        self.counts[finding.state] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(finding.pod)
        self.reasons.setdefault(finding.state, finding.reason)


@dataclass(slots=True)
class Owner:
    """Whoever made pods that are not wired as they should be, or one such pod that nobody made.

    Attributes:
        namespace: Its namespace.
        reference: Its apiVersion, kind, name and uid.
        advice: How a person makes its pods anew, a clause.
        accounts: Names of their ServiceAccounts.
        mendable: Those of them that it helps to make anew.
        refused: The others: a pod like them would be refused.
    """

    namespace: str
    reference: Json
    advice: str
    accounts: set[str] = field(default_factory=set)
    mendable: Pods = field(default_factory=Pods)
    refused: Pods = field(default_factory=Pods)

    @property
    def counts(self) -> Counter[str]:
        """How many of its pods are in which state."""
        return self.mendable.counts + self.refused.counts

    @property
    def reason(self) -> str:
        """What is wrong with the worst of them, a clause: of the mendable ones, where there are any."""
        pods = self._foremost()
        return pods.reasons[pods.state]

    def regarding(self) -> Json:
        """Return it as an Event has it."""
        meta = {"name": self.reference["name"], "namespace": self.namespace, "uid": self.reference["uid"]}
        return {"apiVersion": self.reference["apiVersion"], "kind": self.reference["kind"], "metadata": meta}

    def add(self, finding: Finding) -> None:
        """Count a pod of it."""
        self.accounts.add(finding.account)
        (self.refused if finding.refused else self.mendable).add(finding)

    def told(self) -> tuple[events.Reason, str]:
        """Return reason and note of its Event."""
        pods = self._foremost()
        if self.reference["kind"] == "Pod" and pods.examples == [self.reference["name"]]:
            said = f"the pod {self.reason}"
        else:
            count = pods.counts.total()
            shown = ", ".join(pods.examples) + (" …" if count > len(pods.examples) else "")
            said = f"{count} of its pods ({shown}): {self.reason}"
        if pods is self.mendable:
            said = f"{said}; to mend it: {self.advice}"
            if others := self.refused.counts.total():
                said = f"{said}; {others} more: {self.refused.reasons[self.refused.state]}"
        return _REASONS[pods.state], said

    def _foremost(self) -> Pods:
        return self.mendable if self.mendable.reasons else self.refused


@dataclass(frozen=True, slots=True)
class Found:
    """What an audit found in a namespace.

    Attributes:
        counts: How many pods are in which state, "wired" among them.
        owners: Of those that are not wired as they should be, by uid.
        listed: How many pods were looked at.
    """

    counts: Mapping[str, int]
    owners: Mapping[str, Owner]
    listed: int = 0

    @property
    def faulty(self) -> int:
        """How many pods are not wired as they should be."""
        return sum(self.counts[state] for state in STATES)


_NOTHING: Final = Found(dict.fromkeys(("wired", *STATES), 0), {})


class Auditor:
    """Audits. `run` is for one replica at a time; all else is for each.

    Attributes:
        reach: Which pods are wired; None until the configuration is known.
        on_owners: Told, after each audit of a namespace, all owners that something was found of.
    """

    def __init__(
        self,
        api: KubeApi,
        accounts: Accounts,
        settings: Settings,
        metrics: Metrics,
        wirings: PodWirings,
        native_sidecars: Callable[[], bool],
    ) -> None:
        self.reach: Reach | None = None
        self.on_owners: Callable[[str, Collection[Owner]], None] = lambda _, __: None
        self._api = api
        self._accounts = accounts
        self._settings = settings
        self._metrics = metrics
        self._wirings = wirings
        self._native_sidecars = native_sidecars
        self._complete = asyncio.Event()
        self._reached = asyncio.Event()
        self._wake = asyncio.Event()
        self._due: dict[str, float] = {}
        self._again: dict[str, float] = {}
        self._failed: Counter[str] = Counter()
        self._rested: dict[str, float] = {}
        self._whole: set[str] = set()
        self._auditing = False
        self._found: dict[str, Found] = {}
        self._totals: Counter[str] = Counter()
        self._told = events.Told(api)
        self._said = ""

    def start(self) -> None:
        """Take that the table of ServiceAccounts is complete."""
        self._complete.set()

    def take_configurations(self, configurations: Mapping[str, Json]) -> None:
        """Take all MutatingWebhookConfigurations, by name."""
        found = configurations.get(self._settings.webhook_configuration)
        reach = reach_of(found) if found else None
        if reach == self.reach:
            return
        self.reach = reach
        if reach:
            self._reached.set()
            self._due = self._all_due()
            self._wake.set()
        else:
            self._reached.clear()

    def changed(self, namespace: str) -> None:
        """Take that a ServiceAccount of a namespace was changed, or something was done for its pods."""
        if not self._complete.is_set():
            return
        if len(self._whole) < _MOST_CHANGED:
            self._whole.add(namespace)
        if self._auditing:
            self._soon(namespace)

    def may_wire(self, namespace: str) -> bool:
        """Whether pods that are made now are wired as the namespace's ServiceAccounts say now."""
        return self._wirings.is_settled(namespace)

    def rules(self) -> Rules:
        """Return what pods are judged by."""
        label_only = self.reach is not None and self.reach.label_only
        return Rules(self._settings, label_only=label_only, native_sidecars=self._native_sidecars())

    async def run(self) -> None:
        """Audit for ever: first every namespace, then whichever is due."""
        await self._complete.wait()
        self._due, self._auditing = {}, True
        self._due = self._all_due()
        try:
            while True:
                await self._reached.wait()
                now = asyncio.get_running_loop().time()
                due = [namespace for namespace, when in self._due.items() if when <= now]
                if due:
                    limit = asyncio.Semaphore(AT_ONCE)
                    await asyncio.gather(*(self._turn(namespace, limit) for namespace in due))
                    continue
                self._wake.clear()
                pause = min(self._due.values(), default=now + EVERY) - now
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(pause, 0.01)):
                        await self._wake.wait()
        finally:
            self._auditing = False
            self._found.clear()
            self._again.clear()
            self._failed.clear()
            self._rested.clear()
            self._totals.clear()
            self._metrics.pods_are({})
            self._wirings.forget_audits()

    async def examine(self, namespace: str, queries: Iterable[tuple[str, str]]) -> Found:
        """Return how the pods of a namespace are wired that these queries, of labels and of fields, find."""
        counts: Counter[str] = Counter()
        owners: dict[str, Owner] = {}
        makers = _Makers(self._api, namespace)
        listed = 0
        for labels, fields in queries:
            async for page in self._api.pods(namespace, labels, fields):
                listed += len(page)
                for begin in range(0, len(page), PODS_AT_ONCE):
                    some = page[begin : begin + PODS_AT_ONCE]
                    wired, findings = await self._judged(namespace, some, makers)
                    counts["wired"] += wired
                    for finding in findings:
                        reference, advice = makers.owner(finding)
                        owner = owners.setdefault(reference["uid"], Owner(namespace, reference, advice))
                        owner.add(finding)
                        counts[finding.state] += 1
                    await asyncio.sleep(0)  # reviews first
        return Found({state: counts[state] for state in ("wired", *STATES)}, owners, listed)

    async def _judged(self, namespace: str, pods: list[Json], makers: "_Makers") -> tuple[int, list[Finding]]:
        """Return how many pods of a page are wired, and what is found of the others."""
        accounts, rules = self._accounts.identities(namespace), self.rules()
        wired, findings = audit(pods, accounts, rules)
        doubtful = {finding.uid: finding for finding in findings if finding.doubtful}
        await makers.learn(findings)
        if doubtful:
            again = [pod for pod in pods if pod["metadata"]["uid"] in doubtful]
            origins = {
                pod["metadata"]["uid"]: await makers.origin(doubtful[pod["metadata"]["uid"]], pod)
                for pod in again
            }
            settled = audit(again, accounts, rules, origins)
            findings = [finding for finding in findings if not finding.doubtful] + settled.findings
            wired += settled.wired
        return wired, [
            finding if finding.account in accounts else await makers.possible(finding) for finding in findings
        ]

    async def _turn(self, namespace: str, limit: asyncio.Semaphore) -> None:
        """Audit a namespace that is due, and say when it is again."""
        async with limit:
            try:
                await (self._audit(namespace) if namespace else self._sweep())
            except ApiError as error:
                self._metrics.audited("failed")
                if str(error) != self._said:
                    self._said = str(error)
                    _log.warning("pods cannot be audited: %s", error)
                self._failed[namespace] += 1
                pause = pause_after(self._failed[namespace], RETRY_AFTER, EVERY)
                self._due[namespace] = asyncio.get_running_loop().time() + pause
            except Exception:  # noqa: BLE001 - see below
                # Whatever a pod holds that nobody has heard of: others are audited all the same.
                self._metrics.audited("failed")
                _log.exception("the pods of namespace %s cannot be audited", namespace)
                self._due[namespace] = asyncio.get_running_loop().time() + EVERY
            else:
                self._failed.pop(namespace, None)
                if namespace:  # to know where labelled pods are is no audit of them
                    self._metrics.audited("completed")

    async def _sweep(self) -> None:
        """Have namespaces audited that have labelled pods though no ServiceAccount of theirs is annotated."""
        del self._due[_ALL]
        self._plan(_ALL, self._every())
        found = await self._api.namespaces_of_pods(_LABELLED)
        for namespace in found - self._due.keys():
            self._due[namespace] = 0.0

    async def _audit(self, namespace: str) -> None:
        reach, former = self.reach, self._found.get(namespace)
        self._due.pop(namespace, None)
        if reach is None:
            return
        meta = await self._api.metadata(f"/api/v1/namespaces/{namespace}")
        if meta is None or not selects(reach.namespaces, meta.get("labels") or {}):
            self._forget(namespace)
            if meta is not None and namespace in self._accounts.namespaces():
                self._plan(namespace, self._every())  # its labels may change
            return
        whole = former is None or namespace in self._whole
        self._whole.discard(namespace)  # what is changed from here on may have been listed already
        try:
            found = await self.examine(namespace, self._queries(namespace, reach, former, whole=whole))
        except Exception:
            self._whole.add(namespace)
            raise
        self._rested[namespace] = asyncio.get_running_loop().time() + REST_PER_POD * found.listed
        if namespace in self._due:  # changed meanwhile
            self._due[namespace] = self._from_now(namespace, SETTLE)
        self._found[namespace] = found
        self._report(namespace, found, former)
        if not found.faulty:
            self._again.pop(namespace, None)
            if namespace in self._accounts.namespaces() or found.counts["wired"]:
                self._plan(namespace, self._every())
            else:
                self._forget(namespace)
            return
        same = former is not None and former.counts == found.counts
        self._again[namespace] = self._again.get(namespace, FIRST_AGAIN / 2) * 2 if same else FIRST_AGAIN
        self._plan(namespace, min(self._again[namespace], self._every()))
        limit = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._tell(owner, limit) for owner in found.owners.values()))

    def _queries(
        self, namespace: str, reach: Reach, former: Found | None, *, whole: bool
    ) -> list[tuple[str, str]]:
        """Return which pods to list: few queries, and few pods that do not matter.

        All of them where it is not known whose identity was taken away: after a change, and the first time.
        """
        beside = written(reach.pods)
        among = f"{beside}," if beside else ""
        if reach.label_only:
            return [(among + _LABELLED, "")]
        named = {
            name
            for name, annotations in self._accounts.identities(namespace).items()
            if annotations.get(contract.CLIENT_ID)
        }
        for owner in former.owners.values() if former else ():
            named |= owner.accounts
        if whole or len(named) > FEW:
            return [(among + _NOT_OPTED_OUT, "")]
        unlabelled = [(among + _UNLABELLED, f"spec.serviceAccountName={name}") for name in sorted(named)]
        return [(among + _LABELLED, ""), *unlabelled]

    def _report(self, namespace: str, found: Found, former: Found | None) -> None:
        self._wirings.take_audit(namespace, found.counts)
        self._totals.update(found.counts)
        self._totals.subtract(former.counts if former else {})
        self._metrics.pods_are({state: self._totals[state] for state in ("wired", *STATES)})
        if found.faulty and (former is None or former.counts != found.counts):
            counts = {state: found.counts[state] for state in STATES if found.counts[state]}
            _log.warning(
                "pods are not wired as they should be", extra={"namespace": namespace, "pods": counts}
            )
        elif former and former.faulty and not found.faulty:
            _log.info("all pods are wired as they should be", extra={"namespace": namespace})
        self.on_owners(namespace, found.owners.values())

    async def _tell(self, owner: Owner, limit: asyncio.Semaphore) -> None:
        async with limit:
            await self._told.tell(owner.regarding(), *owner.told())

    def _forget(self, namespace: str) -> None:
        self._again.pop(namespace, None)
        self._rested.pop(namespace, None)
        if former := self._found.pop(namespace, None):
            self._report(namespace, _NOTHING, former)

    def _all_due(self) -> dict[str, float]:
        """Return that all namespaces are due that are known here to matter, or to have mattered."""
        return dict.fromkeys([_ALL, *self._due, *self._whole, *self._accounts.namespaces()], 0.0)

    def _every(self) -> float:
        return max(EVERY, PACE * len(self._due))

    def _plan(self, namespace: str, pause: float) -> None:
        """Have a namespace audited after a while, unless it is due sooner; not all at the same time."""
        when = self._from_now(namespace, pause * random.uniform(0.75, 1))  # noqa: S311 - see above
        self._due[namespace] = min(when, self._due.get(namespace, when))

    def _soon(self, namespace: str) -> None:
        when = self._from_now(namespace, SETTLE)
        self._due[namespace] = min(when, self._due.get(namespace, when))
        self._wake.set()

    def _from_now(self, namespace: str, pause: float) -> float:
        """Return when a namespace is audited after so many seconds, or as soon as it has rested."""
        return max(asyncio.get_running_loop().time() + pause, self._rested.get(namespace, 0.0))


class _Makers:
    """Whoever made the pods of a namespace, each looked up once an audit."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._owners: dict[str, tuple[Json, str]] = {}
        self._written: dict[str, Origin] = {}
        self._accounts: dict[str, Json | None] = {}

    async def learn(self, findings: Iterable[Finding]) -> None:
        """Look up whoever made these pods, several at a time."""
        unknown = {
            finding.controller["uid"]: finding.controller
            for finding in findings
            if finding.controller and finding.controller["uid"] not in self._owners
        }
        limit = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._learn(reference, limit) for reference in unknown.values()))

    async def _learn(self, reference: Json, limit: asyncio.Semaphore) -> None:
        uid, owner = reference["uid"], reference
        async with limit:
            workload = found = await self._found(reference)
            # What can be restarted is, whoever made it: of the others it is their maker's to make pods anew.
            if found and not is_restartable(reference, self._namespace):
                owners = found["metadata"].get("ownerReferences") or ()
                owner = next((above for above in owners if above.get("controller")), reference)
            if owner is not reference:
                workload = await self._found(owner) if is_restartable(owner, self._namespace) else None
        if found:
            try:
                self._written[uid] = Origin(written_in(template_of(found)))
            except PodRefused as refusal:
                _log.debug("the template of %s cannot be read: %s", reference["name"], refusal)
        self._owners[uid] = owner, by_hand(owner, self._namespace, workload)

    async def _found(self, reference: Json) -> Json | None:
        """Return the object of an ownerReference; None where it is gone, or of a kind that we do not know."""
        path = path_of(reference, self._namespace)
        found = await self._api.get(path) if path else None
        return found if found and found["metadata"]["uid"] == reference["uid"] else None

    def owner(self, finding: Finding) -> tuple[Json, str]:
        """Return whoever, in the end, made a pod (itself where nobody did), and how to have it made anew."""
        if finding.controller:
            return self._owners[finding.controller["uid"]]
        itself = {"apiVersion": "v1", "kind": "Pod", "name": finding.pod, "uid": finding.uid}
        return itself, ALONE

    async def possible(self, finding: Finding) -> Finding:
        """Return a finding as it is; refused where its ServiceAccount is gone, and with it all new pods."""
        if finding.refused or await self._account(finding.account):
            return finding
        reason = f"runs as ServiceAccount {finding.account}, which is not there: no pod like it can be made"
        return replace(finding, reason=reason, refused=True)

    async def _account(self, name: str) -> Json | None:
        if name not in self._accounts:
            path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{name}"
            self._accounts[name] = await self._api.metadata(path)
        return self._accounts[name]

    async def origin(self, finding: Finding, pod: Json) -> Origin:
        """Return what else is known of how a pod came to be."""
        if finding.controller and (known := self._written.get(finding.controller["uid"])):
            return known
        account = await self._account(finding.account)
        return Origin(account_unchanged=account is not None and was_unchanged(account, pod["metadata"]))
