"""Releases on a real API server: rights, the operator's own writes, upgrades, and what is left of them."""

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from testkit.control_plane import ControlPlane
from testkit.installation import Operator, free_port, operator_running
from testkit.manifests import CHART, TENANT
from testkit.processes import ProcessFailed
from workload_identity_operator import contract

OUTSIDE = {"webhook": {"url": "https://127.0.0.1:1"}}
ADMISSION = "admissionregistration.k8s.io"
DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
WEBHOOKS = f"mutatingwebhookconfigurations.{ADMISSION}"


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the chart in a namespace, whose webhook sees pods of namespace `workloads` only."""

    plane: ControlPlane
    name: str
    namespace: str
    workloads: str

    @property
    def fullname(self) -> str:
        """The name of most of its objects."""
        return f"{self.name}-workload-identity-operator"

    @property
    def configuration(self) -> str:
        """The name of its MutatingWebhookConfiguration."""
        return f"{contract.CONFIGURATION_PREFIX}{self.fullname}"

    @property
    def secret(self) -> str:
        """The name of the Secret with its certificate."""
        return f"{self.fullname}-certificate"

    def helm(self, verb: str, *flags: str, **values: Any) -> str:
        """Install or upgrade with some values set; return what helm tells."""
        selector = {"matchLabels": {"kubernetes.io/metadata.name": self.workloads}}
        given = {"azureTenantID": TENANT, "mutatingWebhookNamespaceSelector": selector} | values
        where = (f"--namespace={self.namespace}", "--values=-")
        return self.plane.helm(verb, self.name, CHART, *where, *flags, given=json.dumps(given))

    def get(self, kind: str, name: str | None = None) -> Any:
        """Return an object, by default the one with the release's own name."""
        where = (f"--namespace={self.namespace}", "--output=json")
        return json.loads(self.plane.kubectl("get", kind, name or self.fullname, *where))

    def webhook(self) -> Any:
        """Return the chart's webhook of its configuration; the operator may have added another."""
        return self.get(WEBHOOKS, self.configuration)["webhooks"][0]


@pytest.fixture
def release(control_plane: ControlPlane, namespace: str) -> Iterator[Release]:
    """A release to be installed, and a namespace for the pods it looks after; both go afterwards."""
    workloads = f"{namespace}-workloads"
    control_plane.create_namespace(workloads)
    found = Release(control_plane, f"test-{secrets.token_hex(4)}", namespace, workloads)
    yield found
    control_plane.helm("uninstall", found.name, f"--namespace={namespace}", "--ignore-not-found")
    control_plane.kubectl("delete", "namespace", workloads, "--wait=false")


def until(holds: Callable[[], bool], within: float = 30) -> None:
    """Wait until something holds; fail when it does not within so many seconds."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"{holds} did not hold within {within} s"
        time.sleep(0.1)


# The operator itself, with the rights that the release gives it.


@contextmanager
def operator(release: Release, *flags: str) -> Iterator[Operator]:
    """Run the operator on this machine with the rights of the release's ServiceAccount."""
    kubeconfig = release.plane.kubeconfig_for(release.fullname, release.namespace)
    environ = {"AZURE_TENANT_ID": TENANT, "POD_NAMESPACE": release.namespace}
    with operator_running(
        release.plane, free_port(), environ=environ, flags=flags, kubeconfig=kubeconfig
    ) as found:
        yield found


@pytest.mark.parametrize("how", ["--server-side=true", "--server-side=false"])
def test_upgrades_leave_the_operators_writes_alone(release: Release, how: str) -> None:
    """The release's flags and rights get the operator ready; what it writes outlives any upgrade."""
    release.helm("install", how)
    (container,) = release.get("deployment")["spec"]["template"]["spec"]["containers"]
    elsewhere = ("run", "--listen=", "--health-addr=", "--metrics-addr=")
    with operator(release, *(flag for flag in container["args"] if not flag.startswith(elsewhere))):
        certificate = release.get("secret", release.secret)["data"]
        bundle = release.webhook()["clientConfig"]["caBundle"]
    assert certificate.keys() == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    assert bundle == certificate["ca.crt"]

    release.helm("upgrade", how, timeoutSeconds=7, commonLabels={"changed": "yes"})

    secret, webhook = release.get("secret", release.secret), release.webhook()
    assert (webhook["timeoutSeconds"], webhook["clientConfig"]["caBundle"]) == (7, bundle)
    assert (secret["metadata"]["labels"]["changed"], secret["data"]) == ("yes", certificate)


