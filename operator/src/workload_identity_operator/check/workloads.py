"""Judges ServiceAccounts, what makes pods, and the pods that run: each mistake once, where it was made."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from workload_identity_operator import audit, contract, healing
from workload_identity_operator.accounts import ours
from workload_identity_operator.check.annotations import (
    ACCOUNT,
    POD,
    Keys,
    expiration_mistake,
    key_mistakes,
    value_mistakes,
)
from workload_identity_operator.check.cluster import (
    TEMPLATED,
    Cluster,
    account_of,
    annotations_of,
    containers_of,
    controller_of,
    labels_of,
    object_of,
    obstacle,
    template_of,
    use_of,
)
from workload_identity_operator.check.findings import Finding, Object, Unseen
from workload_identity_operator.check.installation import MWC, POLICY, Release, covers_pods, knows_selection
from workload_identity_operator.errors import PodRefused, quoted
from workload_identity_operator.identity import (
    identity_of,
    skipped_containers,
    token_expiration,
    wants_legacy_path,
)
from workload_identity_operator.releases import is_of_chart
from workload_identity_operator.shapes import Json
from workload_identity_operator.sidecar import Sidecar, port_warnings, runs_native_sidecars, sidecar_of
from workload_identity_operator.wiring import wire

_TOKEN_FILE: Final = re.compile(r"/var/run/secrets/azure/[^\s'\",;:]*azure-identity-token")
_REFERENCE: Final = re.compile(r"(?<!\$)\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_ENFORCED: Final = "pod-security.kubernetes.io/enforce"
_MOST_CREDENTIALS: Final = 20
"""Federated credentials of an application or managed identity."""
_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_LABEL: Final = f'label {contract.USE_LABEL}: "true"'


class Reference(NamedTuple):
    """A ConfigMap or Secret whose keys matter.

    Attributes:
        kind: "ConfigMap" or "Secret".
        namespace: Where it is.
        name: Its name.
    """

    kind: str
    namespace: str
    name: str


@dataclass(slots=True)
class Group:
    """What makes pods, and those that it made; or a pod that nobody made.

    Attributes:
        about: What its findings are about.
        kind: "Pod" or a kind with a template.
        root: The object.
        template: The pod that it makes; the pod itself.
        pods: Those that run.
    """

    about: Object
    kind: str
    root: Json
    template: Json
    pods: list[Json] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """Where it is."""
        return self.about.namespace


def groups_of(cluster: Cluster) -> list[Group]:
    """Return what makes pods. What was itself made by something that was seen is that one's."""
    made = {one["metadata"]["uid"]: (kind, one) for kind in TEMPLATED for one in cluster.all(kind)}
    groups = {
        uid: Group(object_of(kind, one), kind, one, template_of(kind, one))
        for uid, (kind, one) in made.items()
        if (controller_of(one) or {}).get("uid") not in made
    }
    for pod in cluster.all("Pod"):
        owner = controller_of(pod)
        uid = owner["uid"] if owner else pod["metadata"]["uid"]
        while uid in made and (above := controller_of(made[uid][1])) and above["uid"] in made:
            uid = above["uid"]
        if uid not in groups:
            about = object_of(POD, pod)
            if owner:
                about = Object(owner["kind"], owner["name"], about.namespace)
            groups[uid] = Group(about, POD, pod, pod)
        groups[uid].pods.append(pod)
    return sorted(groups.values(), key=lambda one: one.about)


def is_of_interest(found: Json, kind: str, keys: Keys) -> bool:
    """Whether an object that makes pods, or a pod, has anything of ours; its ServiceAccount may have."""
    pod = template_of(kind, found)
    metadata = [found, pod]
    if kind == "CronJob":
        metadata.append(found["spec"].get("jobTemplate") or {})
    return any(
        key.startswith(contract.PREFIX) or keys.meant_by(key)
        for one in metadata
        for key in (*labels_of(one), *annotations_of(one))
    ) or any(
        volume.get("name", "").startswith(contract.VOLUME_PREFIX)
        for volume in (pod.get("spec") or {}).get("volumes") or ()
    )


