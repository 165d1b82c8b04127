"""What the operator tells and waits for, with an API server that is played: few are this unkind."""

import asyncio
import itertools
from typing import Any, cast

import pytest

from testkit.cases import ENVIRONMENT
from workload_identity_operator import auditor, contract, events, healer
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.audit import Finding, Rules, State
from workload_identity_operator.auditor import Auditor, Found, Owner, Reach
from workload_identity_operator.following import pause_after
from workload_identity_operator.healing import Plan, by_hand
from workload_identity_operator.kube import ApiError, KubeApi
from workload_identity_operator.metrics import Metrics
from workload_identity_operator.podwirings import PodWirings
from workload_identity_operator.settings import Flags, read_settings


class Api:
    """Keeps what it is asked to create, and answers each request with the next of its answers."""

    def __init__(self, *answers: ApiError | None) -> None:
        self.answers = list(answers)
        self.created: list[dict[str, Any]] = []

    async def create(self, _: str, body: dict[str, Any]) -> None:
        """Keep it, or raise."""
        if self.answers and (error := self.answers.pop(0)):
            raise error
        self.created.append(body)

    async def get(self, _: str) -> None:
        """Answer that there is none, or raise."""
        if error := self.answers.pop(0):
            raise error


class Audited(Auditor):
    """Knows what is configured, and nothing else."""

    def __init__(self) -> None:
        self.reach = Reach({}, {}, label_only=False, plan=Plan("restart", 0))


class Lease:
    """Remembers a roll-out that the replica before waited for."""

    roll_out = "/apis/apps/v1/namespaces/a/deployments/web 1"

    async def remembered(self) -> str:
        """Return it."""
        return self.roll_out

    async def remember(self, what: str) -> None:
        """Take another, and end the test when it is to be forgotten."""
        self.roll_out = what
        if not what:
            raise asyncio.CancelledError


def take_over(api: object, lease: Lease) -> Metrics:
    """Run a healer until it has done with the roll-out of before; return what it counted."""
    unused, metrics = cast("Any", None), Metrics()
    one = healer.Healer(cast("Any", api), cast("Any", lease), unused, unused, metrics, Audited())
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(one.run())
    return metrics


@pytest.mark.parametrize("name", ["web", "l" * 199 + "-" + "x" * 20, "l" * 198 + ".-" + "x" * 20])
def test_events_can_be_stored(name: str) -> None:
    """Their name ends nowhere but at a letter or digit; their note is cut by bytes, as it is counted."""
    api = Api()
    metadata = {"name": name, "namespace": "a", "uid": "1", "resourceVersion": "1"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}

    asyncio.run(events.tell(cast("Any", api), pod, events.UNWIRED, "身" * 1000))

    (event,) = api.created
    first, _, digest = event["metadata"]["name"].rpartition(".")
    assert first[-1].isalnum()
    assert name.startswith(first)
    assert len(digest) == 16
    assert set(event["note"]) == {"身"}
    assert 990 < len(event["note"].encode()) <= 1024


def finding(pod: str, state: State, reason: str, *, refused: bool = False) -> Finding:
    """Return what is wrong with a pod of Deployment `web`."""
    return Finding("a", pod, pod, "web", state, reason, refused=refused)


UNWIRED = finding("web-1", "unwired", "has no Azure identity")


def owner(*findings: Finding, name: str = "web") -> Owner:
    """Return the Deployment that they are of."""
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": name}
    found = Owner("a", reference, "restart it")
    for one in findings:
        found.add(one)
    return found


def test_a_pod_that_would_be_refused_hides_nothing_of_the_others() -> None:
    """What is wrong with those that can be helped is told first, with the way to mend it."""
    refused = finding("old", "unwired", "would be refused", refused=True)
    found = owner(refused, finding("web-1", "outdated", "is outdated"), finding("web-2", "wrong", "is wrong"))

    reason, note = found.told()

    assert reason is events.OUTDATED
    assert (
        note == "2 of its pods (web-1, web-2): is outdated; to mend it: restart it; 1 more: would be refused"
    )
    assert found.counts == {"unwired": 1, "outdated": 1, "wrong": 1}


def test_pods_that_would_all_be_refused_are_no_good_to_make_anew() -> None:
    """Then there is no such way: the mistake is to be mended first."""
    refused = finding("old", "unwired", "would be refused", refused=True)

    assert owner(refused).told() == (events.UNWIRED, "1 of its pods (old): would be refused")


