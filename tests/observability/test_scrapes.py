"""What Prometheus gets of a running operator."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from testkit.day import Day
from testkit.promtool import judge


def labels_of(scrape: str) -> dict[str, list[dict[str, str]]]:
    """Return the labels of all series, by name."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_prometheus_has_nothing_to_object(day: Day) -> None:
    """Its own linter reads a real scrape: names, units, types, help."""
    assert judge("check", "metrics", given=day.scrapes[-1]) == ""


def test_prometheus_does_object_to_others() -> None:
    """The linter of the test above does judge."""
    said = judge("check", "metrics", given="# TYPE took_milliseconds counter\ntook_milliseconds 1\n")

    assert "took_milliseconds" in said


@pytest.mark.parametrize(
    ("series", "labels"),
    [
        ("azwi_mutation_request_bucket", {"service_name": "webhook", "otel_scope_name": "webhook"}),
        ("azwi_mutation_request_count", {"service_name": "webhook", "otel_scope_name": "webhook"}),
        ("controller_runtime_webhook_requests_total", {"webhook": "/mutate-v1-pod", "code": "200"}),
        ("controller_runtime_webhook_requests_total", {"webhook": "/mutate-v1-pod", "code": "500"}),
        ("controller_runtime_webhook_latency_seconds_bucket", {"webhook": "/mutate-v1-pod", "le": "2.5"}),
        ("controller_runtime_webhook_requests_in_flight", {"webhook": "/mutate-v1-pod"}),
        ("controller_runtime_webhook_panics_total", {}),
        ("certwatcher_read_certificate_total", {}),
        ("certwatcher_read_certificate_errors_total", {}),
        ("rest_client_requests_total", {"code": "200", "method": "GET"}),
        ("process_resident_memory_bytes", {}),
    ],
)
def test_the_peers_series_are_there(day: Day, series: str, labels: dict[str, str]) -> None:
    """Selectors that were written for Azure/azure-workload-identity find something."""
    found = labels_of(day.scrapes[-1])[series]

    assert [one for one in found if labels.items() <= one.items()]


def test_pods_are_counted_where_they_are(day: Day) -> None:
    """By the peer's histogram: denied ones included, and none that the API server wired by itself."""
    labels = f'namespace="{day.inside.name}",otel_scope_name="webhook",service_name="webhook"'
    counted = day.served.operator.metric
    outcomes = {
        outcome: counted(f'workload_identity_reviews_total{{outcome="{outcome}"}}')
        for outcome in ("wired", "unchanged", "refused", "missing", "failed", "unreadable")
    }

    assert counted(f"azwi_mutation_request_count{{{labels}}}") == sum(outcomes.values())
    # Rehearsals come before, until the API server wires by itself; and it may ask twice about a pod.
    assert outcomes["wired"] >= 3
    others = {"refused": 1, "missing": 0, "failed": 0, "unreadable": 0}
    assert {outcome: outcomes[outcome] for outcome in others} == others


def test_a_scrape_stays_small(day: Day) -> None:
    """A cluster with one namespace of identities has a few hundred series, and no label that grows."""
    found = labels_of(day.scrapes[-1])

    assert sum(map(len, found.values())) < 300
    grown = {label for one in found.values() for labels in one for label in labels}
    assert not grown & {"pod", "service_account", "client_id", "uid"}
