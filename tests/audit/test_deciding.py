"""What is done for an owner: by what the chart, the owner and its state say, and nothing else."""

from typing import Any

import pytest

from workload_identity_operator import contract
from workload_identity_operator.audit import was_unchanged
from workload_identity_operator.healing import (
    Mode,
    Plan,
    budget_in_the_way,
    by_hand,
    has_failed,
    holds_up,
    is_as_before,
    is_complete,
    mode_for,
    obstacle,
    path_of,
    patience,
    plan_of,
    taken_at_once,
)
from workload_identity_operator.labels import selects, written

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("chart", "owner", "account", "done"),
    [
        ("off", "restart", "restart", "off"),
        ("dryRun", "", "", "dryRun"),
        ("dryRun", "restart", "", "dryRun"),
        ("dryRun", "off", "restart", "off"),
        ("annotated", "", "", "off"),
        ("annotated", "restart", "", "restart"),
        ("annotated", "", "restart", "restart"),
        ("annotated", "off", "restart", "off"),
        ("annotated", "dryRun", "restart", "dryRun"),
        ("annotated", "misspelt", "restart", "off"),
        ("restart", "", "", "restart"),
        ("restart", "", "off", "off"),
        ("restart", "restart", "off", "restart"),
        ("restart", "dryRun", "", "dryRun"),
        ("restart", "Off", "restart", "off"),
        ("restart", "", "false", "off"),
        ("dryRun", "never", "", "off"),
    ],
)
def test_the_chart_allows_and_annotations_ask(chart: Mode, owner: str, account: str, done: Mode) -> None:
    """The owner's annotation counts before its ServiceAccount's, and neither goes beyond the chart."""
    annotated = {contract.HEALING: owner} if owner else {}

    assert mode_for(Plan(chart), annotated, {contract.HEALING: account}) == done


@pytest.mark.parametrize(
    ("annotations", "plan"),
    [
        ({}, Plan("off")),
        ({contract.HEALING: "restart", contract.HEALING_PAUSE: "5"}, Plan("restart", 5)),
        ({contract.HEALING: "restart"}, Plan("restart", 10)),
        ({contract.HEALING: "Restart"}, Plan("off")),
        ({contract.HEALING: "restart", contract.HEALING_PAUSE: "-1"}, Plan("off")),
        ({contract.HEALING: "restart", contract.HEALING_PAUSE: "nan"}, Plan("off")),
        ({contract.HEALING: "restart", contract.HEALING_PAUSE: "soon"}, Plan("off")),
    ],
)
def test_what_cannot_be_read_is_off(annotations: dict[str, str], plan: Plan) -> None:
    """A configuration that somebody edited into nonsense restarts nothing."""
    assert plan_of(annotations) == plan


def deployment(spec: Json | None = None, **status: Any) -> Json:
    """Return a Deployment of four pods whose roll-out is complete, unless said otherwise."""
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 4)
    return {
        "kind": "Deployment",
        "metadata": {"name": "web", "generation": 2},
        "spec": {"replicas": 4, **(spec or {})},
        "status": {"observedGeneration": 2, **counts, **status},
    }


def stateful_set(spec: Json | None = None, **status: Any) -> Json:
    """Return a StatefulSet likewise."""
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 4)
    revisions = {"currentRevision": "a", "updateRevision": "a"}
    return {
        "kind": "StatefulSet",
        "metadata": {"name": "db", "generation": 2},
        "spec": {"replicas": 4, **(spec or {})},
        "status": {"observedGeneration": 2, **counts, **revisions, **status},
    }


def daemon_set(spec: Json | None = None, **status: Any) -> Json:
    """Return a DaemonSet likewise."""
    counts = dict.fromkeys(("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"), 4)
    return {
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "generation": 2},
        "spec": spec or {},
        "status": {"observedGeneration": 2, **counts, **status},
    }


