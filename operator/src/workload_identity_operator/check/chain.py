"""One pod, from its label to the federated credential that Azure must have."""

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from workload_identity_operator import audit, contract
from workload_identity_operator.check.cluster import (
    Cluster,
    account_of,
    annotations_of,
    containers_of,
    labels_of,
    use_of,
)
from workload_identity_operator.check.findings import CLAIMS, Finding, Object, State, Step
from workload_identity_operator.check.installation import MWC, Release, knows_selection
from workload_identity_operator.check.issuer import issuer_of
from workload_identity_operator.check.workloads import Group, judge
from workload_identity_operator.clouds import PUBLIC_AUDIENCE
from workload_identity_operator.errors import quoted
from workload_identity_operator.shapes import Json

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 120


def token_of(pod: Json) -> Json:
    """Return what a pod's volume asks of its token: "audience", "expirationSeconds"; {} when it has none."""
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            token: Json = source.get("serviceAccountToken") or {}
            if token.get("path") == contract.TOKEN_PATH:
                return token
    return {}


def audience_of(pod: Json, release: Release | None) -> str:
    """Return the audience of a pod's token, or what it would be."""
    known = release.settings.audience if release and release.settings else ""
    return str(token_of(pod).get("audience") or known or PUBLIC_AUDIENCE)


def credential_of(cluster: Cluster, pod: Json, release: Release | None) -> dict[str, Any]:
    """Return the federated credential that must exist at the identity."""
    namespace, account = pod["metadata"]["namespace"], account_of(pod)
    claims = (cluster.token or {}).get("claims") or {}
    name = _NO_NAME.sub("-", f"{namespace}-{account}")[:_LONGEST_NAME]
    return {
        "name": name if len(name) > 2 else f"{name}-federated",  # noqa: PLR2004 - Entra wants three characters
        "issuer": issuer_of(cluster) or "ISSUER",
        "subject": str(claims.get("sub") or f"system:serviceaccount:{namespace}:{account}"),
        "audiences": [audience_of(pod, release)],
    }


def clients_of(pod: Json, account: Json, findings: Sequence[Finding]) -> list[str]:
    """Return the client ids that a pod's containers ask with; [] where none is known.

    A container's own wins over its ServiceAccount's. What a pod has that was made before a change is no wish.
    """
    named = annotations_of(account).get(contract.CLIENT_ID, "").strip()
    if not any(one.code == "pod-outdated" for one in findings):
        found = {value for value in _values(pod, contract.ENV_CLIENT_ID).values() if value}
        if found:
            return sorted(found)
    return [named] if named else []


def commands_for(credential: Mapping[str, Any], clients: Sequence[str]) -> list[str]:
    """Return how Azure's command line makes it: at a managed identity, or at each client id's application."""
    fields = dict(credential)
    managed = [
        *("az", "identity", "federated-credential", "create", "--name", fields["name"]),
        *("--identity-name", "IDENTITY", "--resource-group", "GROUP", "--issuer", fields["issuer"]),
        *("--subject", fields["subject"], "--audiences", *fields["audiences"]),
    ]
    application = ("az", "ad", "app", "federated-credential", "create", "--id")
    return [
        shlex.join(managed),
        *(
            shlex.join([*application, client, "--parameters", json.dumps(fields)])
            for client in clients or ["CLIENT_ID"]
        ),
    ]


def chain_of(
    cluster: Cluster, release: Release | None, group: Group, pod: Json, findings: Sequence[Finding]
) -> Iterator[Step]:
    """Yield each link from the pod's label to its token's claims.

    Args:
        cluster: What was seen.
        release: Whose operator wires it; None when there is none.
        group: What made the pod.
        pod: The pod.
        findings: All that concern it.
    """
    account = cluster.one("ServiceAccount", account_of(pod), pod["metadata"]["namespace"])
    present = annotations_of(account or {})
    hidden = account is None and not cluster.saw("ServiceAccount")
    use = use_of(pod)
    if use == "false":
        yield Step("label of the pod", "ok", f'{contract.USE_LABEL}: "false", so it has no identity')
        return
    unsure = use is None and not knows_selection(cluster, release)
    unknown = unsure or (release is None and not cluster.saw(MWC))
    by_label = release.by_label if release and not unsure else not unknown
    chosen = audit.is_chosen(labels_of(pod), present, label_only=by_label)
    codes = {one.code for one in findings}
    told = f"{contract.USE_LABEL}: {quoted(use)}" if use is not None else "none"
    if use is None and chosen:
        told += f"; {'perhaps ' if unsure else ''}wired for its ServiceAccount's client-id"
    undecided = unknown or not cluster.saw("ServiceAccount")
    state: State = "ok" if chosen and not unsure else ("unseen" if undecided else "wrong")
    yield Step("label of the pod", state, told)
    where = f"{pod['metadata']['namespace']}/{account_of(pod)}"
    if hidden:
        yield Step("ServiceAccount", "unseen", f"{where}: needs get on serviceaccounts")
    else:
        there = "is there" if account else "is not there"
        yield Step("ServiceAccount", "ok" if account else "wrong", f"{where} {there}")
    client = present.get(contract.CLIENT_ID, "")
    own = _own(pod, contract.ENV_CLIENT_ID, client)
    if hidden:
        yield Step("client id", "unseen", f"{where}: needs get on serviceaccounts")
    else:
        state = "wrong" if "client-id-invalid" in codes or not (client or own) else "ok"
        yield Step("client id", state, (quoted(client) if client else "no annotation client-id") + own)
    yield from _tenant_step(release, pod, present, codes)
    if unknown:
        yield Step("wired", "unseen", f"needs list on {MWC.lower()}s, to know who wires it")
    else:
        yield _wiring_step(cluster, release, group, pod, chosen=chosen)
    yield from _container_steps(pod, unknown=unknown)
    gone = account is None and not hidden
    yield Step("token", "wrong", "none is made") if gone else _token_step(cluster, pod, release)
    bad = {one.code for one in findings if one.object.kind == "Issuer"}
    issuer = issuer_of(cluster)
    seen: State = "unseen" if cluster.issued is None else "ok"
    yield Step("issuer", "wrong" if bad else seen, issuer or "not told")


