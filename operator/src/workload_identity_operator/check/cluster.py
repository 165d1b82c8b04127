"""What was seen of a cluster: values that judgements take; and how the API server reads selectors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from workload_identity_operator import contract
from workload_identity_operator.check.findings import Object, Unseen
from workload_identity_operator.shapes import Json

TEMPLATED: Final[Mapping[str, tuple[str, ...]]] = {
    "Deployment": ("template",),
    "StatefulSet": ("template",),
    "DaemonSet": ("template",),
    "ReplicaSet": ("template",),
    "ReplicationController": ("template",),
    "Job": ("template",),
    "CronJob": ("jobTemplate", "spec", "template"),
}
"""Kinds that make pods, and where in their spec the pod's template is."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer of a public URL.

    Attributes:
        url: What was asked for.
        body: The JSON object in the answer; None when it is none.
        fault: Why there is none, "" when there is.
        ahead: By how many seconds the clock there is ahead of the API server's; 0 where it did not tell.
    """

    url: str
    body: Json | None
    fault: str = ""
    ahead: float = 0.0


@dataclass(frozen=True, slots=True)
class Served:
    """What a TLS server showed, and whether the API server would trust it.

    Attributes:
        begin: When its certificate begins, seconds since the epoch.
        end: When it ends.
        fault: Code of what is wrong with it, "" for nothing that TLS minds.
        told: What the TLS library says of that.
    """

    begin: float
    end: float
    fault: str = ""
    told: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """A pod made without being stored.

    Attributes:
        engine: Who should have wired it: "webhook" or "policy".
        namespace: Where.
        account: As which ServiceAccount.
        pod: As it would have been stored; None when it was refused.
        status: HTTP status of the refusal, 0 when there was none.
        refusal: What the API server said.
    """

    engine: str
    namespace: str
    account: str
    pod: Json | None
    status: int = 0
    refusal: str = ""


class Right(NamedTuple):
    """To do one thing to one resource.

    Attributes:
        verb: "list".
        group: "" is the core's.
        resource: "pods", or "pods/eviction".
        name: Of the one object; "" is all of them.
        namespace: Where; "" is everywhere.
    """

    verb: str
    group: str
    resource: str
    name: str = ""
    namespace: str = ""

    def allows(self, wanted: "Right") -> bool:
        """Whether who has this one has the other; verb, group and resource of this one may be "*"."""
        return (
            self.verb in {"*", wanted.verb}
            and self.group in {"*", wanted.group}
            and self.resource in {"*", wanted.resource}
            and self.name in {"", wanted.name}
            and self.namespace in {"", wanted.namespace}
        )


@dataclass(slots=True)
class Cluster:
    """What was seen; what is in none of the attributes was not looked at.

    Attributes:
        server: The API server's URL.
        version: Its `gitVersion`.
        namespace: The only one whose workloads were looked at; "" for all.
        objects: By kind, in full or as far as judgements read them.
        unserved: Kinds that this API server does not know.
        unseen: What could not be looked at.
        rights: What the ServiceAccount of a release's operator is called, and which of the chart's rights it
            lacks; by namespace and name of the release. What is not there was not asked.
        probes: Pods made without being stored.
        served: What answers at the webhook's URL, by URL.
        keys_of: Names of the keys of ConfigMaps and Secrets that pods use, by kind, namespace and name; None
            where there is no such object.
        discovery: The API server's own discovery document.
        keys: Its own key set.
        token: Header and claims of a token that it signed, under "header" and "claims"; nothing else of it.
        issued: The public discovery document.
        issued_keys: The public key set.
        tenants: What Entra says of a tenant's id; by id.
        rules: What the chart of this very program says in its ValidatingAdmissionPolicies whatever its values
            are: parts of their specs, by the names that they have in a release of the usual name; and, as
            "unwired", by which expression its webhook is asked, "plain" and with a token "endpoint".
        now: The moment of looking by the API server's clock, seconds since the epoch.
    """

    server: str
    version: str = ""
    namespace: str = ""
    objects: dict[str, list[Json]] = field(default_factory=dict)
    unserved: set[str] = field(default_factory=set)
    unseen: list[Unseen] = field(default_factory=list)
    rights: dict[str, tuple[str, list[Right]]] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    served: dict[str, Served] = field(default_factory=dict)
    keys_of: dict[tuple[str, str, str], list[str] | None] = field(default_factory=dict)
    discovery: Json | None = None
    keys: Json | None = None
    token: Json | None = None
    issued: Fetched | None = None
    issued_keys: Fetched | None = None
    tenants: dict[str, Fetched] = field(default_factory=dict)
    rules: Mapping[str, Json] = field(default_factory=dict)
    now: float = 0.0
    _index: dict[str, tuple[int, dict[tuple[str, str], Json]]] = field(default_factory=dict)

    def saw(self, kind: str) -> bool:
        """Whether all objects of a kind were looked at; also where the kind is not served."""
        return kind in self.objects or kind in self.unserved

    def all(self, kind: str) -> Sequence[Json]:
        """Return the objects of a kind that were seen."""
        return self.objects.get(kind, ())

    def one(self, kind: str, name: str, namespace: str = "") -> Json | None:
        """Return the object of that name; None when there is none, or it was not looked at."""
        objects = self.all(kind)
        count, index = self._index.get(kind, (-1, {}))
        if count != len(objects):
            metas = ((one["metadata"], one) for one in objects)
            index = {(meta["name"], meta.get("namespace", "")): one for meta, one in metas}
            self._index[kind] = (len(objects), index)
        return index.get((name, namespace))


def labels_of(found: Mapping[str, Any]) -> dict[str, str]:
    """Return an object's labels."""
    return (found.get("metadata") or {}).get("labels") or {}


