"""What is counted, and how little of it whoever reaches the port can make us keep."""

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from workload_identity_operator.durations import Durations, exposition
from workload_identity_operator.metrics import BUCKETS, MOST_NAMESPACES, PATHS, Metrics

LABELS = {"namespace": "shop", "service_name": "webhook"}


def samples(text: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values of an exposition, by name and then by labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    family: Metric
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = tuple(sorted(f"{name}={value}" for name, value in sample.labels.items()))
            found.setdefault(sample.name, {})[key] = sample.value
    return found


@given(st.lists(st.floats(0, 100) | st.sampled_from(BUCKETS)))
def test_durations_are_a_histogram(seconds: list[float]) -> None:
    """They show the same series as prometheus_client's own, edges of buckets included."""
    registry = CollectorRegistry()
    theirs = prometheus_client.Histogram("took", "Time", [*LABELS], buckets=BUCKETS, registry=registry)
    ours = Durations("took", LABELS, BUCKETS)
    theirs.labels(*LABELS.values())

    for value in seconds:
        theirs.labels(*LABELS.values()).observe(value)
        ours.add(value)
        assert ours.lines()  # what was shown before is not shown again

    wanted = samples(generate_latest(registry))
    wanted.pop("took_created", None)
    assert samples(exposition("took", "Time", [ours])) == wanted
    assert ours.count == len(seconds)


def counted(metrics: Metrics) -> dict[str, float]:
    """Return how many reviews each namespace is said to have had."""
    found = samples(metrics.exposition()).get("azwi_mutation_request_count", {})
    return {key[0].removeprefix("namespace="): value for key, value in found.items()}


def test_namespaces_are_told_apart_up_to_a_number() -> None:
    """Later ones are counted together, and no review is lost."""
    metrics = Metrics()
    for _ in range(2):
        for index in range(MOST_NAMESPACES + 100):
            metrics.reviewed(PATHS[0], f"team-{index}", "wired", 0.001)

    found = counted(metrics)

    assert found.pop("_other") == 200
    assert found == {f"team-{index}": 2 for index in range(MOST_NAMESPACES)}


@pytest.mark.parametrize("namespace", ["", "a" * 1_000_000, 'a"} 1\nx{y="', "\ufffd", "UPPER"])
def test_what_is_no_namespace_has_no_series(namespace: str) -> None:
    """Whoever reaches the port chooses the name; it neither breaks a scrape nor stays in memory."""
    metrics = Metrics()

    metrics.reviewed(PATHS[0], namespace, "refused", 0.001)

    assert counted(metrics) == {"_other": 1}


def test_what_came_to_another_path_has_no_series() -> None:
    """A scanner's paths are not kept; what was no review is counted all the same."""
    metrics = Metrics()

    metrics.unreadable("/.env", 404)
    metrics.unreadable(PATHS[0], 413)

    found = samples(metrics.exposition())
    assert found["workload_identity_reviews_total"]["outcome=unreadable",] == 2
    asked = found["controller_runtime_webhook_requests_total"]
    assert {key: value for key, value in asked.items() if value} == {("code=413", f"webhook={PATHS[0]}"): 1}


def test_reviews_are_counted_once_by_the_peers_names() -> None:
    """Reviews of both paths, by HTTP status and in the peer's histograms; those under way are not yet in."""
    metrics = Metrics()
    for path in (PATHS[0], PATHS[0], PATHS[1]):
        metrics.begun(path)
        metrics.ended(path)
        metrics.reviewed(path, "shop", "wired", 0.004)
    metrics.begun(PATHS[1])

    found = samples(metrics.exposition())

    labels = [(f"webhook={path}",) for path in PATHS]
    assert found["controller_runtime_webhook_requests_in_flight"] == {labels[0]: 0, labels[1]: 1}
    assert found["controller_runtime_webhook_latency_seconds_count"] == {labels[0]: 2, labels[1]: 1}
    assert found["controller_runtime_webhook_requests_total"] == {
        ("code=200", *labels[0]): 2,
        ("code=200", *labels[1]): 1,
        ("code=500", *labels[0]): 0,
        ("code=500", *labels[1]): 0,
    }
    assert found["azwi_mutation_request_count"] == {
        ("namespace=shop", "otel_scope_name=webhook", "service_name=webhook"): 3
    }


def test_what_is_not_known_yet_has_no_series() -> None:
    """A certificate that is not there has not ended in 1970."""
    metrics = Metrics()
    metrics.watch(lambda: 0, dict, lambda: False, lambda: None)

    found = samples(metrics.exposition())

    assert not found.keys() & {
        "workload_identity_certificate_expiry_timestamp_seconds",
        "workload_identity_accounts_listed_timestamp_seconds",
        "workload_identity_podwirings_kept",
    }