def _values(pod: Json, name: str) -> dict[str, str]:
    """Return what a variable is in each container that has it and is not skipped; "" for what is not told."""
    return {
        container.get("name", ""): one.get("value", "")
        for container in containers_of(pod)
        if container.get("name") not in _skipped(pod)
        for one in container.get("env") or ()
        if one["name"] == name
    }


def _own(pod: Json, name: str, given: str) -> str:
    """Return what to add about containers in which a variable is not what is given; "" where it is in all."""
    values = _values(pod, name)
    return "".join(
        f"; container {quoted(container)} has {quoted(value) if value else 'one from elsewhere'}"
        for container, value in sorted(values.items())
        if value != given
    )


def _tenant_step(
    release: Release | None, pod: Json, present: Mapping[str, str], codes: Collection[str]
) -> Iterator[Step]:
    cluster_tenant = release.settings.tenant_id if release and release.settings else ""
    tenant = present.get(contract.TENANT_ID, cluster_tenant)
    if not tenant:  # nothing tells it but the pod itself
        tenant = next((one for one in _values(pod, contract.ENV_TENANT_ID).values() if one), "")
    told = (quoted(tenant) if tenant else "not told") + _own(pod, contract.ENV_TENANT_ID, tenant)
    wrong = {"tenant-id-invalid", "tenant-invalid", "tenant-unknown"} & set(codes)
    yield Step("tenant", "wrong" if wrong else ("ok" if tenant else "unseen"), told)


def _wiring_step(
    cluster: Cluster,
    release: Release | None,
    group: Group,
    pod: Json,
    *,
    chosen: bool,
) -> Step:
    if not chosen:
        return Step("wired", "wrong", "the pod does not ask for an identity")
    if release is None:
        return Step("wired", "wrong" if not token_of(pod) else "ok", "no release of the chart wires it")
    judged = judge(cluster, release, group, pod)
    if isinstance(judged, audit.Finding):
        return Step("wired", "wrong", f"{judged.state}: {judged.reason}")
    ended = judged == "not ours"
    return Step("wired", "ok", "the pod has ended, or is about to" if ended else "as it would be wired now")


def _container_steps(pod: Json, *, unknown: bool) -> Iterator[Step]:
    """Yield each container; where it is unknown who wires the pod, what lacks variables may be right."""
    for container in containers_of(pod):
        env = {one["name"]: one.get("value", "") for one in container.get("env") or ()}
        names = (
            contract.ENV_CLIENT_ID,
            contract.ENV_TENANT_ID,
            contract.ENV_TOKEN_FILE,
            contract.ENV_AUTHORITY_HOST,
        )
        given = [name for name in names if name in env]
        skipped = container.get("name") in _skipped(pod)
        ok = contract.ENV_TOKEN_FILE in env or skipped
        told = "skipped" if skipped else (", ".join(given) or "none of our variables")
        state: State = "ok" if ok else ("unseen" if unknown else "wrong")
        yield Step(f"container {container.get('name', '')}", state, told)


def _skipped(pod: Json) -> set[str]:
    return {one.strip() for one in annotations_of(pod).get(contract.SKIP_CONTAINERS, "").split(";")}


def _token_step(cluster: Cluster, pod: Json, release: Release | None) -> Step:
    wanted = audience_of(pod, release)
    if cluster.token is None:
        why = next((one.why for one in cluster.unseen if one.what == CLAIMS), "not asked for")
        return Step("token", "unseen", f"audience {quoted(wanted)}; of its claims nothing is known: {why}")
    claims = cluster.token["claims"]
    audiences = claims.get("aud") or []
    told = f"iss {claims.get('iss')}, sub {claims.get('sub')}, aud {', '.join(audiences)}"
    return Step("token", "ok" if audiences == [wanted] else "wrong", told)


def concerns(finding: Finding, group: Group, pod: Json, release: Release | None) -> bool:
    """Whether a finding has to do with a pod: with it, its ServiceAccount, namespace or the installation."""
    namespace = pod["metadata"]["namespace"]
    near = {
        group.about,
        Object("Pod", pod["metadata"]["name"], namespace),
        Object("ServiceAccount", account_of(pod), namespace),
        Object("Namespace", namespace),
        Object("PodWiring", contract.POD_WIRING_NAME, namespace),
    }
    if release and finding.object.namespace == release.namespace and finding.object.kind != "Pod":
        return True
    return finding.object in near or finding.object.kind not in {
        *("Pod", "ServiceAccount", "Namespace", "PodWiring", "Service"),
        *("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"),
    }
