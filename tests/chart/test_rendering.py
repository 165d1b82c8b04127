"""What the chart makes of its values, without a cluster."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from click import Command, Group

from testkit.binaries import provide
from testkit.control_plane import ControlPlane
from testkit.manifests import CHART, RELEASE, TENANT, read_values, rendered
from testkit.processes import ProcessFailed, output_of
from workload_identity_operator import __version__, clouds, contract, identity
from workload_identity_operator.__main__ import cli, flags_of
from workload_identity_operator.declared import KINDS
from workload_identity_operator.settings import DEFAULT_NAMESPACE, Flags, Settings, read_settings

Render = Callable[..., dict[str, Any]]
Values = dict[str, Any]

CERTIFIED: Values = {"enabled": True}
SEEN: Values = {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "grafanaDashboard")}
ALL: Values = {"engine": "policy", "guard": True, "networkPolicy": {"enabled": True}, **SEEN}
"""What brings every object that the chart can make."""
TERM = {"key": "a", "operator": "Exists"}
OUTSIDE = {"webhook": {"url": "https://127.0.0.1:9443"}}


def container(objects: dict[str, Any]) -> Any:
    """Return the operator's container."""
    return objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def webhook(objects: dict[str, Any]) -> Any:
    """Return the one webhook of the configuration."""
    (found,) = objects["MutatingWebhookConfiguration"]["webhooks"]
    return found


def settings(objects: dict[str, Any]) -> Settings:
    """Return what the operator reads from the command line and environment that its pod gets."""
    assert isinstance(cli, Group)
    run = cli.commands["run"]
    assert isinstance(run, Command)
    name, *arguments = container(objects)["args"]
    assert name == "run"
    with run.make_context(name, list(arguments)) as context:
        flags = Flags(**context.params)
    namespace = objects["Deployment"]["metadata"]["namespace"]
    own = {one["name"]: one["value"] for one in container(objects)["env"] if "value" in one}
    return read_settings(flags, objects["ConfigMap"]["data"] | own | {"POD_NAMESPACE": namespace})


def test_lints() -> None:
    """The linter has nothing to say but that there is no icon."""
    helm = provide(["helm"])["helm"].path

    said = output_of([helm, "lint", CHART, "--strict", f"--set=azureTenantID={TENANT}"])

    assert "1 chart(s) linted, 0 chart(s) failed" in said
    assert [line for line in said.splitlines() if line.startswith("[")] == [
        "[INFO] Chart.yaml: icon is recommended"
    ]


def test_renders_the_same_each_time() -> None:
    """Nothing random and no clock: a GitOps tool sees no change where there is none."""
    assert rendered() == rendered()


def test_belongs_to_its_operator() -> None:
    """The chart's appVersion, which is the image's tag, is the operator's version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))

    assert chart["appVersion"] == __version__


def test_an_object_for_each_file(render: Render) -> None:
    """Each template makes one object and is named after its kind; with all turned on none is left out."""
    files = {path.stem for path in (CHART / "templates").glob("*.yaml")} - {"extraobjects"}

    issued = render({"certManager": CERTIFIED})
    found = {"-".join(reversed(name.lower().split(" "))) for name in (*render(ALL), *issued)}
    assert found == files


def test_what_is_kept_is_what_is_installed(render: Render) -> None:
    """With a policy the operator's ConfigMap holds the very objects; else there is none."""
    values: Values = {
        "engine": "policy",
        "selection": "label",
        "commonLabels": {"build": "1234", "on": "true"},
        "mutatingWebhookObjectSelector": {"matchExpressions": [TERM]},
    }
    objects = render(values)

    declared = {kind: json.loads(text) for kind, text in objects["declared ConfigMap"]["data"].items()}
    assert declared == {kind: objects[kind] for kind in KINDS}
    assert not [name for name in render({"engine": "webhook"}) if name.startswith("declared ")]


def checksums(objects: dict[str, Any]) -> tuple[str, str]:
    """Return the checksums of settings that the operator is given and that the release declares."""
    declared = objects["declared ConfigMap"]["metadata"]["annotations"][contract.SETTINGS_CHECKSUM]
    return settings(objects).checksum, str(declared)


WITH_POLICY: Values = {"engine": "policy"}
OF_TABLES: list[Values] = [
    {"azureTenantID": "contoso.example.com"},
    {"azureEnvironment": "AzureChinaCloud"},
    {"azureAuthorityHost": "https://login.example.com/"},
    {"audience": "api://other"},
    {"extraEnv": [{"name": "AZURE_TENANT_ID", "value": "other"}]},
    {"extraVolumes": [{"name": "stack", "configMap": {"name": "stack"}}]},
    {"extraVolumeMounts": [{"name": "stack", "mountPath": "/stack"}]},
]
"""What each changes of the settings that PodWirings are compiled with."""


def test_settings_are_declared_as_the_operator_has_them(render: Render) -> None:
    """By a checksum, another one for each value that changes a PodWiring."""
    found = [checksums(render(WITH_POLICY | values)) for values in ({}, *OF_TABLES)]

    assert [given for given, _ in found] == [declared for _, declared in found]
    assert len({given for given, _ in found}) == len(found)
    assert all(given for given, _ in found)


