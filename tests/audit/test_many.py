"""A cluster that was there before us: every pod is found, told of, and made anew, one owner at a time."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest

from testkit.control_plane import ControlPlane
from testkit.crowds import client_of, together
from testkit.installation import NAMESPACE, RELEASE, Served, serve
from testkit.owners import workload
from testkit.readiness import pods_become_ready
from testkit.tally import Tally
from testkit.workloads import Namespace, eventually, fresh_namespace
from workload_identity_operator import contract

TENANT = "99999999-8888-7777-6666-555555555555"
EACH = 5
"""Pods of a Deployment."""
FOUND_WITHIN = 30
"""Seconds from the install, on a machine that does nothing else."""


@pytest.mark.soak(15, 1000)
def test_pods_of_before_the_install_are_found_and_healed(size: int, tally: Tally) -> None:
    """Everything of ours absent, pods are created; then the chart is installed.

    The replica that finds them is stopped, and gives the Lease back: the next one takes over at once.
    There are no nodes: `testkit.readiness` writes the status that a kubelet would, so that roll-outs go on.
    """
    owners = max(2, size // EACH)
    with ControlPlane(controllers=True) as plane, fresh_namespace(plane) as inside:
        make_deployments(inside, owners)
        installed = time.monotonic()
        values = {"azureTenantID": TENANT, "healing": {"mode": "restart", "pauseSeconds": 0}}
        with serve(plane, values | {"healing": {"mode": "dryRun", "pauseSeconds": 0}}) as served:
            eventually(lambda: served.operator.metric(series("unwired")) == owners * EACH, 10 * FOUND_WITHIN)
            found = time.monotonic() - installed
            eventually(lambda: status(inside).get("unwired") == owners * EACH, FOUND_WITHIN)
            eventually(lambda: told(inside, "PodsUnwired") == owners, 10 * FOUND_WITHIN)
            reported = time.monotonic() - installed
        when = f"found {found:.1f} s, reported {reported:.1f} s after the install began"
        tally.tell(f"{owners * EACH} unwired pods: {when}")
        lease = plane.get("lease", RELEASE, f"--namespace={NAMESPACE}")
        assert lease["spec"].get("holderIdentity", "") == ""

        with serve(plane, values) as served, pods_become_ready(inside):
            most = heal(inside, served, owners, tally)

    assert most == 1
    if size == 1000:
        assert reported <= FOUND_WITHIN


def make_deployments(inside: Namespace, owners: int) -> None:
    """Make Deployments, each with a ServiceAccount of its own, and wait for their pods."""
    # The client's methods are typed for its models, and take the JSON trees of which those are made.
    core: Any = kubernetes.client.CoreV1Api(inside.plane.client())
    apps: Any = kubernetes.client.AppsV1Api(inside.plane.client())

    def make(number: int) -> None:
        metadata = {"name": f"sa-{number}", "annotations": {contract.CLIENT_ID: client_of(number)}}
        core.create_namespaced_service_account(inside.name, {"metadata": metadata})
        manifest = workload("Deployment", f"web-{number}", f"sa-{number}", replicas=EACH)
        apps.create_namespaced_deployment(inside.name, manifest)

    together(make, owners)
    eventually(lambda: inside.kubectl("get", "pods", "--output=name").count("pod/") == owners * EACH, 300)


def heal(inside: Namespace, served: Served, owners: int, tally: Tally) -> int:
    """Wait until all pods are wired; return how many roll-outs of ours there were at most at a time."""
    started, most = time.monotonic(), 0
    deadline = started + 120 + owners * 30
    while served.operator.metric(series("wired")) < owners * EACH or served.operator.metric(
        series("unwired")
    ):
        assert time.monotonic() < deadline, status(inside)
        most = max(most, len(rolling(inside)))
        time.sleep(0.2)
    took = time.monotonic() - started
    tally.tell(f"{owners} owners restarted, {most} at a time, all pods wired after {took:.0f} s")
    return most


def rolling(inside: Namespace) -> Sequence[str]:
    """Return the names of Deployments that we restarted and whose roll-out is under way."""
    return [
        found["metadata"]["name"]
        for found in inside.get("deployments")["items"]
        if contract.RESTARTED_AT in (found["spec"]["template"]["metadata"].get("annotations") or {})
        and (
            found["metadata"]["generation"] > found["status"].get("observedGeneration", 0)
            or found["status"].get("updatedReplicas", 0) < EACH
            or found["status"].get("availableReplicas", 0) < EACH
        )
    ]


def series(state: str) -> str:
    """Return the series of pods in a state."""
    return f'workload_identity_pods{{state="{state}"}}'


def status(inside: Namespace) -> dict[str, int]:
    """Return what the namespace's PodWiring says of its pods."""
    items = inside.get("podwirings")["items"]
    found: dict[str, int] = items[0].get("status", {}).get("pods", {}) if items else {}
    return found


def told(inside: Namespace, reason: str) -> int:
    """Return how many owners there is an Event about."""
    found = inside.get("events.events.k8s.io", f"--field-selector=reason={reason}")["items"]
    return len({event["regarding"]["name"] for event in found})


@pytest.mark.soak(4, 1800)
def test_idling_costs_nothing(request: pytest.FixtureRequest, size: int, tally: Tally) -> None:
    """With many ServiceAccounts and nothing to do: CPU time and memory, for so many seconds.

    The first number of the mark is for seeing that the test works: then there are few ServiceAccounts.
    """
    full = bool(request.config.getoption("full"))
    accounts = 10_000 if full else 300
    with ControlPlane() as plane, fresh_namespace(plane) as inside:
        core: Any = kubernetes.client.CoreV1Api(plane.client())

        def create(number: int) -> None:
            annotations = {contract.CLIENT_ID: client_of(number)} if number % 10 == 0 else {}
            metadata = {"name": f"sa-{number}", "annotations": annotations}
            core.create_namespaced_service_account(inside.name, {"metadata": metadata})

        together(create, accounts)
        with serve(plane, {"azureTenantID": TENANT}) as served:
            eventually(
                lambda: served.operator.metric('workload_identity_audits_total{outcome="completed"}'), 60
            )
            time.sleep(60 if full else 1)
            pid = served.operator.child.pid
            used, began, memory = cpu_seconds(pid), time.monotonic(), [resident(pid)]
            while time.monotonic() - began < size:
                time.sleep(size / 20)
                memory.append(resident(pid))
            share = (cpu_seconds(pid) - used) / (time.monotonic() - began)
        what = f"{accounts:,} ServiceAccounts, idle for {size} s"
        tally.tell(f"{what}: CPU {share:.2%} of a core, memory in MB {memory}")

    assert max(memory) - memory[0] < 10
    if full:
        assert share <= 0.005


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident(pid: int) -> float:
    """Return a process's resident memory, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return round(int(line.split()[1]) / 1000, 1)
