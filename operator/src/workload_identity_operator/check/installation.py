"""Judges what is installed: webhook, policy, certificate, Deployment, settings, and who else is there."""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

from workload_identity_operator import __version__, clouds, contract
from workload_identity_operator.accounts import LOOKUP_TIMEOUT
from workload_identity_operator.check.annotations import Keys
from workload_identity_operator.check.certificate import certificate_faults, validity_faults
from workload_identity_operator.check.cluster import (
    Cluster,
    Probe,
    Served,
    annotations_of,
    is_chosen,
    labels_of,
    obstacle,
)
from workload_identity_operator.check.findings import Finding, Object, Unseen
from workload_identity_operator.check.rights import told
from workload_identity_operator.compiling import compile_identities
from workload_identity_operator.declared import (
    DeclarationUnreadable,
    difference,
    read_declaration,
    settings_checksum,
)
from workload_identity_operator.errors import SettingsInvalid, quoted
from workload_identity_operator.identity import SHAPES
from workload_identity_operator.releases import UNLABELLED_ONLY, is_of_chart, left_to, peer_among
from workload_identity_operator.settings import DEFAULT_NAMESPACE, Flags, Settings, read_settings
from workload_identity_operator.shapes import Json

MWC: Final = "MutatingWebhookConfiguration"
POLICY: Final = "MutatingAdmissionPolicy"
BINDING: Final = "MutatingAdmissionPolicyBinding"
RULES: Final = "ValidatingAdmissionPolicy"
RULES_BINDING: Final = "ValidatingAdmissionPolicyBinding"
_GUARD: Final = "-guard"
_UNMARK: Final = "-unmark"
_BESIDE: Final[Mapping[str, str]] = {RULES: _GUARD, POLICY: _UNMARK, BINDING: _UNMARK}
"""What ends the names of objects beside the first of their kind."""
_MOST_TOLD: Final = 3
_WRITES: Final = "see whether the operator runs, and its log"
_HELM: Final = "helm upgrade (from Helm 4 on with --force-conflicts), or apply the manifests again"
_LABELLED: Final = {contract.USE_LABEL: "true"}
_ENDPOINT: Final = re.compile(re.escape(contract.USE_LABEL) + r"-[-A-Za-z0-9_.]*[A-Za-z0-9]")
_ENFORCER: Final = "admissions.enforcer/disabled"
_ENFORCED: Final = "control-plane"
"""Label of namespaces about which AKS's enforcer adds a term to webhooks."""
_UNWIRED: Final = "unwired"
"""The one matchCondition of the chart's webhook, beside its policy."""
_ON_AKS: Final = re.compile(
    r"https://([^/]+\.)?(oic\.prod-aks\.azure\.com|oidc\.prod-aks\.azure\.com|azmk8s\.io)[:/]"
)

FlagsOf = Callable[[Sequence[str]], Flags]
"""From the arguments of `run` to flags; raises ValueError with a sentence."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the chart, as found.

    Attributes:
        name: Of its objects.
        namespace: Where its own are.
        configuration: Its MutatingWebhookConfiguration; None when it is not there.
        deployment: Its Deployment; None when it is not there, as where the operator runs elsewhere.
        settings: What the operator runs with, as far as its Deployment, a PodWiring or a wired pod tells;
            None when nothing does.
        certain: Whether its Deployment tells, so that all of it is known.
        faults: Of what the Deployment says.
        by_label: Whether only labelled pods are wired.
        keys: Which annotations mean something.
    """

    name: str
    namespace: str
    configuration: Json | None
    deployment: Json | None
    settings: Settings | None
    certain: bool
    faults: tuple[str, ...]
    by_label: bool
    keys: Keys

    @property
    def configuration_name(self) -> str:
        """What its MutatingWebhookConfiguration is called, or should be."""
        return _configuration_name(self.name)

    @property
    def version(self) -> str:
        """Of the chart's program; "" when nothing says it."""
        return labels_of(self.configuration or {}).get("app.kubernetes.io/version", "")

    @property
    def webhook(self) -> Json | None:
        """Its webhook for labelled pods; None when it is not there."""
        webhooks = (self.configuration or {}).get("webhooks") or ()
        return next((one for one in webhooks if one["name"] == contract.WEBHOOK_NAME), None)

    def peer(self, cluster: Cluster) -> str:
        """Return the configuration of the peer that is there too; "" for none."""
        return peer_among({one["metadata"]["name"]: one for one in cluster.all(MWC)}, self.configuration_name)

    @property
    def outside(self) -> bool:
        """Whether the operator runs outside the cluster."""
        return bool(((self.webhook or {}).get("clientConfig") or {}).get("url"))

    def leaves_out(self, namespace: Json) -> str:
        """Return why the webhook is not asked about the pods of a namespace; "" when it is."""
        return obstacle((self.webhook or {}).get("namespaceSelector"), labels_of(namespace))


# What there is.


def names_of_releases(cluster: Cluster) -> list[tuple[str, str]]:
    """Return name and namespace of each release of ours, from whatever of it is left."""
    found: dict[str, str] = {}
    for kind in (MWC, "Deployment", POLICY, BINDING, RULES):
        for one in cluster.all(kind):
            meta = one["metadata"]
            ours = is_of_chart(one) or (kind == MWC and meta["name"] == Flags().webhook_configuration)
            if ours:
                name = meta["name"].removesuffix(_BESIDE.get(kind, ""))
                name = name.removeprefix(contract.CONFIGURATION_PREFIX) if kind == MWC else name
                found[name] = found.get(name) or _namespace_of(kind, one)
    # Workloads are judged by the first: the one that is called what it is called where nobody says otherwise.
    names = sorted(found, key=lambda name: (name != contract.RELEASE_NAME, name))
    return [(name, found[name] or DEFAULT_NAMESPACE) for name in names]


def _namespace_of(kind: str, found: Json) -> str:
    if kind == "Deployment":
        return str(found["metadata"]["namespace"])
    for webhook in found.get("webhooks") or ():
        if service := (webhook.get("clientConfig") or {}).get("service"):
            return str(service["namespace"])
    return annotations_of(found).get("meta.helm.sh/release-namespace", "")


def _configuration_name(release: str) -> str:
    return contract.CONFIGURATION_PREFIX + release


def releases_of(cluster: Cluster, flags_of: FlagsOf) -> list[Release]:
    """Return the releases of ours."""
    return [_release(cluster, name, namespace, flags_of) for name, namespace in names_of_releases(cluster)]


