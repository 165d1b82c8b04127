"""What wiring costs, beside the peer's webhook: a review, a pod at a real API server."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from testkit.bench.load import Yield, load
from testkit.bench.measuring import Effort, Figures, Part, in_turns, memory, percentile
from testkit.bench.stage import BARE, OURS, PEER, POLICY, UNLABELLED, Stage, creating, missing, reviewing

SHARES: Final = (0.5, 0.9, 0.99)
"""Of which percentiles are told."""

Tick = Callable[[], None]


def reviews(stage: Stage, effort: Effort, tick: Tick) -> Part:
    """Post the same review straight to each webhook, over TLS connections that are kept."""
    orders = {who: reviewing(hook, stage.namespaces[BARE]) for who, hook in stage.webhooks.items()}
    figures, own = Figures(), []
    for connections in effort.connections:
        for who in in_turns(list(stage.webhooks), effort.rounds):
            tick()
            order = replace(orders[who], connections=connections, seconds=effort.seconds)
            done = load(replace(order, watched={who: stage.webhooks[who].child.pid}))
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
        compared=((OURS, PEER),),
        figures=figures.all(),
        notes=[
            "A pod of two containers, the same bytes to both, over TLS 1.3 with connections that are kept.",
            f"Latencies include the client, {percentile(own, 0.5) * 1000:.3f} ms of CPU per review.",
        ],
        missing=missing(stage.webhooks),
    )


def creations(stage: Stage, effort: Effort, tick: Tick) -> Part:
    """Create pods by dry run at the API server, where nobody wires them, and where each engine does."""
    figures, own = Figures(), []
    api_server = stage.plane.pid_of("kube-apiserver")
    orders = {who: creating(namespace, who) for who, namespace in stage.namespaces.items()}
    called = _calls(stage)
    for connections in effort.connections:
        took: dict[str, list[Yield]] = {who: [] for who in orders}
        for who in in_turns(list(orders), effort.rounds):
            tick()
            watched = {"kube-apiserver": api_server}
            if who in stage.webhooks:
                watched["webhook"] = stage.webhooks[who].child.pid
            order = replace(orders[who], connections=connections, seconds=effort.seconds)
            done = load(replace(order, watched=watched))
            own.append(done.own / len(done.latencies))
            took[who].append(done)
            _add_latencies(figures, who, done, connections)
        for who, rounds in took.items():
            for bare, done in zip(took[BARE], rounds, strict=True):
                _add_creations(figures, who, done, bare, connections)
    for who, webhook in stage.webhooks.items():
        figures.add("webhook's memory after that", "MiB", who, memory(webhook.child.pid))
    return Part(
        name="pods",
        title="A pod created at a real API server",
        who=(POLICY, UNLABELLED, OURS, PEER, BARE),
        compared=((POLICY, PEER), (UNLABELLED, PEER), (OURS, PEER)),
        figures=figures.all(),
        notes=[
            "Created by dry run: admission as always, nothing stored. One API server, a namespace for each.",
            "Policy is ours inside the API server, with our webhook behind it,",
            f"which was called {_calls(stage) - called:g} times for its pods.",
            "The peer wires labelled pods only. Ours need no label where their ServiceAccount is annotated.",
            "Ours is our webhook alone. Added is a percentile less that without an engine in the same round.",
            f"CPU is per pod; the client uses {percentile(own, 0.5) * 1000:.3f} ms of CPU per pod.",
        ],
        missing=missing(stage.webhooks),
    )


def _add_creations(figures: Figures, who: str, done: Yield, bare: Yield, connections: int) -> None:
    """Note what follows of a round's pods, and of those made without an engine in the same round."""
    count, connected = len(done.latencies), _of(connections)
    figures.add(f"kube-apiserver's CPU, {connected}", "ms", who, done.cpu["kube-apiserver"] / count * 1000)
    if "webhook" in done.cpu:
        figures.add(f"webhook's CPU, {connected}", "ms", who, done.cpu["webhook"] / count * 1000)
    if who != BARE:
        for share in SHARES:
            added = percentile(done.latencies, share) - percentile(bare.latencies, share)
            figures.add(f"added p{share * 100:.0f}, {connected}", "ms", who, added)


def _calls(stage: Stage) -> float:
    """Return how often our webhook was called for pods that the policy should wire."""
    return sum(stage.operator.reviews_of(stage.namespaces[who].name) for who in (POLICY, UNLABELLED))


def _add_latencies(figures: Figures, who: str, done: Yield, connections: int) -> None:
    for share in SHARES:
        value = percentile(done.latencies, share)
        figures.add(f"latency p{share * 100:.0f}, {_of(connections)}", "ms", who, value)


def _of(connections: int) -> str:
    return f"{connections} at once"
