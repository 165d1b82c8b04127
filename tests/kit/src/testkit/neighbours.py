"""Others in the cluster whom wiring has to get along with."""

import json
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import trustme
from aiohttp import web

from testkit import loopback
from testkit.control_plane import ControlPlane
from testkit.processes import ProcessFailed
from testkit.workloads import Namespace, eventually
from testkit.workloads import pod as workload
from workload_identity_operator import contract


def peer_configuration(name: str, port: int, ca: str = "", /, **parts: Any) -> dict[str, Any]:
    """Return what has the API server call the peer on a port of this machine, as the peer's chart has it.

    Args:
        name: Of the configuration.
        port: Where it answers.
        ca: Who vouches for it, in PEM.
        parts: What its webhook has instead or in addition.
    """
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    called = {"url": f"https://127.0.0.1:{port}/mutate-v1-pod"}
    webhook = {
        "name": "mutation.azure-workload-identity.io",
        "admissionReviewVersions": ["v1", "v1beta1"],
        "clientConfig": called | ({"caBundle": b64encode(ca.encode()).decode()} if ca else {}),
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "objectSelector": {"matchLabels": {"azure.workload.identity/use": "true"}},
        "rules": [rule],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [webhook | parts],
    }


@contextmanager
def installed(plane: ControlPlane, configuration: Mapping[str, Any]) -> Iterator[None]:
    """Have a webhook configuration in a cluster meanwhile."""
    plane.kubectl("create", "--filename=-", given=json.dumps(configuration))
    try:
        yield
    finally:
        name = configuration["metadata"]["name"]
        plane.kubectl("delete", "mutatingwebhookconfiguration", name, "--ignore-not-found")


@contextmanager
def other_webhook(inside: Namespace, patch: list[Mapping[str, Any]], name: str) -> Iterator[None]:
    """Run a mutating webhook of someone else's that adds a container "sidecar", whatever else it does.

    Args:
        inside: The namespace whose pods it is called for.
        patch: What it does to pods that have no such container yet.
        name: How its configuration's name begins: the API server calls webhooks in the order of these.

    When this begins the API server calls it.
    """
    called = threading.Event()

    def is_called() -> bool:
        out = {"labels": {contract.USE_LABEL: "false"}}
        with suppress(ProcessFailed):  # what it does may not fit that pod
            inside.create(workload("asking", "default", metadata=out), "--dry-run=server")
        return called.is_set()

    async def answer(request: web.Request) -> web.Response:
        called.set()
        review = await request.json()
        pod = review["request"]["object"]
        done = any(c["name"] == "sidecar" for c in pod["spec"]["containers"])
        response = {"uid": review["request"]["uid"], "allowed": True}
        if not done:
            text = json.dumps(patch).encode()
            response |= {"patchType": "JSONPatch", "patch": b64encode(text).decode()}
        return web.json_response(
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        )

    application, authority = web.Application(), trustme.CA()
    application.router.add_post("/", answer)
    name = f"{name}-{inside.name}"
    with loopback.listening("127.0.0.1", 0) as listener:
        tls = loopback.server_tls(authority, "127.0.0.1")
        with loopback.serving(application, listener, tls):
            bundle = b64encode(authority.cert_pem.bytes()).decode()
            inside.create(
                {
                    "apiVersion": "admissionregistration.k8s.io/v1",
                    "kind": "MutatingWebhookConfiguration",
                    "metadata": {"name": name},
                    "webhooks": [
                        {
                            "name": "sidecar.example.com",
                            "admissionReviewVersions": ["v1"],
                            "sideEffects": "None",
                            "clientConfig": {"url": f"{loopback.address(listener)}/", "caBundle": bundle},
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": inside.name}
                            },
                            "rules": [
                                {
                                    "apiGroups": [""],
                                    "apiVersions": ["v1"],
                                    "operations": ["CREATE"],
                                    "resources": ["pods"],
                                }
                            ],
                        }
                    ],
                }
            )
            try:
                eventually(is_called)
                yield
            finally:
                inside.kubectl("delete", "mutatingwebhookconfiguration", name)