def test_a_roll_out_is_waited_for_while_the_api_server_has_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever began the next one meanwhile would restart two at a time."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    trouble = [ApiError("away"), ApiError("too many requests", 429), ApiError("no leader", 503)]
    api, lease = Api(*trouble, None), Lease()

    metrics = take_over(api, lease)

    assert api.answers == []
    assert lease.roll_out == ""
    assert b'heals_total{outcome="no-help"} 0.0' in metrics.exposition()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ApiError("no leader", 503), "could not be looked at: no leader"),
        (ApiError("forbidden", 403), "forbid"),
    ],
)
def test_a_roll_out_that_cannot_be_seen_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: ApiError, said: str
) -> None:
    """Trouble without an end, or a right that is gone: told, counted, and pods are audited on."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(healer, "UNSEEN_AFTER", 0.0)
    lease = Lease()

    metrics = take_over(Api(error), lease)

    assert lease.roll_out == ""
    assert said in caplog.text
    assert b'heals_total{outcome="no-help"} 1.0' in metrics.exposition()


class Cluster:
    """Has Deployments of one pod, and answers as told: a healer's API server, Lease, health and auditor."""

    reach = Reach({}, {}, label_only=False, plan=Plan("restart", 3600))
    ready = True
    replicas = 1
    unheard_of = ""
    undoes = False
    helps = True

    def __init__(self, *, answers: bool = True, tells: bool = True) -> None:
        self.answers = answers
        self.tells = tells
        self.before = ""
        self.merges = 0
        self.available = itertools.cycle((1,))
        self.restarted: dict[str, dict[str, Any]] = {}
        self.faulty: list[Owner] = []
        self.waited = asyncio.Event()

    async def get(self, path: str) -> dict[str, Any]:
        """Return a Deployment."""
        name = path.rpartition("/")[2]
        if name == self.unheard_of:
            raise LookupError(name)
        if path in self.before and not self.restarted:
            self.waited.set()
        counts = {"replicas": self.replicas, "updatedReplicas": self.replicas}
        counts["availableReplicas"] = next(self.available)
        template = {"metadata": self.restarted.get(name, {}), "spec": {"containers": [{"name": "app"}]}}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "1"},
            "spec": {"replicas": self.replicas, "template": template},
            "status": counts,
        }

    async def merge(self, path: str, body: dict[str, Any], _: str) -> dict[str, Any]:
        """Store a restart, and answer or not."""
        self.merges += 1
        self.restarted[path.rpartition("/")[2]] = {} if self.undoes else body["spec"]["template"]["metadata"]
        if not self.answers:
            raise ApiError("timed out")
        return await self.get(path)

    async def metadata(self, _: str) -> dict[str, Any]:
        """Return a ServiceAccount's."""
        return {"annotations": {contract.CLIENT_ID: "11111111-2222-3333-4444-555555555555"}}

    async def budgets(self, _: str) -> list[Any]:
        """Return that there are none."""
        return []

    async def create(self, _: str, __: object) -> None:
        """Take an Event."""

    async def remembered(self) -> str:
        """Return the roll-out that whoever healed before waited for."""
        return self.before

    async def remember(self, what: str) -> None:
        """Take the roll-out that is waited for."""
        self.before = what

    def may_wire(self, _: str) -> bool:
        """Return that pods are wired."""
        return True

    def rules(self) -> Rules:
        """Return what pods are judged by."""
        return Rules(read_settings(Flags(), ENVIRONMENT))

    def changed(self, _: str) -> None:
        """Take that something was done."""

    async def examine(self, _: str, __: object) -> Found:
        """Return who has faulty pods; after a restart none, or that they may not be listed."""
        if not self.restarted or self.undoes or not self.helps:
            if self.restarted:
                self.waited.set()
            return Found({}, {one.reference["uid"]: one for one in self.faulty})
        self.waited.set()
        if not self.tells:
            raise ApiError("forbidden", 403)
        return Found({}, {})


def test_what_was_so_before_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods that crash are ready now and then: their roll-out is given up all the same."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(healer, "STUCK_AFTER", 0.01)
    cluster, lease = Cluster(), Lease()
    cluster.replicas, cluster.available = 2, itertools.cycle((0, 1))
    lease.roll_out = "/apis/apps/v1/namespaces/a/deployments/web web"

    metrics = take_over(cluster, lease)

    assert b'heals_total{outcome="no-help"} 1.0' in metrics.exposition()


