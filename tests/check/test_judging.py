"""Judgements by hand, of what no cluster of ours can be: other issuers, tenants, clouds."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import pytest
import yaml

from testkit.manifests import rendered
from workload_identity_operator import contract
from workload_identity_operator.__main__ import flags_of
from workload_identity_operator.certificates import issue
from workload_identity_operator.check.certificate import certificate_faults
from workload_identity_operator.check.cluster import Cluster, Fetched, Probe
from workload_identity_operator.check.findings import CLAIMS, Finding, Object, Unseen
from workload_identity_operator.check.installation import MWC, POLICY, Release, releases_of
from workload_identity_operator.check.issuer import issuer_findings, why_not_public
from workload_identity_operator.check.report import report_on, without_consequences

TENANT = "99999999-8888-7777-6666-555555555555"
CHART = {"helm.sh/chart": "workload-identity-operator-0.1.0"}


def seen(**more: Any) -> Cluster:
    """Return a cluster of which only this was seen, with a release whose tenant a PodWiring tells."""
    spec = {"tenantID": TENANT, "authorityHost": "https://login.example/", "audience": "a", "identities": {}}
    kept = {contract.POD_WIRING_KEEPER: "azure-ours"}
    wiring = {
        "metadata": {"name": contract.POD_WIRING_NAME, "namespace": "a", "annotations": kept},
        "spec": spec,
    }
    configuration = {"metadata": {"name": "azure-ours", "labels": CHART}, "webhooks": []}
    cluster = Cluster("https://example.com", "v1.36.3", objects={"PodWiring": [wiring], MWC: [configuration]})
    for name, value in more.items():
        setattr(cluster, name, value)
    return cluster


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://westeurope.oic.prod-aks.azure.com/t/u/", True),
        ("https://oidc.eks.eu-west-1.amazonaws.com/id/X", True),
        ("https://8.8.8.8:6443", True),
        ("https://127.0.0.1:6443", True),  # on this machine, which is told elsewhere
        ("http://issuer.example.com", False),
        ("https://kubernetes.default.svc.cluster.local", False),
        ("https://kubernetes.default.svc", False),
        ("https://10.0.0.1:6443", False),
        ("https://[fd00::1]:6443", False),
        ("https://api", False),
        ("kubernetes/serviceaccount", False),
    ],
)
def test_who_can_be_reached(url: str, public: bool) -> None:
    """Entra reaches https URLs of public names and addresses."""
    assert (why_not_public(url) == "") is public


def test_an_issuer_inside() -> None:
    """What kind and kubeadm have by default is told, and nothing is said of documents nobody can fetch."""
    cluster = seen(discovery={"issuer": "https://kubernetes.default.svc.cluster.local"})

    assert [found.code for found in issuer_findings(cluster)] == ["issuer-not-public"]


def test_keys_that_are_not_rsa() -> None:
    """Entra takes RS256 only, whatever the documents say."""
    keys = {"keys": [{"kty": "EC", "alg": "ES256", "kid": "1"}]}
    cluster = seen(discovery={"issuer": "https://issuer.example.com"}, keys=keys)

    assert [(found.code, found.found) for found in issuer_findings(cluster)] == [
        ("issuer-algorithm", "ES256")
    ]


def test_a_key_of_the_same_name() -> None:
    """A published key that has the id, but is another, does not count."""
    issuer = "https://issuer.example.com"
    key = {"kty": "RSA", "alg": "RS256", "kid": "1", "n": "a", "e": "AQAB"}
    document = {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
    cluster = seen(
        discovery={"issuer": issuer},
        keys={"keys": [key]},
        issued=Fetched(issuer, document),
        issued_keys=Fetched(f"{issuer}/jwks", {"keys": [key | {"n": "b"}, key | {"kid": "2"}]}),
    )

    assert [found.code for found in issuer_findings(cluster)] == ["issuer-keys-missing"]


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        (
            {"error": "invalid_tenant", "error_description": "AADSTS90002: Tenant not found."},
            {"tenant-unknown"},
        ),
        ({"issuer": f"https://login.example/{TENANT}/v2.0"}, set()),
        (None, set()),
    ],
)
def test_what_entra_says_of_the_tenant(answer: dict[str, Any] | None, codes: set[str]) -> None:
    """A tenant that it does not know is told; where it did not answer nothing is."""
    cluster = seen(tenants={TENANT: Fetched("https://login.example", answer)})

    found = {one.code for one in report_on(cluster, releases_of(cluster, flags_of)).findings}

    assert found & {"tenant-unknown"} == codes


@pytest.mark.parametrize(("ahead", "told"), [(-600.0, "10 minutes ahead"), (600.0, "behind"), (200.0, "")])
def test_a_clock_that_is_not_entras(ahead: float, told: str) -> None:
    """Tokens of the API server's future are refused; some minutes are not minded."""
    cluster = seen(tenants={TENANT: Fetched("https://login.example", {"issuer": "x"}, ahead=ahead)})

    found = [one.found for one in issuer_findings(cluster) if one.code == "clock-differs"]

    assert len(found) == bool(told)
    assert all(told in one for one in found)


