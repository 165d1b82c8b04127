"""All Prometheus instruments. `azwi_mutation_request` is the peer's, so that dashboards go on working."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from workload_identity_operator import __version__
from workload_identity_operator.declared import STATES, State

BUCKETS: Final = (
    *(n / 1000 for n in range(1, 10)),
    *(n / 100 for n in range(1, 10)),
    *(n / 10 for n in range(1, 10)),
    *(1.0, 1.5, 2.0, 2.5, 3.0),
)
"""Seconds; the peer's."""
MOST_NAMESPACES: Final = 500
"""Namespaces told apart; what comes later is counted as "_other", so that a scrape stays small."""


class Metrics:
    """What the operator counts, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._reviews_of: dict[str, Histogram] = {}
        self._reviews = Histogram(
            "azwi_mutation_request",
            "Time a review took, in seconds",
            ["namespace", "service_name"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        outcomes = Counter(
            "workload_identity_reviews",
            "Reviews answered, by outcome: wired, unchanged, refused, missing, failed, unreadable",
            ["outcome"],
            registry=self._registry,
        )
        self._outcome = cache(outcomes.labels)  # there are few
        lookups = Counter(
            "workload_identity_account_lookups",
            "ServiceAccounts looked up for a review, by answer: table, live, missing, failed",
            ["answer"],
            registry=self._registry,
        )
        self._lookup = cache(lookups.labels)
        self._expiry = Gauge(
            "workload_identity_certificate_expiry_timestamp_seconds",
            "When the serving certificate ends, in seconds since the epoch",
            registry=self._registry,
        )
        self._peer = Gauge(
            "workload_identity_peer_present",
            "1 while Azure/azure-workload-identity is installed too, which labelled pods are left to",
            registry=self._registry,
        )
        self._policy = Gauge(
            "workload_identity_policy_state",
            "1 for the state of each object of the policy: declared, edited, missing, unknown",
            ["object", "state"],
            registry=self._registry,
        )
        self._repairs = Counter(
            "workload_identity_policy_repairs",
            "Objects of the policy that were put right",
            ["object"],
            registry=self._registry,
        )
        Gauge("workload_identity_build_info", "1", ["version"], registry=self._registry).labels(
            __version__
        ).set(1)

    def watch(self, identities: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Read the two gauges from where their values live, at each scrape."""
        Gauge(
            "workload_identity_identities",
            "ServiceAccounts that carry our annotations",
            registry=self._registry,
        ).set_function(identities)
        Gauge("workload_identity_ready", "1 when ready", registry=self._registry).set_function(
            lambda: float(ready())
        )

    def reviewed(self, namespace: str, outcome: str, seconds: float) -> None:
        """Count a review."""
        of_it = self._reviews_of.get(namespace)
        if of_it is None:
            told = namespace if len(self._reviews_of) < MOST_NAMESPACES else "_other"
            of_it = self._reviews.labels(told, "webhook")
            if told == namespace:
                self._reviews_of[namespace] = of_it
        of_it.observe(seconds)
        self._outcome(outcome).inc()

    def unreadable(self) -> None:
        """Count a request that was no review."""
        self._outcome("unreadable").inc()

    def looked_up(self, answer: str) -> None:
        """Count a look-up of a ServiceAccount."""
        self._lookup(answer).inc()

    def certificate_ends(self, epoch: float) -> None:
        """Take when the serving certificate ends, in seconds since the epoch."""
        self._expiry.set(epoch)

    def peer_is(self, *, present: bool) -> None:
        """Take whether Azure/azure-workload-identity is installed too."""
        self._peer.set(present)

    def policy_states(self, states: Mapping[str, State]) -> None:
        """Take how the objects of the policy are, by kind; those that are not named are not ours to keep."""
        self._policy.clear()
        for kind, current in states.items():
            for state in STATES:
                self._policy.labels(kind, state).set(state == current)

    def policy_repaired(self, kind: str) -> None:
        """Count that an object of the policy was put right."""
        self._repairs.labels(kind).inc()

    def exposition(self) -> bytes:
        """Return what a scrape gets."""
        return generate_latest(self._registry)
