"""Of several replicas one audits and heals; when it is killed another does, and nothing is done twice."""

import json
from typing import Any

from testkit.installation import NAMESPACE, RELEASE, Operator, Served, second_running
from testkit.owners import events_of, pods_of, workload
from testkit.workloads import CLIENT, Namespace, env_of, eventually, pod
from workload_identity_operator import contract

WITHIN = 90
"""Seconds; it takes some, and more on a busy machine."""


def lease(served: Served) -> dict[str, Any]:
    """Return the Lease's spec."""
    found = served.plane.get("lease", RELEASE, f"--namespace={NAMESPACE}")
    return dict(found.get("spec") or {})


def audits(operator: Operator) -> float:
    """Return how many audits a replica has completed."""
    return operator.metric('workload_identity_audits_total{outcome="completed"}')


def outdated(operator: Operator) -> float:
    """Return how many pods a replica has found with an identity of before."""
    return operator.metric('workload_identity_pods{state="outdated"}')


def test_one_replica_audits(served: Served, inside: Namespace) -> None:
    """The second one serves and waits; what the first finds is told once."""
    holder = eventually(lambda: lease(served).get("holderIdentity"), WITHIN)
    first = audits(served.operator)
    with second_running(served) as second:
        inside.account("web")
        inside.create(workload("Deployment", "web", "web"))
        eventually(lambda: len(pods_of(inside, "web")) == 2, WITHIN)
        inside.kubectl("annotate", "serviceaccount", "web", f"{contract.CLIENT_ID}={CLIENT}")

        eventually(lambda: events_of(inside, "Deployment", "web").get("PodsUnwired"), WITHIN)

        assert audits(second) == 0
        assert audits(served.operator) > first
        assert lease(served)["holderIdentity"] == holder
        found = inside.get("events.events.k8s.io", "--field-selector=reason=PodsUnwired")["items"]
        assert len(found) == 1


def test_another_takes_over_from_one_that_was_killed(inside: Namespace, served: Served) -> None:
    """A replica that cannot give the Lease back is waited for, and no longer than the Lease lasts.

    Whose identity was taken away before the others were there, they find out by themselves.
    """
    for name in ("kept", "other"):
        inside.account(name, {contract.CLIENT_ID: CLIENT})
    eventually(
        lambda: env_of(inside.create(pod("kept", "kept", metadata={"labels": {}}), "--dry-run=server")),
        WITHIN,
    )
    inside.create(workload("Deployment", "kept", "kept"))
    eventually(lambda: len(pods_of(inside, "kept")) == 2, WITHIN)
    inside.kubectl("annotate", "serviceaccount", "kept", f"{contract.CLIENT_ID}-")
    eventually(lambda: outdated(served.operator) == 2, WITHIN)
    with second_running(served) as second:
        # Whoever holds it now is the one that all tests here share, and stays: so the Lease is given away.
        taken = json.dumps(
            {"spec": {"holderIdentity": "killed", "renewTime": None, "leaseDurationSeconds": 2}}
        )
        where = (f"--namespace={NAMESPACE}", "--type=merge", f"--patch={taken}")
        served.plane.kubectl("patch", "lease", RELEASE, *where)

        holder = eventually(lambda: (one := lease(served)["holderIdentity"]) != "killed" and one, WITHIN)
        eventually(lambda: sum(map(outdated, (served.operator, second))) == 2, WITHIN)
        inside.account("web")
        inside.create(workload("Deployment", "web", "web"))
        eventually(lambda: len(pods_of(inside, "web")) == 2, WITHIN)
        inside.kubectl("annotate", "serviceaccount", "web", f"{contract.CLIENT_ID}={CLIENT}")

        eventually(lambda: events_of(inside, "Deployment", "web").get("PodsUnwired"), WITHIN)
        assert lease(served)["holderIdentity"] == holder
        wired = [one.metric('workload_identity_pods{state="unwired"}') for one in (served.operator, second)]
        assert sorted(map(bool, wired)) == [False, True]