def references_of(cluster: Cluster, releases: Sequence[Release]) -> set[Reference]:
    """Return the ConfigMaps and Secrets whose keys must be known to judge the pods."""
    found = set()
    release = releases[0] if releases else None
    for group in groups_of(cluster):
        namespace = group.namespace
        if not _is_chosen(cluster, release, group.template):
            continue
        for container in containers_of(group.template):
            for source in container.get("envFrom") or ():
                for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                    if key in source:
                        found.add(Reference(kind, namespace, source[key]["name"]))
        if name := _endpoint_config_map(release, group.template):
            found.add(Reference("ConfigMap", namespace, name))
    return found


def _account(cluster: Cluster, pod: Json) -> Json | None:
    return cluster.one(ACCOUNT, account_of(pod), pod["metadata"]["namespace"])


def _is_chosen(cluster: Cluster, release: Release | None, pod: Json) -> bool:
    """Whether a pod should have an identity."""
    account = _account(cluster, pod) or {"metadata": {}}
    by_label = release.by_label if release else True
    return audit.is_chosen(labels_of(pod), annotations_of(account), label_only=by_label)


def workload_findings(cluster: Cluster, releases: Sequence[Release]) -> Iterator[Finding]:
    """Yield what is wrong with ServiceAccounts, workloads, namespaces and pods."""
    release = releases[0] if releases else None
    keys, groups = release.keys if release else Keys(), groups_of(cluster)
    odd: list[Finding] = []
    tenant = release.settings.tenant_id if release and release.settings else ""
    for account in cluster.all(ACCOUNT):
        odd += key_mistakes(ACCOUNT, account, keys, object_of(ACCOUNT, account))
        yield from value_mistakes(account, tenant)
    for kind in ("Namespace", "Service"):
        for one in cluster.all(kind):
            odd += key_mistakes(kind, one, keys, object_of(kind, one))
    for group in groups:
        odd += _keys_of(group, keys)
    yield from odd
    yield from _level_findings(cluster, groups)
    left_out = dict(_left_out(cluster, release, groups))
    yield from left_out.values()
    unhappy = {one.about for one in groups if one.namespace in left_out}
    for group in groups:
        found = list(_group_findings(cluster, release, group, odd, groups))
        yield from found
        causes = {
            "account-missing",
            "pod-left-out",
            "mount-in-the-way",
            "proxy-impossible",
            "expiration-invalid",
        }
        if group.about not in unhappy and not causes & {one.code for one in found}:
            yield from _pod_findings(cluster, release, group)


def crowded(cluster: Cluster) -> Iterator[Unseen]:
    """Tell of identities that many ServiceAccounts name: each is a subject of its own, for Azure to know."""
    named: dict[str, list[str]] = {}
    for account in cluster.all(ACCOUNT):
        if client := annotations_of(account).get(contract.CLIENT_ID, "").strip().lower():
            named.setdefault(client, []).append(str(object_of(ACCOUNT, account)))
    for client, accounts in sorted(named.items()):
        if len(accounts) > _MOST_CREDENTIALS:
            yield Unseen(
                f"whether {client} has a federated credential for each of {len(accounts)} ServiceAccounts",
                f"Azure's word; an identity has {_MOST_CREDENTIALS} at most: share ServiceAccounts, or take "
                "several identities",
            )


def _keys_of(group: Group, keys: Keys) -> Iterator[Finding]:
    yield from key_mistakes(POD, group.template, keys, group.about)
    if group.kind != POD:
        yield from key_mistakes(group.kind, group.root, keys, group.about)
    if group.kind == "CronJob":
        yield from key_mistakes("Job", group.root["spec"].get("jobTemplate") or {}, keys, group.about)


