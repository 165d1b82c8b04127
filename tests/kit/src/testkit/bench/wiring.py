"""What wiring costs beside the peer's webhook: a review, a pod at a real API server, the operator's start."""

import json
import time
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from testkit.bench.load import Order, Yield, load
from testkit.bench.measuring import Effort, Figures, Part, cpu_seconds, in_turns, memory, percentile
from testkit.bench.peer import PORT, VARIABLE, peer_running
from testkit.control_plane import NAMED_KUBECONFIG, ClusterUnusable, ControlPlane
from testkit.installation import (
    NAMESPACE,
    RELEASE,
    free_port,
    install_chart,
    operator_running,
    serve,
)
from testkit.neighbours import peer_configuration
from testkit.processes import Child
from testkit.workloads import CLIENT, Namespace, pod
from workload_identity_operator import contract

OURS: Final = "ours"
PEER: Final = "peer"
BARE: Final = "no webhook"
TENANT: Final = "99999999-8888-7777-6666-555555555555"
SELECTED_BY: Final = "bench"
"""Label of namespaces: whose webhook is called for their pods."""
VALUES: Final[Mapping[str, Any]] = {
    "azureTenantID": TENANT,
    "engine": "webhook",
    "mutatingWebhookNamespaceSelector": {"matchLabels": {SELECTED_BY: OURS}},
}
"""The chart's."""
ANNOTATED: Final = 10
"""One in so many ServiceAccounts has an identity."""

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that runs: where it is, who vouches for it, its process."""

    port: int
    ca: str
    child: Child


@dataclass(frozen=True, slots=True)
class Stage:
    """A cluster with the webhooks that are compared.

    Attributes:
        plane: The cluster.
        webhooks: By who they are.
        namespaces: Likewise, and BARE: pods made there are seen by that webhook only.
    """

    plane: ControlPlane
    webhooks: Mapping[str, Webhook]
    namespaces: Mapping[str, Namespace]


@contextmanager
def staged(plane: ControlPlane, peer: Path | None) -> Iterator[Stage]:
    """Run our operator and, if there is one, the peer's webhook, each for a namespace of its own."""
    with ExitStack() as stack:
        served = stack.enter_context(serve(plane, VALUES))
        webhooks = {OURS: Webhook(served.port, _bundle(plane), served.operator.child)}
        if peer is not None:
            theirs = stack.enter_context(_theirs(plane, peer))
            webhooks[PEER] = theirs
            its_own = {"namespaceSelector": {"matchLabels": {SELECTED_BY: PEER}}}
            configuration = peer_configuration("bench-peer", PORT, theirs.ca, **its_own)
            plane.kubectl("apply", "--filename=-", given=json.dumps(configuration))
        namespaces = {who: _namespace(plane, who) for who in (BARE, *webhooks)}
        yield Stage(plane, webhooks, namespaces)


def reviews(stage: Stage, effort: Effort, tick: Tick) -> Part:
    """Post the same review straight to each webhook, over TLS connections that are kept."""
    body = json.dumps(_review(stage.namespaces[BARE], "billing"))
    figures, own = Figures(), []
    for connections in effort.connections:
        for who in in_turns(list(stage.webhooks), effort.rounds):
            tick()
            webhook = stage.webhooks[who]
            order = replace(_to_webhook(webhook, body), connections=connections, seconds=effort.seconds)
            done = load(replace(order, watched={who: webhook.child.pid}))
            own.append(done.own / len(done.latencies))
            _add_latencies(figures, who, done, connections)
            cpu = done.cpu[who] / len(done.latencies) * 1000
            figures.add(f"CPU per review, {_of(connections)}", "ms", who, cpu)
    for who, webhook in stage.webhooks.items():
        figures.add("memory after that", "MiB", who, memory(webhook.child.pid))
    return Part(
        name="reviews",
        title="A review straight to the webhook",
        who=(OURS, PEER),
        compared=(OURS, PEER),
        figures=figures.all(),
        notes=[
            "A pod of two containers, the same bytes to both, over TLS 1.3 with connections that are kept.",
            f"Latencies include the client, {percentile(own, 0.5) * 1000:.3f} ms of CPU per review.",
        ],
        missing=_missing(stage.webhooks),
    )