def test_what_others_write_survives_an_upgrade(release: Release) -> None:
    """Data and caBundle written by another hand than the operator's are not the chart's to take either."""
    data = {"tls.crt": "Yw==", "tls.key": "aw=="}
    bundle = base64.b64encode(release.plane.ca_file.read_bytes()).decode()  # the API server wants a real one
    release.helm("install")
    for kind, name, path, value in (
        ("secret", release.secret, "/data", data),
        (WEBHOOKS, release.configuration, "/webhooks/0/clientConfig/caBundle", bundle),
    ):
        how = (f"--namespace={release.namespace}", "--field-manager=someone", "--type=json")
        patch = json.dumps([{"op": "add", "path": path, "value": value}])
        release.plane.kubectl("patch", kind, name, *how, f"--patch={patch}")

    release.helm("upgrade", timeoutSeconds=7)

    assert release.get("secret", release.secret)["data"] == data
    assert release.webhook()["clientConfig"]["caBundle"] == bundle
    assert release.webhook()["timeoutSeconds"] == 7


def test_an_operator_outside_serves_the_cluster(release: Release) -> None:
    """Labelled pods are wired by a process on this machine, and refused when it is gone."""
    where = f"--namespace={release.workloads}"
    annotation = f"{contract.CLIENT_ID}=11111111-2222-3333-4444-555555555555"
    release.plane.kubectl("create", "serviceaccount", "billing", where)
    release.plane.kubectl("annotate", "serviceaccount", "billing", annotation, where)
    billing = '--overrides={"spec": {"serviceAccountName": "billing"}}'
    pod = ("check", "--image=none", f"--labels={contract.USE_LABEL}=true", billing, where)
    look = partial(release.plane.kubectl, "run", *pod, "--dry-run=server", "--output=json")
    release.helm("install", engine="webhook", **OUTSIDE)

    with operator(release, f"--webhook-configuration={release.configuration}") as outside:
        bundle = release.webhook()["clientConfig"]["caBundle"]
        release.helm("upgrade", engine="webhook", webhook={"url": outside.webhook})
        assert release.webhook()["clientConfig"] == {"url": outside.webhook, "caBundle": bundle}
        (container,) = json.loads(look())["spec"]["containers"]
    with pytest.raises(ProcessFailed, match=f'failed calling webhook "{contract.WEBHOOK_NAME}"'):
        look()

    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert env[contract.ENV_CLIENT_ID] == "11111111-2222-3333-4444-555555555555"
    assert env[contract.ENV_TENANT_ID] == TENANT
    assert env[contract.ENV_TOKEN_FILE] == contract.TOKEN_FILE


# Rights.


def rights(release: Release, account: str, namespace: str) -> set[tuple[str, ...]]:
    """Return what a ServiceAccount of the release may do: verbs, groups, resources and names."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    path = "--raw=/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    who = f"--as=system:serviceaccount:{release.namespace}:{account}"
    answer = release.plane.kubectl("create", path, "--filename=-", who, given=json.dumps(review))
    return {
        (verb, group, resource, name)
        for rule in json.loads(answer)["status"]["resourceRules"]
        for verb in rule["verbs"]
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for name in rule.get("resourceNames", ["*"])
    }


WEBHOOK = {"engine": "webhook"}


HEALING = {"healing": {"mode": "restart"}}


@pytest.mark.parametrize(
    "values", [{}, OUTSIDE, WEBHOOK, HEALING], ids=["inside", "outside", "webhook", "healing"]
)
def test_has_these_rights_and_no_others(release: Release, values: dict[str, Any]) -> None:
    """Beyond what everyone may do: read accounts, pods, webhooks, keep PodWirings and the release's own."""
    tables = ("list", "watch", "create", "patch", "delete")
    everywhere = {
        *((verb, contract.POD_WIRING_GROUP, contract.POD_WIRINGS, "*") for verb in tables),
        ("patch", contract.POD_WIRING_GROUP, f"{contract.POD_WIRINGS}/status", "*"),
        *((verb, "", "serviceaccounts", "*") for verb in ("get", "list", "watch")),
        *((verb, ADMISSION, "mutatingwebhookconfigurations", "*") for verb in ("get", "list", "watch")),
        ("patch", ADMISSION, "mutatingwebhookconfigurations", release.configuration),
        *(
            (verb, ADMISSION, "mutatingadmissionpolicybindings", release.fullname)
            for verb in ("list", "watch")
        ),
        ("create", "events.k8s.io", "events", "*"),
        ("list", "", "pods", "*"),
        *(("get", "", kind, "*") for kind in ("namespaces", "replicationcontrollers")),
        *(
            ("get", "apps", kind, "*")
            for kind in ("deployments", "replicasets", "statefulsets", "daemonsets")
        ),
        ("get", "batch", "jobs", "*"),
    }
    if values == HEALING:
        everywhere |= {("list", "policy", "poddisruptionbudgets", "*"), ("create", "", "pods/eviction", "*")}
        everywhere |= {
            ("patch", "apps", f"{kind}s", "*") for kind in ("deployment", "statefulset", "daemonset")
        }
    declared = f"{release.fullname}-declared"
    if values != WEBHOOK:
        definition = f"{contract.POD_WIRINGS}.{contract.POD_WIRING_GROUP}"
        kept = ("get", "list", "watch", "create", "patch")
        everywhere |= {
            *((verb, "apiextensions.k8s.io", "customresourcedefinitions", definition) for verb in kept),
        }
        for kind in ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings"):
            everywhere |= {(verb, ADMISSION, kind, release.fullname) for verb in kept}
            everywhere |= {(verb, ADMISSION, kind, declared) for verb in ("create", "patch")}
        everywhere |= {("delete", ADMISSION, "mutatingadmissionpolicies", release.fullname)}
        everywhere |= {("get", contract.POD_WIRING_GROUP, contract.POD_WIRINGS, "*")}
    here = {("get", "", "configmaps", declared), ("list", "", "configmaps", declared)}
    here |= {("watch", "", "configmaps", declared)}
    here |= {(verb, "", "secrets", release.secret) for verb in ("get", "list", "watch", "create", "patch")}
    here |= {(verb, "coordination.k8s.io", "leases", release.fullname) for verb in ("get", "create", "patch")}
    release.helm("install", **values)

    def own(namespace: str) -> set[tuple[str, ...]]:
        return rights(release, release.fullname, namespace) - rights(release, "default", namespace)

    assert own(release.workloads) == everywhere
    assert own(release.namespace) == everywhere | here