@pytest.mark.parametrize(
    "values",
    [
        {"replicaCount": 5, "logLevel": "debug", "podLabels": {"a": "b"}},
        {"image": {"release": "other"}, "resources": {}},
        {"proxySidecar": {"image": "registry.example.com/proxy:v1"}},
        {"selection": "label", "commonLabels": {"a": "b"}},
    ],
    ids=["deployment", "image", "proxy", "policy"],
)
def test_other_values_do_not_change_what_is_declared_of_settings(render: Render, values: Values) -> None:
    """Replicas from before and after such an upgrade would write the same, so all of them may."""
    assert checksums(render(WITH_POLICY | values)) == checksums(render(WITH_POLICY))


def test_settings_of_an_operator_outside_are_not_declared(render: Render) -> None:
    """The chart does not know them."""
    assert "annotations" not in render(WITH_POLICY | OUTSIDE)["declared ConfigMap"]["metadata"]


def test_objects_are_named_after_the_release(render: Render) -> None:
    """A release named like the chart does not say so twice; any other name comes first."""
    assert render()["Service"]["metadata"]["name"] == "workload-identity-operator"
    assert render(release="a")["Service"]["metadata"]["name"] == "a-workload-identity-operator"
    assert render({"nameOverride": "wi"}, release="a")["Service"]["metadata"]["name"] == "a-wi"
    assert render({"fullnameOverride": "wi"}, release="a")["Service"]["metadata"]["name"] == "wi"


# The webhook's configuration.


def test_the_webhook_is_the_one_of_the_contract(render: Render) -> None:
    """Name, path and label are those that the operator answers to."""
    found = webhook(render())

    assert found["name"] == contract.WEBHOOK_NAME
    assert found["clientConfig"] == {
        "service": {
            "name": "workload-identity-operator",
            "namespace": DEFAULT_NAMESPACE,
            "path": contract.WEBHOOK_PATH,
            "port": 443,
        }
    }
    assert found["objectSelector"] == {"matchLabels": {contract.USE_LABEL: "true"}}
    assert found["rules"] == [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    ]
    assert {
        key: found[key] for key in ("failurePolicy", "reinvocationPolicy", "matchPolicy", "sideEffects")
    } == {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
    }
    assert found["timeoutSeconds"] == 5
    assert found["admissionReviewVersions"] == ["v1", "v1beta1"]


@pytest.mark.parametrize("values", [{}, OUTSIDE], ids=["inside", "outside"])
def test_never_renders_a_ca_bundle(render: Render, values: Values) -> None:
    """What the operator keeps is not the chart's to have an opinion on."""
    assert "caBundle" not in webhook(render(values))["clientConfig"]


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("https://127.0.0.1:9443", "https://127.0.0.1:9443/mutate-v1-pod"),
        ("https://127.0.0.1:9443/", "https://127.0.0.1:9443/mutate-v1-pod"),
        ("https://127.0.0.1:9443/mutate-v1-pod", "https://127.0.0.1:9443/mutate-v1-pod"),
        ("https://tunnel.example.com/cluster-a", "https://tunnel.example.com/cluster-a"),
    ],
)
def test_an_operator_outside_the_cluster(render: Render, given: str, called: str) -> None:
    """With webhook.url nothing runs in the cluster; without a path the URL gets the operator's."""
    objects = render({"webhook": {"url": given}, "azureTenantID": ""})

    assert sorted(objects) == [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Lease",
        "MutatingWebhookConfiguration",
        "Role",
        "RoleBinding",
        "Secret",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ]
    assert webhook(objects)["clientConfig"] == {"url": called}


def names_excluded(objects: dict[str, Any]) -> Any:
    """Return the namespaces that are excluded by name."""
    terms = webhook(objects)["namespaceSelector"]["matchExpressions"]
    return next(term["values"] for term in terms if term["key"] == "kubernetes.io/metadata.name")


def test_keeps_off_namespaces_that_must_start_without_it(render: Render) -> None:
    """kube-system and, where its pods are in the cluster, the operator's own namespace."""
    assert names_excluded(render(namespace="here")) == ["kube-system", "here"]
    assert names_excluded(render(namespace="kube-system")) == ["kube-system"]
    assert names_excluded(render(OUTSIDE, namespace="here")) == ["kube-system"]


def test_selectors_are_added_to_its_own(render: Render) -> None:
    """A selector in the values narrows which pods are seen; it never widens."""
    pods = {"matchLabels": {"team": "a"}}
    namespaces = {
        "matchLabels": {"stage": "prod"},
        "matchExpressions": [{"key": "legacy", "operator": "DoesNotExist"}],
    }
    own = webhook(render())["namespaceSelector"]["matchExpressions"]

    found = webhook(
        render({"mutatingWebhookNamespaceSelector": namespaces, "mutatingWebhookObjectSelector": pods})
    )

    assert found["objectSelector"] == {"matchLabels": {"team": "a", contract.USE_LABEL: "true"}}
    assert found["namespaceSelector"] == {
        "matchLabels": {"stage": "prod"},
        "matchExpressions": [{"key": "legacy", "operator": "DoesNotExist"}, *own],
    }