def creations(stage: Stage, effort: Effort, tick: Tick) -> Part:
    """Create pods by dry run at the API server, in namespaces with no webhook, with ours, with the peer's."""
    figures, own = Figures(), []
    api_server = api_server_pid(stage.plane)
    who_all = list(stage.namespaces)
    for connections in effort.connections:
        medians: dict[str, list[float]] = {who: [] for who in who_all}
        used: dict[str, list[float]] = {who: [] for who in who_all}
        for who in in_turns(who_all, effort.rounds):
            tick()
            watched = {"kube-apiserver": api_server}
            if who in stage.webhooks:
                watched["webhook"] = stage.webhooks[who].child.pid
            done = load(_creating(stage, who, connections, effort.seconds, watched))
            count = len(done.latencies)
            own.append(done.own / count)
            _add_latencies(figures, who, done, connections)
            medians[who].append(percentile(done.latencies, 0.5))
            used[who].append(done.cpu["kube-apiserver"] / count * 1000)
            if "webhook" in watched:
                cpu = done.cpu["webhook"] / count * 1000
                figures.add(f"webhook's CPU, {_of(connections)}", "ms", who, cpu)
        for who in stage.webhooks:
            for bare, with_it in zip(medians[BARE], medians[who], strict=True):
                figures.add(f"added p50, {_of(connections)}", "ms", who, with_it - bare)
        for who in who_all:
            for cpu in used[who]:
                figures.add(f"kube-apiserver's CPU, {_of(connections)}", "ms", who, cpu)
    return Part(
        name="pods",
        title="A pod created at a real API server",
        who=(OURS, PEER, BARE),
        compared=(OURS, PEER),
        figures=figures.all(),
        notes=[
            "Created by dry run: admission as always, nothing stored. One API server, a namespace for each.",
            "Added p50 is the p50 less that without a webhook in the same round.",
            f"CPU is per pod; the client uses {percentile(own, 0.5) * 1000:.3f} ms of CPU per pod.",
        ],
        missing=_missing(stage.webhooks),
    )


def starts(plane: ControlPlane, peer: Path | None, effort: Effort, tick: Tick) -> Part:
    """Start operator and peer in a cluster with many ServiceAccounts, some of them annotated."""
    figures, port = Figures(), free_port()
    install_chart(plane, port, VALUES)
    kubeconfig = plane.kubeconfig_for(RELEASE, NAMESPACE)
    namespace = "bench-accounts"
    plane.create_namespace(namespace)

    starting = {OURS: partial(_ours, plane, port, kubeconfig)}
    if peer is not None:
        starting[PEER] = partial(_theirs, plane, peer)
    there = 0
    for accounts in effort.accounts:
        create_accounts(plane, namespace, range(there, accounts))
        there = accounts
        size = f"{accounts:,} accounts"
        for who in in_turns(list(starting), effort.starts):
            tick()
            begin = time.monotonic()
            with starting[who]() as webhook:
                ready, pid = time.monotonic() - begin, webhook.child.pid
                figures.add(f"{size}: ready after", "s", who, ready)
                first = load(_to_webhook(webhook, json.dumps(_review(Namespace(plane, namespace), "sa-0"))))
                figures.add(f"{size}: pod wired after", "s", who, ready + first.latencies[0] / 1000)
                _pause(effort.settled, tick)
                figures.add(f"{size}: CPU until settled", "s", who, cpu_seconds(pid))
                figures.add(f"{size}: memory", "MiB", who, memory(pid))
                figures.add(f"{size}: peak memory", "MiB", who, memory(pid, "VmHWM"))
    return Part(
        name="starts",
        title="The operator's start",
        who=(OURS, PEER),
        compared=(OURS, PEER),
        figures=figures.all(),
        notes=[
            f"One in {ANNOTATED} of the ServiceAccounts is annotated.",
            "Ready, asked every 50 ms, is what `/readyz` says: ours that every ServiceAccount is known,",
            "the peer's that it listens; it reads the ServiceAccounts when the first review comes.",
            "Pod wired: ready, and the first review, of one of those ServiceAccounts, answered.",
            f"Settled is {effort.settled:g} s after that review; memory is read then.",
        ],
        missing={} if peer else _missing({}),
    )


