"""The operator finds pods that are not wired as they should be, and tells whoever looks after them."""

from typing import Any

import pytest

from testkit.installation import CONFIGURATION, Served
from testkit.owners import events_of, pods_of, workload
from testkit.workloads import CLIENT, LABELS, Namespace, eventually, pod
from workload_identity_operator import contract

OTHER = "99999999-2222-3333-4444-555555555555"
WITHIN = 60
"""Seconds; it takes two, and more on a busy machine."""


def annotate(inside: Namespace, account: str, *annotations: str) -> None:
    """Annotate a ServiceAccount."""
    inside.kubectl("annotate", "--overwrite", "serviceaccount", account, *annotations)


def counts(inside: Namespace) -> dict[str, int]:
    """Return what the namespace's PodWiring says of its pods, zeros left out."""
    items: list[dict[str, Any]] = inside.get("podwirings")["items"]
    found = items[0].get("status", {}).get("pods", {}) if items else {}
    return {state: count for state, count in found.items() if count}


def eventually_counts(inside: Namespace, **wanted: int) -> None:
    """Wait until the PodWiring says so."""
    eventually(lambda: counts(inside) == wanted, WITHIN)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("Deployment", "kubectl rollout restart deployment web"),
        ("StatefulSet", "delete these pods"),  # its first is never ready here, and so never replaced
        ("ReplicaSet", "delete these pods"),
        ("Job", "delete the Job"),
        ("CronJob", "those of its next run"),
        ("Pod", "delete it"),
    ],
)
def test_unwired_pods_are_told_of_their_owner(inside: Namespace, kind: str, advice: str) -> None:
    """Pods made before their ServiceAccount was annotated are counted, and their owner has an Event."""
    inside.account("web")
    if kind == "Pod":
        inside.create(pod("web", "web", metadata={"labels": {"app": "web"}}))
    else:
        inside.create(workload(kind, "web", "web", replicas=1))
    if kind == "CronJob":
        inside.kubectl("create", "job", "web-1", "--from=cronjob/web")
    eventually(lambda: pods_of(inside, "web"), WITHIN)

    annotate(inside, "web", f"{contract.CLIENT_ID}={CLIENT}")

    eventually_counts(inside, unwired=1)
    note = eventually(lambda: events_of(inside, kind, "web").get("PodsUnwired"), WITHIN)
    assert f"has no Azure identity; to mend it: {advice}" in note


@pytest.mark.parametrize(
    ("version", "kind"),
    [("v1", "ReplicationController"), ("apps/v1", "DaemonSet"), ("argoproj.io/v1", "Rollout")],
)
def test_other_makers_are_told_too(inside: Namespace, version: str, kind: str) -> None:
    """Also where no controller of this cluster makes pods for them, and of kinds that nobody here knows.

    Pods of a DaemonSet need nodes, and ReplicationControllers a controller: so the pods are made by hand.
    """
    inside.account("web")
    uid = "11111111-1111-1111-1111-111111111111"
    if kind != "Rollout":
        owner = workload(kind, "web", "web")
        if kind == "ReplicationController":
            owner["spec"] |= {"selector": {"app": "web"}, "replicas": 1}
        uid = inside.create({**owner, "apiVersion": version})["metadata"]["uid"]
    maker = {"apiVersion": version, "kind": kind, "name": "web", "uid": uid, "controller": True}
    inside.create(pod("web-1", "web", metadata={"labels": {"app": "web"}, "ownerReferences": [maker]}))

    annotate(inside, "web", f"{contract.CLIENT_ID}={CLIENT}")

    assert eventually(lambda: events_of(inside, kind, "web").get("PodsUnwired"), WITHIN)