def _release(cluster: Cluster, name: str, namespace: str, flags_of: FlagsOf) -> Release:
    configuration = cluster.one(MWC, _configuration_name(name))
    deployment = cluster.one("Deployment", name, namespace)
    policy = cluster.one(POLICY, name) or _declared_policy(cluster, name, namespace)
    settings, faults = None, tuple[str, ...]()
    if deployment:
        settings, faults = settings_of(cluster, deployment, flags_of)
    certain = settings is not None
    constraints = ((policy or {}).get("spec") or {}).get("matchConstraints") or {}
    wanted = (constraints.get("objectSelector") or {}).get("matchLabels") or {}
    asks = annotations_of(configuration or {}).get(contract.UNLABELLED_PODS) == "webhook"
    by_label = wanted.get(contract.USE_LABEL) == "true" if policy else not asks
    if (said := annotations_of(configuration or {}).get(contract.SELECTION)) is not None:
        by_label = said == "label"
    endpoint: str | None = None
    if settings:
        endpoint = settings.token_endpoint.annotation if settings.token_endpoint else ""
    elif policy:
        conditions = json.dumps((policy.get("spec") or {}).get("matchConditions") or ())
        endpoint = next(iter(_ENDPOINT.findall(conditions)), "")
    return Release(
        name=name,
        namespace=namespace,
        configuration=configuration,
        deployment=deployment,
        settings=settings or _gathered(cluster, name),
        certain=certain,
        faults=faults,
        by_label=by_label,
        keys=Keys(endpoint),
    )


def knows_selection(cluster: Cluster, release: Release | None) -> bool:
    """Whether it was seen which pods are wired: labelled ones only, or all of annotated ServiceAccounts."""
    if cluster.saw(MWC) or cluster.all(POLICY):
        return True
    return release is not None and _declared_policy(cluster, release.name, release.namespace) is not None


def _declared_policy(cluster: Cluster, name: str, namespace: str) -> Json | None:
    """Return a policy that is not there as the release declares it."""
    config_map = cluster.one("ConfigMap", f"{name}-declared", namespace)
    try:
        declared = read_declaration(config_map).objects if config_map else ()
    except DeclarationUnreadable:
        return None
    return next((one.body for one in declared if one.kind == POLICY), None)


def _gathered(cluster: Cluster, name: str) -> Settings | None:
    """Return the settings that a PodWiring of the release shows, and a pod that its webhook wired."""
    legacy = any(
        token.get("path") == contract.LEGACY_TOKEN_PATH
        for probe in cluster.probes
        for token in _tokens(probe)
    )
    ours = _configuration_name(name)
    for wiring in cluster.all("PodWiring"):
        spec = wiring.get("spec") or {}
        if annotations_of(wiring).get(contract.POD_WIRING_KEEPER, ours) == ours and "tenantID" in spec:
            known = spec["tenantID"], spec.get("authorityHost", ""), spec.get("audience", "")
            return _settings(*known, legacy=legacy)
    for probe in cluster.probes:
        account = cluster.one("ServiceAccount", probe.account, probe.namespace) or {"metadata": {}}
        if probe.pod and (tokens := _tokens(probe)) and contract.TENANT_ID not in annotations_of(account):
            env = {
                one["name"]: one.get("value", "")
                for one in probe.pod["spec"]["containers"][0].get("env") or ()
            }
            tenant, host = env.get(contract.ENV_TENANT_ID, ""), env.get(contract.ENV_AUTHORITY_HOST, "")
            return _settings(tenant, host, tokens[0].get("audience", ""), legacy=legacy)
    return None


def _tokens(probe: Probe) -> list[Json]:
    """Return the tokens that a probe's pod was given."""
    return [
        source["serviceAccountToken"]
        for volume in ((probe.pod or {}).get("spec") or {}).get("volumes") or ()
        if volume["name"].startswith(contract.VOLUME_PREFIX)
        for source in (volume.get("projected") or {}).get("sources") or ()
        if "serviceAccountToken" in source
    ]


def _settings(tenant: str, host: str, audience: str, *, legacy: bool) -> Settings:
    """Return settings of which only this is known."""
    rest = read_settings(Flags(legacy_token_path=legacy), {"AZURE_TENANT_ID": "unknown"})
    return replace(rest, tenant_id=tenant, authority_host=host, audience=audience)


def settings_of(
    cluster: Cluster, deployment: Json, flags_of: FlagsOf
) -> tuple[Settings | None, tuple[str, ...]]:
    """Return the settings that a Deployment's operator starts with, and their faults.

    What only its pod can see, files and what other variables come from, is taken to be right.
    """
    container = _operator_of(deployment)
    arguments = [str(one) for one in container.get("args") or ()]
    arguments = arguments[arguments.index("run") + 1 :] if "run" in arguments else arguments
    environ, unknown = _environment(cluster, deployment, container)
    try:
        flags = replace(flags_of(arguments), kubeconfig="", disable_cert_rotation=False)
    except ValueError as fault:
        return None, (str(fault),)
    if environ.get("AZURE_ENVIRONMENT", "").lower() == clouds.STACK.lower():
        environ["AZURE_ENVIRONMENT"] = ""
    try:
        return read_settings(flags, environ), ()
    except SettingsInvalid as invalid:
        return None, tuple(fault for fault in invalid.faults if not any(name in fault for name in unknown))


def _operator_of(deployment: Json) -> Json:
    containers: list[Json] = deployment["spec"]["template"]["spec"]["containers"]
    named = (one for one in containers if one["name"] == "operator" or "run" in (one.get("args") or ()))
    return next(named, containers[0])


def _environment(cluster: Cluster, deployment: Json, container: Json) -> tuple[dict[str, str], set[str]]:
    """Return the variables that can be told, and the names of those that cannot."""
    namespace = deployment["metadata"]["namespace"]
    environ, unknown = {"POD_NAMESPACE": namespace}, set()
    for source in container.get("envFrom") or ():
        reference = source.get("configMapRef")
        found = reference and cluster.one("ConfigMap", reference["name"], namespace)
        if found:
            environ |= found.get("data") or {}
        else:
            unknown |= {"AZURE_", "PROXY_"}
    for variable in container.get("env") or ():
        name, source = variable["name"], variable.get("valueFrom") or {}
        key = source.get("configMapKeyRef") or {}
        found = cluster.one("ConfigMap", key.get("name", ""), namespace)
        if not source:
            environ[name] = variable.get("value", "")
        elif found and key["key"] in (found.get("data") or {}):
            environ[name] = found["data"][key["key"]]
        elif "fieldRef" not in source:
            unknown.add(name)
    return environ, unknown