def test_declines_the_admissions_enforcer(render: Render) -> None:
    """By annotation, beside those of the values; told not to, it leaves the annotation out."""
    annotated = {"mutatingWebhookAnnotations": {"note": "a"}}

    declined = render(annotated)["MutatingWebhookConfiguration"]["metadata"]["annotations"]
    obeyed = render(annotated | {"admissionsEnforcer": {"disabled": False}})

    assert declined.items() >= {"note": "a", "admissions.enforcer/disabled": "true"}.items()
    assert obeyed["MutatingWebhookConfiguration"]["metadata"]["annotations"] == {
        "note": "a",
        contract.UNLABELLED_PODS: "webhook",
        contract.SELECTION: "serviceAccount",
    }


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"engine": "webhook"}, "webhook"),
        ({"engine": "webhook", "selection": "label"}, None),
        ({"engine": "policy"}, None),
    ],
)
def test_whose_unlabelled_pods_are(render: Render, values: Values, wanted: str | None) -> None:
    """Where no policy wires them, and not the label alone counts, the operator is to add a webhook."""
    annotations = render(values)["MutatingWebhookConfiguration"]["metadata"]["annotations"]

    assert annotations.get(contract.UNLABELLED_PODS) == wanted


# The policies.

SERVED = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"


def policy(objects: dict[str, Any]) -> Any:
    """Return the spec of the policy that wires pods."""
    return objects["MutatingAdmissionPolicy"]["spec"]


def test_expressions_have_the_operators_facts() -> None:
    """Names, paths and bounds of the expressions are the operator's own."""
    text = (CHART / "templates" / "_facts.tpl").read_text(encoding="utf-8")

    assert yaml.safe_load(text.partition("-}}\n")[2].partition("{{-")[0]) == {
        "prefix": contract.PREFIX,
        "mirrorPod": contract.MIRROR_POD,
        "basePath": contract.BASE_PATH,
        "tokenPath": contract.TOKEN_PATH,
        "tokenFileVariable": contract.ENV_TOKEN_FILE,
        "volumePrefix": contract.VOLUME_PREFIX,
        "policyVolume": contract.POLICY_VOLUME,
        "wiredBy": contract.WIRED_BY,
        "wiredByPolicy": contract.WIRED_BY_POLICY,
        "configurationPrefix": contract.CONFIGURATION_PREFIX,
        "minExpiration": contract.MIN_EXPIRATION,
        "maxExpiration": contract.MAX_EXPIRATION,
        "guid": identity._GUID,
    }


@pytest.mark.parametrize(
    ("engine", "served", "rendered_there"),
    [
        ("auto", "", False),
        ("auto", SERVED, True),
        ("policy", "", True),
        ("webhook", SERVED, False),
    ],
)
def test_who_wires(render: Render, engine: str, served: str, rendered_there: bool) -> None:
    """By itself where the API server serves policies; forced on or off by value."""
    objects = render({"engine": engine}, api_versions=served)

    assert ("MutatingAdmissionPolicy" in objects) is rendered_there
    assert ("MutatingAdmissionPolicyBinding" in objects) is rendered_there


def test_the_policy_is_bound_to_the_operators_tables(render: Render) -> None:
    """To the one PodWiring of the pod's namespace; what it cannot judge goes on to the webhook."""
    objects = render({"engine": "policy"})
    definition = objects["CustomResourceDefinition"]
    group, version = contract.POD_WIRING_API.split("/")

    assert policy(objects)["paramKind"] == {"apiVersion": contract.POD_WIRING_API, "kind": "PodWiring"}
    assert policy(objects)["failurePolicy"] == "Ignore"
    assert objects["MutatingAdmissionPolicyBinding"]["spec"] == {
        "policyName": objects["MutatingAdmissionPolicy"]["metadata"]["name"],
        "paramRef": {"selector": {}, "parameterNotFoundAction": "Allow"},
    }
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert (definition["spec"]["group"], definition["spec"]["names"]["plural"]) == (
        group,
        contract.POD_WIRINGS,
    )
    assert [found["name"] for found in definition["spec"]["versions"]] == [version]


def test_the_policy_sees_the_namespaces_of_the_webhook(render: Render) -> None:
    """And the pods: those of its label, or also those without one."""
    values = {
        "engine": "policy",
        "mutatingWebhookNamespaceSelector": {"matchLabels": {"stage": "prod"}},
        "mutatingWebhookObjectSelector": {"matchLabels": {"team": "a"}, "matchExpressions": [TERM]},
    }
    wide, narrow = render(values), render(values | {"selection": "label"})
    not_out = {"key": contract.USE_LABEL, "operator": "NotIn", "values": ["false"]}
    not_wired = {"key": contract.WIRED_BY, "operator": "NotIn", "values": [contract.WIRED_BY_POLICY]}

    for objects in (wide, narrow):
        constraints = policy(objects)["matchConstraints"]
        assert constraints["namespaceSelector"] == webhook(objects)["namespaceSelector"]
        assert constraints["resourceRules"] == webhook(objects)["rules"]
        assert constraints["objectSelector"]["matchExpressions"] == [TERM, not_out]
        assert webhook(objects)["objectSelector"] == {
            "matchLabels": {"team": "a", contract.USE_LABEL: "true"},
            "matchExpressions": [TERM, not_wired],
        }
    assert policy(wide)["matchConstraints"]["objectSelector"]["matchLabels"] == {"team": "a"}
    assert policy(narrow)["matchConstraints"]["objectSelector"]["matchLabels"] == {
        "team": "a",
        contract.USE_LABEL: "true",
    }


# The certificate.


