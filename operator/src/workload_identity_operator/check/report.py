"""Puts the judgements together: each fault once, and no consequence beside its cause."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from workload_identity_operator import __version__, contract
from workload_identity_operator.check.chain import (
    chain_of,
    clients_of,
    commands_for,
    concerns,
    credential_of,
)
from workload_identity_operator.check.cluster import Cluster, account_of
from workload_identity_operator.check.findings import Finding, Report, Unseen, in_order
from workload_identity_operator.check.installation import (
    BINDING,
    MWC,
    POLICY,
    Release,
    installation_findings,
    probe_findings,
)
from workload_identity_operator.check.issuer import issuer_findings, issuer_unseen
from workload_identity_operator.check.workloads import crowded, groups_of, workload_findings

_CALL: Final = frozenset({
    *("webhook-without-endpoints", "webhook-service-wrong", "ca-bundle-missing", "ca-bundle-wrong"),
    *("certificate-expired", "certificate-name-wrong", "certificate-unusable"),
    *(f"object-missing {kind}" for kind in ("Service", "Deployment", "Secret")),
})  # fmt: skip
_POLICY: Final = frozenset({
    *("podwiring-anothers", "podwiring-outdated"),
    *(f"{code} {kind}" for code in ("object-missing", "object-edited") for kind in (POLICY, BINDING)),
    *("object-missing CustomResourceDefinition", "object-edited CustomResourceDefinition"),
})  # fmt: skip
_CAUSES: Final[Mapping[str, frozenset[str]]] = {
    "webhook-fails": _CALL,
    "wiring-not-in-force": _CALL
    | _POLICY
    | {
        f"object-missing {MWC}",
        f"object-edited {MWC}",
        "webhook-not-called",
        "webhook-fails",
        "rights-missing",
        "settings-invalid",
    },
    "policy-not-in-force": _POLICY | {"wiring-not-in-force"},
    "replicas-unavailable": frozenset({"webhook-without-endpoints"}),
}
"""What each consequence is not told beside: codes, some of them for a kind of object only."""

_PASSING: Final = frozenset({
    *("podwiring-anothers", "podwiring-outdated", "policy-not-in-force", "wiring-not-in-force"),
})  # fmt: skip


def report_on(cluster: Cluster, releases: Sequence[Release], pod: tuple[str, str] | None = None) -> Report:
    """Return what is wrong; with a pod's namespace and name what is wrong for that one, and its chain."""
    probed, unprobed = probe_findings(cluster, releases)
    found = [
        *installation_findings(cluster, releases),
        *probed,
        *issuer_findings(cluster),
        *workload_findings(cluster, releases),
    ]
    findings = in_order(without_consequences(found))
    unseen = [
        *sorted(cluster.unseen, key=str),  # looked at side by side, so in any order
        *unprobed,
        *issuer_unseen(cluster),
        *crowded(cluster),
        *_unknown(cluster, releases),
    ]
    if pod is None:
        return Report(findings, unseen, _seen(cluster))
    namespace, name = pod
    stored = cluster.one("Pod", name, namespace)
    if stored is None:
        raise LookupError(f"there is no pod {namespace}/{name}, or it may not be looked at")
    group = next(one for one in groups_of(cluster) if stored in one.pods)
    release = releases[0] if releases else None
    concerned = [one for one in findings if concerns(one, group, stored, release)]
    account = cluster.one("ServiceAccount", account_of(stored), namespace) or {"metadata": {}}
    credential = credential_of(cluster, stored, release)
    return Report(
        concerned,
        unseen,
        _seen(cluster),
        list(chain_of(cluster, release, group, stored, concerned)),
        credential,
        commands_for(credential, clients_of(stored, account, concerned)),
    )


def may_pass(report: Report) -> bool:
    """Whether something is told that is so for a moment after every change: one looks once more, later."""
    return any(one.code in _PASSING or contract.UNLABELLED_WEBHOOK in one.found for one in report.findings)


def without_consequences(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings but for those that another of them explains."""
    found = list(findings)
    told = {code for one in found for code in (one.code, f"{one.code} {one.object.kind}")}
    silent = {code for code, causes in _CAUSES.items() if causes & told}
    nobody = {"webhook-without-endpoints", "webhook-fails"} & told or _CALL & told
    return [
        one
        for one in found
        if one.code not in silent
        and not (nobody and one.code == "podwiring-outdated" and one.found == "not there")
    ]


def _unknown(cluster: Cluster, releases: Sequence[Release]) -> Iterable[Unseen]:
    for release in releases:
        if release.version not in {"", __version__}:
            yield Unseen(
                f"what is new in release {release.name} {release.version}, and its operator's rights",
                f"its own program: this one is {__version__}",
            )
    if releases and releases[0].settings is None and cluster.all("Pod"):
        yield Unseen(
            "whether pods' identities are outdated",
            "the operator's settings, from its Deployment, a PodWiring or a pod made without being stored",
        )
    if len(releases) > 1:
        names = ", ".join(release.name for release in releases)
        yield Unseen(
            f"which of the releases {names} wires which pod", f"workloads are judged by {releases[0].name}"
        )


def _seen(cluster: Cluster) -> list[str]:
    shown = ("ServiceAccount", "Namespace", "Pod", "PodWiring")
    counts = [
        f"{(count := len(cluster.all(kind)))} {kind}{'' if count == 1 else 's'}"
        for kind in shown
        if kind in cluster.objects
    ]
    where = f"namespace {cluster.namespace}" if cluster.namespace else "all namespaces"
    return [f"{cluster.server}, Kubernetes {cluster.version or 'of unknown version'}, {where}", *counts]
