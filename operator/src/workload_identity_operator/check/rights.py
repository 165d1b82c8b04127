"""What the operator may do by the chart's roles, and what of it roles and bindings in a cluster give."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

from workload_identity_operator import contract
from workload_identity_operator.check.cluster import Cluster, Right
from workload_identity_operator.shapes import Json

_ADMISSION: Final = "admissionregistration.k8s.io"
_CONFIGURATIONS: Final = "mutatingwebhookconfigurations"
_POLICIES: Final = "mutatingadmissionpolicies"
_BINDINGS: Final = "mutatingadmissionpolicybindings"
_DEFINITIONS: Final = "customresourcedefinitions"
_MOST_TOLD: Final = 5


def rights_of(
    name: str, namespace: str, configuration: str, *, secret: str, policy: bool, healing: str
) -> list[Right]:
    """Return what the roles of a release give its operator.

    Args:
        name: Of the release's objects.
        namespace: Where its own are.
        configuration: Name of its MutatingWebhookConfiguration.
        secret: That with the certificate that the operator issues; "" where it does not, or nobody knows.
        policy: Whether the API server wires pods, too.
        healing: The chart's `healing.mode`; "" for off.
    """
    tables = contract.POD_WIRING_GROUP
    declared, definition = f"{name}-declared", f"{contract.POD_WIRINGS}.{tables}"
    rules: list[tuple[str, str, str, str]] = [
        ("get list watch", "", "serviceaccounts", ""),
        ("list watch create patch delete", tables, contract.POD_WIRINGS, ""),
        ("patch", tables, f"{contract.POD_WIRINGS}/status", ""),
        ("patch", _ADMISSION, _CONFIGURATIONS, configuration),
        ("get list watch", _ADMISSION, _CONFIGURATIONS, ""),
        ("list watch", _ADMISSION, _BINDINGS, name),
        ("create", "events.k8s.io", "events", ""),
        ("list", "", "pods", ""),
        ("get", "", "namespaces", ""),
        ("get", "", "replicationcontrollers", ""),
        *(("get", "apps", one, "") for one in ("deployments", "replicasets", "statefulsets", "daemonsets")),
        ("get", "batch", "jobs", ""),
    ]
    if healing:
        rules.append(("list", "policy", "poddisruptionbudgets", ""))
    if healing in {"annotated", "restart"}:
        rules += [("patch", "apps", one, "") for one in ("deployments", "statefulsets", "daemonsets")]
        rules += [("create", "", "pods/eviction", "")]
    if policy:
        rules += [
            ("get list watch create patch delete", _ADMISSION, _POLICIES, name),
            ("get create patch", _ADMISSION, _BINDINGS, name),
            *(("create patch", _ADMISSION, one, declared) for one in (_POLICIES, _BINDINGS)),
            ("get", tables, contract.POD_WIRINGS, ""),
            ("get list watch create patch", "apiextensions.k8s.io", _DEFINITIONS, definition),
        ]
    own = [
        ("get list watch", "", "configmaps", declared),
        ("get create patch", "coordination.k8s.io", "leases", name),
    ]
    if secret:
        own.append(("get list watch create patch", "", "secrets", secret))
    return [
        Right(verb, group, resource, named, where)
        for where, table in (("", rules), (namespace, own))
        for verbs, group, resource, named in table
        for verb in verbs.split()
    ]


def account_of_release(cluster: Cluster, name: str) -> str:
    """Return the ServiceAccount that a release gives its ClusterRole; the chart's default where unknown."""
    binding = cluster.one("ClusterRoleBinding", name) or {}
    subjects = (one["name"] for one in binding.get("subjects") or () if one["kind"] == "ServiceAccount")
    return next(subjects, name)


def given(cluster: Cluster, account: str, namespace: str) -> Iterator[Right]:
    """Yield what roles and bindings that were seen give a ServiceAccount, "*" as it is."""
    for binding in (*cluster.all("ClusterRoleBinding"), *cluster.all("RoleBinding")):
        role, where = binding["roleRef"], binding["metadata"].get("namespace", "")
        found = cluster.one(role["kind"], role["name"], where if role["kind"] == "Role" else "")
        if found and _names(binding, account, namespace):
            yield from _rights(found, where)


def _names(binding: Json, account: str, namespace: str) -> bool:
    return any(
        (one["kind"], one["name"], one.get("namespace", "")) == ("ServiceAccount", account, namespace)
        for one in binding.get("subjects") or ()
    )


def _rights(role: Json, namespace: str) -> Iterator[Right]:
    for rule in role.get("rules") or ():
        lists = (rule.get(key) or () for key in ("verbs", "apiGroups", "resources"))
        for verb, group, resource, name in product(*lists, rule.get("resourceNames") or [""]):
            yield Right(verb, group, resource, name, namespace)


def lacking(wanted: Sequence[Right], has: Iterable[Right]) -> list[Right]:
    """Return which rights are not among those that somebody has."""
    known = list(has)
    return [one for one in wanted if not any(other.allows(one) for other in known)]


def review_of(right: Right, account: str, namespace: str) -> Mapping[str, Any]:
    """Return the SubjectAccessReview that asks whether a ServiceAccount has a right."""
    resource, _, subresource = right.resource.partition("/")
    asked = right._asdict() | {"resource": resource, "subresource": subresource}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{account}",
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{namespace}",
                "system:authenticated",
            ],
            "resourceAttributes": {key: value for key, value in asked.items() if value},
        },
    }


def told(rights: Sequence[Right]) -> str:
    """Return rights as one says them, "list, watch serviceaccounts; patch leases"; the first few."""
    verbs: dict[str, list[str]] = {}
    for one in rights:
        known = verbs.setdefault(one.resource, [])
        if one.verb not in known:
            known.append(one.verb)
    parts = [f"{', '.join(some)} {resource}" for resource, some in verbs.items()]
    rest = len(parts) - _MOST_TOLD
    return "; ".join(parts[:_MOST_TOLD]) + (f" and more of {rest} other resources" if rest > 0 else "")