def test_may_do_no_harm(release: Release) -> None:
    """The API server, asked one by one, refuses what an intruder in the operator's pod would want."""
    release.helm("install")
    wanted = [
        "create secrets",
        "list secrets",
        "get secrets/another",
        "patch secrets/another",
        f"delete secrets/{release.secret}",
        f"create {WEBHOOKS}",
        f"patch {WEBHOOKS}/another",
        f"delete {WEBHOOKS}/{release.configuration}",
        f"patch mutatingadmissionpolicies.{ADMISSION}/another",
        f"create mutatingadmissionpolicies.{ADMISSION}",
        f"list mutatingadmissionpolicies.{ADMISSION}",
        f"patch mutatingadmissionpolicybindings.{ADMISSION}/another",
        f"patch validatingadmissionpolicies.{ADMISSION}/{release.fullname}",
        f"delete {DEFINITIONS}/{contract.POD_WIRINGS}.{contract.POD_WIRING_GROUP}",
        f"patch {DEFINITIONS}/another",
        f"patch validatingwebhookconfigurations.{ADMISSION}/{release.fullname}",
        f"create mutatingadmissionpolicybindings.{ADMISSION}",
        "patch serviceaccounts",
        "create serviceaccounts --subresource=token",
        "impersonate serviceaccounts",
        "get pods",
        "create pods",
        "patch events.events.k8s.io",
        "list events.events.k8s.io",
        "get events.events.k8s.io",
        "get configmaps",
        f"patch configmaps/{release.fullname}-declared",
        "list namespaces",
        f"list {DEFINITIONS}",
    ]
    who = f"--as=system:serviceaccount:{release.namespace}:{release.fullname}"

    def may(what: str) -> bool:
        try:
            release.plane.kubectl("auth", "can-i", *what.split(), f"--namespace={release.namespace}", who)
        except ProcessFailed:
            return False
        return True

    assert [what for what in wanted if may(what)] == []
    assert may(f"get secrets/{release.secret}")


# Expressions.


def test_expressions_fit_what_they_judge(release: Release) -> None:
    """The controller that checks them against the types of pods and ServiceAccounts has nothing to say."""
    release.helm("install", guard=True)
    kind = f"validatingadmissionpolicies.{ADMISSION}"

    for name in (release.fullname, f"{release.fullname}-guard"):
        until(lambda name=name: "typeChecking" in release.get(kind, name).get("status", {}))  # type: ignore[misc]
        assert release.get(kind, name)["status"]["typeChecking"] == {}


# AKS's admissions enforcer.

ENFORCED: list[dict[str, Any]] = [
    {"key": "control-plane", "operator": "DoesNotExist"},
    {"key": "control-plane", "operator": "NotIn", "values": ["true"]},
    {"key": "kubernetes.azure.com/managedby", "operator": "NotIn", "values": ["aks"]},
]