@pytest.mark.parametrize(
    ("workload", "complete"),
    [
        (deployment(), True),
        (deployment(observedGeneration=1), False),
        (deployment(updatedReplicas=3), False),
        (deployment(replicas=5), False),
        (deployment(availableReplicas=3), False),
        (deployment({"replicas": 0}, replicas=0, updatedReplicas=0, availableReplicas=0), True),
        (stateful_set(), True),
        (stateful_set(observedGeneration=1), False),
        (stateful_set(updateRevision="b", updatedReplicas=1), False),
        (stateful_set(availableReplicas=3), False),
        (daemon_set(), True),
        (daemon_set(updatedNumberScheduled=3), False),
        (daemon_set(numberAvailable=3), False),
    ],
)
def test_roll_outs_are_complete(workload: Json, complete: bool) -> None:
    """As `kubectl rollout status` has it: the next owner's turn comes only then."""
    assert is_complete(workload) is complete


QUOTA = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: q"}


@pytest.mark.parametrize(
    ("workload", "why"),
    [
        (deployment(), ""),
        (deployment({"paused": True}), "paused"),
        (deployment(updatedReplicas=3), "under way"),
        (deployment(availableReplicas=0), ""),  # crash for want of an identity: a restart mends that
        (stateful_set({"updateStrategy": {"type": "OnDelete"}}), "OnDelete"),
        (stateful_set({"updateStrategy": {"rollingUpdate": {"partition": 2}}}), "partition 2"),
        (stateful_set(availableReplicas=3), "one of its pods is not available"),
        (stateful_set({"podManagementPolicy": "Parallel"}, availableReplicas=3), ""),
        (stateful_set(updateRevision="b", updatedReplicas=1, availableReplicas=3), "under way"),
        (daemon_set({"updateStrategy": {"type": "OnDelete"}}), "OnDelete"),
        ({**deployment(), "metadata": {"deletionTimestamp": "now"}}, "deleted"),
        (deployment(conditions=[QUOTA]), "cannot make pods now: exceeded quota"),
        (deployment(conditions=[{**QUOTA, "status": "False"}]), ""),
    ],
)
def test_restarts_that_would_not_replace_pods(workload: Json, why: str) -> None:
    """What does not replace its pods by itself, or is about to, is left alone."""
    assert why in obstacle(workload)
    assert bool(obstacle(workload)) is bool(why)


@pytest.mark.parametrize(
    ("workload", "taken"),
    [
        (deployment(), 1),
        (deployment({"replicas": 3}), 0),  # a quarter of three, rounded down: one is added first
        (deployment({"strategy": {"type": "Recreate"}}), 4),
        (deployment({"strategy": {"rollingUpdate": {"maxUnavailable": 3}}}), 3),
        (deployment({"strategy": {"rollingUpdate": {"maxUnavailable": "50%", "maxSurge": 0}}}), 2),
        (deployment({"strategy": {"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}}), 1),
        (stateful_set(), 1),
        (stateful_set({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}}), 2),
        (daemon_set(), 1),
        (daemon_set({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "30%"}}}), 2),
        (daemon_set({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}), 0),
    ],
)
def test_how_many_pods_are_away_at_once(workload: Json, taken: int) -> None:
    """What a roll-out takes before the successors are there, as its controller rounds it."""
    assert taken_at_once(workload) == taken


def budget(allowed: int, *, generation: int = 1, selector: Json | None = None) -> Json:
    """Return a PodDisruptionBudget over `app: web`."""
    return {
        "metadata": {"name": "budget", "generation": generation},
        "spec": {"selector": {"matchLabels": {"app": "web"}} if selector is None else selector},
        "status": {"observedGeneration": 1, "disruptionsAllowed": allowed},
    }


@pytest.mark.parametrize(
    ("found", "taken", "why"),
    [
        (budget(1), 1, ""),
        (budget(0), 1, "budget allows 0"),
        (budget(1), 2, "budget allows 1"),
        (budget(0), 0, ""),
        (budget(5, generation=2), 1, "budget allows 0"),  # its status is of another time
        (budget(0, selector={"matchLabels": {"app": "other"}}), 1, ""),
        (budget(0, selector={}), 1, "budget allows 0"),  # an empty one selects all
    ],
)
def test_budgets_are_honoured(found: Json, taken: int, why: str) -> None:
    """A roll-out asks no budget by itself; so we do, for as many pods as it takes at once."""
    assert why in budget_in_the_way([found], {"app": "web"}, taken)
    assert bool(budget_in_the_way([found], {"app": "web"}, taken)) is bool(why)


def test_a_roll_out_that_was_given_up_is_told_from_the_one_before() -> None:
    """A condition is about the generation that its controller has seen."""
    failed = [{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]

    assert has_failed(deployment(conditions=failed)) == "timed out"
    assert has_failed(deployment(conditions=[*failed, QUOTA])) == "exceeded quota: q"
    assert has_failed(deployment(conditions=failed, observedGeneration=1)) == ""
    assert has_failed(deployment()) == ""


@pytest.mark.parametrize(
    ("now", "before", "same"),
    [
        (daemon_set(numberAvailable=3), daemon_set(numberAvailable=3), True),
        (daemon_set(numberAvailable=2), daemon_set(numberAvailable=3), False),
        (deployment(availableReplicas=3), deployment(availableReplicas=2), True),
        (stateful_set(availableReplicas=0), stateful_set(availableReplicas=0), False),
    ],
)
def test_pods_that_were_missing_before(now: Json, before: Json, same: bool) -> None:
    """A roll-out is not to blame for them; where none is left to compare with, it may be."""
    assert is_as_before(now, before) is same


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, 0),
        ({"progressDeadlineSeconds": 3600, "minReadySeconds": 30}, 3660),
        ({"minReadySeconds": 1200}, 1260),
        ({"progressDeadlineSeconds": 2**31 - 1}, 6 * 3600),
    ],
)
def test_patience_with_roll_outs(spec: Json, seconds: float) -> None:
    """Whose pods take long to start says so, and is not given up before; none is waited for without end."""
    assert patience(deployment(spec)) == seconds