def test_where_nothing_is_installed() -> None:
    """That is all there is to say of the installation."""
    cluster = Cluster("https://example.com", "v1.36.3", objects={MWC: []})

    found = report_on(cluster, releases_of(cluster, flags_of)).findings

    assert [(one.code, str(one.object)) for one in found] == [
        ("not-installed", "Cluster https://example.com")
    ]


def test_pods_that_lack_another_label() -> None:
    """Where the chart's webhook wants one more, a labelled pod without it is not wired."""
    cluster = seen()
    labels = {contract.USE_LABEL: "true", "team": "a"}
    webhook = {"name": contract.WEBHOOK_NAME, "objectSelector": {"matchLabels": labels}, "clientConfig": {}}
    cluster.objects[MWC][0]["webhooks"] = [webhook]
    spec = {"containers": [{"name": "app"}]}
    metadata = {"name": "web", "namespace": "a", "uid": "1", "labels": {contract.USE_LABEL: "true"}}
    cluster.objects["Pod"] = [{"metadata": metadata, "spec": spec, "status": {}}]

    found = report_on(cluster, releases_of(cluster, flags_of)).findings

    assert [str(one.object) for one in found if one.code == "pod-left-out"] == ["Pod a/web"]


def test_pods_that_the_policy_has_wired_lack_no_label() -> None:
    """For them the webhook is not asked, which is as it should be."""
    cluster = seen()
    term = {"key": contract.WIRED_BY, "operator": "NotIn", "values": [contract.WIRED_BY_POLICY]}
    selector = {"matchLabels": {contract.USE_LABEL: "true"}, "matchExpressions": [term]}
    webhook = {"name": contract.WEBHOOK_NAME, "objectSelector": selector, "clientConfig": {}}
    cluster.objects[MWC][0]["webhooks"] = [webhook]
    labels = {contract.USE_LABEL: "true", contract.WIRED_BY: contract.WIRED_BY_POLICY}
    metadata = {"name": "web", "namespace": "a", "uid": "1", "labels": labels}
    spec = {"containers": [{"name": "app"}]}
    cluster.objects["Pod"] = [{"metadata": metadata, "spec": spec, "status": {}}]

    found = report_on(cluster, releases_of(cluster, flags_of)).findings

    assert "pod-left-out" not in {one.code for one in found}