def test_cert_manager_instead_of_the_operator(render: Render) -> None:
    """What it issues is mounted where the operator looks for it, and its injector told where to find it."""
    objects = render({"certManager": {"enabled": True}}, release="a", namespace="here")
    name = "a-workload-identity-operator"
    leaf, authority = objects["Certificate"], objects["authority Certificate"]

    assert "Secret" not in objects
    assert [rule["resources"] for rule in objects["Role"]["rules"]] == [["configmaps"], ["leases"]]
    injected = objects["MutatingWebhookConfiguration"]["metadata"]["annotations"]
    assert injected["cert-manager.io/inject-ca-from"] == f"here/{leaf['metadata']['name']}"
    assert leaf["spec"]["dnsNames"] == [f"{name}.here.svc"]
    assert {"--disable-cert-rotation", "--webhook-cert-dir=/certs"} < set(container(objects)["args"])
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    mounted = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"]}
    assert [(mounted[mount["name"]], mount["mountPath"]) for mount in container(objects)["volumeMounts"]] == [
        (leaf["spec"]["secretName"], "/certs")
    ]
    # The authority is renewed with its key, and issues by a Secret other than the one that is mounted.
    assert leaf["spec"]["issuerRef"]["name"] == objects["authority Issuer"]["metadata"]["name"]
    assert objects["authority Issuer"]["spec"]["ca"]["secretName"] == authority["spec"]["secretName"]
    assert authority["spec"]["secretName"] != leaf["spec"]["secretName"]
    assert authority["spec"]["isCA"]
    assert authority["spec"]["privateKey"]["rotationPolicy"] == "Never"
    assert authority["spec"]["issuerRef"]["name"] == objects["Issuer"]["metadata"]["name"]
    assert objects["Issuer"]["spec"] == {"selfSigned": {}}


def test_cert_manager_with_an_issuer_of_ones_own(render: Render) -> None:
    """Then the chart makes no authority, and what is mounted besides stays."""
    issuer = {"name": "corporate", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    values = {
        "certManager": {"enabled": True, "issuerRef": issuer, "duration": "9000h", "renewBefore": "16h"},
        "extraVolumes": [{"name": "stack", "configMap": {"name": "stack"}}],
        "extraVolumeMounts": [{"name": "stack", "mountPath": "/stack"}],
    }
    objects = render(values)

    assert objects.keys().isdisjoint({"Issuer", "authority Issuer", "authority Certificate"})
    found = objects["Certificate"]["spec"]
    assert (found["issuerRef"], found["duration"], found["renewBefore"]) == (issuer, "9000h", "16h")
    assert [mount["mountPath"] for mount in container(objects)["volumeMounts"]] == ["/certs", "/stack"]


# The operator's pods.


def test_the_operator_accepts_what_its_pod_gets(render: Render) -> None:
    """Command line and environment of the default installation are settings of the operator."""
    found = settings(render())

    assert (found.tenant_id, found.audience) == (TENANT, clouds.PUBLIC.audience)
    assert found.namespace == DEFAULT_NAMESPACE
    assert str(found.listen) == ":9443"
    assert found.webhook_configuration == "azure-workload-identity-operator"
    assert found.certificate_secret == "workload-identity-operator-certificate"
    assert found.certificate_folder is None


def test_values_become_settings(render: Render) -> None:
    """Each value about Azure, logs, TLS and ports reaches the operator."""
    values = {
        "azureTenantID": "contoso.onmicrosoft.com",
        "azureEnvironment": "azurechinacloud",
        "azureAuthorityHost": "https://login.example.com/base",
        "audience": "api://ours",
        "tlsMinVersion": "1.2",
        "logLevel": "debug",
        "metricsAddr": "127.0.0.1:9100",
        "service": {"targetPort": 10250},
    }

    found = settings(render(values))

    assert found.tenant_id == "contoso.onmicrosoft.com"
    assert found.authority_host == "https://login.example.com/base/"
    assert found.audience == "api://ours"
    assert found.tls_minimum.name == "TLSv1_2"
    assert found.log_level == "debug"
    assert str(found.metrics) == "127.0.0.1:9100"
    assert str(found.listen) == ":10250"


ENDPOINT = {
    "annotationSuffix": "identity-binding",
    "audience": "api://AKSIdentityBinding",
    "azureKubernetesTokenProxy": "https://kubernetes.default.svc",
    "azureKubernetesSniName": "proxy.example.com",
    "azureKubernetesCACTBSignerName": "example.com/signer",
    "azureKubernetesCACTBLabelSelector": '{"matchLabels": {"a": "b"}}',
}


def test_no_trace_of_an_endpoint(render: Render) -> None:
    """Where all of its values are unset nothing else goes with them."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    unset = dict.fromkeys(values["customTokenEndpoint"])
    images = {"proxySidecar": {"image": "r.example.com/proxy:v1"}, "engine": "policy"}

    objects = render({**images, "customTokenEndpoint": unset})

    assert objects == render(images)
    assert objects["ConfigMap"]["data"]["PROXY_IMAGE"] == "r.example.com/proxy:v1"


def test_the_custom_token_endpoint(render: Render) -> None:
    """Its values become the flags and variables that have the peer's names; empty ones leave no trace."""
    objects = render({"customTokenEndpoint": ENDPOINT})

    flags = set(container(objects)["args"]) - set(container(render())["args"])
    variables = objects["ConfigMap"]["data"].items() - render()["ConfigMap"]["data"].items()
    assert flags == {
        "--custom-token-endpoint-annotation-suffix=identity-binding",
        "--custom-token-endpoint-audience=api://AKSIdentityBinding",
    }
    assert dict(variables) == {
        "AZURE_KUBERNETES_TOKEN_PROXY": "https://kubernetes.default.svc",
        "AZURE_KUBERNETES_SNI_NAME": "proxy.example.com",
        "AZURE_KUBERNETES_CA_CTB_SIGNER_NAME": "example.com/signer",
        "AZURE_KUBERNETES_CA_CTB_LABEL_SELECTOR": '{"matchLabels": {"a": "b"}}',
    }
    for name, variable in (("CaData", "CA_DATA"), ("CAConfigMapName", "CA_CONFIGMAP_NAME")):
        environment = render({"customTokenEndpoint": {f"azureKubernetes{name}": "a"}})["ConfigMap"]["data"]
        assert environment[f"AZURE_KUBERNETES_{variable}"] == "a"


@pytest.mark.parametrize("name", ["", "azurepubliccloud", *clouds.NAMES])
def test_every_cloud_of_the_operator(render: Render, name: str) -> None:
    """The chart lets through the names that the operator knows, in any case."""
    cloud = clouds.cloud_named(name)

    assert cloud
    assert settings(render({"azureEnvironment": name})).audience == cloud.audience


def test_ports_belong_together(render: Render) -> None:
    """The Service leads to the port the operator listens on, the API server calls the Service's port."""
    objects = render({"service": {"port": 8443, "targetPort": 10250}, "metricsAddr": ":9100"})
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}

    assert ports == {"webhook": 10250, "health": 9440, "metrics": 9100}
    assert [(port["port"], port["targetPort"]) for port in objects["Service"]["spec"]["ports"]] == [
        (8443, "webhook")
    ]
    assert webhook(objects)["clientConfig"]["service"]["port"] == 8443
    assert settings(objects).health.port == 9440