# What is wrong with it.


def installation_findings(cluster: Cluster, releases: Sequence[Release]) -> Iterator[Finding]:
    """Yield what is wrong with what is installed."""
    if not releases:
        if cluster.saw(MWC):
            wanted = f"a release of the chart, with its {MWC}"
            yield Finding(
                "not-installed",
                Object("Cluster", cluster.server),
                wanted,
                "none",
                "helm install the chart, or name another --context",
            )
        return
    for release in releases:
        yield from _webhook_findings(cluster, release)
        yield from _certificate_findings(cluster, release)
        yield from _policy_findings(cluster, release)
        yield from _validation_findings(cluster, release)
        yield from _deployment_findings(cluster, release)
        yield from _rights_findings(cluster, release)
        yield from _neighbour_findings(cluster, release)
        yield from _version_findings(cluster, release)
        yield from _wiring_findings(cluster, release)
    yield from _tenant_findings(cluster, releases)


def _missing(kind: str, release: Release, name: str = "", found: str = "not there") -> Finding:
    namespaced = kind in {"Service", "Deployment", "ConfigMap", "Secret", "ServiceAccount"}
    about = Object(kind, name or release.name, release.namespace if namespaced else "")
    return Finding("object-missing", about, "as the chart makes it", found, _HELM)


def _webhook_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    if release.configuration is None:
        if cluster.saw(MWC):
            yield _missing(MWC, release, release.configuration_name)
        return
    about, webhook = Object(MWC, release.configuration_name), release.webhook
    if webhook is None:
        yield _missing(MWC, release, release.configuration_name, f"has no webhook {contract.WEBHOOK_NAME}")
        return
    selector = webhook.get("objectSelector")
    if not any(covers_pods(rule) for rule in webhook.get("rules") or ()):
        yield Finding(
            "webhook-not-called",
            about,
            "a rule for CREATE of v1 pods",
            quoted(json.dumps(webhook.get("rules") or []), 200),
            _HELM,
        )
    elif contract.USE_LABEL in (term := obstacle(_only_ours(selector), _LABELLED)):
        yield Finding(
            "webhook-not-called", about, f'pods labelled {contract.USE_LABEL}: "true"', f"only {term}", _HELM
        )
    elif any(is_chosen(_only_ours(selector), labels) for labels in ({}, {contract.USE_LABEL: "false"})):
        yield Finding(
            "webhook-for-all-pods",
            about,
            f'only pods labelled {contract.USE_LABEL}: "true"',
            f"objectSelector {json.dumps(selector or {})}",
            _HELM,
        )
    elif told := ", ".join(_edits_of_webhook(cluster, release, webhook)):
        yield Finding("object-edited", about, _AS_ELSEWHERE, told, _HELM)
    namespaces = cluster.all("Namespace")
    if namespaces and all(release.leaves_out(one) for one in namespaces):
        yield Finding(
            "webhook-not-called",
            about,
            "namespaces that namespaceSelector chooses",
            f"none: {json.dumps(webhook.get('namespaceSelector'))}",
            "change the chart's mutatingWebhookNamespaceSelector, or label namespaces",
        )
    yield from _manner_findings(cluster, release, webhook)
    yield from _call_findings(cluster, release, webhook.get("clientConfig") or {})
    yield from _unlabelled_findings(cluster, release)


_NOT_WIRED_YET: Final[Json] = {
    "key": contract.WIRED_BY, "operator": "NotIn", "values": [contract.WIRED_BY_POLICY]
}  # fmt: skip
"""Which pods the webhook may be asked for where the policy stands before it."""
_AS_ELSEWHERE: Final = "the chart's matchConditions, and selectors as in the other objects of the release"


def _edits_of_webhook(cluster: Cluster, release: Release, webhook: Json) -> Iterator[str]:
    """Yield what of the webhook's choice of pods is not the chart's, which makes it in several objects."""
    if release.version != __version__:
        return  # another chart's may be another
    others = [one["name"] for one in webhook.get("matchConditions") or () if one["name"] != _UNWIRED]
    if others:
        yield f"matchConditions {', '.join(map(quoted, others))}"
    stored = next((one for one in webhook.get("matchConditions") or () if one["name"] == _UNWIRED), None)
    wanted = _condition(cluster, release)
    if stored and wanted and wanted.split() != stored["expression"].split():
        yield f"matchCondition {quoted(_UNWIRED)}"
    if (where := webhook.get("namespaceSelector")) and _differs(where, _namespaces(cluster, release)):
        yield f"namespaceSelector {quoted(json.dumps(where), 300)}"
    policy = _declared_policy(cluster, release.name, release.namespace)
    pods = policy and (policy["spec"].get("matchConstraints") or {}).get("objectSelector")
    selector = webhook.get("objectSelector")
    if pods is not None and stored:
        pods = {**pods, "matchExpressions": [*(pods.get("matchExpressions") or ()), _NOT_WIRED_YET]}
    if pods is not None and _terms(selector, contract.USE_LABEL) != _terms(pods, contract.USE_LABEL):
        yield f"objectSelector {quoted(json.dumps(selector), 300)}"


def _condition(cluster: Cluster, release: Release) -> str:
    """Return by which expression the webhook is asked beside a policy; "" where settings are not known."""
    settings, conditions = release.settings, cluster.rules.get("unwired", {})
    endpoint = settings.token_endpoint if settings else None
    if settings is None or (endpoint is None and release.keys.endpoint != ""):
        return ""
    text = str(conditions.get("endpoint" if endpoint else "plain", ""))
    if endpoint:
        text = text.replace(f"{contract.USE_LABEL}-annotation", endpoint.annotation)
        text = text.replace('"ENDPOINT"', json.dumps(endpoint.audience))
    return text.replace('"AUDIENCE"', json.dumps(settings.audience))


def _namespaces(cluster: Cluster, release: Release) -> Json | None:
    """Return which namespaces the release means: as its policy is declared, else as its rules are."""
    policy = _declared_policy(cluster, release.name, release.namespace) or cluster.one(RULES, release.name)
    constraints = ((policy or {}).get("spec") or {}).get("matchConstraints") or {}
    found: Json | None = constraints.get("namespaceSelector")
    return found


