"""All Prometheus instruments.

`azwi_…`, `controller_runtime_…`, `certwatcher_…` and `rest_client_…` are the peer's, with its labels and
buckets, so that dashboards and alerts made for it go on working. What a review adds is plain counting: series
are made of it when somebody asks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import prometheus_client as prometheus
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workload_identity_operator import __version__, contract
from workload_identity_operator.declared import STATES, State
from workload_identity_operator.durations import Durations, exposition
from workload_identity_operator.shapes import is_object_name

Outcome: TypeAlias = Literal["wired", "unchanged", "refused", "missing", "failed", "unreadable"]
Lookup: TypeAlias = Literal["table", "live", "missing", "failed"]

BUCKETS: Final = (
    *(n / 1000 for n in range(1, 10)),
    *(n / 100 for n in range(1, 10)),
    *(n / 10 for n in range(1, 10)),
    *(1.0, 1.5, 2.0, 2.5, 3.0),
)
"""Seconds; the peer's, of `azwi_mutation_request`."""
LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; the peer's, of `controller_runtime_webhook_latency_seconds`."""
HEALS: Final = ("restarted", "evicted", "would-restart", "withheld", "healed", "no-help")
"""What becomes of owners of pods that are not wired as they should be."""
MOST_NAMESPACES: Final = 500
"""Namespaces told apart; what comes later is counted as "_other", so that a scrape stays small."""
PATHS: Final = (contract.WEBHOOK_PATH, contract.WEBHOOK_PATH + contract.UNLABELLED_PATH)
"""Where reviews are answered."""

_OTHER: Final = "_other"
_SCOPE: Final = {"otel_scope_name": "webhook", "service_name": "webhook"}
"""Labels that say nothing here; selectors written for the peer name them."""
_TABLES: Final = (
    ("podwirings", "PodWirings there are"),
    ("podwirings_kept", "1 while PodWirings are followed and written, 0 while they cannot be"),
    ("podwirings_unwritten", "Namespaces whose PodWiring could not be written when it was last tried"),
    ("identities_left_out", "Annotated ServiceAccounts that PodWirings leave to the webhook"),
)
_MUTATION: Final = "azwi_mutation_request"
_LATENCY: Final = "controller_runtime_webhook_latency_seconds"
_OK, _BROKEN = 200, 500


@dataclass(frozen=True, slots=True)
class Tables:
    """How the PodWirings are.

    Attributes:
        kept: Whether they are followed, and written where they are not as they should be.
        held: How many there are.
        unwritten: Namespaces whose PodWiring could not be written when it was last tried.
        left_out: Annotated ServiceAccounts that are in none of them, and so left to the webhook.
    """

    kept: bool
    held: int
    unwritten: int
    left_out: int