@pytest.mark.parametrize(
    ("pods", "first", "pod"),
    [
        ({"db-0": False, "db-1": False}, 0, "db-0"),
        ({"db-0": True, "db-1": False, "db-2": False}, 0, "db-1"),
        ({"db-1": False}, 0, ""),  # the one before is on its way
        ({"db-0": False, "db-3": True, "db-4": False}, 3, "db-4"),
        ({f"db-{number}": True for number in range(4)}, 0, ""),
        ({"other-0": False}, 0, ""),
    ],
)
def test_the_first_pod_holds_up_the_others(pods: dict[str, bool], first: int, pod: str) -> None:
    """Whatever is done to another one, none would be made before it is ready."""
    assert holds_up(stateful_set({"ordinals": {"start": first}}), pods) == pod


def test_paths_for_owners() -> None:
    """Each kind is found where it is; one of the same name in another group is none that we know."""
    reference = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent"}

    assert path_of(reference, "shop") == "/apis/apps/v1/namespaces/shop/daemonsets/agent"
    assert path_of({**reference, "apiVersion": "apps.example/v1"}, "shop") is None


@pytest.mark.parametrize(
    ("version", "workload", "words"),
    [
        ("apps/v1", deployment(), "kubectl rollout restart deployment web --namespace shop"),
        ("apps/v1", deployment({"paused": True}), "delete these pods"),
        ("apps/v1", {"kind": "Deployment"}, "kubectl rollout restart deployment web --namespace shop"),
        ("apps/v1", stateful_set(), "kubectl rollout restart statefulset web --namespace shop"),
        ("apps/v1", stateful_set({"updateStrategy": {"type": "OnDelete"}}), "delete these pods"),
        ("apps/v1", stateful_set({"updateStrategy": {"rollingUpdate": {"partition": 2}}}), "delete these"),
        ("apps/v1", stateful_set(availableReplicas=3), "delete these pods"),
        ("apps/v1", daemon_set({"updateStrategy": {"type": "OnDelete"}}), "delete these pods"),
        ("apps/v1", daemon_set(numberAvailable=3), "kubectl rollout restart daemonset web --namespace shop"),
        ("apps/v1", {"kind": "ReplicaSet"}, "delete these pods"),
        ("batch/v1", {"kind": "Job"}, "delete the Job and create it again"),
        ("batch/v1", {"kind": "CronJob"}, "those of its next run have one"),
        ("v1", {"kind": "Pod"}, 'have "Pod" web make them anew'),
        ("argoproj.io/v1alpha1", {"kind": "Rollout"}, 'have "Rollout" web make them anew'),
        ("apps.kruise.io/v1beta1", {"kind": "StatefulSet"}, 'have "StatefulSet" web make them anew'),
        ("batch.volcano.sh/v1alpha1", {"kind": "Job"}, 'have "Job" web make them anew'),
    ],
)
def test_words_for_owners(version: str, workload: Json, words: str) -> None:
    """They say what makes the pods anew, and never a restart that would leave them as they are."""
    reference = {"apiVersion": version, "kind": workload["kind"], "name": "web"}

    assert by_hand(reference, "shop", workload if "spec" in workload else None).startswith(words)


