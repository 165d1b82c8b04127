"""What users create: ServiceAccounts and pods in a namespace of their own."""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from testkit.control_plane import ControlPlane
from workload_identity_operator import contract

CLIENT = "11111111-2222-3333-4444-555555555555"
"""A client id."""
LABELS: Mapping[str, str] = {contract.USE_LABEL: "true"}
"""What opts a pod in."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace, and what is done in it."""

    plane: ControlPlane
    name: str

    def kubectl(self, *args: str, given: object = None) -> str:
        """Run kubectl in the namespace; `given` becomes its stdin, as JSON."""
        text = None if given is None else json.dumps(given)
        return self.plane.kubectl(f"--namespace={self.name}", *args, given=text)

    def create(self, manifest: Mapping[str, Any], *args: str) -> dict[str, Any]:
        """Create an object and return it as stored."""
        return self.plane.create(manifest, *args, namespace=self.name)

    def get(self, *args: str) -> Any:
        """Return what `kubectl get` finds, as JSON."""
        return self.plane.get(f"--namespace={self.name}", *args)

    def account(self, name: str, annotations: Mapping[str, str] | None = None) -> None:
        """Create a ServiceAccount."""
        metadata = {"name": name, "annotations": dict(annotations or {})}
        self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})


@contextmanager
def fresh_namespace(plane: ControlPlane) -> Iterator[Namespace]:
    """Make a namespace, and delete it afterwards without waiting for that."""
    name = f"test-{secrets.token_hex(4)}"
    plane.create_namespace(name)
    yield Namespace(plane, name)
    plane.kubectl("delete", "namespace", name, "--wait=false")


def pod(
    name: str,
    account: str,
    *,
    metadata: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a labelled pod with one container, `app`."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(LABELS), **(metadata or {})},
        "spec": {
            "serviceAccountName": account,
            "containers": [{"name": "app", "image": "x"}],
            **(spec or {}),
        },
    }


def env_of(stored: Mapping[str, Any], container: str = "app") -> dict[str, str]:
    """Return the literal environment of a container of a stored pod."""
    spec = stored["spec"]
    (found,) = (
        c for c in [*(spec.get("initContainers") or ()), *spec["containers"]] if c["name"] == container
    )
    return {variable["name"]: variable.get("value", "") for variable in found.get("env") or ()}


def eventually(found: Callable[[], Any], within: float = 20) -> Any:
    """Return what `found` returns, once that is true."""
    deadline = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.05)
    return value