class Metrics:
    """What the operator counts, in a registry of its own."""

    def __init__(self) -> None:
        # When a counter began tells nobody anything, and is a series more for each.
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._namespaces: dict[str, Durations] = {}
        self._latency = {path: Durations(_LATENCY, {"webhook": path}, LATENCY_BUCKETS) for path in PATHS}
        self._outcomes = dict.fromkeys(get_args(Outcome), 0)
        self._lookups = dict.fromkeys(get_args(Lookup), 0)
        self._codes = {(path, code): 0 for path in PATHS for code in (_OK, _BROKEN)}
        self._under_way = dict.fromkeys(PATHS, 0)
        self._panics = 0
        self._expiry: float | None = None
        self._listed_at: float | None = None
        self._registry.register(_Collected(self._counted))
        prometheus.ProcessCollector(registry=self._registry)
        prometheus.PlatformCollector(registry=self._registry)
        prometheus.GCCollector(registry=self._registry)
        self._loaded = Counter(
            "certwatcher_read_certificate",
            "Serving certificates that were taken into use",
            registry=self._registry,
        )
        self._unloaded = Counter(
            "certwatcher_read_certificate_errors",
            "Serving certificates that could not be read",
            registry=self._registry,
        )
        self._requests = Counter(
            "rest_client_requests",
            "Requests to the API server, by HTTP status and method; <error> without an answer",
            ["code", "method", "host"],
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
        self._pods = Gauge(
            "workload_identity_pods",
            "Pods by the last audit: wired, unwired, outdated, wrong. Only where pods are audited",
            ["state"],
            registry=self._registry,
        )
        audits = Counter(
            "workload_identity_audits",
            "Audits of a namespace's pods, by outcome: completed, failed",
            ["outcome"],
            registry=self._registry,
        )
        self._audits = {outcome: audits.labels(outcome) for outcome in ("completed", "failed")}
        self._audited = Gauge(
            "workload_identity_last_audit_timestamp_seconds",
            "When an audit was completed last here, in seconds since the epoch; 0 for never",
            registry=self._registry,
        )
        heals = Counter(
            "workload_identity_heals",
            "Owners of such pods: restarted, evicted, would-restart, withheld, healed, no-help",
            ["outcome"],
            registry=self._registry,
        )
        self._heals = {outcome: heals.labels(outcome) for outcome in HEALS}
        Gauge("workload_identity_build_info", "1", ["version"], registry=self._registry).labels(
            __version__
        ).set(1)

    def watch(
        self,
        identities: Callable[[], int],
        conditions: Callable[[], Mapping[str, bool]],
        ready: Callable[[], bool],
        tables: Callable[[], Tables | None],
    ) -> None:
        """Read from where they live, at each scrape, the values that others keep.

        Args:
            identities: Returns how many ServiceAccounts carry our annotations.
            conditions: Returns the conditions of being ready, and whether each is met.
            ready: Returns whether all are.
            tables: Returns how the PodWirings are; None where there is no such resource.
        """

        def collect() -> Iterator[Metric]:
            yield GaugeMetricFamily(
                "workload_identity_identities", "ServiceAccounts that carry our annotations", identities()
            )
            yield GaugeMetricFamily("workload_identity_ready", "1 when ready", ready())
            met = GaugeMetricFamily(
                "workload_identity_condition",
                "1 for each condition of being ready that is met",
                labels=["condition"],
            )
            for condition, holds in conditions().items():
                met.add_metric([condition], holds)
            yield met
            found = tables()
            values = (found.held, found.kept, found.unwritten, found.left_out) if found else (None,) * 4
            for (name, text), value in zip(_TABLES, values, strict=True):
                yield _known(f"workload_identity_{name}", text, value)

        self._registry.register(_Collected(collect))

    def begun(self, path: str) -> None:
        """Take that a review is under way; `ended` must follow."""
        self._under_way[path] += 1

    def ended(self, path: str) -> None:
        """Take that a review is no longer under way, whether it was answered or its caller hung up."""
        self._under_way[path] -= 1

    def reviewed(self, path: str, namespace: str, outcome: str, seconds: float) -> None:
        """Count an answered review."""
        self._latency[path].add(seconds)
        self._outcomes[outcome] += 1
        of_it = self._namespaces.get(namespace)
        if of_it is None:
            of_it = self._told_apart(namespace)
        of_it.add(seconds)

    def _told_apart(self, namespace: str) -> Durations:
        """Return where reviews of a namespace are counted; whoever reaches the port chooses its name."""
        if len(self._namespaces) >= MOST_NAMESPACES or not is_object_name(namespace):
            namespace = _OTHER
        found = self._namespaces.get(namespace)
        if found is None:
            found = Durations(_MUTATION, {"namespace": namespace, **_SCOPE}, BUCKETS)
            self._namespaces[namespace] = found
        return found

    def unreadable(self, path: str, status: int) -> None:
        """Count a request that was no review, by where it came to and the HTTP status it got."""
        self._outcomes["unreadable"] += 1
        if path in self._latency:  # others are anybody's invention
            self._codes[path, status] = self._codes.get((path, status), 0) + 1

    def panicked(self) -> None:
        """Count a review in which our own code failed."""
        self._panics += 1

    def looked_up(self, answer: str) -> None:
        """Count a look-up of a ServiceAccount."""
        self._lookups[answer] += 1

    def asked(self, host: str, method: str, status: int) -> None:
        """Count a request to an API server, by its HTTP status; 0 when there was no answer."""
        self._requests.labels(str(status or "<error>"), method, host).inc()

    def listed(self, epoch: float) -> None:
        """Take when all ServiceAccounts were listed, in seconds since the epoch."""
        self._listed_at = epoch

    def certificate_loaded(self, ends: float) -> None:
        """Take that a certificate is served, and when it ends, in seconds since the epoch."""
        self._expiry = ends
        self._loaded.inc()

    def certificate_unreadable(self) -> None:
        """Count that a certificate could not be read."""
        self._unloaded.inc()

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

    def audited(self, outcome: str) -> None:
        """Count an audit, completed or failed."""
        self._audits[outcome].inc()
        if outcome == "completed":
            self._audited.set_to_current_time()

    def pods_are(self, states: Mapping[str, int]) -> None:
        """Take how many pods are in which state; none at all where pods are audited by another replica."""
        self._pods.clear()
        for state, count in states.items():
            self._pods.labels(state).set(count)

    def healed(self, outcome: str) -> None:
        """Count what became of an owner whose pods are not wired as they should be."""
        self._heals[outcome].inc()

    def exposition(self) -> bytes:
        """Return what a scrape gets."""
        reviews = exposition(
            _MUTATION, "Time a review took, in seconds, by the pod's namespace", self._namespaces.values()
        )
        latency = exposition(_LATENCY, "Time a review took, in seconds, by path", self._latency.values())
        return generate_latest(self._registry) + reviews + latency

    def _counted(self) -> Iterator[Metric]:
        """Yield what reviews have counted."""
        outcomes = CounterMetricFamily(
            "workload_identity_reviews",
            f"Reviews answered, by outcome: {', '.join(get_args(Outcome))}",
            labels=["outcome"],
        )
        for outcome, count in self._outcomes.items():
            outcomes.add_metric([outcome], count)
        lookups = CounterMetricFamily(
            "workload_identity_account_lookups",
            f"ServiceAccounts looked up for a review, by answer: {', '.join(get_args(Lookup))}",
            labels=["answer"],
        )
        for answer, count in self._lookups.items():
            lookups.add_metric([answer], count)
        codes = CounterMetricFamily(
            "controller_runtime_webhook_requests",
            "Requests answered, by path and HTTP status",
            labels=["webhook", "code"],
        )
        for (path, code), count in self._codes.items():
            codes.add_metric([path, str(code)], count + self._latency[path].count if code == _OK else count)
        under_way = GaugeMetricFamily(
            "controller_runtime_webhook_requests_in_flight", "Reviews under way, by path", labels=["webhook"]
        )
        for path, count in self._under_way.items():
            under_way.add_metric([path], count)
        panics = CounterMetricFamily(
            "controller_runtime_webhook_panics",
            "Reviews in which the operator's own code failed",
            self._panics,
        )
        expiry = _known(
            "workload_identity_certificate_expiry_timestamp_seconds",
            "When the serving certificate ends, in seconds since the epoch",
            self._expiry,
        )
        listed = _known(
            "workload_identity_accounts_listed_timestamp_seconds",
            "When all ServiceAccounts were listed last, in seconds since the epoch",
            self._listed_at,
        )
        yield from (outcomes, lookups, codes, under_way, panics, expiry, listed)


def _known(name: str, help_text: str, value: float | None) -> GaugeMetricFamily:
    """Return a gauge that has no series as long as there is nothing to say."""
    family = GaugeMetricFamily(name, help_text)
    if value is not None:
        family.add_metric([], value)
    return family


class _Collected(Collector):
    """Has a registry take from a function what it shows."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()
