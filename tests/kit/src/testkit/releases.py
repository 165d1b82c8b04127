"""The operator as its users have it: the chart by helm, its pods on a node, and what happens to those."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException

from testkit.control_plane import ControlPlane
from testkit.installation import NAMESPACE, RELEASE
from testkit.manifests import CHART
from testkit.workloads import Namespace, eventually
from workload_identity_operator import contract

TENANT: Final = "99999999-8888-7777-6666-555555555555"
SELECTOR: Final = f"app.kubernetes.io/name={RELEASE}"
WITHIN: Final = 180
"""Seconds for a roll-out; it takes twenty on two cores with nothing else to do."""
BETWEEN: Final = 0.05
"""Seconds between two pods of a stream."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the chart in a cluster that runs pods."""

    plane: ControlPlane

    def kubectl(self, *args: str) -> str:
        """Run kubectl in the operator's namespace."""
        return self.plane.kubectl(f"--namespace={NAMESPACE}", *args)

    def upgrade(self, values: Mapping[str, object], *flags: str) -> None:
        """Install the chart or upgrade the release, and wait until it is rolled out; `flags` are helm's."""
        self.plane.helm(
            *("upgrade", "--install", RELEASE, CHART, f"--namespace={NAMESPACE}", "--create-namespace"),
            *("--values=-", "--reset-values", "--wait", f"--timeout={WITHIN}s", *flags),
            given=json.dumps({"azureTenantID": TENANT, **values}),
        )

    def values(self) -> dict[str, object] | None:
        """Return the values that it was given; None where there is no release."""
        if not json.loads(self.plane.helm("list", f"--namespace={NAMESPACE}", "--output=json")):
            return None
        values = self.plane.helm("get", "values", RELEASE, f"--namespace={NAMESPACE}", "--output=json")
        return dict(json.loads(values) or {})

    def pods(self) -> list[dict[str, Any]]:
        """Return the operator's pods, but for those that end."""
        found = self.plane.get("pods", f"--namespace={NAMESPACE}", f"--selector={SELECTOR}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def restarts(self) -> int:
        """Return how often containers of the present pods were started anew."""
        return sum(
            state["restartCount"] for pod in self.pods() for state in pod["status"]["containerStatuses"]
        )

    def end_pods(self) -> None:
        """End the present pods without the time that they are given, and wait until they are gone."""
        pods = ("pods", f"--selector={SELECTOR}")
        self.kubectl("delete", *pods, "--grace-period=1", "--ignore-not-found", f"--timeout={WITHIN}s")

    def settle(self) -> None:
        """Wait until all replicas are there and ready."""
        self.kubectl("rollout", "status", f"deployment/{RELEASE}", f"--timeout={WITHIN}s")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Have no replica while the context lasts, and all of them afterwards."""
        replicas = self.plane.get("deployment", RELEASE, f"--namespace={NAMESPACE}")["spec"]["replicas"]
        self.kubectl("scale", f"deployment/{RELEASE}", "--replicas=0")
        self.end_pods()
        eventually(lambda: not self._endpoints(), within=WITHIN)
        try:
            yield
        finally:
            self.kubectl("scale", f"deployment/{RELEASE}", f"--replicas={replicas}")
            self.settle()

    def _endpoints(self) -> list[Any]:
        selector = f"--selector=kubernetes.io/service-name={RELEASE}"
        slices = self.plane.get("endpointslices", f"--namespace={NAMESPACE}", selector)["items"]
        return [endpoint for one in slices for endpoint in one.get("endpoints") or ()]


@contextmanager
def released(plane: ControlPlane, values: Mapping[str, object]) -> Iterator[Release]:
    """Have the chart installed with these values and its pods ready while the context lasts.

    A release that was there before is there again afterwards, with the values that it had.
    """
    release = Release(plane)
    before = release.values()
    release.upgrade(values)
    yield release
    if before is None:
        plane.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--ignore-not-found")
        release.end_pods()
    else:
        release.upgrade(before)


@dataclass(slots=True)
class Stream:
    """What became of pods that were created one after the other.

    Attributes:
        made: How many were.
        refused: Why others were not.
        unwired: How many were, without an identity.
    """

    made: int = 0
    refused: list[str] = field(default_factory=list)
    unwired: int = 0


@contextmanager
def stream(inside: Namespace, manifest: Mapping[str, Any]) -> Iterator[Stream]:
    """Create a pod again and again while the context lasts, in dry runs that go through all of admission."""
    counted, over = Stream(), threading.Event()

    def flow() -> None:
        while not over.wait(BETWEEN):
            try:
                made = create(inside, manifest, dry_run="All")
            except ApiException as refused:
                counted.refused.append(str(refused.body))
                continue
            counted.made += 1
            counted.unwired += not is_wired(made)

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield counted
    finally:
        over.set()
        thread.join()


def create(inside: Namespace, manifest: Mapping[str, Any], **how: str) -> dict[str, Any]:
    """Create a pod without a process for it, and return it as stored; `how` are the call's parameters.

    Raises:
        ApiException: It was refused.
    """
    core: Any = CoreV1Api(inside.plane.client())  # typed for its models, and takes the JSON that those become
    answer = core.create_namespaced_pod(inside.name, manifest, _preload_content=False, **how)
    stored: dict[str, Any] = json.loads(answer.data)
    return stored


def is_wired(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has a volume of ours, and its first container the variable that leads to it."""
    names = [volume["name"] for volume in pod["spec"].get("volumes", ())]
    variables = [variable["name"] for variable in pod["spec"]["containers"][0].get("env", ())]
    ours = any(name.startswith(contract.VOLUME_PREFIX) for name in names)
    return ours and contract.ENV_TOKEN_FILE in variables


def is_wired_by_policy(pod: Mapping[str, Any]) -> bool:
    """Whether the API server itself wired it."""
    return any(volume["name"] == contract.POLICY_VOLUME for volume in pod["spec"].get("volumes", ()))


def until_known(inside: Namespace, manifest: Mapping[str, Any]) -> None:
    """Wait until the API server wires such a pod by itself."""
    dry = ("--dry-run=server",)
    eventually(lambda: is_wired_by_policy(inside.create(manifest, *dry)), within=60)
