"""Each mistake is found as what it is, and nothing else; all together; nothing where nothing is wrong.

A seed is a function that makes one mistake in a real cluster; its row of the table says what is found.
"""

import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest
import trustme
from aiohttp import web

from testkit import loopback
from testkit.ailments import SECRET, Patient, Place, taking_away, trusting
from testkit.installation import CONFIGURATION, NAMESPACE, RELEASE
from testkit.neighbours import installed, peer_configuration
from testkit.workloads import CLIENT, LABELS, eventually, pod
from workload_identity_operator import contract
from workload_identity_operator.certificates import issue
from workload_identity_operator.check.terminal import show

Plant: TypeAlias = Callable[[Patient, Place], AbstractContextManager[None] | None]

MWC = "MutatingWebhookConfiguration"
OTHER = "66666666-7777-8888-9999-000000000000"
SERVICE = f"{RELEASE}.{NAMESPACE}.svc"
EXPIRATION, SKIP, PROXY = contract.EXPIRATION, contract.SKIP_CONTAINERS, contract.INJECT_PROXY
UNLABELLED: Mapping[str, Any] = {"labels": {"app": "web"}}


@dataclass(frozen=True, slots=True)
class Seed:
    """A mistake.

    Attributes:
        code: What is found.
        about: What of it, {} for the namespace.
        plant: Makes it; what it returns undoes it.
        alone: Whether it cannot be planted beside the others.
    """

    code: str
    about: str
    plant: Plant
    alone: bool = False


OUTSIDE: list[Seed] = []
INSIDE: list[Seed] = []