def _differs(selector: Json, wanted: Json | None) -> bool:
    """Whether namespaces are chosen otherwise, but for what AKS's enforcer adds to webhooks."""
    return wanted is not None and _terms(selector, _ENFORCED) != _terms(wanted, _ENFORCED)


def _terms(selector: Json | None, but: str) -> list[str]:
    """Return the terms of a label selector but for those about a key, in one order."""
    found = selector or {}
    labels = [f"{key}={value}" for key, value in (found.get("matchLabels") or {}).items() if key != but]
    terms = (one for one in found.get("matchExpressions") or () if one["key"] != but)
    return sorted([*labels, *(json.dumps(one, sort_keys=True) for one in terms)])


def _manner_findings(cluster: Cluster, release: Release, webhook: Json) -> Iterator[Finding]:
    """Tell how the API server calls, and what it does without an answer."""
    about = Object(MWC, release.configuration_name)
    if webhook.get("failurePolicy") == "Ignore" and not _guarded(cluster, release):
        yield Finding(
            "webhook-lets-through",
            about,
            "failurePolicy Fail",
            "Ignore, and no guard: while the operator is away labelled pods start without an identity",
            "helm upgrade with failurePolicy=Fail, or with guard=true",
        )
    if webhook.get("timeoutSeconds", 10) <= LOOKUP_TIMEOUT:
        found = f"{webhook['timeoutSeconds']}, and looking a ServiceAccount up may take {LOOKUP_TIMEOUT:g} s"
        yield Finding("webhook-hasty", about, "timeoutSeconds 5", found, "helm upgrade with timeoutSeconds=5")
    if webhook.get("reinvocationPolicy", "Never") != "IfNeeded":
        yield Finding("webhook-asked-once", about, "reinvocationPolicy IfNeeded", "Never", _HELM)


def covers_pods(rule: Mapping[str, Any]) -> bool:
    """Whether a webhook with this rule is called for pods that are made."""
    return (
        bool({"CREATE", "*"} & set(rule.get("operations") or ()))
        and bool({"", "*"} & set(rule.get("apiGroups") or ()))
        and bool({"v1", "*"} & set(rule.get("apiVersions") or ()))
        and bool({"pods", "*", "*/*", "pods/*"} & set(rule.get("resources") or ()))
        and rule.get("scope", "*") != "Cluster"
    )


def _only_ours(selector: Mapping[str, Any] | None) -> Json:
    """Return what a selector says of our label; users may add terms of their own."""
    found = selector or {}
    labels = {k: v for k, v in (found.get("matchLabels") or {}).items() if k == contract.USE_LABEL}
    terms = [one for one in found.get("matchExpressions") or () if one["key"] == contract.USE_LABEL]
    return {"matchLabels": labels, "matchExpressions": terms}


def _guarded(cluster: Cluster, release: Release) -> bool:
    name = release.name + _GUARD
    binding = cluster.one(RULES_BINDING, name)
    return bool(
        cluster.one(RULES, name) and binding and "Deny" in (binding["spec"].get("validationActions") or ())
    )


def _call_findings(cluster: Cluster, release: Release, called: Json) -> Iterator[Finding]:
    """Tell whether the API server finds the operator."""
    about, service = Object(MWC, release.configuration_name), called.get("service")
    path = (service or {}).get("path") if service else urlsplit(called.get("url") or "").path
    if path != contract.WEBHOOK_PATH:
        yield Finding(
            "webhook-service-wrong", about, f"path {contract.WEBHOOK_PATH}", quoted(path or "/"), _HELM
        )
    if not service:
        return
    name, namespace = service["name"], service["namespace"]
    where = Object("Service", name, namespace)
    found = cluster.one("Service", name, namespace)
    if found is None:
        if cluster.saw("Service"):
            yield _missing("Service", replace(release, namespace=namespace), name)
        return
    spec, port = found["spec"], service.get("port", 443)
    ports = [one for one in spec.get("ports") or () if one["port"] == port]
    if not ports:
        have = ", ".join(str(one["port"]) for one in spec.get("ports") or ())
        yield Finding("webhook-service-wrong", where, f"port {port}, which {about} calls", have, _HELM)
        return
    if not cluster.saw("EndpointSlice"):
        return
    if not _ready_endpoints(cluster, service):
        yield Finding(
            "webhook-without-endpoints",
            where,
            "a ready pod of the operator behind it",
            _why_nobody(release, spec, ports[0]),
            f"kubectl -n {namespace} describe deployment,pods; the Service must select them",
        )


def _ready_endpoints(cluster: Cluster, service: Json) -> list[Json]:
    """Return who answers behind a Service."""
    return [
        endpoint
        for one in cluster.all("EndpointSlice")
        if labels_of(one).get("kubernetes.io/service-name") == service["name"]
        and one["metadata"]["namespace"] == service["namespace"]
        and one.get("ports")
        for endpoint in one.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
    ]


def _why_nobody(release: Release, service: Json, port: Json) -> str:
    """Return why a Service has no ready endpoint."""
    if release.deployment is None:
        return "none, and no Deployment of the operator"
    template = release.deployment["spec"]["template"]
    if term := obstacle({"matchLabels": service.get("selector") or {}}, labels_of(template)):
        return f"none: the operator's pods lack the label {term} of its selector"
    names = {one.get("name") for one in _operator_of(release.deployment).get("ports") or ()}
    if isinstance(target := port.get("targetPort"), str) and target not in names:
        return f"none: the operator's pods have no port named {target}"
    wanted, have = release.deployment["spec"].get("replicas", 1), _available(release.deployment)
    return f"none; {have} of {wanted} replicas are available"


def _available(deployment: Json) -> int:
    return int((deployment.get("status") or {}).get("availableReplicas") or 0)


def _unlabelled_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    """Tell whether the webhook for unlabelled pods is there, where the chart has the operator keep one."""
    configuration = release.configuration or {}
    if annotations_of(configuration).get(contract.UNLABELLED_PODS) != "webhook":
        return
    entry = next(
        (one for one in configuration["webhooks"] if one["name"] == contract.UNLABELLED_WEBHOOK), None
    )
    for namespace in sorted({
        account["metadata"]["namespace"]
        for account in cluster.all("ServiceAccount")
        if annotations_of(account).get(contract.CLIENT_ID)
    }):  # fmt: skip
        where = cluster.one("Namespace", namespace)
        if where is None or release.leaves_out(where):
            continue
        if entry is None or not is_chosen(entry.get("namespaceSelector"), labels_of(where)):
            found = f"has no webhook {contract.UNLABELLED_WEBHOOK} for namespace {namespace}"
            yield Finding(
                "object-missing",
                Object(MWC, release.configuration_name),
                "unlabelled pods of annotated ServiceAccounts are wired",
                found,
                "start the operator, which keeps it; see its log",
            )
            return