def _level_findings(cluster: Cluster, groups: Sequence[Group]) -> Iterator[Finding]:
    """Tell of the opt-in label on objects whose pods do not have it."""
    for group in groups:
        above = [group.root] if group.kind != POD else []
        if group.kind == "CronJob":
            above.append(group.root["spec"].get("jobTemplate") or {})
        if use_of(group.template) is None and any(use_of(one) is not None for one in above):
            yield Finding(
                "label-misplaced",
                group.about,
                f"{_LABEL} on the pod: spec.{'.'.join(TEMPLATED[group.kind])}.metadata.labels",
                f"on the {group.kind} only, where it has no effect",
                f"kubectl -n {group.namespace} patch {group.kind.lower()} {group.about.name} "
                f"--patch '{_patch(group.kind)}'",
            )
    for account in cluster.all(ACCOUNT):
        if use_of(account) is None:
            continue
        about = object_of(ACCOUNT, account)
        users = [one for one in groups if _runs_as(one, about) and use_of(one.template) is None]
        if users:
            yield Finding(
                "label-misplaced",
                about,
                f"{_LABEL} on the pods, such as those of {users[0].about}",
                "on the ServiceAccount, where it has no effect",
                "label the pod; in a Deployment, its template",
            )
    for namespace in cluster.all("Namespace"):
        if use_of(namespace) is not None:
            yield Finding(
                "label-misplaced",
                object_of("Namespace", namespace),
                f"{_LABEL} on pods",
                "on the Namespace, where it has no effect",
                "label the pod; in a Deployment, its template",
            )


def _patch(kind: str) -> str:
    inside = f'{{"metadata": {{"labels": {{"{contract.USE_LABEL}": "true"}}}}}}'
    for key in reversed(("spec", *TEMPLATED[kind])):
        inside = f'{{"{key}": {inside}}}'
    return inside


def _runs_as(group: Group, account: Object) -> bool:
    return (group.namespace, account_of(group.template)) == (account.namespace, account.name)


def _left_out(
    cluster: Cluster, release: Release | None, groups: Sequence[Group]
) -> Iterator[tuple[str, Finding]]:
    """Yield namespaces whose pods should have an identity, but are not looked at."""
    namespaces = cluster.all("Namespace")
    if release is None or release.webhook is None or all(release.leaves_out(one) for one in namespaces):
        return
    for namespace in namespaces:
        name = namespace["metadata"]["name"]
        if not (term := release.leaves_out(namespace)) or _is_of_aks(cluster, namespace):
            continue
        wanting = [
            str(one.about)
            for one in groups
            if one.namespace == name and not _makes_none(one) and _is_chosen(cluster, release, one.template)
        ]
        wanting += [
            str(object_of(ACCOUNT, one))
            for one in cluster.all(ACCOUNT)
            if one["metadata"]["namespace"] == name and annotations_of(one).get(contract.CLIENT_ID)
        ]
        if wanting:
            yield (
                name,
                Finding(
                    "namespace-left-out",
                    Object("Namespace", name),
                    f"pods are wired: {_some(wanting)}",
                    f"its labels do not meet {term} of the webhook's namespaceSelector",
                    "change that label or the chart's mutatingWebhookNamespaceSelector, or move the workload",
                ),
            )


def _is_of_aks(cluster: Cluster, namespace: Json) -> bool:
    """Whether AKS looks after a namespace, and so wires its pods by its own add-on."""
    peer = any(one["metadata"]["name"] == contract.PEER_CONFIGURATION for one in cluster.all(MWC))
    managed = labels_of(namespace).get("kubernetes.azure.com/managedby") == "aks"
    return peer and (managed or namespace["metadata"]["name"] == "kube-system")