def test_the_event_says_what_to_do(inside: Namespace) -> None:
    """The Event counts the pods, names some, and has the command that makes them anew."""
    inside.account("web")
    inside.create(workload("Deployment", "web", "web", replicas=5))
    eventually(lambda: len(pods_of(inside, "web")) == 5, WITHIN)

    annotate(inside, "web", f"{contract.CLIENT_ID}={CLIENT}")

    note = eventually(lambda: events_of(inside, "Deployment", "web").get("PodsUnwired"), WITHIN)
    assert note.startswith("5 of its pods (web-")
    assert f"kubectl rollout restart deployment web --namespace {inside.name}" in note


def test_a_paused_deployment_is_told_of(inside: Namespace) -> None:
    """The Event does not advise a restart that kubectl refuses."""
    inside.account("web")
    inside.create(workload("Deployment", "web", "web", replicas=1))
    eventually(lambda: pods_of(inside, "web"), WITHIN)
    inside.kubectl("rollout", "pause", "deployment", "web")

    annotate(inside, "web", f"{contract.CLIENT_ID}={CLIENT}")

    note = eventually(lambda: events_of(inside, "Deployment", "web").get("PodsUnwired"), WITHIN)
    assert note.endswith(
        "to mend it: delete these pods, and it makes new ones; a restart would not, since its roll-outs are "
        "paused"
    )


def test_what_a_custom_resource_made_is_told_of_itself(inside: Namespace) -> None:
    """A StatefulSet can be restarted, whoever made it; who made a Job is the one to make it anew."""
    uid = "11111111-1111-1111-1111-111111111111"
    maker = {"apiVersion": "example.com/v1", "kind": "Maker", "name": "it", "uid": uid, "controller": True}
    inside.account("web")
    parallel = {"podManagementPolicy": "Parallel"}
    made = workload("StatefulSet", "set", "web", replicas=1, spec=parallel), workload("Job", "job", "web")
    for manifest in made:
        manifest["metadata"]["ownerReferences"] = [maker]
        inside.create(manifest)
    eventually(lambda: pods_of(inside, "set") and pods_of(inside, "job"), WITHIN)

    annotate(inside, "web", f"{contract.CLIENT_ID}={CLIENT}")

    note = eventually(lambda: events_of(inside, "StatefulSet", "set").get("PodsUnwired"), WITHIN)
    assert "kubectl rollout restart statefulset" in note
    note = eventually(lambda: events_of(inside, "Maker", "it").get("PodsUnwired"), WITHIN)
    assert note.startswith("1 of its pods (job-")


def test_pods_whose_service_account_is_gone_are_not_to_be_made_anew(inside: Namespace) -> None:
    """None could be made without it: whoever followed the advice to restart would lose those that run."""
    inside.account("web", {contract.CLIENT_ID: CLIENT})
    inside.create(workload("Deployment", "web", "web", labels=LABELS))
    eventually(lambda: len(pods_of(inside, "web")) == 2, WITHIN)

    inside.kubectl("delete", "serviceaccount", "web")

    note = eventually(lambda: events_of(inside, "Deployment", "web").get("PodsOutdated"), WITHIN)
    assert note.endswith("runs as ServiceAccount web, which is not there: no pod like it can be made")


def test_table_shows_it(served: Served, inside: Namespace) -> None:
    """`kubectl get pw -A` shows how many pods are wired, unwired and outdated."""
    inside.account("web")
    inside.create(pod("early", "web", metadata={"labels": {}}))
    annotate(inside, "web", f"{contract.CLIENT_ID}={CLIENT}")
    eventually_counts(inside, unwired=1)
    inside.create(pod("late", "web"))
    annotate(inside, "web", f"{contract.TENANT_ID}=another")

    eventually_counts(inside, unwired=1, outdated=1)

    header, *rows = served.plane.kubectl("get", "pw", "-A").splitlines()
    (row,) = (row for row in rows if row.split()[0] == inside.name)
    assert header.split()[2:8] == ["IDENTITIES", "LEFT", "OUT", "WIRED", "UNWIRED", "OUTDATED"]
    assert row.split()[2:7] == ["1", "0", "0", "1", "1"]


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        (f"{contract.CLIENT_ID}={OTHER}", f'AZURE_CLIENT_ID "{CLIENT}", not "{OTHER}"'),
        (f"{contract.TENANT_ID}=another", 'not "another"'),
        (f"{contract.EXPIRATION}=7200", "7200 s now"),
        (f"{contract.CLIENT_ID}-", f'AZURE_CLIENT_ID "{CLIENT}", not none'),
    ],
    ids=["client", "tenant", "expiration", "client-gone"],
)
def test_changed_annotation_is_found(inside: Namespace, annotation: str, told: str) -> None:
    """Pods that carry what their ServiceAccount said before are outdated, and the Event says what differs."""
    inside.account("web", {contract.CLIENT_ID: CLIENT})
    inside.create(workload("Deployment", "web", "web", labels=LABELS))
    eventually(lambda: len(pods_of(inside, "web")) == 2, WITHIN)

    annotate(inside, "web", annotation)

    note = eventually(lambda: events_of(inside, "Deployment", "web").get("PodsOutdated"), WITHIN)
    assert note.startswith("2 of its pods")
    assert told in note


