"""Applications in pods: the sample program of `testkit.images`, in any workload, and what it tells."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from testkit.azure import CONFINED, RESTRICTED, TRUST, TRUSTED, Azure
from testkit.workloads import LABELS, Namespace, eventually
from workload_identity_operator import contract

PROGRAM: Final = ["python3", "/srv/blobs.py"]
SCOPE: Final = "https://storage.azure.com/.default"
WITHIN: Final = 90
"""Seconds that a pod gets to be done; it takes three."""


@dataclass(frozen=True, slots=True)
class Application:
    """An application: a ServiceAccount that is annotated, and trusted by Azure.

    Attributes:
        space: Its namespace.
        azure: Where its blobs are.
        image: What its containers run.
        account: The ServiceAccount.
        client_id: What that is annotated with.
    """

    space: Namespace
    azure: Azure
    image: str
    account: str = "billing"
    client_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def settle(self, *, trusted: bool = True) -> None:
        """Make the ServiceAccount, have Azure trust it, and wait until the operator knows of it."""
        self.space.account(self.account, {contract.CLIENT_ID: self.client_id})
        if trusted:
            self.azure.register(self.client_id, f"{self.space.name}/{self.account}")
        eventually(lambda: self.account in self.identities())

    def identities(self) -> Mapping[str, Any]:
        """Return what the operator has compiled for the namespace."""
        found = self.space.get("podwirings")["items"]
        identities: Mapping[str, Any] = found[0]["spec"]["identities"] if found else {}
        return identities

    def container(
        self, name: str = "app", *, every: float = 0, env: Mapping[str, str] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Return a container of the sample: once, or again `every` so many seconds."""
        given = {"BLOB": name, "EVERY": str(every), **(env or {})}
        return {
            "name": name,
            "image": self.image,
            "command": PROGRAM,
            "env": [
                *self.azure.variables(),
                *({"name": key, "value": value} for key, value in given.items()),
            ],
            "resources": {"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"memory": "96Mi"}},
            "securityContext": CONFINED,
            "volumeMounts": [{"name": TRUST, "mountPath": TRUSTED, "readOnly": True}],
            **more,
        }

    def spec(self, *containers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Return a pod's spec that passes Pod Security `restricted`."""
        return {
            "serviceAccountName": self.account,
            "containers": list(containers or [self.container()]),
            "volumes": [{"name": TRUST, "configMap": {"name": TRUST}}],
            "securityContext": RESTRICTED,
            "terminationGracePeriodSeconds": 5,
            **more,
        }

    def template(self, app: str, **more: Any) -> dict[str, Any]:
        """Return a pod template, or with apiVersion and kind a pod: labelled, and known as `app`."""
        return {"metadata": {"labels": {"app": app, **LABELS}}, "spec": self.spec(**more)}

    def pod(self, name: str, spec: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
        """Create a pod of the application and return it as stored."""
        meta = {"name": name, "labels": {"app": name, **LABELS}, **metadata}
        return self.space.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def told(self, app: str, container: str = "app") -> dict[str, Any]:
        """Return what a pod's program tells of its first blob, once it does."""
        found = eventually(lambda: self._told(app, container), within=WITHIN)
        told: dict[str, Any] = found
        return told

    def _told(self, app: str, container: str) -> dict[str, Any] | None:
        pods = self.space.get("pods", f"--selector=app={app}")["items"]
        for pod in pods:
            name = pod["metadata"]["name"]
            states = statuses(pod)
            if container not in states or "waiting" in states[container]:
                continue
            lines = self.space.kubectl("logs", name, f"--container={container}").splitlines()
            for line in lines:
                if line.startswith("{"):
                    told: dict[str, Any] = json.loads(line)
                    return told
            assert pod["status"]["phase"] != "Failed", f"{app}:\n" + "\n".join(lines)
        return None

    def phase(self, name: str) -> str:
        """Return what has become of a pod."""
        return str(self.space.get("pod", name)["status"]["phase"])

    def logs(self, name: str, *args: str) -> str:
        """Return what a pod's program wrote."""
        return self.space.kubectl("logs", name, *args)

    def explain(self, name: str) -> tuple[int, str]:
        """Run `python -m workload_identity explain` in a pod; return its exit status and what it wrote."""
        program = (
            "import subprocess, sys\n"
            "done = subprocess.run(sys.argv[1:], stderr=subprocess.STDOUT)\n"
            "print(done.returncode)\n"
        )
        asked = ["python", "-m", "workload_identity", "explain", SCOPE]
        written = self.space.kubectl("exec", name, "--", "python", "-uc", program, *asked)
        *lines, last = written.splitlines()
        return int(last), "\n".join(lines)


def statuses(pod: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the state of each container that the kubelet tells of."""
    status = pod["status"]
    told = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {one["name"]: one.get("state") or {} for one in told}