def annotations_of(found: Mapping[str, Any]) -> dict[str, str]:
    """Return an object's annotations."""
    return (found.get("metadata") or {}).get("annotations") or {}


def object_of(kind: str, found: Mapping[str, Any]) -> Object:
    """Return what a finding about it is about."""
    meta = found["metadata"]
    return Object(kind, meta.get("name", ""), meta.get("namespace", ""))


def template_of(kind: str, found: Json) -> Json:
    """Return the pod that an object makes, with the object's namespace; the object itself if it is a pod."""
    if kind == "Pod":
        return found
    inside = found.get("spec") or {}
    for key in TEMPLATED[kind]:
        inside = inside.get(key) or {}
    meta = {**(inside.get("metadata") or {}), "namespace": found["metadata"].get("namespace", "")}
    meta.setdefault("name", found["metadata"]["name"])
    return {**inside, "metadata": meta}


def controller_of(found: Mapping[str, Any]) -> Json | None:
    """Return the reference to what made an object; None when nobody did."""
    owners: list[Json] = found["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)


def account_of(pod: Mapping[str, Any]) -> str:
    """Return the name of a pod's ServiceAccount."""
    return (pod.get("spec") or {}).get("serviceAccountName") or "default"


def containers_of(pod: Mapping[str, Any]) -> Iterator[Json]:
    """Yield a pod's containers, init containers first."""
    spec = pod.get("spec") or {}
    for kind in ("initContainers", "containers"):
        yield from spec.get(kind) or ()


def is_chosen(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector chooses an object with these labels; a missing or empty one chooses all."""
    return obstacle(selector, labels) == ""


def obstacle(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> str:
    """Return the first requirement of a label selector that labels do not meet, as kubectl writes it; ""."""
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return f"{key}={value}"
    for term in (selector or {}).get("matchExpressions") or ():
        key, operator, values = term["key"], term["operator"], term.get("values") or []
        met = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[operator]
        if not met:
            shown = f" ({', '.join(values)})" if values else ""
            return f"{key} {operator}{shown}"
    return ""


def use_of(pod: Mapping[str, Any]) -> str | None:
    """Return the value of a pod's label; None when it has none."""
    return labels_of(pod).get(contract.USE_LABEL)
