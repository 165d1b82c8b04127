"""Programs that live in pods of a node: they show the token of their identity, and stay or end."""

import json
from collections.abc import Mapping
from typing import Any, Final

from testkit.workloads import LABELS, Namespace
from workload_identity_operator import contract

SHOW: Final = f"""\
import base64, os, pathlib
token = pathlib.Path(os.environ[{contract.ENV_TOKEN_FILE!r}]).read_text()
print(base64.urlsafe_b64decode(token.split('.')[1] + '==').decode())
"""
STAY: Final = """\
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print('staying', flush=True)
signal.pause()
"""


def resident(image: str, account: str, *, program: str = STAY, **pod: Any) -> dict[str, Any]:
    """Return the spec of a pod whose one container, `app`, runs a Python program; `pod` is the rest of it."""
    container = {"name": "app", "image": image, "command": ["python3", "-c", program]}
    return {
        "serviceAccountName": account,
        "containers": [container],
        "terminationGracePeriodSeconds": 5,
        **pod,
    }


def one(name: str, spec: Mapping[str, Any], labels: Mapping[str, str] = LABELS) -> dict[str, Any]:
    """Return a pod of that spec."""
    metadata = {"name": name, "labels": dict(labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(spec)}


def many(name: str, spec: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    """Return a Deployment of such pods, labelled."""
    template = {"metadata": {"labels": {**LABELS, "app": name}}, "spec": dict(spec)}
    wanted = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": wanted}


def claims_seen_in(inside: Namespace, name: str) -> dict[str, Any]:
    """Return the claims of the token that a running pod finds where its variable says."""
    claims: dict[str, Any] = json.loads(inside.kubectl("exec", name, "--", "python3", "-c", SHOW))
    return claims
