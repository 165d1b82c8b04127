"""What is measured at: a cluster, our operator, the peer's webhook, a namespace for each engine."""

import json
import time
import uuid
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from testkit.bench.load import Order, load
from testkit.bench.peer import PORT, VARIABLE, peer_running
from testkit.control_plane import ControlPlane
from testkit.installation import CONFIGURATION, NAMESPACE, RELEASE, Operator, install_chart, operator_running
from testkit.neighbours import peer_configuration
from testkit.processes import Child, ProcessFailed
from testkit.workloads import CLIENT, Namespace, eventually, pod
from workload_identity_operator import contract

POLICY: Final = "policy"
UNLABELLED: Final = "policy, no label"
"""As annotating a ServiceAccount alone has it."""
OURS: Final = "ours"
PEER: Final = "peer"
BARE: Final = "no engine"
TENANT: Final = "99999999-8888-7777-6666-555555555555"
SELECTED_BY: Final = "bench"
"""Label of namespaces: who wires their pods; for UNLABELLED, POLICY."""
VALUES: Final[Mapping[str, Any]] = {
    "azureTenantID": TENANT,
    "engine": "auto",
    "mutatingWebhookNamespaceSelector": {"matchLabels": {SELECTED_BY: POLICY}},
}
"""The chart's: the webhook stands behind the policy, as users have it. `alone` is for where it does not."""
READY_WITHIN: Final = 300.0
"""Seconds."""
WIRED: Final[Mapping[str, str]] = {
    BARE: '"kind":"Pod"',
    POLICY: contract.POLICY_VOLUME,
    UNLABELLED: contract.POLICY_VOLUME,
    OURS: contract.TOKEN_FILE,
    PEER: contract.TOKEN_FILE,
}
"""What a pod has that went the right way."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that runs: where, who vouches for it, its process, when it was ready (time.monotonic)."""

    port: int
    ca: str
    child: Child
    ready: float


@dataclass(frozen=True, slots=True)
class Stage:
    """A cluster with the engines that are compared.

    Attributes:
        plane: The cluster.
        operator: Ours.
        webhooks: OURS and, if measured, PEER.
        namespaces: Those, BARE, POLICY and UNLABELLED: pods made there are wired by that one only.
    """

    plane: ControlPlane
    operator: Operator
    webhooks: Mapping[str, Webhook]
    namespaces: Mapping[str, Namespace]


@contextmanager
def staged(plane: ControlPlane, port: int, peer: Path | None) -> Iterator[Stage]:
    """Run our operator where the chart has it and, if there is one, the peer's webhook.

    Each engine has a namespace of its own; when this begins every engine does its work.
    """
    with ExitStack() as stack:
        kubeconfig = plane.kubeconfig_for(RELEASE, NAMESPACE)
        operator = stack.enter_context(ours_running(plane, port, kubeconfig))
        webhooks = {OURS: webhook_of(plane, port, operator)}
        plane.kubectl("apply", "--filename=-", given=json.dumps(alone(plane)))
        if peer is not None:
            theirs = stack.enter_context(theirs_running(plane, peer))
            webhooks[PEER] = theirs
            # Under the name that its webhook has, the operator would leave it its pods.
            own = {"name": "mutation.peer.example", "namespaceSelector": {"matchLabels": {SELECTED_BY: PEER}}}
            configuration = peer_configuration("bench-peer", PORT, theirs.ca, **own)
            plane.kubectl("apply", "--filename=-", given=json.dumps(configuration))
        namespaces = {
            who: namespace_of(plane, who, f"bench-{who.replace(',', '').replace(' ', '-')}")
            for who in (BARE, POLICY, UNLABELLED, *webhooks)
        }
        for who, namespace in namespaces.items():
            namespace.account("billing", {contract.CLIENT_ID: CLIENT})
            wait_until_wired(namespace, who, "billing")
        yield Stage(plane, operator, webhooks, namespaces)


def install(plane: ControlPlane, port: int) -> None:
    """Install the chart, for namespaces of POLICY only."""
    install_chart(plane, port, VALUES)


def alone(plane: ControlPlane) -> dict[str, Any]:
    """Return what has our webhook called in namespaces of OURS, as the chart has it without a policy."""
    (webhook,) = plane.get("mutatingwebhookconfiguration", CONFIGURATION)["webhooks"]
    del webhook["matchConditions"], webhook["objectSelector"]["matchExpressions"]
    # Under the name that it has in the chart it would be taken for the peer's.
    own = {"name": "mutation.ours.example", "namespaceSelector": {"matchLabels": {SELECTED_BY: OURS}}}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "bench-ours"},
        "webhooks": [webhook | own],
    }