def test_nothing_is_invented(served: Served, inside: Namespace) -> None:
    """What is wired, ended, opted out, or as its author wants it, is not found."""
    inside.account("web", {contract.CLIENT_ID: CLIENT})
    inside.account("plain")
    own = {"env": [{"name": contract.ENV_CLIENT_ID, "value": OTHER}]}
    inside.create(workload("Deployment", "own", "web", labels=LABELS, container=own))
    inside.create(workload("Deployment", "fine", "web", labels=LABELS))
    inside.create(workload("Deployment", "other", "plain"))
    inside.create(pod("out", "web", metadata={"labels": {contract.USE_LABEL: "false"}}))
    inside.create(pod("bare-own", "web", spec={"containers": [{"name": "app", "image": "x", **own}]}))
    eventually(lambda: len(inside.get("pods")["items"]) == 8, WITHIN)
    # Somebody changes something, so that there is an audit now.
    inside.account("late", {contract.CLIENT_ID: CLIENT})
    inside.create(pod("early", "late", metadata={"labels": {contract.USE_LABEL: "false"}}))
    annotate(inside, "late", f"{contract.TENANT_ID}=another")

    eventually_counts(inside, wired=5)
    assert inside.get("events.events.k8s.io", "--field-selector=type=Warning")["items"] == []
    assert served.operator.metric("workload_identity_last_audit_timestamp_seconds") > 0


def test_labelled_pods_are_found_where_no_account_is_annotated(served: Served, inside: Namespace) -> None:
    """A label alone asks for an identity: such pods are looked for in all namespaces.

    The pod was made before its label, which a running pod can be given and nobody acts on.
    """
    inside.create(pod("web", "default", metadata={"labels": {}}))
    inside.kubectl("label", "pod", "web", f"{contract.USE_LABEL}=true")

    # All namespaces are looked at now and then, and when the chart's values change.
    changed = f"{contract.HEALING_PAUSE}=1"
    served.plane.kubectl("annotate", "--overwrite", "mutatingwebhookconfiguration", CONFIGURATION, changed)

    assert eventually(lambda: events_of(inside, "Pod", "web").get("PodsUnwired"), WITHIN)


def test_excluded_namespaces_are_left_alone(served: Served, inside: Namespace) -> None:
    """Where the webhook's namespaceSelector does not reach, nothing is missing."""
    inside.account("web")
    inside.create(pod("web", "web", metadata={"labels": {}}))
    served.plane.kubectl("label", "namespace", inside.name, "kubernetes.azure.com/managedby=aks")

    annotate(inside, "web", f"{contract.CLIENT_ID}={CLIENT}")

    eventually(lambda: inside.get("podwirings")["items"], WITHIN)
    other = "web-later"
    inside.account(other, {contract.CLIENT_ID: CLIENT})
    eventually(lambda: inside.get("podwirings")["items"][0].get("status", {}).get("identities") == 2, WITHIN)
    assert counts(inside) == {}
    assert events_of(inside, "Pod", "web") == {}
