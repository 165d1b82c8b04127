"""How costs grow: with the identities of a namespace, and with the ServiceAccounts of a cluster."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from kubernetes.client import CoreV1Api, CustomObjectsApi
from kubernetes.watch import Watch

from testkit.bench.load import load
from testkit.bench.measuring import Effort, Figures, Part, cpu_seconds, in_turns, memory, percentile
from testkit.bench.stage import (
    BARE,
    OURS,
    PEER,
    POLICY,
    Stage,
    Webhook,
    client_id,
    create_accounts,
    creating,
    missing,
    namespace_of,
    ours_running,
    reviewing,
    theirs_running,
    wait_until_wired,
    webhook_of,
)
from testkit.control_plane import ClusterUnusable, ControlPlane
from testkit.installation import NAMESPACE, RELEASE
from testkit.workloads import Namespace
from workload_identity_operator import contract

ANNOTATED: Final = 10
"""One in so many ServiceAccounts of a large cluster has an identity."""
COMPILED_WITHIN: Final = 60
"""Seconds."""
IDLE: Final = 0.05
"""Seconds of CPU in a second; who uses less is done with starting."""
_COMPILED: Final = (
    "Annotation to PodWiring: from sending a ServiceAccount's new client id to the API server until who "
    "watches the PodWiring is told of it."
)

Tick = Callable[[], None]


def identities(stage: Stage, effort: Effort, tick: Tick) -> Part:
    """Create pods in namespaces with few and with many identities, at the policy and at our webhook."""
    sizes = {f"{size:,}": size for size in effort.identities}
    figures, api_server = Figures(), stage.plane.pid_of("kube-apiserver")
    webhook = stage.webhooks[OURS].child.pid
    inside = {}
    for label, size in sizes.items():
        for who in (POLICY, OURS):
            tick()
            namespace = inside[who, label] = namespace_of(stage.plane, who, f"bench-{who}-{size}")
            create_accounts(namespace, range(size), annotated=1)
            wait_until_wired(namespace, who, f"sa-{size - 1}")
    orders = {
        f"{who} {label}": creating(namespace, who, f"sa-{sizes[label] // 2}")
        for (who, label), namespace in inside.items()
    } | {BARE: creating(stage.namespaces[BARE], BARE)}
    medians: dict[str, list[float]] = {turn: [] for turn in orders}
    for turn in in_turns(list(orders), effort.rounds):
        tick()
        watched = {"kube-apiserver": api_server, "webhook": webhook}
        done = load(replace(orders[turn], seconds=effort.seconds, watched=watched))
        medians[turn].append(percentile(done.latencies, 0.5))
        if turn == BARE:
            continue
        who, label = turn.split()
        figures.add(f"{who}: latency p50", "ms", label, medians[turn][-1])
        for part in watched if who == OURS else ("kube-apiserver",):
            figures.add(f"{who}: {part}'s CPU", "ms", label, done.cpu[part] / len(done.latencies) * 1000)
    for who, label in inside:
        for bare, with_it in zip(medians[BARE], medians[f"{who} {label}"], strict=True):
            figures.add(f"{who}: added p50", "ms", label, with_it - bare)
    for label in sizes:
        _add_compiled(figures, "", label, inside[POLICY, label], effort, tick)
    first, *_, last = sizes
    return Part(
        name="identities",
        title="Identities in one namespace",
        who=list(sizes),
        compared=tuple((label, first) for label in dict.fromkeys(("1,000", last)) if label in sizes),
        figures=figures.all(),
        notes=[
            "Columns are how many ServiceAccounts of the pod's namespace have an identity; one client.",
            _COMPILED,
        ],
    )


def starts(plane: ControlPlane, port: int, peer: Path | None, effort: Effort, tick: Tick) -> Part:
    """Start operator and peer in a cluster with many ServiceAccounts, some of them annotated."""
    figures = Figures()
    many, few = (namespace_of(plane, BARE, f"bench-{name}") for name in ("accounts", "annotated"))
    create_accounts(few, range(1), ANNOTATED)
    kubeconfig = plane.kubeconfig_for(RELEASE, NAMESPACE)
    starting: dict[str, Callable[[], AbstractContextManager[Webhook]]] = {
        OURS: partial(_ours, plane, port, kubeconfig)
    }
    if peer is not None:
        starting[PEER] = partial(theirs_running, plane, peer)
    there = 0
    for accounts in effort.accounts:
        for begin in range(there, accounts, 1000):
            tick()
            create_accounts(many, range(begin, min(begin + 1000, accounts)), ANNOTATED)
        there = accounts
        size = f"{accounts:,} accounts"
        for who in in_turns(list(starting), effort.starts):
            tick()
            begun = time.monotonic()
            with starting[who]() as webhook:
                ready, pid = webhook.ready - begun, webhook.child.pid
                figures.add(f"{size}: ready after", "s", who, ready)
                first = load(reviewing(webhook, many, "sa-0"))
                figures.add(f"{size}: pod wired after", "s", who, ready + first.latencies[0] / 1000)
                _settle(pid, effort.settled, tick)
                figures.add(f"{size}: CPU until settled", "s", who, cpu_seconds(pid))
                figures.add(f"{size}: memory", "MiB", who, memory(pid))
                figures.add(f"{size}: peak memory", "MiB", who, memory(pid, "VmHWM"))
                if who == OURS:
                    _add_compiled(figures, f"{size}: ", who, few, effort, tick)
    return Part(
        name="starts",
        title="The operator's start",
        who=(OURS, PEER),
        compared=((OURS, PEER),),
        figures=figures.all(),
        notes=[
            f"One in {ANNOTATED} of the ServiceAccounts is annotated, all of those in one namespace.",
            "Ready, asked every 50 ms, is what `/readyz` says: ours that every ServiceAccount is known,",
            "the peer's that it listens; it reads the ServiceAccounts when the first review comes.",
            "Pod wired: ready, and the first review, of one of those ServiceAccounts, answered.",
            f"Settled is {effort.settled:g} s after that review, or later when it is still busy then.",
            _COMPILED,
        ],
        missing=missing(starting),
    )


@contextmanager
def _ours(plane: ControlPlane, port: int, kubeconfig: Path) -> Iterator[Webhook]:
    with ours_running(plane, port, kubeconfig) as operator:
        yield webhook_of(plane, port, operator)


def _settle(pid: int, seconds: float, tick: Tick) -> None:
    """Wait so many seconds, and until the process is idle."""
    pause(seconds, tick)
    while True:
        before = cpu_seconds(pid)
        pause(min(seconds, 1.0), tick)
        if cpu_seconds(pid) - before <= IDLE:
            return


def pause(seconds: float, tick: Tick) -> None:
    """Wait, and show it."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tick()
        time.sleep(min(left, 0.2))