def _certificate_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    webhook = release.webhook
    if webhook is None:
        return
    called, about = webhook.get("clientConfig") or {}, Object(MWC, release.configuration_name)
    bundle, secret = b64decode(called.get("caBundle") or ""), secret_of(release)
    found = cluster.one("Secret", secret, release.namespace) if secret else None
    leaf = b64decode(((found or {}).get("data") or {}).get("tls.crt") or "")
    served = cluster.served.get(called.get("url") or "")
    # Until somebody answers behind a Service, nobody has made a certificate: that is told of the Service.
    service = called.get("service")
    awaited = service and not leaf and not _ready_endpoints(cluster, service)
    if not bundle and not _is_trusted_publicly(served) and not awaited:
        yield Finding(
            "ca-bundle-missing",
            about,
            "caBundle with the authority of the operator's certificate",
            "none",
            "see the operator's log: it sets caBundle; with certificates of others, whoever keeps them",
        )
    if served:
        yield from _served_findings(cluster, about, called["url"], served, named=bool(bundle))
    elif leaf and service:
        name = f"{service['name']}.{service['namespace']}.svc"
        for code, wanted, was in certificate_faults(bundle, leaf, name, cluster.now):
            of_secret = code.startswith("certificate")
            change = (
                f"delete the data of Secret {release.namespace}/{secret}: it is issued anew"
                if of_secret
                else "see who else writes caBundle; the operator sets it again within a minute"
            )
            yield Finding(
                code, Object("Secret", secret, release.namespace) if of_secret else about, wanted, was, change
            )
    elif found is None and secret and cluster.saw("Secret") and release.deployment:
        yield _missing("Secret", release, secret)


def keeps_certificate(release: Release) -> bool:
    """Whether the operator issues its certificate itself."""
    if release.deployment is None:
        return True
    flags = {one.lstrip("-").lower() for one in _arguments(_operator_of(release.deployment))}
    return not flags & {
        "disable-cert-rotation",
        *(f"disable-cert-rotation={yes}" for yes in ("true", "1", "t")),
    }


def _given(container: Json, flag: str) -> str:
    """Return the value of a flag as the chart writes it, whether or not all the others can be used."""
    found = [one.partition("=")[2] for one in _arguments(container) if one.lstrip("-").startswith(f"{flag}=")]
    return found[-1] if found else ""


def _arguments(container: Json) -> list[str]:
    return [str(one) for one in container.get("args") or ()]


def secret_of(release: Release) -> str:
    """Return the name of the Secret with the serving certificate; "" where nobody in the cluster has one."""
    if release.deployment is None:
        return "" if release.outside else f"{release.name}-certificate"
    operator = _operator_of(release.deployment)
    if not keeps_certificate(release):
        folder = _given(operator, "webhook-cert-dir") or Flags().webhook_cert_dir
        mounts = {one["name"] for one in operator.get("volumeMounts") or () if one["mountPath"] == folder}
        volumes = release.deployment["spec"]["template"]["spec"].get("volumes") or ()
        return next(
            (one["secret"]["secretName"] for one in volumes if one["name"] in mounts and "secret" in one), ""
        )
    if release.certain and release.settings:
        return release.settings.certificate_secret
    return _given(operator, "certificate-secret") or f"{release.name}-certificate"


def declares_policy(cluster: Cluster, release: Release) -> bool:
    """Whether the release has the API server wire pods, too, as far as anything of that is left."""
    declared = cluster.one("ConfigMap", f"{release.name}-declared", release.namespace)
    return bool(declared or cluster.one(POLICY, release.name) or cluster.one(BINDING, release.name))


def _is_trusted_publicly(served: Served | None) -> bool:
    return served is not None and served.fault != "ca-bundle-wrong"


def _served_findings(
    cluster: Cluster, about: Object, url: str, served: Served, *, named: bool
) -> Iterator[Finding]:
    begin, end, at = (datetime.fromtimestamp(one, UTC) for one in (served.begin, served.end, cluster.now))
    own = list(validity_faults(f"the certificate at {url}", begin, end, at))
    for code, wanted, found in own:
        yield Finding(code, about, wanted, found, "see the operator's log, or whoever keeps its certificate")
    if served.fault == "certificate-name-wrong":
        found, change = (
            f"another at {url}: {served.told}",
            "let the operator issue it, or have the name added",
        )
        yield Finding(served.fault, about, f"a certificate for {urlsplit(url).hostname}", found, change)
    elif served.fault == "certificate-expired" and not own:
        change = "see the operator's log, or whoever keeps caBundle"
        yield Finding(served.fault, about, "an authority in caBundle that is valid now", served.told, change)
    elif served.fault == "ca-bundle-wrong" and named:
        wanted = f"the authority of what answers at {url}"
        change = "see who else writes caBundle; the operator sets it again within a minute"
        yield Finding(served.fault, about, wanted, served.told, change)


def _policy_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    """Tell what is not as the release declares it."""
    name = f"{release.name}-declared"
    declared = cluster.one("ConfigMap", name, release.namespace)
    policy, binding = cluster.one(POLICY, release.name), cluster.one(BINDING, release.name)
    if declared is None:
        if cluster.saw("ConfigMap") and (policy or binding):
            yield _missing("ConfigMap", release, name)
        if cluster.saw(POLICY) and cluster.saw(BINDING) and bool(policy) != bool(binding):
            yield _missing(BINDING if policy else POLICY, release)
    else:
        try:
            declaration = read_declaration(declared)
        except DeclarationUnreadable as fault:
            about = Object("ConfigMap", name, release.namespace)
            yield Finding("object-edited", about, "the policy as the chart declares it", str(fault), _HELM)
            return
        for one in declaration.objects:
            live = cluster.one(one.kind, one.name)
            if live is None:
                if cluster.saw(one.kind):
                    yield _missing(one.kind, release, one.name)
            elif where := unlike(one.kind, one.body, live):
                about = Object(one.kind, one.name)
                wanted = f"as ConfigMap {release.namespace}/{name} declares it"
                yield Finding(
                    "object-edited",
                    about,
                    wanted,
                    f"something else in {where}",
                    "start the operator, which puts it right, or helm upgrade; change values, not objects",
                )
    if binding and (matched := (binding["spec"].get("matchResources") or {})):
        yield from _narrowed(cluster, release, binding, matched)


