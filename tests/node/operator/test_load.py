"""What the operator's pods need: the time to be ready, and memory while pods are made without a break."""

import time
from typing import Any

import pytest

from testkit.crowds import together
from testkit.installation import NAMESPACE, RELEASE
from testkit.node import Node
from testkit.releases import Release, create, is_wired
from testkit.residents import one, resident
from testkit.tally import Tally
from testkit.workloads import Namespace, eventually

RATE = 50
"""Pods a second."""
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def memory_limit(release: Release) -> int:
    """Return the chart's limit, in bytes."""
    deployment = release.plane.get("deployment", RELEASE, f"--namespace={NAMESPACE}")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    limit = container["resources"]["limits"]["memory"]
    return int(limit[:-2]) * UNITS[limit[-2:]]


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod is."""
    return any((c["type"], c["status"]) == ("Ready", "True") for c in pod["status"].get("conditions", ()))


def test_operator_is_ready_after_its_start(release: Release, tally: Tally) -> None:
    """Both pods come back after both are gone at once; how long each took is told."""
    release.end_pods()
    running: dict[str, float] = {}
    ready: dict[str, float] = {}

    def look() -> bool:
        for pod in release.pods():
            name, states = pod["metadata"]["name"], pod["status"].get("containerStatuses", ())
            if any("running" in state["state"] for state in states):
                running.setdefault(name, time.monotonic())
            if is_ready(pod):
                ready.setdefault(name, time.monotonic())
        return len(ready) == 2

    eventually(look, within=120)

    release.settle()
    took = ", ".join(f"{ready[name] - running[name]:.1f} s" for name in sorted(ready))
    tally.tell(f"operator pods, from running to ready: {took}")
    assert ready.keys() == running.keys()


@pytest.mark.soak(250, 15_000)
def test_operator_keeps_within_its_limits(
    node: Node, namespace: Namespace, operator_image: str, release: Release, size: int, tally: Tally
) -> None:
    """Of fifty pods a second that only the webhook can wire none is refused, and no replica ends."""
    namespace.account("stranger")
    # Stored and never run: what a node can start in a second is not the question.
    spec = resident(operator_image, "stranger", schedulerName="nobody")
    uids = [pod["metadata"]["uid"] for pod in release.pods()]
    before, started, most = release.restarts(), time.monotonic(), 0

    def make(number: int) -> bool:
        nonlocal most
        time.sleep(max(0.0, started + number / RATE - time.monotonic()))
        if number % RATE == 0:
            most = max(most, *map(node.memory_of, uids))
        made = create(namespace, one(f"pod-{number}", spec))
        tally.one("pods made for the operator in a pod")
        return is_wired(made)

    wired = together(make, size)

    rate, limit = size / (time.monotonic() - started), memory_limit(release)
    used = f"at most {most / 1e6:.0f} MB of {limit / 1e6:.0f} MB"
    tally.tell(f"operator pod: {used}, at {rate:.0f} pods a second")
    assert wired == [True] * size
    assert release.restarts() == before
    assert [pod["metadata"]["uid"] for pod in release.pods()] == uids
    assert 0 < most < limit