def test_the_services_pods_are_the_deployments(render: Render) -> None:
    """Labels of the values neither change nor break who belongs to whom."""
    values = {"podLabels": {"app.kubernetes.io/name": "other", "a": "b"}, "commonLabels": {"c": "d"}}

    objects = render(values)

    pods = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        objects["Service"]["spec"]["selector"],
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]
    assert selectors == [selectors[0]] * 3
    assert selectors[0].items() <= pods.items()
    assert {"a": "b", "c": "d"}.items() <= pods.items()
    assert all(found["metadata"]["labels"]["c"] == "d" for found in objects.values())


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, f"workload-identity-operator:{__version__}"),
        ({"image": {"release": "v2"}}, "workload-identity-operator:v2"),
        (
            {"image": {"registry": "r.example.com:5000", "release": "v2"}},
            "r.example.com:5000/workload-identity-operator:v2",
        ),
        (
            {
                "image": {"registry": "a", "repository": "b", "release": "v2"},
                "global": {"imageRegistry": "c/d"},
            },
            "c/d/b:v2",
        ),
        (
            {"image": {"release": "v2", "digest": f"sha256:{'0' * 64}"}},
            f"workload-identity-operator@sha256:{'0' * 64}",
        ),
    ],
    ids=["default", "tag", "registry", "mirror", "digest"],
)
def test_the_image(render: Render, values: Values, image: str) -> None:
    """A registry goes before the repository, the mirror's before any; a digest replaces the tag."""
    assert container(render(values))["image"] == image


def test_a_change_of_the_environment_rolls_the_pods(render: Render) -> None:
    """The checksum follows what the ConfigMap says, and nothing else."""

    def checksum(values: Values) -> Any:
        return render(values)["Deployment"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum({"azureTenantID": "other"}) != checksum({})
    assert checksum({"commonLabels": {"a": "b"}, "podAnnotations": {"checksum/config": "mine"}}) == checksum(
        {}
    )


@pytest.mark.parametrize(
    ("values", "budget"),
    [
        ({}, {"minAvailable": 1}),
        ({"podDisruptionBudget": {"minAvailable": "50%"}}, {"minAvailable": "50%"}),
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, {"maxUnavailable": 0}),
        ({"podDisruptionBudget": {"minAvailable": None, "maxUnavailable": 1}}, {"maxUnavailable": 1}),
        ({"podDisruptionBudget": {"minAvailable": ""}}, None),
        ({"podDisruptionBudget": {"minAvailable": None}}, None),
        ({"replicaCount": 1}, None),
    ],
)
def test_the_disruption_budget(render: Render, values: Values, budget: dict[str, Any] | None) -> None:
    """One of the two limits, 0 included; none at all where a single pod would block every drain."""
    found = render(values).get("PodDisruptionBudget")

    assert (found and found["spec"].pop("unhealthyPodEvictionPolicy")) == (budget and "AlwaysAllow")
    assert (found and {key: value for key, value in found["spec"].items() if key != "selector"}) == budget