def _narrowed(cluster: Cluster, release: Release, binding: Json, matched: Json) -> Iterator[Finding]:
    """Tell of a binding that leaves pods out for no reason."""
    peer = release.peer(cluster)
    selector, places = matched.get("objectSelector") or {}, matched.get("namespaceSelector") or {}
    handed = selector == UNLABELLED_ONLY and left_to(binding) == peer and bool(peer)
    if (selector and not handed) or places or matched.get("excludeResourceRules"):
        yield Finding(
            "object-edited",
            Object(BINDING, release.name),
            "matchResources only while labelled pods are left to Azure/azure-workload-identity",
            quoted(json.dumps({k: v for k, v in matched.items() if v}), 200),
            f"kubectl edit {BINDING.lower()} {release.name}: remove spec.matchResources",
        )


_DEFAULTS: Final[Mapping[str, Any]] = {
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "failurePolicy": "Fail",
    "reinvocationPolicy": "Never",
    "scope": "*",
    "conversion": {"strategy": "None"},
    "listKind": None,  # what the API server adds to names of a definition
    "singular": None,
    "preserveUnknownFields": False,
}


def unlike(kind: str, declared: Json, live: Json) -> str:
    """Return the first fields in which a stored object is not what is declared; "" when it is.

    The API server's defaults are no difference.
    """
    fields = [f"spec.{field}" for field in difference(kind, declared, live)]
    if not fields:
        return ""
    others = {key.removeprefix("spec.") for key in fields}
    found = [
        path
        for key in sorted(others)
        for path in _unlike(
            (declared.get("spec") or {}).get(key), (live.get("spec") or {}).get(key), f"spec.{key}", key
        )
    ]
    return ", ".join(found[:_MOST_TOLD])


def _unlike(wanted: Any, found: Any, path: str, key: str) -> Iterator[str]:
    if wanted == found or (wanted in (None, {}, []) and found in (None, {}, [])):
        return
    if wanted is None and key in _DEFAULTS and _DEFAULTS[key] in (found, None):
        return
    if isinstance(wanted, dict) and isinstance(found, dict):
        for inner in sorted(wanted.keys() | found.keys()):
            yield from _unlike(wanted.get(inner), found.get(inner), f"{path}.{inner}", inner)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _unlike(one, other, f"{path}[{index}]", "")
    else:
        yield path


def _validation_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    if not (cluster.saw(RULES) and cluster.saw(RULES_BINDING)) or RULES in cluster.unserved:
        return
    guard = release.name + _GUARD
    wanted = [(release.name, {"Warn", "Deny"})]
    if cluster.one(RULES, guard) or cluster.one(RULES_BINDING, guard):
        wanted.append((guard, {"Deny"}))
    for name, actions in wanted:
        policy, binding = cluster.one(RULES, name), cluster.one(RULES_BINDING, name)
        if policy is None or binding is None:
            kind = RULES if policy is None else RULES_BINDING
            yield Finding("validation-off", Object(kind, name), "policy and binding", "not there", _HELM)
        elif not actions & set(binding["spec"].get("validationActions") or ()):
            found = ", ".join(binding["spec"].get("validationActions") or ()) or "none"
            yield Finding(
                "validation-off",
                Object(RULES_BINDING, name),
                f"validationActions {max(actions)}",
                found,
                _HELM,
            )
        elif where := ", ".join(_edits_of_rules(cluster, release, policy)):
            yield Finding(
                "validation-off",
                Object(RULES, name),
                "as the chart has it",
                f"something else in {where}",
                _HELM,
            )


def _edits_of_rules(cluster: Cluster, release: Release, policy: Json) -> Iterator[str]:
    """Yield in what a ValidatingAdmissionPolicy is not the chart's; nothing of another version's."""
    suffix = policy["metadata"]["name"].removeprefix(release.name)
    wanted, spec = cluster.rules.get(contract.RELEASE_NAME + suffix), policy["spec"]
    if wanted and release.version == __version__:
        constraints = spec.get("matchConstraints") or {}
        live = {**spec, "matchConstraints": {"resourceRules": constraints.get("resourceRules")}}
        keys = sorted(wanted.keys() | live.keys())
        differences = (
            one for key in keys for one in _unlike(wanted.get(key), live.get(key), f"spec.{key}", key)
        )
        yield from islice(differences, _MOST_TOLD)
        if _differs(constraints.get("namespaceSelector") or {}, _namespaces(cluster, release)):
            yield "spec.matchConstraints.namespaceSelector"


def _deployment_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    where = Object("Deployment", release.name, release.namespace)
    deployment = release.deployment
    if deployment is None:
        if release.webhook and not release.outside and cluster.saw("Deployment"):
            yield _missing("Deployment", release)
        return
    for source in _operator_of(deployment).get("envFrom") or ():
        name = (source.get("configMapRef") or {}).get("name")
        if name and cluster.saw("ConfigMap") and not cluster.one("ConfigMap", name, release.namespace):
            yield _missing("ConfigMap", release, name)
    account = deployment["spec"]["template"]["spec"].get("serviceAccountName") or "default"
    if cluster.saw("ServiceAccount") and not cluster.one("ServiceAccount", account, release.namespace):
        yield _missing("ServiceAccount", release, account)
    for fault in release.faults:
        if "AZURE_TENANT_ID" not in fault:
            yield Finding(
                "settings-invalid",
                where,
                "settings that the operator starts with",
                fault,
                "change it in the chart's values",
            )
    yield from _misled(cluster, release, where)
    wanted, have = int(deployment["spec"].get("replicas", 1)), _available(deployment)
    if have < wanted or wanted == 0:
        yield Finding(
            "replicas-unavailable",
            where,
            f"{max(wanted, 1)} available",
            f"{have} of {wanted}" + _why_unavailable(deployment),
            f"kubectl -n {release.namespace} describe deployment,pods",
        )