@pytest.mark.parametrize("answers", [True, False], ids=["answered", "unanswered"])
@pytest.mark.parametrize("tells", [True, False], ids=["pods-seen", "pods-unseen"])
def test_restarts_are_spaced_whatever_goes_wrong_after_one(
    monkeypatch: pytest.MonkeyPatch, *, answers: bool, tells: bool
) -> None:
    """What is stored is a restart, whether or not the API server said so, and whatever it says then.

    As long as the pause after it lasts the Lease says so: whoever comes next holds it too.
    """
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    cluster = Cluster(answers=answers, tells=tells)
    cluster.faulty = [owner(UNWIRED), owner(UNWIRED, name="api")]

    assert asyncio.run(restarted(cluster, cluster.faulty)) == ["api"]
    assert cluster.before == "/apis/apps/v1/namespaces/a/deployments/api api"


def test_the_pause_after_somebody_elses_roll_out_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited for it before had it held too."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    cluster = Cluster()
    cluster.before = "/apis/apps/v1/namespaces/a/deployments/web web"
    cluster.faulty = [owner(UNWIRED, name="api")]

    assert asyncio.run(restarted(cluster, cluster.faulty)) == []


@pytest.mark.parametrize("helps", [True, False])
def test_a_pod_that_was_missing_before_makes_no_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, helps: bool
) -> None:
    """Where a node is down the roll-out never ends; all pods that can be there are, and are wired or not."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(healer, "STUCK_AFTER", 0.01)
    cluster = Cluster()
    cluster.replicas, cluster.available, cluster.helps = 2, itertools.cycle((1,)), helps
    cluster.faulty = [owner(UNWIRED)]

    with caplog.at_level("INFO"):
        assert asyncio.run(restarted(cluster, cluster.faulty)) == ["web"]

    assert ("Deployment a/web is healed" in caplog.text) is helps
    assert ("not restarted again: nothing of its roll-out moved" in caplog.text) is not helps


def test_an_owner_that_cannot_be_understood_keeps_nobody_from_being_healed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left to the log, and pods are audited on."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    cluster = Cluster()
    cluster.reach = Reach({}, {}, label_only=False, plan=Plan("restart", 0))
    cluster.faulty = [owner(UNWIRED, name="api"), owner(UNWIRED)]
    cluster.unheard_of = "api"

    assert asyncio.run(restarted(cluster, cluster.faulty)) == ["web"]
    assert "Deployment a/api cannot be healed" in caplog.text


def test_who_was_healed_by_hand_is_not_restarted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the audit until its turn a quarter of an hour and more can pass."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    cluster = Cluster()
    cluster.faulty = [owner(UNWIRED)]

    assert asyncio.run(restarted(cluster, [owner(UNWIRED), owner(UNWIRED, name="api")])) == ["web"]


def test_an_audit_that_fails_is_tried_again_ever_more_seldom() -> None:
    """A right that is gone is not asked for every ten seconds; however long, it is asked for."""
    pauses = [pause_after(failures, auditor.RETRY_AFTER, auditor.EVERY) for failures in (1, 2, 7, 8, 100_000)]

    assert pauses == [10, 20, 640, 900, 900]


class Crowded(KubeApi):
    """Has namespaces with so many pods, which have ended: there is nothing to find; counts its listings."""

    def __init__(self, **pods: int) -> None:
        self.crowds = pods
        self.limits: dict[str, list[int]] = {namespace: [] for namespace in pods}
        self.listed, self.swept = asyncio.Event(), asyncio.Event()

    async def _call(self, *asked: str, **how: Any) -> dict[str, Any]:
        namespace, resource = asked[1].split("/")[-2:]
        if resource != "pods" or namespace not in self.crowds:
            if namespace == "v1":
                self.swept.set()
            return {"metadata": {}, "items": []}
        query = how["query"]
        begin, limit = int(query.get("continue", 0)), int(query["limit"])
        self.limits[namespace].append(limit)
        if namespace == "few":
            self.listed.set()
        end = min(begin + limit, self.crowds[namespace])
        item = {"metadata": {}, "spec": {}, "status": {"phase": "Succeeded"}}
        following = {"continue": str(end)} if end < self.crowds[namespace] else {}
        return {"metadata": following, "items": [item] * (end - begin)}


async def test_pages_grow_with_the_namespace() -> None:
    """Each costs the API server time in proportion to all there are; few pods need little memory."""
    api = Crowded(a=50_000, b=999)

    counts = [sum([len(page) async for page in api.pods(namespace)]) for namespace in ("a", "b")]

    assert counts == [50_000, 999]
    assert api.limits["b"] == [100] * 10
    assert api.limits["a"][:10] == [100] * 10
    assert max(api.limits["a"]) == 500
    assert len(api.limits["a"]) < 130


def auditing(api: Crowded, metrics: Metrics) -> Auditor:
    """Return an auditor of these namespaces, each with an identity, of a release that wires all of them."""
    settings = read_settings(Flags(), ENVIRONMENT)
    accounts = Accounts(api.service_account, lambda _: None)
    for namespace in api.crowds:
        accounts.put(namespace, "web", {contract.CLIENT_ID: "11111111-2222-3333-4444-555555555555"})
    one = Auditor(api, accounts, settings, metrics, PodWirings(api, accounts, settings), lambda: True)
    webhooks = [{"name": contract.WEBHOOK_NAME}]
    one.take_configurations({settings.webhook_configuration: {"metadata": {}, "webhooks": webhooks}})
    one.start()
    return one


async def test_a_crowd_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes ServiceAccounts all the time has few pods listed each time, but not many."""
    monkeypatch.setattr(auditor, "SETTLE", 0.0)
    monkeypatch.setattr(auditor, "REST_PER_POD", 60.0)
    api = Crowded(few=0, many=100)
    one = auditing(api, Metrics())
    running = asyncio.create_task(one.run())
    for _ in range(3):
        await api.listed.wait()
        api.listed.clear()
        for namespace in api.crowds:
            one.changed(namespace)
    running.cancel()

    assert len(api.limits["many"]) == 1