def test_pods_spread_over_nodes(render: Render) -> None:
    """By default and in own constraints, which get the release's selector unless they have one."""
    selector = {"matchLabels": {"a": "b"}}
    own = {"topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}

    def spread(values: Values) -> Any:
        return render(values)["Deployment"]["spec"]["template"]["spec"].get("topologySpreadConstraints")

    ours = {"matchLabels": render()["Deployment"]["spec"]["selector"]["matchLabels"]}
    assert [term["topologyKey"] for term in spread({})] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    assert spread({"topologySpreadConstraints": [own, own | {"labelSelector": selector}]}) == [
        own | {"labelSelector": ours},
        own | {"labelSelector": selector},
    ]
    assert spread({"topologySpreadConstraints": []}) is None


def test_recreates_without_the_settings_of_rolling(render: Render) -> None:
    """The API server would refuse those beside another type."""
    strategy = render({"updateStrategy": {"type": "Recreate"}})["Deployment"]["spec"]["strategy"]

    assert strategy == {"type": "Recreate"}


def test_values_can_be_unset(render: Render) -> None:
    """A null takes a default away, as everywhere in Helm."""
    unset = ["resources", "nodeSelector", "podLabels", "commonLabels", "podAnnotations", "imagePullSecrets"]
    unset += ["mutatingWebhookNamespaceSelector", "mutatingWebhookObjectSelector", "priorityClassName"]
    unset += ["topologySpreadConstraints", "mutatingWebhookAnnotations", "extraEnv", "preStopSleepSeconds"]

    objects = render(dict.fromkeys(unset))

    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert not {"nodeSelector", "priorityClassName", "topologySpreadConstraints"} & pod.keys()
    assert not container(objects)["resources"]
    assert "lifecycle" not in container(objects)


# What helm prints for an operator outside the cluster.


def notes(values: Values) -> str:
    """Return what `helm install` would print."""
    helm = provide(["helm"])["helm"].path
    how = (f"--namespace={DEFAULT_NAMESPACE}", "--dry-run=client", "--values=-")
    told = output_of([helm, "install", RELEASE, CHART, *how], given=json.dumps(values))
    return told.partition("\nNOTES:\n")[2]


def settings_told(values: Values) -> Settings:
    """Return what the operator reads from the command that helm prints."""
    command = notes(values).partition("--current --user=operator\n")[2].partition("\n\n")[0]
    command = command.replace("TENANT_ID=TENANT_ID ", f"TENANT_ID={TENANT} ").replace("\\\n", "")
    words = shlex.split(command)
    program = words.index("workload-identity-operator")
    assert words[program + 1] == "run"
    environ = dict(word.split("=", 1) for word in words[:program])
    flags = flags_of(words[program + 2 :])
    assert flags.kubeconfig == "operator.kubeconfig"
    return read_settings(replace(flags, kubeconfig=""), environ)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"azureTenantID": "contoso.example.com", "azureEnvironment": "AzureChinaCloud", "logLevel": ""},
        {"azureAuthorityHost": "https://login.example.com/;it's$(HOME)", "audience": "api://a'b"},
        {"proxySidecar": {"image": "r.example.com/proxy:v1", "initImage": "r.example.com/init:v1"}},
        {"legacyTokenPath": True, "tlsMinVersion": "1.2", "logLevel": "debug", "metricsAddr": ":9100"},
        {"customTokenEndpoint": ENDPOINT},
        {"engine": "policy", "fullnameOverride": "ours", "certificateSecret": "theirs"},
        {"extraEnv": [{"name": "AZURE_TENANT_ID", "value": "other.example.com"}]},
    ],
    ids=["default", "cloud", "quotes", "proxy", "flags", "endpoint", "names", "environment"],
)
def test_the_command_outside_has_the_settings_of_the_pod(render: Render, values: Values) -> None:
    """Whoever starts the operator as helm tells gets what the chart would start."""
    found = settings_told(values | OUTSIDE)

    inside = settings(render(values))
    assert str(found.listen) == "127.0.0.1:9443"
    assert found == replace(inside, listen=found.listen, checksum="")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://127.0.0.1/mutate-v1-pod", "127.0.0.1:443"),
        ("https://localhost", "localhost:443"),
        ("https://localhost:8443/", "localhost:8443"),
        ("https://[::1]", "[::1]:443"),
        ("https://[::1]:8443", "[::1]:8443"),
        ("https://operator.example.com", ":443"),
        ("https://operator.example.com:8443", ":8443"),
    ],
)
def test_the_command_outside_listens_where_the_api_server_calls(url: str, address: str) -> None:
    """A URL without a port means 443; on a machine's own addresses nobody else is listened to."""
    assert str(settings_told({"webhook": {"url": url}}).listen) == address


def test_the_command_outside_is_short() -> None:
    """What the operator takes by itself is left out."""
    told = notes(OUTSIDE)

    assert not [flag for flag in ("--metrics-", "--tls-", "AZURE_ENVIRONMENT", "checksum") if flag in told]
    assert (Flags().tls_min_version, Flags().metrics_addr) == ("1.3", ":8095")


def test_the_command_outside_leaves_nothing_out_silently() -> None:
    """What a variable takes from elsewhere is nowhere on this machine: it is named."""
    variable = {"name": "AZURE_TENANT_ID", "valueFrom": {"secretKeyRef": {"name": "azure", "key": "tenant"}}}

    assert "takes from elsewhere: AZURE_TENANT_ID\n" in notes({"extraEnv": [variable], **OUTSIDE})


@pytest.mark.parametrize(
    ("budget", "replicas", "warned"),
    [
        ({}, 2, False),
        ({"minAvailable": 2}, 2, True),
        ({"minAvailable": 2}, 3, False),
        ({"minAvailable": "51%"}, 2, True),
        ({"minAvailable": "50%"}, 2, False),
        ({"minAvailable": 9, "maxUnavailable": 1}, 2, False),
        ({"maxUnavailable": "0%"}, 2, True),
        ({"minAvailable": 2}, 1, False),
    ],
    ids=str,
)
def test_a_budget_that_lets_no_pod_go_is_told_of(budget: Values, replicas: int, *, warned: bool) -> None:
    """The API server takes it, and drains of nodes never end."""
    told = notes({"azureTenantID": TENANT, "podDisruptionBudget": budget, "replicaCount": replicas})

    assert ("WARNING: podDisruptionBudget lets none" in told) is warned


