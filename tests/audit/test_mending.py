"""Owners of such pods are restarted where the chart and they permit it, and only where that helps.

There are no nodes: `testkit.readiness` writes the status that a kubelet would, so that roll-outs go on.
"""

from functools import partial
from typing import Any

import pytest

from testkit.owners import events_of, pods_of, workload
from testkit.readiness import pods_become_ready
from testkit.workloads import CLIENT, Namespace, env_of, eventually
from workload_identity_operator import contract

WITHIN = 90
"""Seconds; it takes a few, and more on a busy machine."""
RESTART = {contract.HEALING: "restart"}
NAMES = {"Deployment": "deployments", "StatefulSet": "statefulsets", "ReplicaSet": "replicasets"}


def made_before(
    inside: Namespace,
    *manifests: dict[str, Any],
    account: dict[str, str] | None = None,
    replicas: int | None = None,
) -> None:
    """Create workloads of ServiceAccount `web`, to be annotated; wait for all their pods, or so many."""
    inside.account("web", {contract.HEALING: "restart"} if account is None else account)
    for manifest in manifests:
        inside.create(manifest)
    for manifest in manifests:
        wanted = replicas or manifest["spec"]["replicas"]
        eventually(partial(has_pods, inside, manifest["metadata"]["name"], wanted), WITHIN)


def has_pods(inside: Namespace, name: str, wanted: int) -> bool:
    """Whether a workload has so many pods."""
    return len(pods_of(inside, name)) == wanted


def annotate(inside: Namespace, annotation: str = f"{contract.CLIENT_ID}={CLIENT}") -> None:
    """Annotate the ServiceAccount: its pods are unwired from now on."""
    inside.kubectl("annotate", "--overwrite", "serviceaccount", "web", annotation)


def is_wired(inside: Namespace, name: str, replicas: int = 2) -> bool:
    """Whether all pods of a workload have the identity."""
    pods = pods_of(inside, name)
    return len(pods) == replicas and all(env_of(pod).get(contract.ENV_CLIENT_ID) == CLIENT for pod in pods)


def told(inside: Namespace, kind: str, name: str, reason: str) -> str:
    """Return the note of an Event, once it is there."""
    return str(eventually(lambda: events_of(inside, kind, name).get(reason), WITHIN))


def restarts(inside: Namespace, kind: str, name: str) -> bool:
    """Whether a workload was restarted by us."""
    template = inside.get(NAMES[kind], name)["spec"]["template"]
    return contract.RESTARTED_AT in (template["metadata"].get("annotations") or {})


def test_owners_are_healed(inside: Namespace) -> None:
    """Deployments and StatefulSets are restarted, pods of a lone ReplicaSet evicted, until all are wired."""
    made_before(
        inside,
        workload("Deployment", "web", "web"),
        workload("StatefulSet", "db", "web", spec={"podManagementPolicy": "Parallel"}),
        workload("ReplicaSet", "old", "web"),
    )
    with pods_become_ready(inside):
        annotate(inside)

        for name in ("web", "db", "old"):
            eventually(partial(is_wired, inside, name), WITHIN)
        note = told(inside, "Deployment", "web", "Restarted")
        eventually(lambda: inside.get("pw")["items"][0]["status"]["pods"]["unwired"] == 0, WITHIN)

    assert "2 of them were not as they should be" in note
    assert "RestartWithheld" not in events_of(inside, "Deployment", "web")
    assert restarts(inside, "Deployment", "web")
    assert restarts(inside, "StatefulSet", "db")
    assert not restarts(inside, "ReplicaSet", "old")
    assert "evicted pod old-" in told(inside, "ReplicaSet", "old", "PodEvicted")


def test_pods_that_crash_for_want_of_an_identity_hold_nothing_up(inside: Namespace) -> None:
    """A StatefulSet replaces none before its first is available, so that one is evicted; then the next."""
    made_before(inside, workload("StatefulSet", "db", "web", replicas=2), replicas=1)
    with pods_become_ready(inside, lambda pod: bool(pod.spec.volumes and pod.spec.containers[0].env)):
        annotate(inside)
        eventually(partial(is_wired, inside, "db"), WITHIN)

    assert "evicted pod db-0" in told(inside, "StatefulSet", "db", "PodEvicted")
    assert not restarts(inside, "StatefulSet", "db")