def _some(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


# One group.


def _group_findings(
    cluster: Cluster,
    release: Release | None,
    group: Group,
    odd: Sequence[Finding],
    groups: Sequence[Group],
) -> Iterator[Finding]:
    pod, about = group.template, group.about
    annotations, labels = annotations_of(pod), labels_of(pod)
    if contract.MIRROR_POD in annotations or _makes_none(group):
        return
    use = use_of(pod)
    if use not in {None, "true", "false"}:
        yield Finding(
            "label-value",
            about,
            f'{contract.USE_LABEL}: "true"',
            quoted(use or ""),
            'write "true", in lower case; "false" opts out',
        )
    account = _account(cluster, pod)
    chosen = _is_chosen(cluster, release, pod)
    if account is None and cluster.saw(ACCOUNT) and (chosen or _has_token(pod)):
        yield Finding(
            "account-missing",
            about,
            f"ServiceAccount {group.namespace}/{account_of(pod)}, which it runs as",
            _not_there(group),
            f"create it, or correct serviceAccountName{_annotated_beside(cluster, group.namespace)}",
        )
    if use == "true" and account is not None:
        yield from _identity_findings(cluster, group, account, odd)
    by_account = bool(annotations_of(account or {}).get(contract.CLIENT_ID))
    if use is None and not chosen and (knows_selection(cluster, release) or not by_account):
        yield from _label_findings(release, group, account, odd, groups)
    if not chosen:
        return
    if release and release.webhook and use == "true":
        before = {key: value for key, value in labels.items() if key != contract.WIRED_BY}
        term = obstacle(release.webhook.get("objectSelector"), before)
        if term and contract.USE_LABEL not in term:
            yield Finding(
                "pod-left-out",
                about,
                f"pods with {term}, which the webhook's objectSelector wants",
                "labels without",
                "add the label, or change the chart's mutatingWebhookObjectSelector",
            )
    yield from _idle_findings(release, group)
    yield from _refusals(cluster, release, group, account)
    yield from _container_findings(cluster, release, group, account)


def _not_there(group: Group) -> str:
    running = [one for one in group.pods if not _ended(one)]
    if running:
        return f"not there; {len(running)} of its pods run on with a token that is not renewed"
    return "not there: no pod can be made"


def _annotated_beside(cluster: Cluster, namespace: str) -> str:
    """Return which ServiceAccounts may have been meant."""
    names = [
        one["metadata"]["name"]
        for one in cluster.all(ACCOUNT)
        if one["metadata"]["namespace"] == namespace and annotations_of(one).get(contract.CLIENT_ID)
    ]
    return f"; annotated with a client-id there: {_some(names)}" if names else ""


def _identity_findings(
    cluster: Cluster, group: Group, account: Json, odd: Sequence[Finding]
) -> Iterator[Finding]:
    """Tell of labelled pods whose ServiceAccount has no client id."""
    if contract.CLIENT_ID in annotations_of(account):
        return  # what is wrong with it is told of the ServiceAccount
    where = object_of(ACCOUNT, account)
    beside = {Object("Namespace", group.namespace), where, group.about}
    explained = any(
        (one.object in beside or (one.object.kind == "Service" and one.object.namespace == group.namespace))
        and "client-id" in one.wanted
        for one in odd
    )
    if explained or any(
        _names_client(cluster, group.namespace, one) for one in containers_of(group.template)
    ):
        return
    default = where.name == "default"
    yield Finding(
        "account-not-annotated",
        group.about,
        f"a ServiceAccount with annotation {contract.CLIENT_ID}",
        f"{where}{', for want of a serviceAccountName,' if default else ''} without: no AZURE_CLIENT_ID",
        f"kubectl -n {where.namespace} annotate serviceaccount {where.name} {contract.CLIENT_ID}=CLIENT_ID; "
        f"or name another by serviceAccountName{_annotated_beside(cluster, group.namespace)}",
    )


def _names_client(cluster: Cluster, namespace: str, container: Json) -> bool:
    """Whether a container says itself who it is."""
    if any(one["name"] == contract.ENV_CLIENT_ID for one in container.get("env") or ()):
        return True
    return contract.ENV_CLIENT_ID in _from_sources(cluster, namespace, container)


def _label_findings(
    release: Release | None,
    group: Group,
    account: Json | None,
    odd: Sequence[Finding],
    groups: Sequence[Group],
) -> Iterator[Finding]:
    """Tell of pods that are prepared for an identity, and do not ask for it."""
    own = sorted(
        key for key in annotations_of(group.template) if key in (release.keys if release else Keys()).on_pods
    )
    client = account is not None and bool(annotations_of(account).get(contract.CLIENT_ID))
    alone = client and not any(
        use_of(one.template) is not None
        for one in groups
        if one.namespace == group.namespace and account_of(one.template) == account_of(group.template)
    )
    above = [group.root, group.root.get("spec", {}).get("jobTemplate") or {}] if group.kind != POD else []
    told = any(use_of(one) is not None for one in above) or any(
        one.object == group.about and contract.USE_LABEL in one.wanted for one in odd
    )
    if told or (account is not None and use_of(account) is not None) or not (own or alone):
        return
    because = f"annotation {own[0]}" if own else f"a ServiceAccount with {contract.CLIENT_ID}"
    yield Finding(
        "label-missing",
        group.about,
        f"{_LABEL} on the pod",
        f"{because}, but no label",
        "label the pod; in a Deployment, its template",
    )


def _idle_findings(release: Release | None, group: Group) -> Iterator[Finding]:
    """Tell of annotations that are right but for their value, or for want of another."""
    present = annotations_of(group.template)
    proxied = present.get(contract.INJECT_PROXY, "false").lower() != "false"
    if contract.PROXY_PORT in present and not proxied:
        yield _idle(group, contract.PROXY_PORT, present, f"annotation {contract.INJECT_PROXY} beside it")
    endpoint = release.keys.endpoint if release else None
    for key in (contract.LEGACY_PATH_ANNOTATION, *([endpoint] if endpoint else ())):
        if key in present and present[key].lower() not in {"true", "false"}:
            yield _idle(group, key, present, '"true" or "false"')


def _idle(group: Group, key: str, present: Mapping[str, str], wanted: str) -> Finding:
    found = f"annotation {key}: {quoted(present[key], 60)}, which has no effect so"
    return Finding("annotation-idle", group.about, wanted, found, f"correct or remove {key}")


def _refusals(
    cluster: Cluster, release: Release | None, group: Group, account: Json | None
) -> Iterator[Finding]:
    """Tell why a pod made now would be refused."""
    pod, annotations = group.template, annotations_of(group.template)
    spec = pod.get("spec") or {}
    try:
        if annotations.get(contract.EXPIRATION):
            token_expiration(annotations, {})
    except PodRefused as refusal:
        yield expiration_mistake(group.about, refusal)
        return
    if release is None or release.settings is None:
        return
    settings = release.settings
    try:
        sidecar = sidecar_of(
            annotations, spec, settings.proxy, settings.token_endpoint, native=is_native(cluster)
        )
        yield from _sidecar_findings(cluster, group, sidecar)
    except PodRefused as refusal:
        yield Finding(
            "proxy-impossible",
            group.about,
            "a pod in which the proxy can run",
            str(refusal),
            f"correct or remove annotation {contract.INJECT_PROXY} or {contract.PROXY_PORT}",
        )
    try:
        plain = {**ours(annotations), contract.EXPIRATION: ""}
        identity = identity_of(
            labels_of(pod), plain, ours(annotations_of(account or {})) | {contract.EXPIRATION: ""}, settings
        )
        wire(pod, identity)
    except PodRefused as refusal:
        yield Finding(
            "mount-in-the-way",
            group.about,
            f"nothing of the pod's own at {contract.BASE_PATH}",
            str(refusal).partition(": mount it")[0],
            f"mount it elsewhere, or list the container in annotation {contract.SKIP_CONTAINERS}",
        )


def _sidecar_findings(cluster: Cluster, group: Group, sidecar: Sidecar | None) -> Iterator[Finding]:
    """Tell what the proxy that a pod asks for meets there."""
    if sidecar is None:
        return
    namespace = cluster.one("Namespace", group.namespace) or {"metadata": {}}
    level = labels_of(namespace).get(_ENFORCED, "privileged")
    names = {one.get("name") for one in containers_of(group.template)}
    if level in {"baseline", "restricted"} and contract.PROXY_INIT_NAME not in names:
        yield Finding(
            "proxy-impossible",
            group.about,
            "a namespace that lets the proxy's init container in, which has NET_ADMIN and NET_RAW",
            f"namespace {group.namespace} enforces the Pod Security Standard {level}, and so refuses the pod",
            f"remove annotation {contract.INJECT_PROXY}, or move the workload",
        )
    for told in port_warnings(group.template.get("spec") or {}, sidecar):
        yield Finding(
            "proxy-port-taken",
            group.about,
            f"port {sidecar.port} for the proxy",
            told.partition(": change")[0],
            f"change the container's port, or annotation {contract.PROXY_PORT}",
        )


def is_native(cluster: Cluster) -> bool:
    """Whether the cluster runs native sidecars."""
    try:
        return runs_native_sidecars(cluster.version)
    except ValueError:
        return True


def _container_findings(
    cluster: Cluster, release: Release | None, group: Group, account: Json | None
) -> Iterator[Finding]:
    pod, about = group.template, group.about
    skipped = skipped_containers(annotations_of(pod))
    names = {one.get("name", "") for made in (pod, *group.pods) for one in containers_of(made)}
    injected = {contract.PROXY_NAME, contract.PROXY_INIT_NAME}
    known = bool(group.pods) or not _others_change_pods(cluster)
    if known and (unknown := sorted(skipped - names - injected)):
        yield Finding(
            "skips-nothing",
            about,
            f"names of the pod's containers, {', '.join(sorted(names))}, separated by ;",
            ", ".join(quoted(one, 60) for one in unknown),
            f"correct annotation {contract.SKIP_CONTAINERS}",
        )
    client = annotations_of(account or {}).get(contract.CLIENT_ID)
    given = {contract.ENV_TENANT_ID, contract.ENV_AUTHORITY_HOST, contract.ENV_TOKEN_FILE}
    given |= {contract.ENV_CLIENT_ID} if client else set()
    for container in containers_of(pod):
        name = container.get("name", "")
        if name in skipped:
            continue
        own = {one["name"] for one in container.get("env") or ()} if group.kind != POD else set()
        if lost := sorted(_from_sources(cluster, group.namespace, container) & (given - own)):
            yield Finding(
                "env-overridden",
                about,
                f"container {quoted(name)} to have its own {', '.join(lost)}, from envFrom",
                "ours, which stands in env and so wins",
                "set it in env, which is kept; or leave it out of envFrom",
            )
        for path in sorted(set(_token_files(container))):
            if not (_is_there(path, container) or _is_legacy(path, release, group)):
                yield Finding(
                    "token-file-elsewhere",
                    about,
                    f"container {quoted(name)} to read the file that {contract.ENV_TOKEN_FILE} names",
                    quoted(path, 120),
                    f"read the path from {contract.ENV_TOKEN_FILE}, and do not set it; for the former path "
                    f'annotate the pod {contract.LEGACY_PATH_ANNOTATION}: "true"',
                )
        yield from _env_findings(about, container, given)
    if config_map := _endpoint_config_map(release, pod):
        keys = cluster.keys_of.get(("ConfigMap", group.namespace, config_map), ["ca.crt"])
        if "ca.crt" not in (keys or ()):
            yield Finding(
                "token-endpoint-ca-missing",
                about,
                f"ConfigMap {group.namespace}/{config_map} with key ca.crt",
                "not there" if keys is None else "no such key",
                "make it, or set customTokenEndpoint.azureKubernetesCAConfigMapName to kube-root-ca.crt",
            )


def _others_change_pods(cluster: Cluster) -> bool:
    """Whether somebody else may add containers to pods that are made, as a mesh does, or nobody knows."""
    if not (cluster.saw(MWC) and cluster.saw(POLICY)):
        return True
    webhooks = (one for one in cluster.all(MWC) if any(map(covers_pods, _rules_of(one))))
    return any(
        not is_of_chart(one) and one["metadata"]["name"] != contract.PEER_CONFIGURATION
        for one in (*webhooks, *cluster.all(POLICY))
    )


def _rules_of(configuration: Json) -> Iterator[Json]:
    for webhook in configuration.get("webhooks") or ():
        yield from webhook.get("rules") or ()


def _env_findings(about: Object, container: Json, given: Collection[str]) -> Iterator[Finding]:
    """Tell of variables by which a container gets in the way of ours."""
    name, before = quoted(container.get("name", "")), set[str]()
    for variable in container.get("env") or ():
        own, value = variable["name"], variable.get("value") or ""
        if own in given and not value and "valueFrom" not in variable:
            yield Finding(
                "env-empty",
                about,
                f"container {name} to have {own}, as its ServiceAccount or the cluster says",
                "set to nothing in env, which is kept",
                f"remove {own} from env, or set it",
            )
        lost = sorted({one for one in _REFERENCE.findall(value) if one in given} - before)
        if lost:
            yield Finding(
                "env-not-expanded",
                about,
                f"container {name}: what {own} refers to, {', '.join(lost)}, to stand before it",
                "ours comes after the container's own variables, so the reference stays as it is written",
                "refer to it in command or args, where all are expanded; or read both in the program",
            )
        before.add(own)


def _from_sources(cluster: Cluster, namespace: str, container: Json) -> set[str]:
    """Return the variables that a container has from ConfigMaps and Secrets, as far as they were read."""
    found = set()
    for source in container.get("envFrom") or ():
        for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if key in source:
                keys = cluster.keys_of.get((kind, namespace, source[key]["name"])) or ()
                found |= {(source.get("prefix") or "") + one for one in keys}
    return found


def _token_files(container: Json) -> Iterator[str]:
    """Yield where a container looks for its token, as far as its text says."""
    for variable in container.get("env") or ():
        value = variable.get("value") or ""
        if variable["name"] == contract.ENV_TOKEN_FILE and value:
            yield value
        else:
            yield from _TOKEN_FILE.findall(value)
    for word in (*(container.get("command") or ()), *(container.get("args") or ())):
        yield from _TOKEN_FILE.findall(word)


def _is_there(path: str, container: Json) -> bool:
    if path == contract.TOKEN_FILE:
        return True
    mounts = (one["mountPath"].rstrip("/") + "/" for one in container.get("volumeMounts") or ())
    return any(path.startswith(mount) for mount in mounts if mount != contract.BASE_PATH + "/")


def _is_legacy(path: str, release: Release | None, group: Group) -> bool:
    """Whether it is the peer's former path, and the pods get their token there too."""
    if path != f"{contract.LEGACY_PATH}/{contract.LEGACY_TOKEN_PATH}":
        return False
    default = bool(release and release.settings and release.settings.legacy_path)
    if wants_legacy_path(annotations_of(group.template), default=default):
        return True
    mounts = (
        one for pod in group.pods for each in containers_of(pod) for one in each.get("volumeMounts") or ()
    )
    return any(mount["mountPath"].rstrip("/") == contract.LEGACY_PATH for mount in mounts)


def _endpoint_config_map(release: Release | None, pod: Json) -> str:
    """Return the ConfigMap by which a pod trusts the custom token endpoint; "" when there is none."""
    endpoint = release.settings.token_endpoint if release and release.settings else None
    if endpoint and endpoint.ca_source and endpoint.wanted_by(annotations_of(pod)):
        return str((endpoint.ca_source.get("configMap") or {}).get("name", ""))
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        if volume.get("name", "").startswith(contract.VOLUME_PREFIX):
            for source in (volume.get("projected") or {}).get("sources") or ():
                if config_map := source.get("configMap"):
                    return str(config_map.get("name", ""))
    return ""


def _has_token(pod: Mapping[str, Any]) -> bool:
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return any(one.get("name", "").startswith(contract.VOLUME_PREFIX) for one in volumes)


# Pods that run.


def _ended(pod: Mapping[str, Any]) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in _FINISHED or bool(pod["metadata"].get("deletionTimestamp"))


def _makes_none(group: Group) -> bool:
    """Whether it has ended, and so makes no pods any more: a pod, or a Job that is complete or has failed."""
    if group.kind == POD:
        return _ended(group.root)
    conditions = (group.root.get("status") or {}).get("conditions") or ()
    return group.kind == "Job" and any(
        one.get("type") in {"Complete", "Failed"} and one.get("status") == "True" for one in conditions
    )


def _pod_findings(cluster: Cluster, release: Release | None, group: Group) -> Iterator[Finding]:
    if release is None or not cluster.saw(ACCOUNT):
        return
    found: dict[str, list[audit.Finding]] = {}
    for pod in group.pods:
        if isinstance(judged := judge(cluster, release, group, pod), audit.Finding):
            found.setdefault(judged.state, []).append(judged)
    codes = {"unwired": "pod-unwired", "outdated": "pod-outdated", "wrong": "pod-wired-wrong"}
    alive = sum(not _ended(one) for one in group.pods)
    for state, judged_so in found.items():
        first = judged_so[0]
        told = (
            first.reason
            if group.kind == POD
            else f"{len(judged_so)} of {alive} pods, such as {first.pod}: {first.reason}"
        )
        if first.doubtful:
            told += ", unless its author wrote so"
        yield Finding(
            codes[state],
            group.about,
            "the identity that label and ServiceAccount ask for",
            told,
            _renewal(group),
        )


def judge(cluster: Cluster, release: Release, group: Group, pod: Json) -> audit.Finding | str:
    """Return what the audit says of a pod."""
    if release.settings is None:
        return _without_settings(cluster, release, pod)
    if (
        not release.certain
        and _has_token(pod)
        and any(map(release.keys.may_be_endpoint, annotations_of(pod)))
    ):
        return "wired"  # for an endpoint of which nothing is known
    account = _account(cluster, pod)
    rules = audit.Rules(release.settings, label_only=release.by_label, native_sidecars=is_native(cluster))
    written = None if group.kind == POD else audit.written_in(group.template)
    origin = audit.Origin(written, account is not None and is_unchanged_since(account, pod))
    return audit.judge(pod, ours(annotations_of(account or {})), rules, origin)


def _without_settings(cluster: Cluster, release: Release, pod: Json) -> audit.Finding | str:
    """Judge a pod where nothing tells what pods are given: only that it is given something."""
    if _ended(pod) or _has_token(pod) or not _is_chosen(cluster, release, pod):
        return "wired"
    meta = pod["metadata"]
    return audit.Finding(
        meta["namespace"], meta["name"], meta["uid"], account_of(pod), "unwired", "has no Azure identity"
    )


def is_unchanged_since(account: Json, pod: Json) -> bool:
    """Whether a ServiceAccount's annotations are those of when a pod was made, as far as the second tells."""
    times = [
        one.get("time") or ""
        for one in account["metadata"].get("managedFields") or ()
        if "f:annotations" in ((one.get("fieldsV1") or {}).get("f:metadata") or {})
    ]
    return bool(times) and max(times) < str(pod["metadata"].get("creationTimestamp", ""))


def _renewal(group: Group) -> str:
    if group.kind != POD:
        return healing.by_hand(healing.reference_to(group.root), group.namespace, group.root)
    if owner := controller_of(group.root):
        return healing.by_hand(owner, group.namespace)
    where, name = f"kubectl -n {group.namespace}", group.about.name
    return f"delete it and make it anew: {where} get pod {name} -o yaml has what to keep"