@pytest.mark.parametrize(
    ("path", "warned"), [("", False), ("/", False), (contract.WEBHOOK_PATH, False), ("/wi", True)]
)
def test_a_path_that_the_operator_does_not_know_is_told_of(path: str, warned: bool) -> None:
    """It may be that a proxy maps it."""
    told = notes({"webhook": {"url": f"https://127.0.0.1:9443{path}"}})

    assert (f"WARNING: webhook.url has the path {path}. " in told) is warned


# No value does nothing.

CTE = "customTokenEndpoint"
BOTH: Values = {
    f"{CTE}.annotationSuffix": "a",
    f"{CTE}.audience": "api://a",
    f"{CTE}.azureKubernetesTokenProxy": "https://b",
}
SIGNER: Values = {f"{CTE}.azureKubernetesCACTBSignerName": "a/b"}

OTHERS: dict[str, Any] = {
    "azureTenantID": "other",
    "azureEnvironment": "AzureChinaCloud",
    "azureAuthorityHost": "https://login.example.com",
    "audience": "api://a",
    f"{CTE}.annotationSuffix": "b",
    f"{CTE}.audience": "api://b",
    f"{CTE}.azureKubernetesTokenProxy": "https://a",
    f"{CTE}.azureKubernetesSniName": "a",
    f"{CTE}.azureKubernetesCaData": "a",
    f"{CTE}.azureKubernetesCAConfigMapName": "a",
    f"{CTE}.azureKubernetesCACTBSignerName": "c/d",
    f"{CTE}.azureKubernetesCACTBLabelSelector": "{}",
    "proxySidecar.image": "a",
    "proxySidecar.initImage": "a",
    "legacyTokenPath": True,
    "engine": "policy",
    "selection": "label",
    "guard": True,
    "healing.mode": "dryRun",
    "healing.pauseSeconds": 7,
    "webhook.url": "https://a",
    "failurePolicy": "Ignore",
    "timeoutSeconds": 7,
    "mutatingWebhookNamespaceSelector": {"matchExpressions": [TERM]},
    "mutatingWebhookObjectSelector": {"matchExpressions": [TERM]},
    "mutatingWebhookAnnotations": {"a": "b"},
    "admissionsEnforcer.disabled": False,
    "tlsMinVersion": "1.2",
    "certificateSecret": "a",
    "certManager.enabled": True,
    "certManager.issuerRef": {"name": "a"},
    "certManager.duration": "9000h",
    "certManager.renewBefore": "24h",
    "service.type": "NodePort",
    "service.annotations": {"a": "b"},
    "service.port": 8443,
    "service.targetPort": 10250,
    "replicaCount": 3,
    "logLevel": "debug",
    "metricsAddr": ":9100",
    "metricsBackend": None,
    "image.registry": "a",
    "image.repository": "a",
    "image.release": "a",
    "image.digest": f"sha256:{'0' * 64}",
    "image.pullPolicy": "Always",
    "imagePullSecrets": [{"name": "a"}],
    "global.imageRegistry": "a",
    "global.imagePullSecrets": [{"name": "a"}],
    "resources": {"limits": {"cpu": 1}},
    "extraEnv": [{"name": "A", "value": "b"}],
    "extraVolumes": [{"name": "a", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "a", "mountPath": "/a"}],
    "serviceAccount.create": False,
    "serviceAccount.name": "a",
    "serviceAccount.annotations": {"a": "b"},
    "serviceMonitor.enabled": True,
    "serviceMonitor.namespace": "a",
    "serviceMonitor.labels": {"a": "b"},
    "serviceMonitor.annotations": {"a": "b"},
    "serviceMonitor.interval": "30s",
    "serviceMonitor.scrapeTimeout": "10s",
    "serviceMonitor.honorLabels": False,
    "serviceMonitor.relabelings": [{"action": "labeldrop", "regex": "a"}],
    "serviceMonitor.metricRelabelings": [{"action": "labeldrop", "regex": "a"}],
    "prometheusRule.enabled": True,
    "prometheusRule.namespace": "a",
    "prometheusRule.labels": {"a": "b"},
    "prometheusRule.annotations": {"a": "b"},
    "prometheusRule.alertLabels": {"a": "b"},
    "prometheusRule.disabled": ["WorkloadIdentityPeerPresent"],
    "prometheusRule.job": "a",
    "prometheusRule.runbookURL": "https://a",
    "grafanaDashboard.enabled": True,
    "grafanaDashboard.namespace": "a",
    "grafanaDashboard.labels": {"a": "b"},
    "grafanaDashboard.annotations": {"a": "b"},
    "commonLabels": {"a": "b"},
    "podLabels": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "podSecurityContext": {"runAsUser": 1000},
    "securityContext": {"privileged": False},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [],
    "priorityClassName": "a",
    "runtimeClassName": "a",
    "hostNetwork": True,
    "dnsPolicy": "Default",
    "dnsConfig": {"nameservers": ["10.0.0.10"]},
    "networkPolicy.enabled": True,
    "networkPolicy.webhookFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    "networkPolicy.metricsFrom": [],
    "networkPolicy.apiServerTo": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
    "networkPolicy.apiServerPorts": [8443],
    "updateStrategy": {"rollingUpdate": {"maxSurge": 2}},
    "minReadySeconds": 7,
    "preStopSleepSeconds": 7,
    "terminationGracePeriodSeconds": 60,
    "revisionHistoryLimit": 7,
    "podDisruptionBudget.minAvailable": 2,
    "podDisruptionBudget.maxUnavailable": 1,
    "test.namespace": "a",
    "test.labels": {"a": "b"},
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}],
    "nameOverride": "a",
    "fullnameOverride": "a",
}
"""Another value than the default for each; metricsBackend has no other, so it is taken away."""