def _rights_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    account, lacks = cluster.rights.get(f"{release.namespace}/{release.name}", ("", []))
    if lacks:
        yield Finding(
            "rights-missing",
            Object("ServiceAccount", account, release.namespace),
            "the rights of the chart's ClusterRoles and Role",
            f"may not {told(lacks)}",
            _HELM,
        )


def _misled(cluster: Cluster, release: Release, where: Object) -> Iterator[Finding]:
    """Tell of settings that are possible, but are another release's, or nobody's."""
    settings = release.settings
    if settings is None or not release.certain:
        return
    name = f"{release.name}-declared"
    told = {
        "--webhook-configuration": (release.configuration_name, settings.webhook_configuration),
        "POD_NAMESPACE": (release.namespace, settings.namespace),
        "--declaration": (name, settings.declaration),
    }
    checksum = settings_checksum(cluster.one("ConfigMap", name, release.namespace))
    if checksum and settings.checksum:
        told["--settings-checksum"] = (checksum, settings.checksum)
    called = ((release.webhook or {}).get("clientConfig") or {}).get("service") or {}
    service = cluster.one("Service", called.get("name", ""), called.get("namespace", "")) or {"spec": {}}
    for port in service["spec"].get("ports") or ():
        if port["port"] == called.get("port", 443):
            told |= _elsewhere(
                release, "--listen", port.get("targetPort", port["port"]), settings.listen.port
            )
    told |= _elsewhere(release, "--health-addr", "health", settings.health.port)
    told |= _elsewhere(release, "--metrics-addr", "metrics", settings.metrics.port)
    for name, (wanted, found) in told.items():
        if wanted != found:
            change = "take it out of the Deployment: helm upgrade"
            yield Finding("settings-invalid", where, f"{name}: {wanted}", found, change)


def _elsewhere(release: Release, flag: str, target: int | str, port: int) -> dict[str, tuple[str, str]]:
    """Return what was wanted of a flag and what was found, where it has not the port that others look at."""
    wanted = _port_of(release.deployment or {}, target)
    if wanted in {None, port}:
        return {}
    return {flag: (f"port {wanted}, where others look", f"port {port}")}


def _port_of(deployment: Json, target: int | str) -> int | None:
    """Return the number of a port of the operator's container; None when it has none of that name."""
    if isinstance(target, int):
        return target
    ports = _operator_of(deployment).get("ports") or ()
    return next((one["containerPort"] for one in ports if one.get("name") == target), None)


def _why_unavailable(deployment: Json) -> str:
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    failed = (
        f": {one.get('reason')}: {one.get('message')}"
        for one in conditions
        if (one.get("type"), one.get("status")) in {("ReplicaFailure", "True"), ("Progressing", "False")}
    )
    return next(failed, "")


def _neighbour_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    if peer := release.peer(cluster):
        binding = cluster.one(BINDING, release.name)
        found = "labelled pods are left to it"
        if binding and left_to(binding) != peer:
            found = "the policy's binding does not leave labelled pods to it: those wired by both are refused"
        yield Finding(
            "peer-beside",
            Object(MWC, peer),
            "one webhook for labelled pods",
            f"that of Azure/azure-workload-identity too; {found}",
            "helm uninstall it (AKS: az aks update --disable-workload-identity), or live with it",
        )
    if release.configuration is None or not _is_aks(cluster):
        return
    terms = ((release.webhook or {}).get("namespaceSelector") or {}).get("matchExpressions") or ()
    own = any(one["key"] == "control-plane" and one["operator"] == "DoesNotExist" for one in terms)
    if (
        _ENFORCER not in {**labels_of(release.configuration), **annotations_of(release.configuration)}
        and not own
    ):
        yield Finding(
            "enforcer",
            Object(MWC, release.configuration_name),
            f'annotation {_ENFORCER}: "true", or the enforcer\'s own exclusions in namespaceSelector',
            "neither: it adds them, and whoever applies the chart takes them away",
            "helm upgrade, with admissionsEnforcer.disabled either way",
        )


def _is_aks(cluster: Cluster) -> bool:
    issuer = str((cluster.discovery or {}).get("issuer", ""))
    return bool(_ON_AKS.match(f"{cluster.server}/") or _ON_AKS.match(f"{issuer}/")) or any(
        labels_of(one).get("kubernetes.azure.com/managedby") == "aks" for one in cluster.all("Namespace")
    )


def _version_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    kinds = (MWC, POLICY, BINDING, RULES, RULES_BINDING, "Deployment")
    found: dict[str, list[str]] = {}
    names = {release.name, release.name + _GUARD, release.name + _UNMARK, release.configuration_name}
    for kind in kinds:
        for one in cluster.all(kind):
            if is_of_chart(one) and one["metadata"]["name"] in names:
                version = labels_of(one).get("app.kubernetes.io/version", "")
                if version:
                    found.setdefault(version, []).append(kind)
    if len(found) > 1:
        told = "; ".join(f"{version}: {', '.join(kinds)}" for version, kinds in sorted(found.items()))
        yield Finding(
            "versions-differ", Object("Release", release.name, release.namespace), "one", told, _HELM
        )


def _wiring_findings(cluster: Cluster, release: Release) -> Iterator[Finding]:
    """Tell of PodWirings that are not what annotations say."""
    if "PodWiring" not in cluster.objects or not cluster.saw("ServiceAccount"):
        return
    if not (cluster.one(POLICY, release.name) or cluster.one(BINDING, release.name)):
        return  # nobody wires from them
    annotated = _annotated(cluster)
    kept = {wiring["metadata"]["namespace"] for wiring in cluster.all("PodWiring")}
    for namespace in sorted(annotated.keys() | kept):
        yield from _table_findings(cluster, release, namespace, annotated.get(namespace, {}))


