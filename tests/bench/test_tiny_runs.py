"""Each part measured as briefly as can be: it works, and every figure has a value for each round."""

from dataclasses import replace

import pytest

from testkit.bench import growth, peer, stage, tokens, wiring
from testkit.bench.load import Order, load
from testkit.bench.measuring import Effort, Part
from testkit.control_plane import ControlPlane
from testkit.installation import free_port
from testkit.processes import ProcessFailed

EFFORT = Effort(
    rounds=1,
    seconds=0.2,
    connections=(1, 2),
    identities=(1, 3),
    annotations=2,
    accounts=(20,),
    starts=1,
    settled=0,
    processes=1,
    calls=10,
    refreshes=2,
    credentials=2,
)


def nothing() -> None:
    """Show no progress."""


def values(part: Part, name: str) -> dict[str, int]:
    """Return how many values a figure has of whom."""
    (figure,) = (figure for figure in part.figures if figure.name == name)
    return {who: len(rounds) for who, rounds in figure.rounds.items()}


@pytest.mark.cluster
def test_wiring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reviews, pods, identities and starts; with the peer where PEER_WEBHOOK names it."""
    binary = peer.named()
    webhooks = ["ours"] if binary is None else ["ours", "peer"]
    policies = ["policy", "policy, no label"]
    monkeypatch.setattr(growth, "ANNOTATED", 2)
    port = free_port()
    with ControlPlane() as plane:
        stage.install(plane, port)
        with stage.staged(plane, port, binary) as on:
            reviews = wiring.reviews(on, EFFORT, nothing)
            pods = wiring.creations(on, EFFORT, nothing)
            identities = growth.identities(on, EFFORT, nothing)
            target = on.webhooks["ours"]
            order = Order(target.port, target.ca, "/mutate-v1-pod", ["{}"], expected='"patch":')
            with pytest.raises(ProcessFailed, match="WrongAnswer: wanted 2xx"):
                load(order)
        starts = growth.starts(plane, port, binary, EFFORT, nothing)
        created = plane.get("serviceaccounts", "--namespace=bench-accounts")["items"]

    assert values(reviews, "CPU per review, 2 at once") == dict.fromkeys(webhooks, 1)
    assert values(pods, "added p50, 2 at once") == dict.fromkeys([*policies, *webhooks], 1)
    assert values(pods, "latency p99, 1 at once") == dict.fromkeys(["no engine", *policies, *webhooks], 1)
    assert "which was called 0 times for its pods." in pods.notes
    for name in ("policy: added p50", "ours: webhook's CPU", "annotation to PodWiring p90"):
        assert values(identities, name) == {"1": 1, "3": 1}
    assert values(starts, "20 accounts: pod wired after") == dict.fromkeys(webhooks, 1)
    assert values(starts, "20 accounts: annotation to PodWiring p50") == {"ours": 1}
    assert ("peer" in reviews.missing) is (binary is None)
    annotated = [account for account in created if account["metadata"].get("annotations")]
    assert (len(created), len(annotated)) == (21, 10)  # with the namespace's own


def test_tokens() -> None:
    """Every program of both libraries runs; however many ask, ours makes one request."""
    part = tokens.tokens(replace(EFFORT, processes=2), nothing)

    counted = {figure.name: figure.rounds for figure in part.figures if figure.unit == ""}
    assert {name: rounds["ours"] for name, rounds in counted.items()} == {
        "requests of 100 threads": [1],
        "requests of 100 tasks": [1],
        "requests of 20 instances": [1],
    }
    assert values(part, "import: CPU") == {"ours": 2, "azure-identity": 2, "bare Python": 2}
    assert all(set(figure.rounds) >= {"ours", "azure-identity"} for figure in part.figures)


def test_a_program_that_fails_is_no_measurement() -> None:
    """Its own words are in the message."""
    with tokens.wired() as inside, pytest.raises(ProcessFailed, match="that is why"):
        tokens.run("raise SystemExit('that is why')", inside.environ)