def seed(
    where: list[Seed], code: str, about: str, *, alone: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a seed to the table."""

    def add(plant: Callable[..., Any]) -> Callable[..., Any]:
        where.append(Seed(code, about, plant, alone))
        return plant

    return add


def container(**parts: Any) -> dict[str, Any]:
    """Return the spec of a pod with one container of these parts."""
    return {"containers": [{"name": "app", "image": "x", **parts}]}


# ServiceAccounts.


@seed(OUTSIDE, "annotation-unknown", "ServiceAccount {}/typo")
def _(_: Patient, place: Place) -> None:
    place.account("typo", {contract.PREFIX + "client_id": CLIENT})


@seed(OUTSIDE, "annotation-unknown", "ServiceAccount {}/prefix")
def _(_: Patient, place: Place) -> None:
    place.account("prefix", {"azure.workload-identity/client-id": CLIENT})


@seed(OUTSIDE, "annotation-unknown", "ServiceAccount {}/case")
def _(_: Patient, place: Place) -> None:
    place.account("case", {contract.PREFIX + "Client-ID": CLIENT})


@seed(OUTSIDE, "annotation-misplaced", "ServiceAccount {}/skips")
def _(_: Patient, place: Place) -> None:
    place.account("skips", {contract.CLIENT_ID: CLIENT, SKIP: "app"})


@seed(OUTSIDE, "client-id-invalid", "ServiceAccount {}/blank")
def _(_: Patient, place: Place) -> None:
    place.account("blank", {contract.CLIENT_ID: f"{CLIENT} "})


@seed(OUTSIDE, "client-id-invalid", "ServiceAccount {}/named")
def _(_: Patient, place: Place) -> None:
    place.account("named", {contract.CLIENT_ID: "my-identity"})


@seed(OUTSIDE, "client-id-invalid", "ServiceAccount {}/tenants")
def _(_: Patient, place: Place) -> None:
    place.account("tenants", {contract.CLIENT_ID: "99999999-8888-7777-6666-555555555555"})


@seed(OUTSIDE, "tenant-id-invalid", "ServiceAccount {}/tenant")
def _(_: Patient, place: Place) -> None:
    place.account("tenant", {contract.CLIENT_ID: CLIENT, contract.TENANT_ID: "Contoso Ltd"})


@seed(OUTSIDE, "expiration-invalid", "ServiceAccount {}/short")
def _(_: Patient, place: Place) -> None:
    place.account("short", {contract.CLIENT_ID: CLIENT, EXPIRATION: "600"})


@seed(OUTSIDE, "healing-invalid", "ServiceAccount {}/unhealed")
def _(_: Patient, place: Place) -> None:
    place.account("unhealed", {contract.CLIENT_ID: CLIENT, contract.HEALING: "Off"})


# Labels and annotations elsewhere.


@seed(OUTSIDE, "healing-invalid", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(above={"annotations": {contract.HEALING: "false"}})


@seed(OUTSIDE, "annotation-misplaced", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    """On the template, whose pods heal nobody."""
    place.deployment(metadata={"labels": LABELS, "annotations": {contract.HEALING: "off"}})


@seed(OUTSIDE, "label-misplaced", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(metadata=UNLABELLED, above={"labels": {contract.USE_LABEL: "true"}})


@seed(OUTSIDE, "label-misplaced", "ServiceAccount {}/former")
def _(_: Patient, place: Place) -> None:
    """Where it belonged before the peer's first release."""
    place.account("former", labels=dict(LABELS))
    place.pod(account="former", metadata=UNLABELLED)


@seed(OUTSIDE, "label-value", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(metadata={"labels": {contract.USE_LABEL: "True"}})


@seed(OUTSIDE, "annotation-misplaced", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(above={"annotations": {contract.TENANT_ID: OTHER}})


@seed(OUTSIDE, "annotation-misplaced", "Deployment {}/plain")
def _(_: Patient, place: Place) -> None:
    """The ServiceAccount is not annotated either, which is the same mistake."""
    place.account("plain")
    place.deployment(
        "plain",
        "plain",
        metadata={"labels": LABELS, "annotations": {contract.CLIENT_ID: CLIENT}},
    )


@seed(OUTSIDE, "annotation-misplaced", "Service {}/web")
def _(_: Patient, place: Place) -> None:
    metadata = {"name": "web", "annotations": {contract.CLIENT_ID: CLIENT}}
    place.make({"kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}})


@seed(OUTSIDE, "annotation-misplaced", "Namespace {}")
def _(patient: Patient, place: Place) -> None:
    note = {contract.CLIENT_ID: CLIENT}
    patient.edit("Namespace", place.name, "", lambda found: found["metadata"].update(annotations=note))


@seed(OUTSIDE, "annotation-unknown", "Pod {}/web")
def _(_: Patient, place: Place) -> None:
    labels = {contract.USE_LABEL: "true", "azure.workload.identity.use": "true"}
    place.pod(metadata={"labels": labels})


@seed(OUTSIDE, "label-missing", "Deployment {}/plain")
def _(_: Patient, place: Place) -> None:
    place.account("plain")
    place.deployment("plain", "plain", metadata={**UNLABELLED, "annotations": {EXPIRATION: "7200"}})


@seed(OUTSIDE, "annotation-misplaced", "CronJob {}/nightly")
def _(_: Patient, place: Place) -> None:
    labels, note = {contract.USE_LABEL: "true"}, {contract.USE_LABEL: "true"}
    pod = {
        "metadata": {"labels": labels, "annotations": note},
        "spec": {**container(), "serviceAccountName": "billing", "restartPolicy": "Never"},
    }
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": pod}}}
    place.make({"kind": "CronJob", "metadata": {"name": "nightly"}, "spec": spec})


# Which ServiceAccount.


@seed(OUTSIDE, "account-not-annotated", "Pod {}/web")
def _(_: Patient, place: Place) -> None:
    place.account("plain")
    place.pod(account="plain")


@seed(OUTSIDE, "account-not-annotated", "Pod {}/web")
def _(_: Patient, place: Place) -> None:
    place.pod(account="default")


@seed(OUTSIDE, "account-missing", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(account="biling")


@seed(OUTSIDE, "account-missing", "Pod {}/web")
def _(patient: Patient, place: Place) -> None:
    place.account("gone", {contract.CLIENT_ID: CLIENT})
    place.pod(account="gone")
    patient.delete("ServiceAccount", "gone", place.name)


# Pods.


@seed(OUTSIDE, "expiration-invalid", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(metadata={"labels": LABELS, "annotations": {EXPIRATION: "1h"}})


@seed(OUTSIDE, "skips-nothing", "Pod {}/web")
def _(_: Patient, place: Place) -> None:
    place.pod(metadata={"labels": LABELS, "annotations": {SKIP: "sidecar"}})


@seed(OUTSIDE, "mount-in-the-way", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    mount = {"name": "mine", "mountPath": contract.BASE_PATH}
    place.deployment(
        spec={
            **container(volumeMounts=[mount]),
            "volumes": [{"name": "mine", "emptyDir": {}}],
            "serviceAccountName": "billing",
        }
    )


@seed(OUTSIDE, "proxy-impossible", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(
        metadata={"labels": LABELS, "annotations": {PROXY: "true"}},
        spec={**container(), "hostNetwork": True, "serviceAccountName": "billing"},
    )


@seed(OUTSIDE, "env-overridden", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.make({"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"AZURE_CLIENT_ID": OTHER}})
    place.deployment(
        spec={**container(envFrom=[{"configMapRef": {"name": "settings"}}]), "serviceAccountName": "billing"}
    )


@seed(OUTSIDE, "env-overridden", "Pod {}/web")
def _(_: Patient, place: Place) -> None:
    secret = {"CLIENT_ID": b64encode(OTHER.encode()).decode()}
    place.make({"kind": "Secret", "metadata": {"name": "settings"}, "data": secret})
    source = {"prefix": "AZURE_", "secretRef": {"name": "settings"}}
    place.pod(spec={**container(envFrom=[source]), "serviceAccountName": "billing"})


@seed(OUTSIDE, "proxy-impossible", "Deployment {}/web")
def _(patient: Patient, place: Place) -> None:
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    patient.edit("Namespace", place.name, "", lambda found: found["metadata"]["labels"].update(level))
    place.deployment(metadata={"labels": LABELS, "annotations": {PROXY: "true"}})


@seed(OUTSIDE, "proxy-port-taken", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(
        metadata={"labels": LABELS, "annotations": {PROXY: "true"}},
        spec={**container(ports=[{"containerPort": 8000}]), "serviceAccountName": "billing"},
    )


@seed(OUTSIDE, "annotation-idle", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(metadata={"labels": LABELS, "annotations": {contract.PROXY_PORT: "8080"}})


@seed(OUTSIDE, "annotation-idle", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    """The release has no custom token endpoint."""
    place.deployment(
        metadata={"labels": LABELS, "annotations": {contract.USE_LABEL + "-identity-binding": "true"}}
    )


@seed(OUTSIDE, "env-empty", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    env = [{"name": "AZURE_TENANT_ID", "value": ""}]
    place.deployment(spec={**container(env=env), "serviceAccountName": "billing"})


@seed(OUTSIDE, "env-not-expanded", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    env = [{"name": "ARM_CLIENT_ID", "value": "$(AZURE_CLIENT_ID)"}]
    place.deployment(spec={**container(env=env), "serviceAccountName": "billing"})


@seed(OUTSIDE, "token-file-elsewhere", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    args = ["--token-file=/var/run/secrets/azure/tokens/azure-identity-token"]
    place.deployment(spec={**container(args=args), "serviceAccountName": "billing"})


@seed(OUTSIDE, "pod-unwired", "Pod {}/early")
def _(_: Patient, place: Place) -> None:
    """As one that was there before the operator: nobody looked at it when it was made."""
    place.pod("early", metadata={"labels": {contract.USE_LABEL: "false"}})
    place.edit("Pod", "early", lambda found: found["metadata"]["labels"].update({contract.USE_LABEL: "true"}))


@seed(OUTSIDE, "pod-unwired", "Deployment {}/web")
def _(patient: Patient, place: Place) -> None:
    """Its ServiceAccount is annotated only now."""
    place.account("late")
    place.deployment(account="late", metadata=UNLABELLED)
    place.edit("Deployment", "web", lambda found: found["spec"].update(replicas=1))
    pods = f"/api/v1/namespaces/{place.name}/pods"
    eventually(lambda: list(patient.api.list(pods)))
    place.annotate("late", {contract.CLIENT_ID: CLIENT})


@seed(OUTSIDE, "pod-outdated", "Pod {}/web")
def _(_: Patient, place: Place) -> None:
    place.pod()
    place.annotate("billing", {contract.CLIENT_ID: OTHER})


# Namespaces and their tables.


@seed(OUTSIDE, "namespace-left-out", "Namespace {}")
def _(patient: Patient, place: Place) -> None:
    labels = {"control-plane": "true"}
    patient.edit("Namespace", place.name, "", lambda found: found["metadata"]["labels"].update(labels))


# The installation, where the operator is outside.


def on_webhook(patient: Patient, **fields: Any) -> AbstractContextManager[None]:
    """Give the webhook for labelled pods other fields meanwhile."""
    return patient.edited(MWC, CONFIGURATION, "", lambda found: found["webhooks"][0].update(fields))


@seed(OUTSIDE, "webhook-lets-through", f"{MWC} {CONFIGURATION}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_webhook(patient, failurePolicy="Ignore")


@seed(OUTSIDE, "webhook-asked-once", f"{MWC} {CONFIGURATION}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_webhook(patient, reinvocationPolicy="Never")


@seed(OUTSIDE, "webhook-hasty", f"{MWC} {CONFIGURATION}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_webhook(patient, timeoutSeconds=1)


@seed(OUTSIDE, "webhook-not-called", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    labels = {"matchLabels": {contract.USE_LABEL: "yes"}}
    return on_webhook(patient, objectSelector=labels)


@seed(OUTSIDE, "webhook-for-all-pods", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_webhook(patient, objectSelector={})


@seed(OUTSIDE, "object-edited", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    """By which pods that the policy leaves are never wired, or some of them."""

    def change(found: dict[str, Any]) -> None:
        (condition,) = found["webhooks"][0]["matchConditions"]
        condition["expression"] = f"!has(object.metadata.labels.legacy) && ({condition['expression']})"

    return patient.edited(MWC, CONFIGURATION, "", change)


@seed(OUTSIDE, "object-edited", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    """So that no pod is wired, which is its consequence."""
    never = [{"name": "never", "expression": "false"}]
    return on_webhook(patient, matchConditions=never)


@seed(OUTSIDE, "object-edited", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    more = {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}
    return on_webhook(patient, namespaceSelector=more)


@seed(OUTSIDE, "object-edited", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    only = {"matchLabels": {**LABELS, "team": "a"}}
    return on_webhook(patient, objectSelector=only)


@seed(OUTSIDE, "policy-not-in-force", f"MutatingAdmissionPolicy {RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return taking_away(patient, last=False)


@seed(OUTSIDE, "wiring-not-in-force", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return taking_away(patient, last=True)


@seed(OUTSIDE, "enforcer", f"{MWC} {CONFIGURATION}", alone=True)
@contextmanager
def _(patient: Patient, place: Place) -> Iterator[None]:
    """On AKS, whose namespaces say so."""
    aks = {"kubernetes.azure.com/managedby": "aks"}
    patient.edit("Namespace", place.name, "", lambda found: found["metadata"]["labels"].update(aks))

    def change(found: dict[str, Any]) -> None:
        found["metadata"]["annotations"].pop("admissions.enforcer/disabled")
        terms = found["webhooks"][0]["namespaceSelector"]["matchExpressions"]
        terms[:] = [one for one in terms if one["key"] != "control-plane"]

    for account in ("billing", "default"):
        place.annotate(account, {})
    with patient.edited(MWC, CONFIGURATION, "", change):
        yield


@seed(OUTSIDE, "pod-wired-wrong", "Pod {}/web")
def _(_: Patient, place: Place) -> None:
    """Somebody changed his mind about the container that was to be left alone."""
    place.pod(
        metadata={"labels": LABELS, "annotations": {SKIP: "side"}},
        spec={
            "containers": [{"name": name, "image": "x"} for name in ("app", "side")],
            "serviceAccountName": "billing",
        },
    )
    place.edit("Pod", "web", lambda found: found["metadata"]["annotations"].pop(SKIP))


@seed(OUTSIDE, "validation-off", f"ValidatingAdmissionPolicy {RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    def change(found: dict[str, Any]) -> None:
        found["spec"]["validations"][0]["expression"] = "true"

    return patient.edited("ValidatingAdmissionPolicy", RELEASE, "", change)


@seed(INSIDE, "validation-off", f"ValidatingAdmissionPolicy {RELEASE}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    def change(found: dict[str, Any]) -> None:
        found["spec"]["matchConditions"].append({"name": "never", "expression": "false"})

    return patient.edited("ValidatingAdmissionPolicy", RELEASE, "", change)


@seed(OUTSIDE, "ca-bundle-wrong", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.edited(MWC, CONFIGURATION, "", trusting(trustme.CA().cert_pem.bytes()))


@seed(OUTSIDE, "ca-bundle-missing", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.edited(MWC, CONFIGURATION, "", trusting(b""))


@contextmanager
def served_by(
    patient: Patient, name: str, begin: datetime | None = None, end: datetime | None = None
) -> Iterator[None]:
    """Have the webhook called where another certificate is served, which caBundle vouches for."""
    authority, application = trustme.CA(), web.Application()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_before=begin, not_after=end).configure_cert(tls)
    with loopback.listening("127.0.0.1", 0) as listener, loopback.serving(application, listener, tls):

        def call(found: dict[str, Any]) -> None:
            trusting(authority.cert_pem.bytes())(found)
            found["webhooks"][0]["clientConfig"]["url"] = (
                f"{loopback.address(listener)}{contract.WEBHOOK_PATH}"
            )

        with patient.edited(MWC, CONFIGURATION, "", call):
            yield


@seed(OUTSIDE, "certificate-expired", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    now = datetime.now(UTC)
    return served_by(patient, "127.0.0.1", now - timedelta(days=9), now - timedelta(days=1))


@seed(OUTSIDE, "certificate-name-wrong", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return served_by(patient, "operator.example.com")


@seed(OUTSIDE, "webhook-fails", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    def call(found: dict[str, Any]) -> None:
        found["webhooks"][0]["clientConfig"]["url"] = f"https://127.0.0.1:1{contract.WEBHOOK_PATH}"

    return patient.edited(MWC, CONFIGURATION, "", call)


@seed(OUTSIDE, "webhook-service-wrong", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    def call(found: dict[str, Any]) -> None:
        called = found["webhooks"][0]["clientConfig"]
        called["url"] = called["url"].replace(contract.WEBHOOK_PATH, "/mutate")

    return patient.edited(MWC, CONFIGURATION, "", call)


@seed(OUTSIDE, "object-missing", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.without(MWC, CONFIGURATION)


@seed(OUTSIDE, "object-edited", f"MutatingAdmissionPolicy {RELEASE}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    def change(found: dict[str, Any]) -> None:
        found["spec"]["variables"][-1]["expression"] = "object.spec.?volumes.orValue([])"

    return patient.edited("MutatingAdmissionPolicy", RELEASE, "", change)


@seed(OUTSIDE, "object-edited", f"MutatingAdmissionPolicyBinding {RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    only = {"namespaceSelector": {"matchLabels": {"team": "a"}}}
    return patient.edited(
        "MutatingAdmissionPolicyBinding", RELEASE, "", lambda found: found["spec"].update(matchResources=only)
    )


@seed(OUTSIDE, "object-missing", f"MutatingAdmissionPolicyBinding {RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.without("MutatingAdmissionPolicyBinding", RELEASE)


@seed(OUTSIDE, "object-missing", f"MutatingAdmissionPolicy {RELEASE}", alone=True)
def _(patient: Patient, place: Place) -> AbstractContextManager[None]:
    place.deployment(metadata=UNLABELLED)
    return patient.without("MutatingAdmissionPolicy", RELEASE)


@seed(OUTSIDE, "object-missing", f"ConfigMap {NAMESPACE}/{RELEASE}-declared", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.without("ConfigMap", f"{RELEASE}-declared", NAMESPACE)


@seed(OUTSIDE, "validation-off", f"ValidatingAdmissionPolicyBinding {RELEASE}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.without("ValidatingAdmissionPolicyBinding", RELEASE)


@seed(OUTSIDE, "versions-differ", f"Release {NAMESPACE}/{RELEASE}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    label = {"app.kubernetes.io/version": "0.0.1"}
    return patient.edited(
        "MutatingAdmissionPolicyBinding", RELEASE, "", lambda found: found["metadata"]["labels"].update(label)
    )


@seed(OUTSIDE, "peer-beside", f"{MWC} {contract.PEER_CONFIGURATION}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    peer = peer_configuration(contract.PEER_CONFIGURATION, 1, failurePolicy="Ignore")
    return installed(patient.plane, peer)


@seed(OUTSIDE, "rights-missing", f"ServiceAccount {NAMESPACE}/{RELEASE}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    """One that the operator can do without for a while."""

    def change(found: dict[str, Any]) -> None:
        found["rules"] = [rule for rule in found["rules"] if rule["resources"] != ["jobs"]]

    return patient.edited("ClusterRole", RELEASE, "", change)


# The issuer.


@contextmanager
def published(patient: Patient, document: str, **changes: Any) -> Iterator[None]:
    """Have a public document differ from the API server's own."""
    assert patient.issuer is not None
    documents = patient.issuer.documents
    patient.issuer.documents = documents | {document: documents[document] | changes}
    try:
        yield
    finally:
        patient.issuer.documents = documents


@seed(OUTSIDE, "issuer-differs", "Issuer ISSUER")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return published(patient, "discovery", issuer=patient.plane.issuer.rstrip("/"))


@seed(OUTSIDE, "issuer-not-public", "Issuer ISSUER", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return published(patient, "discovery", jwks_uri="https://10.0.0.1:6443/openid/v1/jwks")


@seed(OUTSIDE, "issuer-document-wrong", "Issuer ISSUER")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return published(patient, "discovery", id_token_signing_alg_values_supported=["ES256"])


@seed(OUTSIDE, "issuer-keys-missing", "Issuer ISSUER")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    assert patient.issuer is not None
    return published(patient, "keys", keys=[patient.issuer.key.published()])


@seed(OUTSIDE, "issuer-unreachable", "Issuer ISSUER", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    assert patient.issuer is not None
    return patient.issuer.answering("keys", "public access is not permitted", status=409)


# The installation, where the operator is inside.


def argument(text: str) -> Callable[[dict[str, Any]], None]:
    """Return what replaces, or adds, a flag of the operator."""

    def change(found: dict[str, Any]) -> None:
        operator = found["spec"]["template"]["spec"]["containers"][0]
        flag = text.partition("=")[0]
        operator["args"] = [one for one in operator["args"] if one.partition("=")[0] != flag] + [text]

    return change


def on_deployment(
    patient: Patient, change: Callable[[dict[str, Any]], object]
) -> AbstractContextManager[None]:
    """Have the operator's Deployment changed."""
    return patient.edited("Deployment", RELEASE, NAMESPACE, change)


def on_settings(patient: Patient, **data: str) -> AbstractContextManager[None]:
    """Have the operator's ConfigMap changed."""
    return patient.edited("ConfigMap", RELEASE, NAMESPACE, lambda found: found["data"].update(data))


@seed(INSIDE, "settings-invalid", f"Deployment {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_deployment(patient, argument("--custom-token-endpoint-audience="))


@seed(INSIDE, "settings-invalid", f"Deployment {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_deployment(patient, argument("--no-such-flag=1"))


@seed(INSIDE, "settings-invalid", f"Deployment {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_settings(patient, AZURE_ENVIRONMENT="AzureMoonCloud")


@seed(INSIDE, "settings-invalid", f"Deployment {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_deployment(patient, argument("--listen=:9444"))


@seed(INSIDE, "settings-invalid", f"Deployment {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_deployment(patient, argument("--webhook-configuration=another"))


@seed(INSIDE, "settings-invalid", f"Deployment {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    """Nobody would answer where the kubelet asks."""
    return on_deployment(patient, argument("--health-addr=:9441"))


@seed(INSIDE, "settings-invalid", f"Deployment {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_deployment(patient, argument("--declaration=another"))


@seed(INSIDE, "tenant-invalid", f"Release {NAMESPACE}/{RELEASE}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_settings(patient, AZURE_TENANT_ID="contoso")


@seed(INSIDE, "tenant-invalid", f"Release {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_settings(patient, AZURE_TENANT_ID="")


@seed(INSIDE, "token-endpoint-ca-missing", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    note = {contract.USE_LABEL + "-identity-binding": "true"}
    place.deployment(metadata={"labels": LABELS, "annotations": note})


@seed(INSIDE, "annotation-unknown", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    note = {contract.USE_LABEL + "-identity-bindings": "true"}
    place.deployment(metadata={"labels": LABELS, "annotations": note})


@seed(INSIDE, "label-missing", "Deployment {}/web")
def _(_: Patient, place: Place) -> None:
    place.deployment(metadata=UNLABELLED)


@seed(INSIDE, "webhook-without-endpoints", f"Service {NAMESPACE}/{RELEASE}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    def unready(found: dict[str, Any]) -> None:
        found["endpoints"][0]["conditions"] = {"ready": False}

    return patient.edited("EndpointSlice", f"{RELEASE}-1", NAMESPACE, unready)


@seed(INSIDE, "object-missing", f"Service {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.without("Service", RELEASE, NAMESPACE)


@seed(INSIDE, "webhook-service-wrong", f"Service {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.edited(
        "Service", RELEASE, NAMESPACE, lambda found: found["spec"]["ports"][0].update(port=8443)
    )


@seed(INSIDE, "object-missing", f"ServiceAccount {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.without("ServiceAccount", RELEASE, NAMESPACE)


@seed(INSIDE, "object-missing", f"ConfigMap {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.without("ConfigMap", RELEASE, NAMESPACE)


@seed(INSIDE, "rights-missing", f"ServiceAccount {NAMESPACE}/{RELEASE}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.without("ClusterRoleBinding", RELEASE)


@seed(INSIDE, "replicas-unavailable", f"Deployment {NAMESPACE}/{RELEASE}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return on_deployment(patient, lambda found: found["spec"].update(replicas=3))


@contextmanager
def in_secret(patient: Patient, names: list[str], now: datetime) -> Iterator[None]:
    """Have another certificate in the operator's Secret, and its authority in caBundle."""
    certificate, secret = issue(names, now), SECRET
    data = {key: b64encode(value).decode() for key, value in certificate.as_secret().items()}
    with (
        patient.edited("Secret", secret, NAMESPACE, lambda found: found.update(data=data)),
        patient.edited(MWC, CONFIGURATION, "", trusting(certificate.authority)),
    ):
        yield


@seed(INSIDE, "certificate-expired", f"Secret {NAMESPACE}/{SECRET}")
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return in_secret(patient, [SERVICE], datetime.now(UTC) - timedelta(days=366))


@seed(INSIDE, "certificate-expires-soon", f"Secret {NAMESPACE}/{SECRET}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return in_secret(patient, [SERVICE], datetime.now(UTC) - timedelta(days=360))


@seed(INSIDE, "certificate-name-wrong", f"Secret {NAMESPACE}/{SECRET}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return in_secret(patient, ["elsewhere.example.svc"], datetime.now(UTC))


@seed(INSIDE, "certificate-unusable", f"Secret {NAMESPACE}/{SECRET}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    data = {"tls.crt": b64encode(b"not a certificate").decode()}
    secret = SECRET
    return patient.edited("Secret", secret, NAMESPACE, lambda found: found.update(data=data))


@seed(INSIDE, "ca-bundle-wrong", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.edited(MWC, CONFIGURATION, "", trusting(trustme.CA().cert_pem.bytes()))


@seed(INSIDE, "ca-bundle-missing", f"{MWC} {CONFIGURATION}", alone=True)
def _(patient: Patient, _: Place) -> AbstractContextManager[None]:
    return patient.edited(MWC, CONFIGURATION, "", trusting(b""))


# What is shown.


def names(seeds: list[Seed]) -> list[str]:
    """Return what tests of the seeds are called."""
    return [f"{one.code} of {one.about.split()[0]} ({index})" for index, one in enumerate(seeds)]


def about(one: Seed, patient: Patient, place: Place) -> tuple[str, str]:
    """Return what is to be found."""
    return one.code, one.about.replace("ISSUER", patient.plane.issuer).format(place.name)


def alone(patient: Patient, one: Seed) -> None:
    """Plant a seed and look."""
    with patient.place() as place, one.plant(patient, place) or nullcontext():
        patient.becomes({about(one, patient, place)})


@pytest.mark.parametrize("one", OUTSIDE, ids=names(OUTSIDE))
def test_alone_outside(outside: Patient, one: Seed) -> None:
    """A mistake is found, once, and no other."""
    alone(outside, one)


@pytest.mark.parametrize("one", INSIDE, ids=names(INSIDE))
def test_alone_inside(inside: Patient, one: Seed) -> None:
    """A mistake is found, once, and no other."""
    alone(inside, one)


@pytest.mark.parametrize(("where", "seeds"), [("outside", OUTSIDE), ("inside", INSIDE)])
def test_all_together(request: pytest.FixtureRequest, where: str, seeds: list[Seed]) -> None:
    """All mistakes that can be made at once are found, each once, and no other."""
    patient: Patient = request.getfixturevalue(where)
    wanted = set()
    with ExitStack() as stack:
        # Those in a namespace first: the cluster must still let their pods in.
        for one in sorted((one for one in seeds if not one.alone), key=lambda one: "{}" not in one.about):
            place = stack.enter_context(patient.place())
            stack.enter_context(one.plant(patient, place) or nullcontext())
            wanted.add(about(one, patient, place))
        patient.becomes(wanted)
        show(patient.look(), "table")  # with -s one sees what an administrator would


def wired_in_rehearsal(patient: Patient, place: Place) -> bool:
    """Whether the API server's policy wires an unlabelled pod by now: it must have seen the PodWiring."""
    made = {"apiVersion": "v1", "kind": "Pod", **pod("named", "billing", metadata=UNLABELLED)}
    rehearsed = patient.api.call("POST", f"/api/v1/namespaces/{place.name}/pods", {"dryRun": "All"}, made)
    return any(one["name"] == contract.POLICY_VOLUME for one in rehearsed["spec"].get("volumes", []))


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_nothing_wrong(request: pytest.FixtureRequest, where: str) -> None:
    """Where nothing is wrong nothing is found, whatever else is unusual."""
    patient: Patient = request.getfixturevalue(where)
    with patient.place({"team": "a"}) as place:
        place.account(
            "other",
            {
                contract.CLIENT_ID: OTHER.upper(),
                contract.TENANT_ID: "contoso.onmicrosoft.com",
                "eks.amazonaws.com/role-arn": "x",
            },
        )
        env = [{"name": "AZURE_CLIENT_ID", "value": OTHER}]
        place.deployment("own", "default", spec={**container(env=env), "serviceAccountName": "default"})
        place.deployment("out", metadata={"labels": {contract.USE_LABEL: "false"}})
        place.deployment(
            "plain",
            "default",
            metadata=UNLABELLED,
            spec=container(envFrom=[{"configMapRef": {"name": "none", "optional": True}}]),
        )
        place.deployment(
            "full",
            above={"labels": {contract.USE_LABEL: "true"}},
            metadata={
                "labels": {contract.USE_LABEL: "true"},
                "annotations": {EXPIRATION: "+7200", SKIP: "app;", PROXY: "false"},
            },
        )
        if patient.probe:
            place.pod()
            place.pod("quick", "other")
            eventually(lambda: wired_in_rehearsal(patient, place))
            place.pod("named", metadata=UNLABELLED)
        patient.becomes(set())