@pytest.mark.parametrize(
    ("selector", "query", "labels", "chosen"),
    [
        (None, "", {"a": "b"}, True),
        ({"matchLabels": {"a": "b"}}, "a=b", {"a": "b"}, True),
        ({"matchLabels": {"a": "b"}}, "a=b", {"a": "c"}, False),
        (
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]},
            "a in (b,c)",
            {"a": "c"},
            True,
        ),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, "a in (b)", {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, "a notin (b)", {}, True),
        (
            {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]},
            "a notin (b)",
            {"a": "b"},
            False,
        ),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "a", {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, "!a", {"a": ""}, False),
        (
            {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]},
            "a=b,c",
            {"a": "b"},
            False,
        ),
    ],
)
def test_label_selectors(selector: Json | None, query: str, labels: dict[str, str], chosen: bool) -> None:
    """They select whom Kubernetes says, and are written as its queries have them."""
    assert written(selector) == query
    assert selects(selector, labels) is chosen


@pytest.mark.parametrize(
    ("changed", "version", "made", "unchanged"),
    [
        ("10:00:00", "5", "10:00:01", True),
        ("10:00:01", "5", "10:00:00", False),
        ("10:00:00", "5", "10:00:00", True),  # in the same second: the older version came first
        ("10:00:00", "9", "10:00:00", False),
        ("10:00:00", "x", "10:00:00", False),
    ],
)
def test_whether_a_service_account_was_changed_since(
    changed: str, version: str, made: str, unchanged: bool
) -> None:
    """By when its annotations of ours were written last: those of others do not count."""
    ours, others = f"f:{contract.CLIENT_ID}", "f:team"
    account = {
        "annotations": {contract.CLIENT_ID: "a"},
        "creationTimestamp": "2026-01-01T09:00:00Z",
        "resourceVersion": version,
        "managedFields": [
            {"time": f"2026-01-01T{changed}Z", "fieldsV1": {"f:metadata": {"f:annotations": {ours: {}}}}},
            {"time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:metadata": {"f:annotations": {others: {}}}}},
        ],
    }
    pod = {"creationTimestamp": f"2026-01-01T{made}Z", "resourceVersion": "7"}

    assert was_unchanged(account, pod) is unchanged
    assert not was_unchanged({**account, "annotations": {}}, pod)


@pytest.mark.parametrize(
    ("created", "version", "unchanged"),
    [("09:00:00", "5", True), ("09:00:00", "9", False), ("11:00:00", "5", False)],
)
def test_whether_a_service_account_was_changed_is_told_by_versions_where_no_write_is_recorded(
    created: str, version: str, unchanged: bool
) -> None:
    """The API server records none of a ServiceAccount that was created with nothing in it but its name."""
    account = {
        "annotations": {contract.CLIENT_ID: "a"},
        "creationTimestamp": f"2026-01-01T{created}Z",
        "resourceVersion": version,
    }

    assert (
        was_unchanged(account, {"creationTimestamp": "2026-01-01T10:00:00Z", "resourceVersion": "7"})
        is unchanged
    )