def test_changed_identity_is_rolled_out_again(inside: Namespace) -> None:
    """An owner that was restarted for one identity is restarted for the next one too."""
    other = "99999999-2222-3333-4444-555555555555"
    made_before(inside, workload("Deployment", "web", "web", replicas=1))
    with pods_become_ready(inside):
        annotate(inside)
        eventually(lambda: is_wired(inside, "web", 1), WITHIN)
        eventually(lambda: inside.get("pw")["items"][0]["status"]["pods"]["wired"] == 1, WITHIN)

        annotate(inside, f"{contract.CLIENT_ID}={other}")

        eventually(
            lambda: [env_of(pod)[contract.ENV_CLIENT_ID] for pod in pods_of(inside, "web")] == [other], WITHIN
        )


@pytest.mark.parametrize(
    ("manifest", "reason", "said"),
    [
        (
            workload("Deployment", "web", "web", annotations={contract.HEALING: "dryRun"}),
            "WouldRestart",
            "2 of its",
        ),
        (workload("Deployment", "web", "web", spec={"paused": False}), "RestartWithheld", "budget allows 0"),
        (
            workload("StatefulSet", "web", "web", replicas=1, spec={"updateStrategy": {"type": "OnDelete"}}),
            "RestartWithheld",
            "OnDelete",
        ),
    ],
    ids=["dry-run", "budget", "on-delete"],
)
def test_what_is_not_done_is_told(
    inside: Namespace, manifest: dict[str, Any], reason: str, said: str
) -> None:
    """A dry run, a PodDisruptionBudget and the owner's own strategy each leave the pods as they are."""
    kind = manifest["kind"]
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "budget"},
        "spec": {"minAvailable": "100%", "selector": {"matchLabels": {"app": "web"}}},
    }
    if said.startswith("budget"):
        manifest = {**manifest, "spec": {**manifest["spec"], "strategy": {"type": "Recreate"}}}
        inside.create(budget)
    made_before(inside, manifest)

    annotate(inside)

    assert said in told(inside, kind, "web", reason)
    assert not restarts(inside, kind, "web")


def test_an_eviction_that_the_api_server_refuses_is_told(inside: Namespace) -> None:
    """It knows what to do about one PodDisruptionBudget, and answers two with an error of its own."""
    for name in ("one", "another"):
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
        budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}}
        inside.create({**budget, "spec": spec})
    made_before(inside, workload("ReplicaSet", "web", "web"))
    with pods_become_ready(inside):
        eventually(lambda: inside.get("replicasets", "web")["status"].get("readyReplicas") == 2, WITHIN)
        annotate(inside)

        assert "more than one PodDisruptionBudget" in told(inside, "ReplicaSet", "web", "RestartWithheld")


def test_what_would_not_help_is_not_done(inside: Namespace) -> None:
    """Pods that would be refused are not asked for: the mistake is told instead."""
    made_before(inside, workload("Deployment", "web", "web"))

    annotate(inside, f"{contract.EXPIRATION}=1h")
    annotate(inside)

    assert '"1h": invalid syntax' in told(inside, "Deployment", "web", "RestartWithheld")
    assert not restarts(inside, "Deployment", "web")


def test_who_does_not_ask_is_left_alone(inside: Namespace) -> None:
    """In mode `annotated` an owner without the annotation, or with `off`, is only told of."""
    made_before(
        inside,
        workload("Deployment", "web", "web"),
        workload("Deployment", "off", "web", annotations={contract.HEALING: "off"}),
        workload("Deployment", "asks", "web", annotations=RESTART),
        account={},
    )
    with pods_become_ready(inside):
        annotate(inside)
        eventually(lambda: is_wired(inside, "asks"), WITHIN)

    assert told(inside, "Deployment", "web", "PodsUnwired")
    assert not restarts(inside, "Deployment", "web")
    assert not restarts(inside, "Deployment", "off")


def test_restart_that_does_not_help_is_the_last(inside: Namespace) -> None:
    """A roll-out that does not go on is told of, and is the last. No pod becomes ready here."""
    made_before(inside, workload("Deployment", "web", "web", spec={"progressDeadlineSeconds": 3}))

    annotate(inside)

    assert "its roll-out does not go on" in told(inside, "Deployment", "web", "RestartDidNotHelp")
    first = inside.get("deployments", "web")["spec"]["template"]["metadata"]["annotations"]
    annotate(inside, "another=change")
    annotate(inside, f"{contract.PREFIX}another=change")
    assert told(inside, "Deployment", "web", "RestartWithheld")
    assert inside.get("deployments", "web")["spec"]["template"]["metadata"]["annotations"] == first