@contextmanager
def _ours(plane: ControlPlane, port: int, kubeconfig: Path) -> Iterator[Webhook]:
    environ = {"AZURE_TENANT_ID": TENANT}
    with operator_running(plane, port, environ=environ, kubeconfig=kubeconfig) as operator:
        yield Webhook(port, _bundle(plane), operator.child)


@contextmanager
def _theirs(plane: ControlPlane, binary: Path) -> Iterator[Webhook]:
    with peer_running(binary, plane, TENANT) as running:
        yield Webhook(PORT, running.ca, running.child)


def _bundle(plane: ControlPlane) -> str:
    """Return what the API server trusts when it calls our webhook, in PEM."""
    configuration = plane.get("mutatingwebhookconfiguration", RELEASE)
    return b64decode(configuration["webhooks"][0]["clientConfig"]["caBundle"]).decode("ascii")


def create_accounts(plane: ControlPlane, namespace: str, numbers: Sequence[int]) -> None:
    """Create ServiceAccounts of these numbers, one in ANNOTATED with an identity."""
    if not numbers:
        return
    bodies = []
    for number in numbers:
        client = f"{number:08d}-0000-0000-0000-000000000000"
        annotations = {contract.CLIENT_ID: client} if number % ANNOTATED == 0 else {}
        metadata = {"name": f"sa-{number}", "annotations": annotations}
        bodies.append(json.dumps({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}))
    order = _at_api_server(plane, f"/api/v1/namespaces/{namespace}/serviceaccounts")
    load(replace(order, bodies=bodies, expected='"kind":"ServiceAccount"', connections=8))


def api_server_pid(plane: ControlPlane) -> int:
    """Return the process of a control plane's kube-apiserver.

    Raises:
        ClusterUnusable: It is not one of our own.
    """
    # Nobody but who measures needs to know it.
    for child in plane._children:
        if child.name.startswith("kube-apiserver"):
            return child.pid
    raise ClusterUnusable(
        f"What a kube-apiserver uses can only be read on its own machine: unset {NAMED_KUBECONFIG}."
    )


def _creating(stage: Stage, who: str, connections: int, seconds: float, watched: Mapping[str, int]) -> Order:
    namespace = stage.namespaces[who].name
    order = _at_api_server(stage.plane, f"/api/v1/namespaces/{namespace}/pods?dryRun=All")
    return replace(
        order,
        bodies=[json.dumps(_pod())],
        expected='"kind":"Pod"' if who == BARE else "AZURE_FEDERATED_TOKEN_FILE",
        connections=connections,
        seconds=seconds,
        watched=watched,
    )


def _to_webhook(webhook: Webhook, review: str) -> Order:
    path = "/mutate-v1-pod?timeout=10s"
    return Order(port=webhook.port, ca=webhook.ca, path=path, bodies=[review], expected='"patch":')


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


def _add_latencies(figures: Figures, who: str, done: Yield, connections: int) -> None:
    for share in (0.5, 0.9, 0.99):
        value = percentile(done.latencies, share)
        figures.add(f"latency p{share * 100:.0f}, {_of(connections)}", "ms", who, value)


def _of(connections: int) -> str:
    return f"{connections} at once"


def _missing(measured: Mapping[str, object]) -> dict[str, str]:
    return {} if PEER in measured else {PEER: f"not measured, {VARIABLE} is not set"}


def _pause(seconds: float, tick: Tick) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tick()
        time.sleep(min(left, 0.2))


def _namespace(plane: ControlPlane, who: str) -> Namespace:
    namespace = Namespace(plane, f"bench-{who.replace(' ', '-')}")
    plane.create_namespace(namespace.name)
    plane.kubectl("label", "namespace", namespace.name, f"{SELECTED_BY}={who.replace(' ', '-')}")
    namespace.account("billing", {contract.CLIENT_ID: CLIENT})
    return namespace


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