def test_a_job_that_has_ended_makes_no_pods() -> None:
    """Whatever would be in their way: its ServiceAccount can be gone by now."""
    cluster = seen()
    labels = {contract.USE_LABEL: "true"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app"}]}}
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    jobs: list[dict[str, Any]] = [
        {"kind": "Job", "metadata": {"name": name, "namespace": "a", "uid": name}, "status": status}
        for name, status in (("done", ended), ("runs", {}))
    ]
    cluster.objects |= {"Job": [one | {"spec": {"template": template}} for one in jobs], "ServiceAccount": []}

    found = report_on(cluster, releases_of(cluster, flags_of)).findings

    assert [str(one.object) for one in found if one.code == "account-missing"] == ["Job a/runs"]


def kept_by_another(*, there: bool) -> Cluster:
    """Return a cluster in which another release keeps a PodWiring that holds what it should."""
    cluster = seen()
    objects = cluster.objects
    objects["PodWiring"][0]["metadata"]["annotations"][contract.POD_WIRING_KEEPER] = "azure-other"
    identity = {"clientID": TENANT, "expirationSeconds": contract.DEFAULT_EXPIRATION}
    objects["PodWiring"][0]["spec"]["identities"] = {"billing": identity}
    metadata = {"name": "billing", "namespace": "a", "annotations": {contract.CLIENT_ID: TENANT}}
    objects["ServiceAccount"] = [{"metadata": metadata}]
    objects[POLICY] = [{"metadata": {"name": "ours", "labels": CHART}}]
    if there:
        objects[MWC].append({"metadata": {"name": "azure-other", "labels": CHART}, "webhooks": []})
    return cluster


def told_of_its_keeper(cluster: Cluster, releases: Sequence[Release]) -> list[Finding]:
    """Return what is found of that PodWiring's keeper, as our release sees it."""
    judged = report_on(cluster, releases).findings
    return [one for one in judged if one.code == "podwiring-anothers" and one.wanted == "kept by azure-ours"]


@pytest.mark.parametrize(
    ("there", "found", "change"),
    [
        (False, 'kept by "azure-other", which is not there', "see whether the operator runs, and its log"),
        (True, 'kept by "azure-other"', "give both the same settings, or uninstall one"),
    ],
)
def test_who_keeps_a_podwiring(there: bool, found: str, change: str) -> None:
    """Another release is told of, and whether it is there: an operator takes over from one that is not."""
    cluster = kept_by_another(there=there)

    told = told_of_its_keeper(cluster, releases_of(cluster, flags_of))

    assert [(str(one.object), one.found, one.change) for one in told] == [
        (f"PodWiring a/{contract.POD_WIRING_NAME}", found, change)
    ]


def test_who_keeps_a_podwiring_with_the_same_settings_does_not_matter() -> None:
    """As long as it holds what our own release, whose settings are known for certain, would write."""
    cluster = kept_by_another(there=True)
    other, ours = releases_of(cluster, flags_of)
    certain = [other, replace(ours, settings=other.settings, certain=True)]

    assert told_of_its_keeper(cluster, [other, ours])
    assert told_of_its_keeper(cluster, certain) == []

    cluster.objects["PodWiring"][0]["spec"]["identities"]["billing"]["expirationSeconds"] = 7200
    assert told_of_its_keeper(cluster, certain)


def test_podwiring_of_a_namespace_that_should_have_none() -> None:
    """Whoever takes the last annotation away takes the identity: a table that stays still gives it."""
    cluster = kept_by_another(there=False)
    cluster.objects["ServiceAccount"] = []

    (told,) = (
        one
        for one in report_on(cluster, releases_of(cluster, flags_of)).findings
        if one.code == "podwiring-outdated"
    )

    assert told.object == Object("PodWiring", contract.POD_WIRING_NAME, "a")
    assert told.found == "still there, for billing"


def chain(cluster: Cluster, labels: dict[str, str], namespace: str = "a") -> dict[str, str]:
    """Return the states of the links of a pod with that label."""
    metadata = {"name": "web", "namespace": namespace, "labels": labels, "uid": "1"}
    spec = {"containers": [{"name": "app"}], "serviceAccountName": "billing"}
    cluster.objects["Pod"] = [{"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}]
    report = report_on(cluster, releases_of(cluster, flags_of), (namespace, "web"))
    return {step.what: step.state for step in report.steps}


def test_pod_that_opts_out_is_nothing_wrong() -> None:
    """Nothing is looked for that it does not ask for."""
    assert chain(seen(), {contract.USE_LABEL: "false"}) == {"label of the pod": "ok"}


def test_chain_for_somebody_who_may_see_little() -> None:
    """Who may list neither releases nor ServiceAccounts is told that nobody looked, not that all is wrong."""
    cluster = seen()
    cluster.objects = {}

    states = chain(cluster, {})

    assert "wrong" not in states.values()
    assert states["wired"] == states["label of the pod"] == states["client id"] == "unseen"


@pytest.mark.parametrize(("objects", "told"), [({}, False), ({MWC: []}, True)])
def test_labels_for_somebody_who_may_see_little(objects: dict[str, Any], *, told: bool) -> None:
    """Who may not see what is installed is not told that a pod lacks the label, which it may not need."""
    account = {"name": "billing", "namespace": "a", "annotations": {contract.CLIENT_ID: TENANT}}
    template = {"spec": {"containers": [{"name": "app"}], "serviceAccountName": "billing"}}
    deployment = {"metadata": {"name": "web", "namespace": "a", "uid": "1"}, "spec": {"template": template}}
    cluster = Cluster("https://example.com", "v1.36.3", objects=objects)
    cluster.objects |= {"ServiceAccount": [{"metadata": account}], "Deployment": [deployment]}

    found = {one.code for one in report_on(cluster, releases_of(cluster, flags_of)).findings}

    assert ("label-missing" in found) is told


def test_chain_for_somebody_who_sees_the_operator_but_no_webhook() -> None:
    """As the ClusterRole `view` has it: whether a pod without the label is wired nobody can tell then."""
    cluster = seen()
    del cluster.objects[MWC]
    annotations = {contract.CLIENT_ID: TENANT}
    account = {"name": "billing", "namespace": "a", "annotations": annotations}
    operator = {"containers": [{"name": "operator", "args": ["run"]}]}
    metadata = {"name": "ours", "namespace": "b", "labels": CHART, "uid": "0"}
    deployment = {"metadata": metadata, "spec": {"template": {"spec": operator}}}
    cluster.objects |= {"ServiceAccount": [{"metadata": account}], "Deployment": [deployment]}

    states = chain(cluster, {})

    assert releases_of(cluster, flags_of)
    assert (states["label of the pod"], states["wired"], states["container app"]) == ("unseen",) * 3


def test_a_token_that_is_not_made() -> None:
    """For want of its ServiceAccount, and not of a right; or for what the API server said."""
    cluster = seen()
    cluster.objects["ServiceAccount"] = []
    assert chain(cluster, {contract.USE_LABEL: "true"})["token"] == "wrong"

    cluster.objects["ServiceAccount"] = [{"metadata": {"name": "billing", "namespace": "a"}}]
    cluster.unseen = [Unseen(CLAIMS, "503: etcd has no leader")]
    chain(cluster, {contract.USE_LABEL: "true"})
    report = report_on(cluster, releases_of(cluster, flags_of), ("a", "web"))
    (step,) = (one for one in report.steps if one.what == "token")
    assert (step.state, step.told.endswith("503: etcd has no leader")) == ("unseen", True)


def test_client_ids_of_a_pod_whose_containers_have_their_own() -> None:
    """What a container sets itself wins over the annotation: it is told, and is who needs the credential."""
    cluster, client, other = seen(), TENANT.replace("9", "1"), TENANT.replace("9", "2")
    account = {"name": "billing", "namespace": "a", "annotations": {contract.CLIENT_ID: client}}
    cluster.objects["ServiceAccount"] = [{"metadata": account}]

    def env(value: str) -> list[dict[str, str]]:
        return [{"name": contract.ENV_CLIENT_ID, "value": value}]

    containers = [{"name": "app", "env": env(other)}, {"name": "side", "env": env(client)}, {"name": "off"}]
    metadata = {
        "name": "web",
        "namespace": "a",
        "labels": {contract.USE_LABEL: "true"},
        "annotations": {contract.SKIP_CONTAINERS: "off"},
        "uid": "1",
    }
    spec = {"containers": containers, "serviceAccountName": "billing"}
    cluster.objects["Pod"] = [{"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}]

    report = report_on(cluster, releases_of(cluster, flags_of), ("a", "web"))

    (step,) = (one for one in report.steps if one.what == "client id")
    assert (step.state, step.told) == ("ok", f'"{client}"; container "app" has "{other}"')
    assert [one.split("--id ")[1].split()[0] for one in report.commands[1:]] == [client, other]


@pytest.mark.parametrize(
    ("pods", "meshes", "told"),
    [
        ([], [], True),  # nobody adds a container
        ([], ["pods"], False),  # somebody may
        ([], ["nodes"], True),
        (["app"], ["pods"], True),  # and did not
        (["app", "proxy"], ["pods"], False),  # and did
    ],
)
def test_skipping_a_container_that_a_mesh_adds(pods: list[str], meshes: list[str], *, told: bool) -> None:
    """It is looked for where it could be: in the pods; without any, nobody knows what a mesh would add."""
    cluster = seen()
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"]}
    webhooks = [{"name": "mesh", "rules": [rule | {"resources": [resource]}]} for resource in meshes]
    cluster.objects[MWC].append({"metadata": {"name": "mesh"}, "webhooks": webhooks})
    cluster.unserved.add(POLICY)
    labels, annotations = {contract.USE_LABEL: "true"}, {contract.SKIP_CONTAINERS: "proxy"}
    marks = {"labels": labels, "annotations": annotations}
    template = {"metadata": marks, "spec": {"containers": [{"name": "app"}]}}
    where = {"name": "web", "namespace": "a", "uid": "1"}
    cluster.objects["ReplicaSet"] = [{"metadata": where, "spec": {"template": template}}]
    owner = {"kind": "ReplicaSet", "name": "web", "uid": "1", "controller": True}
    if pods:
        made = {**where, "name": "web-1", "uid": "2", "ownerReferences": [owner]}
        spec = {"containers": [{"name": name} for name in pods]}
        cluster.objects["Pod"] = [{"metadata": {**marks, **made}, "spec": spec}]

    found = report_on(cluster, releases_of(cluster, flags_of)).findings

    assert ("skips-nothing" in {one.code for one in found}) is told


ENDPOINT = {
    "annotationSuffix": "identity-binding",
    "audience": "api://AKSIdentityBinding",
    "azureKubernetesTokenProxy": "https://kubernetes.default.svc",
}


def with_policy(values: dict[str, Any]) -> Cluster:
    """Return a cluster with what the chart installs where the API server wires pods."""
    rules = (files("workload_identity_operator.check") / "rules.json").read_text(encoding="utf-8")
    cluster = Cluster("https://example.com", "v1.36.3", rules=json.loads(rules))
    for one in yaml.safe_load_all(rendered({"engine": "policy", **values})):
        if one:
            one["metadata"] |= {"resourceVersion": "1", "uid": one["metadata"]["name"]}
            cluster.objects.setdefault(one["kind"], []).append(one)
    return cluster


def edits(cluster: Cluster) -> list[str]:
    """Return what is found to be edited of the webhook's configuration."""
    found = report_on(cluster, releases_of(cluster, flags_of)).findings
    return [one.found for one in found if (one.code, one.object.kind) == ("object-edited", MWC)]


@pytest.mark.parametrize(
    "values",
    [{}, {"azureEnvironment": "AzureChinaCloud"}, {"audience": "api://own", "customTokenEndpoint": ENDPOINT}],
    ids=["as-it-is", "another-cloud", "endpoint"],
)
def test_by_what_the_webhook_is_asked(values: dict[str, Any]) -> None:
    """Its expression is the chart's for the release's values; whatever else it says is an edit."""
    cluster = with_policy(values)

    assert edits(cluster) == []
    (condition,) = cluster.all(MWC)[0]["webhooks"][0]["matchConditions"]
    condition["expression"] += " && true"
    assert edits(cluster) == ['matchCondition "unwired"']


def test_for_which_pods_the_webhook_is_asked() -> None:
    """Beside the policy for those that it has not wired; whoever changes that changes what is installed."""
    cluster = with_policy({})

    assert edits(cluster) == []
    (webhook,) = cluster.all(MWC)[0]["webhooks"]
    webhook["objectSelector"]["matchExpressions"] = []
    (told,) = edits(cluster)
    assert told.startswith("objectSelector ")


def test_a_consequence_is_not_told() -> None:
    """Nor are others silenced by the same cause."""

    def finding(code: str, kind: str = MWC) -> Finding:
        return Finding(code, Object(kind, "x"), "", "", "")

    found = [finding("ca-bundle-wrong"), finding("webhook-fails"), finding("label-value", "Pod")]

    assert [one.code for one in without_consequences(found)] == ["ca-bundle-wrong", "label-value"]


def test_a_probe_that_somebody_else_refuses() -> None:
    """It proves nothing, and is said to."""
    refused = Probe("webhook", "a", "default", None, 403, 'admission webhook "x" denied the request: no')
    cluster = seen(probes=[refused])

    report = report_on(cluster, releases_of(cluster, flags_of))

    assert "wiring-not-in-force" not in {one.code for one in report.findings}
    (told,) = (one.why for one in report.unseen if "whether pods are wired" in one.what)
    assert told.endswith('webhook "x" denied the request: no')


def test_authorities_that_follow_each_other() -> None:
    """A caBundle with an authority before this one is right."""
    now = datetime.now(UTC)
    former, present = issue(["a.svc"], now), issue(["a.svc"], now)
    bundle = former.authority + present.authority

    assert list(certificate_faults(bundle, present.leaf, "a.svc", now.timestamp())) == []
    assert [
        code for code, _, _ in certificate_faults(former.authority, present.leaf, "a.svc", now.timestamp())
    ] == ["ca-bundle-wrong"]