def _add_compiled(
    figures: Figures, what: str, who: str, inside: Namespace, effort: Effort, tick: Tick
) -> None:
    took = compiled(inside, "sa-0", effort.annotations, tick)
    for share in (0.5, 0.9):
        name = f"{what}annotation to PodWiring p{share * 100:.0f}"
        figures.add(name, "ms", who, percentile(took, share))


def compiled(inside: Namespace, account: str, times: int, tick: Tick) -> list[float]:
    """Annotate a ServiceAccount so often; return the milliseconds until its PodWiring said so.

    Raises:
        ClusterUnusable: It did not say so in time.
    """
    client = inside.plane.client()
    group, version = contract.POD_WIRING_API.split("/")
    events = Watch().stream(  # type: ignore[no-untyped-call]
        CustomObjectsApi(client).list_namespaced_custom_object,
        *(group, version, inside.name, contract.POD_WIRINGS),
        timeout_seconds=COMPILED_WITHIN,
    )
    wanted, took = "", []
    begun = 0.0
    for event in events:  # the first tells what there is
        found = event["object"]["spec"]["identities"].get(account, {}).get("clientID")
        if found is None or (wanted and found != wanted):
            continue
        if wanted:
            took.append((time.perf_counter() - begun) * 1000)
        if len(took) == times:
            return took
        pause(0.2, tick)  # its status is written meanwhile
        wanted = client_id(secrets.randbelow(10**8))
        begun = time.perf_counter()
        CoreV1Api(client).patch_namespaced_service_account(
            account, inside.name, {"metadata": {"annotations": {contract.CLIENT_ID: wanted}}}
        )
    raise ClusterUnusable(f"The PodWiring of {inside.name} did not change within {COMPILED_WITHIN} s.")