@pytest.mark.parametrize(("crowds", "completed"), [({"few": 0}, b"1.0"), ({}, b"0.0")])
async def test_what_is_counted_as_an_audit(crowds: dict[str, int], completed: bytes) -> None:
    """To know which namespaces have labelled pods is none: who can do that alone audits nothing."""
    api, metrics = Crowded(**crowds), Metrics()
    running = asyncio.create_task(auditing(api, metrics).run())
    await api.swept.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    running.cancel()

    assert b'workload_identity_audits_total{outcome="completed"} ' + completed in metrics.exposition()


async def test_a_restart_that_somebody_undoes_is_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The template remembers none then; whoever undid it is not fought."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    cluster: Any = Cluster()
    cluster.undoes, cluster.faulty = True, [owner(UNWIRED)]
    cluster.reach = Reach({}, {}, label_only=False, plan=Plan("restart", 0))
    one = healer.Healer(cluster, cluster, cluster, read_settings(Flags(), ENVIRONMENT), Metrics(), cluster)
    running = asyncio.create_task(one.run())
    for _ in range(2):
        await asyncio.sleep(0)
        one.take("a", cluster.faulty)
        for _ in range(100):
            await asyncio.sleep(0)
    running.cancel()

    assert "somebody undid it, and 1 of its pods: has no Azure identity" in caplog.text
    assert "not restarted: that was done for this before" in caplog.text
    assert cluster.merges == 1


async def restarted(cluster: Any, owners: list[Owner]) -> list[str]:
    """Return who is restarted of those that an audit found, until the pause after the first."""
    settings = read_settings(Flags(), ENVIRONMENT)
    one = healer.Healer(cluster, cluster, cluster, settings, Metrics(), cluster)
    running = asyncio.create_task(one.run())
    await asyncio.sleep(0)
    one.take("a", owners)
    await cluster.waited.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    running.cancel()
    return list(cluster.restarted)


def test_an_event_that_could_not_be_stored_is_told_the_next_time() -> None:
    """It is no news any more then, so it is counted once."""
    api = Api(ApiError("too many requests", 429), None)
    told = events.Told(cast("Any", api))

    async def tell_three_times() -> list[bool]:
        return [await told.tell(owner(UNWIRED).regarding(), events.UNWIRED, "a note") for _ in range(3)]

    assert asyncio.run(tell_three_times()) == [True, False, False]
    assert [event["note"] for event in api.created] == ["a note"]


def test_a_pod_that_makes_pods_is_told_of_them() -> None:
    """A Spark driver is the controller of its executors: they are named, and more are made by it."""
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "driver", "uid": "1"}
    found = Owner("a", reference, by_hand(reference, "a"))
    found.add(finding("executor-1", "unwired", "has no Azure identity"))

    assert found.told()[1] == (
        '1 of its pods (executor-1): has no Azure identity; to mend it: have "Pod" driver make them anew'
    )