@contextmanager
def ours_running(plane: ControlPlane, port: int, kubeconfig: Path) -> Iterator[Operator]:
    """Run our operator until the context is left; when this begins it is ready."""
    environ = {"AZURE_TENANT_ID": TENANT}
    with operator_running(plane, port, environ=environ, kubeconfig=kubeconfig, ready=False) as operator:
        operator.child.wait_until(operator.ready, within=READY_WITHIN)
        yield operator


def webhook_of(plane: ControlPlane, port: int, operator: Operator) -> Webhook:
    """Return the webhook of our operator, which has just become ready."""
    ready = time.monotonic()
    configuration = plane.get("mutatingwebhookconfiguration", CONFIGURATION)
    bundle = b64decode(configuration["webhooks"][0]["clientConfig"]["caBundle"]).decode("ascii")
    return Webhook(port, bundle, operator.child, ready)


@contextmanager
def theirs_running(plane: ControlPlane, binary: Path) -> Iterator[Webhook]:
    """Run the peer's webhook until the context is left; when this begins it is ready."""
    with peer_running(binary, plane, TENANT) as running:
        yield Webhook(PORT, running.ca, running.child, time.monotonic())


def namespace_of(plane: ControlPlane, who: str, name: str) -> Namespace:
    """Make a namespace in which that one wires pods."""
    plane.create_namespace(name)
    selected_by = POLICY if who == UNLABELLED else who.replace(" ", "-")
    plane.kubectl("label", "namespace", name, f"{SELECTED_BY}={selected_by}")
    return Namespace(plane, name)


def wait_until_wired(namespace: Namespace, who: str, account: str) -> None:
    """Return once a pod of that ServiceAccount goes the right way."""
    order = creating(namespace, who, account)

    def wired() -> bool:
        # A wrong answer ends the client; that it wires at all is what one waits for.
        with suppress(ProcessFailed):
            load(order)
            return True
        return False

    eventually(wired, within=60)


def create_accounts(namespace: Namespace, numbers: Sequence[int], annotated: int) -> None:
    """Create ServiceAccounts of these numbers, one in `annotated` with an identity."""
    if not numbers:
        return
    bodies = []
    for number in numbers:
        annotations = {contract.CLIENT_ID: client_id(number)} if number % annotated == 0 else {}
        metadata = {"name": f"sa-{number}", "annotations": annotations}
        bodies.append(json.dumps({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}))
    order = _at_api_server(namespace.plane, f"/api/v1/namespaces/{namespace.name}/serviceaccounts")
    load(replace(order, bodies=bodies, expected='"kind":"ServiceAccount"', connections=8))


def client_id(number: int) -> str:
    """Return a client id of one's own."""
    return f"{number:08d}-0000-0000-0000-000000000000"


def creating(namespace: Namespace, who: str, account: str = "billing") -> Order:
    """Return how to create a pod there by dry run: admission as always, nothing stored."""
    order = _at_api_server(namespace.plane, f"/api/v1/namespaces/{namespace.name}/pods?dryRun=All")
    body = _pod(account)
    if who == UNLABELLED:
        del body["metadata"]["labels"]
    return replace(order, bodies=[json.dumps(body)], expected=WIRED[who])


def reviewing(webhook: Webhook, namespace: Namespace, account: str = "billing") -> Order:
    """Return how to post the review of a pod straight to a webhook.

    It is the one that the API server would send; no engine may be there for the namespace.
    """
    path = "/mutate-v1-pod?timeout=10s"
    body = json.dumps(_review(namespace, account))
    return Order(port=webhook.port, ca=webhook.ca, path=path, bodies=[body], expected='"patch":')


def missing(measured: Mapping[str, object]) -> dict[str, str]:
    """Return who could not be measured, and why."""
    return {} if PEER in measured else {PEER: f"not measured, {VARIABLE} is not set"}


def _at_api_server(plane: ControlPlane, path: str) -> Order:
    pki = plane.folder / "pki"
    return Order(
        port=urlsplit(plane.server).port or 443,
        ca=plane.ca_file.read_text(encoding="ascii"),
        path=path,
        bodies=[],
        expected="",
        certificate=[f"{pki}/admin.crt", f"{pki}/admin.key"],
    )


def _pod(account: str = "billing") -> dict[str, Any]:
    return pod("web", account, spec={"containers": [{"name": name, "image": "x"} for name in ("app", "log")]})


def _review(namespace: Namespace, account: str) -> dict[str, Any]:
    """Return the review that the API server would send; no webhook may be called for the namespace."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    resource = {"group": "", "version": "v1", "resource": "pods"}
    request = {
        "uid": str(uuid.uuid4()),
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "name": "web",
        "namespace": namespace.name,
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "object": namespace.create(_pod(account), "--dry-run=server"),
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