def enforce(release: Release, terms: list[dict[str, Any]]) -> Any:
    """Do what the enforcer does to a configuration: add what its selectors lack, unless told to keep off.

    Source: the selectors and the conflicts that users of AKS report, such as
    https://github.com/DataDog/datadog-agent/pull/55778 and
    https://github.com/aws-observability/helm-charts/pull/350.
    """
    configuration = release.get(WEBHOOKS, release.configuration)
    if configuration["metadata"]["annotations"].get("admissions.enforcer/disabled") != "true":
        for webhook in configuration["webhooks"]:
            found = webhook["namespaceSelector"].setdefault("matchExpressions", [])
            found += [term for term in terms if term not in found]
        manager = "--field-manager=admissionsenforcer"
        release.plane.kubectl("replace", "--filename=-", manager, given=json.dumps(configuration))
    return release.webhook()["namespaceSelector"]


@pytest.mark.parametrize("disabled", [True, False], ids=["declined", "obeyed"])
def test_upgrades_beside_the_admissions_enforcer(release: Release, disabled: bool) -> None:
    """Declined it does nothing, obeyed it finds nothing to add: there is never anything to fight over."""
    values = {"admissionsEnforcer": {"disabled": disabled}}
    release.helm("install", **values)
    before = release.webhook()["namespaceSelector"]

    assert enforce(release, ENFORCED) == before
    release.helm("upgrade", timeoutSeconds=7, **values)
    assert enforce(release, ENFORCED) == before


def test_an_enforcer_with_news_would_conflict(release: Release) -> None:
    """The test above does judge: a term that the chart lacks makes the next upgrade fail."""
    values = {"admissionsEnforcer": {"disabled": False}}
    release.helm("install", **values)
    enforce(release, [{"key": "news", "operator": "DoesNotExist"}])

    with pytest.raises(ProcessFailed, match=r'conflict with "admissionsenforcer".*namespaceSelector'):
        release.helm("upgrade", **values)


# The end.


KEPT = {
    f"CustomResourceDefinition//{contract.POD_WIRINGS}.{contract.POD_WIRING_GROUP}",
    f"APIService//v1.{contract.POD_WIRING_GROUP}",
}


def objects_of(plane: ControlPlane) -> set[str]:
    """Return all objects there are, but for those that come and go by themselves."""
    transient = ("events", "leases", "endpointslices", "componentstatuses")
    kinds = plane.kubectl("api-resources", "--verbs=list", "--output=name").split()
    listed = ",".join(kind for kind in kinds if not kind.startswith(transient))
    template = "{range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name} {end}"
    return set(plane.kubectl("get", listed, "--all-namespaces", f"--output=jsonpath={template}").split())


@pytest.mark.parametrize("values", [{}, OUTSIDE], ids=["inside", "outside"])
def test_uninstalling_leaves_nothing(release: Release, values: dict[str, Any]) -> None:
    """Neither what the chart made nor what came of it: Secrets, pods, records of the release.

    But for the kind of the tables, which others may have in use.
    """
    before = objects_of(release.plane) | KEPT
    release.helm("install", **values)
    assert objects_of(release.plane) - before

    release.plane.helm("uninstall", release.name, f"--namespace={release.namespace}")

    until(lambda: not objects_of(release.plane) - before)


def test_kind_of_the_tables_is_brought_once(release: Release) -> None:
    """A release that finds it leaves it to the one that brought it, and outlives that one's end."""
    definition = f"{contract.POD_WIRINGS}.{contract.POD_WIRING_GROUP}"
    release.plane.kubectl("delete", "crd", definition, "--ignore-not-found")
    release.helm("install")
    other = Release(release.plane, f"{release.name}-2", release.namespace, release.workloads)
    other.helm("install")
    before = release.get("crd", definition)["metadata"]

    release.helm("upgrade", commonLabels={"changed": "yes"})
    other.helm("upgrade", commonLabels={"changed": "no"})
    release.plane.helm("uninstall", release.name, f"--namespace={release.namespace}")
    other.helm("upgrade")
    other.plane.helm("uninstall", other.name, f"--namespace={release.namespace}")

    after = release.get("crd", definition)["metadata"]
    assert after["uid"] == before["uid"]
    assert after["annotations"]["meta.helm.sh/release-name"] == release.name
    assert after["labels"]["changed"] == "yes"


def test_notes_have_the_values_in_force(release: Release) -> None:
    """What helm prints names this release's objects and this cloud's audience."""
    told = release.helm("install", azureEnvironment="AzureChinaCloud")
    outside = release.helm("upgrade", **OUTSIDE)

    assert (
        f"every namespace that mutatingWebhookNamespaceSelector picks but kube-system, {release.namespace}"
        in told
    )
    assert f"rollout status deployment/{release.fullname}" in told
    assert f"{contract.CLIENT_ID}=CLIENT_ID" in told
    assert f'"{contract.USE_LABEL}": "true"' in told
    assert "--audiences api://AzureADTokenExchangeChina" in told
    assert "--listen=127.0.0.1:1 " in outside
    assert f"--webhook-configuration={release.configuration}" in outside
    assert f"kubectl -n {release.namespace} create token {release.fullname}" in outside