def _table_findings(
    cluster: Cluster, release: Release, namespace: str, accounts: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    """Tell what is wrong with the PodWiring of a namespace with these annotated ServiceAccounts."""
    about = Object("PodWiring", contract.POD_WIRING_NAME, namespace)
    stored = cluster.one("PodWiring", contract.POD_WIRING_NAME, namespace)
    if stored is None:
        yield Finding("podwiring-outdated", about, "one, of the annotations", "not there", _WRITES)
        return
    spec = stored.get("spec") or {}
    keeper = annotations_of(stored).get(contract.POD_WIRING_KEEPER, release.configuration_name)
    ours, there = keeper == release.configuration_name, cluster.one(MWC, keeper) is not None
    if not accounts:
        if ours or not there:
            names = ", ".join(sorted(spec.get("identities") or {})[:3])
            wanted = "none: no ServiceAccount of the namespace is annotated"
            yield Finding("podwiring-outdated", about, wanted, f"still there, for {names}", _WRITES)
        return
    odd = ""
    if release.settings:
        compiled = compile_identities(accounts, release.settings)
        fields = ("tenantID", "authorityHost", "audience") if release.certain else ()
        odd = _outdated(compiled.spec if compiled else {}, spec, fields)
    if ours and odd:
        yield Finding("podwiring-outdated", about, "what the annotations say", odd, _WRITES)
    elif not ours and (odd or not (release.settings and release.certain)):
        # With the same settings it does not matter whose it is.
        yield Finding(
            "podwiring-anothers",
            about,
            f"kept by {release.configuration_name}",
            f"kept by {quoted(keeper)}{'' if there else ', which is not there'}",
            "give both the same settings, or uninstall one" if there else _WRITES,
        )


def _annotated(cluster: Cluster) -> dict[str, dict[str, Mapping[str, str]]]:
    found: dict[str, dict[str, Mapping[str, str]]] = {}
    for account in cluster.all("ServiceAccount"):
        ours = {k: v for k, v in annotations_of(account).items() if k.startswith(contract.PREFIX)}
        if ours:
            meta = account["metadata"]
            found.setdefault(meta["namespace"], {})[meta["name"]] = ours
    return found


def _outdated(wanted: Json, stored: Json, fields: Iterable[str]) -> str:
    """Return in what a PodWiring differs; "" when it does not."""
    for name in fields:
        if wanted.get(name) != stored.get(name):
            return f"{name} {quoted(str(stored.get(name)))} instead of {quoted(str(wanted.get(name)))}"
    one, other = wanted.get("identities") or {}, stored.get("identities") or {}
    names = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    return f"another identity, or none, for {', '.join(names[:3])}" if names else ""


def _tenant_findings(cluster: Cluster, releases: Sequence[Release]) -> Iterator[Finding]:
    for release in releases:
        where = Object("Release", release.name, release.namespace)
        change = "helm upgrade with azureTenantID set to: az account show --query tenantId --output tsv"
        fault = next((one for one in release.faults if "AZURE_TENANT_ID" in one), "")
        tenant = release.settings.tenant_id if release.settings else ""
        if fault:
            yield Finding("tenant-invalid", where, "the id of an Entra tenant", fault, change)
        elif tenant and not (SHAPES[contract.TENANT_ID].fullmatch(tenant) and tenant.strip("0-")):
            yield Finding("tenant-invalid", where, "a GUID, or a domain name", quoted(tenant), change)
        elif (told := cluster.tenants.get(tenant)) and told.body and "error" in told.body:
            said = str(told.body.get("error_description", told.body["error"]))
            found = f"{quoted(tenant)}: {quoted(said, 120)}"
            yield Finding("tenant-unknown", where, "a tenant that Entra knows", found, change)


# What pods become.

_REFUSED_BY_US: Final = f'admission webhook "{contract.WEBHOOK_NAME}" denied the request'
_CALL_FAILED: Final = f'failed calling webhook "{contract.WEBHOOK_NAME}"'


def probe_findings(cluster: Cluster, releases: Sequence[Release]) -> tuple[list[Finding], list[Unseen]]:
    """Return what pods that were made without being stored tell, and what they could not tell."""
    found, unseen = [], []
    for probe in cluster.probes:
        release = releases[0]
        about = Object(MWC, release.configuration_name)
        if probe.engine != "webhook":
            about = Object(POLICY, release.name)
        where = f"a labelled pod of ServiceAccount {probe.namespace}/{probe.account}"
        if probe.pod is None and _CALL_FAILED in probe.refusal:
            reason = probe.refusal.partition(_CALL_FAILED)[2].lstrip(": ")
            found.append(
                Finding(
                    "webhook-fails", about, "the API server reaches the operator", reason,
                    "see the operator's readiness and log, and what is between it and the API server",
                )
            )  # fmt: skip
        elif probe.pod is None and _REFUSED_BY_US in probe.refusal:
            reason = probe.refusal.partition(_REFUSED_BY_US)[2].lstrip(": ")
            found.append(
                Finding(
                    "wiring-not-in-force",
                    about,
                    f"{where} is wired",
                    f"refused: {reason}",
                    "see the operator's log",
                )
            )
        elif probe.pod is None:
            forbidden = "cannot create resource" in probe.refusal
            why = "create on pods" if forbidden else f"a pod that is let in: {probe.refusal}"
            unseen.append(Unseen(f"whether pods are wired ({probe.engine})", f"needs {why}"))
        elif odd := _unwired(probe, cluster, release):
            code = (
                "wiring-not-in-force"
                if probe.engine == "webhook" or "volume" not in odd
                else "policy-not-in-force"
            )
            found.append(
                Finding(
                    code, about, f"{where} is wired by the {probe.engine}", odd,
                    "compare policy and webhook with the chart, and see which other webhooks change pods",
                )
            )  # fmt: skip
    return found, unseen


def _unwired(probe: Probe, cluster: Cluster, release: Release) -> str:
    """Return in what a pod is not as it should be; "" when it is."""
    spec = (probe.pod or {})["spec"]
    volumes = [one for one in spec.get("volumes") or () if one["name"].startswith(contract.VOLUME_PREFIX)]
    container = spec["containers"][0]
    env = {one["name"]: one.get("value", "") for one in container.get("env") or ()}
    if not volumes:
        return "no volume with a token" if probe.engine == "webhook" else "no volume of the policy's"
    if contract.ENV_TOKEN_FILE not in env:
        return f"no {contract.ENV_TOKEN_FILE}"
    if probe.engine == "policy" and volumes[0]["name"] != contract.POLICY_VOLUME:
        return "no volume of the policy's, but the webhook's"
    account = cluster.one("ServiceAccount", probe.account, probe.namespace) or {"metadata": {}}
    wanted = {contract.ENV_CLIENT_ID: annotations_of(account).get(contract.CLIENT_ID, "")}
    if release.certain and release.settings:
        tenant = annotations_of(account).get(contract.TENANT_ID, release.settings.tenant_id)
        wanted[contract.ENV_TENANT_ID] = tenant
    wrong = (
        f"{name} {quoted(env.get(name, ''))} instead of {quoted(value)}"
        for name, value in wanted.items()
        if env.get(name, "") != value
    )
    return next(wrong, "")