CLOSED: Values = {"networkPolicy.enabled": True}

CERT_MANAGER: Values = {"certManager.enabled": True}

NEEDED: dict[str, Values] = dict.fromkeys(BOTH, BOTH) | {
    "healing.pauseSeconds": {"healing.mode": "dryRun"},
    **{f"networkPolicy.{name}": CLOSED for name in ("webhookFrom", "metricsFrom", "apiServerTo")},
    "networkPolicy.apiServerPorts": CLOSED,
    **{f"certManager.{name}": CERT_MANAGER for name in ("issuerRef", "duration", "renewBefore")},
    f"{CTE}.azureKubernetesCACTBLabelSelector": SIGNER,
    **{
        name: {f"{section}.enabled": True}
        for section in SEEN
        for name in OTHERS
        if name.startswith(f"{section}.") and name != f"{section}.enabled"
    },
}
"""What else must be set for some of them."""


def tree(values: Values) -> Values:
    """Return values as Helm reads them, from names with dots."""
    nested: Values = {}
    for name, value in values.items():
        *path, last = name.split(".")
        within = nested
        for part in path:
            within = within.setdefault(part, {})
        within[last] = value
    return nested


def test_every_value_does_something() -> None:
    """Whatever value of values.yaml is changed, some object changes."""
    default = rendered()
    names = [value.name for value in read_values((CHART / "values.yaml").read_text(encoding="utf-8"))]

    def changes(name: str) -> bool:
        needed = NEEDED.get(name, {})
        without = rendered(tree(needed)) if needed else default
        return rendered(tree(needed | {name: OTHERS[name]})) != without

    assert names == list(OTHERS)
    assert [name for name in names if not changes(name)] == []


EMPTY = {"replicaCount": 1, "resources": 2, "podSecurityContext": 2, "securityContext": 2}
"""Values of which a null is one for the API server too, whose own defaults count then; in so many places."""


def emptied(node: Any) -> int:
    """Return how many fields of an object have nothing in them."""
    if isinstance(node, dict):
        node = list(node.values())
    return sum(map(emptied, node)) if isinstance(node, list) else int(node in (None, "<nil>"))


def test_every_value_can_be_unset_or_says_that_it_cannot() -> None:
    """Of a null nothing is made that has a hole in it: it is refused, or the object has no such field."""
    names = [value.name for value in read_values((CHART / "values.yaml").read_text(encoding="utf-8"))]
    refused = ("missing property '{}'", "{} is required")
    holes: dict[str, int] = {}
    unclear = []

    for name in names:
        values = {name: None} if name in BOTH else NEEDED.get(name, {}) | {name: None}
        try:
            text = rendered(tree(values))
        except ProcessFailed as refusal:
            if not any(told.format(name.rpartition(".")[2]) in str(refusal) for told in refused):
                unclear.append(name)
            continue
        if "%!" in text:  # what Go prints of what it cannot format
            unclear.append(name)
        if found := emptied(list(yaml.safe_load_all(text))):
            holes[name] = found

    assert unclear == []
    assert holes == EMPTY


@pytest.mark.parametrize(
    ("mode", "rights"),
    [
        ("off", set()),
        (False, set()),
        ("dryRun", {"poddisruptionbudgets list"}),
        ("annotated", {"poddisruptionbudgets list", "deployments patch", "pods/eviction create"}),
        ("restart", {"poddisruptionbudgets list", "deployments patch", "pods/eviction create"}),
    ],
)
def test_healing_has_no_more_rights_than_it_needs(render: Render, mode: object, rights: set[str]) -> None:
    """Nobody's workload can be written unless the values say so; YAML's off, which is false, is off."""
    granted = {
        f"{rule['resources'][0]} {verb}"
        for rule in render({"healing": {"mode": mode}})["ClusterRole"]["rules"]
        for verb in rule["verbs"]
    }
    healing = {"poddisruptionbudgets list", "deployments patch", "pods/eviction create"}

    assert granted & healing == rights


@pytest.mark.soak(4, 1000)
def test_every_value_is_accepted(control_plane: ControlPlane, namespace: str, size: int) -> None:
    """Whatever value is changed, the API server takes each object: some in every run, all in `make soak`."""
    mounted = {"extraVolumes": OTHERS["extraVolumes"]}
    unknown = ("monitoring.coreos.com/", "cert-manager.io/")  # kinds that others bring
    step = max(1, len(OTHERS) // size)

    for name in list(OTHERS)[::step]:
        needed = NEEDED.get(name, {}) | (mounted if name == "extraVolumeMounts" else {})
        text = rendered(tree(needed | {name: OTHERS[name]}), namespace=namespace, tests=False)
        objects = [one for one in yaml.safe_load_all(text) if one]
        known = [one for one in objects if not one["apiVersion"].startswith(unknown)]
        for one in known:  # others than the release's need not be there
            if "namespace" in one["metadata"]:
                one["metadata"]["namespace"] = namespace
        how = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename=-")
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": known})
        told = control_plane.kubectl(*how, f"--namespace={namespace}", given=given)
        assert len(told.splitlines()) == len(known), name
