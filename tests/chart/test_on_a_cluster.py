"""What the chart renders and manifests/ holds, judged by a real API server."""

import base64
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.control_plane import ControlPlane
from testkit.manifests import ROOT, TENANT, rendered
from testkit.processes import ProcessFailed
from workload_identity_operator import contract

Render = Callable[..., dict[str, Any]]
Values = dict[str, Any]

EXAMPLES = sorted((ROOT / "manifests" / "examples").glob("*.yaml"))

MATRIX: dict[str, Values] = {
    "default": {},
    "outside": {"webhook": {"url": "https://127.0.0.1:9443"}},
    "one replica": {"replicaCount": 1},
    "no replica": {"replicaCount": 0},
    "percentages": {
        "podDisruptionBudget": {"maxUnavailable": "50%"},
        "updateStrategy": {"rollingUpdate": {"maxSurge": "25%"}},
    },
    "recreate": {"updateStrategy": {"type": "Recreate"}},
    "every string of Azure": {
        "azureEnvironment": "AzureUSGovernmentCloud",
        "azureAuthorityHost": "https://login.example.com/",
        "audience": "api://ours:1",
        "logLevel": "",
        "tlsMinVersion": "1.2",
    },
    "names that YAML reads as numbers": {
        "azureTenantID": "1234",
        "commonLabels": {"build": "1234", "on": "true"},
        "podAnnotations": {"at": "12:30"},
        "extraEnv": [{"name": "A", "value": "1e3"}],
        "image": {"release": "20261120"},
    },
    "ports": {
        "service": {"type": "NodePort", "port": 8443, "targetPort": 10250},
        "metricsAddr": "[::1]:9100",
    },
    "image": {
        "image": {"registry": "r.example.com:5000", "repository": "a/b", "digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": [{"name": "a"}],
        "global": {"imagePullSecrets": [{"name": "b"}, {"name": "a"}]},
    },
    "extras": {
        "extraEnv": [
            {"name": "AZURE_ENVIRONMENT_FILEPATH", "value": "/stack/cloud.json"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "extraVolumes": [{"name": "stack", "configMap": {"name": "stack"}}],
        "extraVolumeMounts": [{"name": "stack", "mountPath": "/stack", "readOnly": True}],
        "azureEnvironment": "AzureStackCloud",
    },
    "scheduling": {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 1,
                        "podAffinityTerm": {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {"matchLabels": {"a": "b"}},
                        },
                    }
                ]
            }
        },
        "topologySpreadConstraints": [
            {"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2}
        ],
        "priorityClassName": "system-node-critical",
    },
    "selectors": {
        "mutatingWebhookNamespaceSelector": {
            "matchLabels": {"stage": "prod"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
        },
        "mutatingWebhookObjectSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
        "mutatingWebhookAnnotations": {"a": "b"},
        "admissionsEnforcer": {"disabled": False},
        "failurePolicy": "Ignore",
        "timeoutSeconds": 30,
    },
    "policy": {"engine": "policy", "guard": True},
    "dashboard": {"grafanaDashboard": {"enabled": True, "annotations": {"grafana_folder": "Identity"}}},
    "policy by label": {
        "engine": "policy",
        "selection": "label",
        "mutatingWebhookObjectSelector": {
            "matchLabels": {"team": "a"},
            "matchExpressions": [{"key": "a", "operator": "Exists"}],
        },
        "customTokenEndpoint": {
            "annotationSuffix": "identity-binding",
            "audience": "api://AKSIdentityBinding",
            "azureKubernetesTokenProxy": "https://kubernetes.default.svc",
        },
    },
    "network": {
        "networkPolicy": {
            "enabled": True,
            "webhookFrom": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
            "metricsFrom": [
                {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
                    "podSelector": {"matchLabels": {"app": "prometheus"}},
                }
            ],
            "apiServerTo": [{"ipBlock": {"cidr": "fd00::1/128"}}],
            "apiServerPorts": [6443],
        },
        "service": {"annotations": {"a": "b"}},
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.0.0.10"], "options": [{"name": "ndots", "value": "1"}]},
        "runtimeClassName": "gvisor",
    },
    "open network": {"networkPolicy": {"enabled": True, "metricsFrom": []}},
    "network of the node": {"hostNetwork": True, "service": {"targetPort": 10250}},
    "legacy path": {"legacyTokenPath": True, "proxySidecar": {"image": "a/b:1", "initImage": "a/c@sha256:0"}},
    "certificate of another": {"certificateSecret": "azure-wi-webhook-server-cert"},
    "more objects": {
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-more", "namespace": "{{ .Release.Namespace }}"},
                "data": {"audience": '{{ include "workload-identity-operator.audience" . }}'},
            },
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": "more"},
                "value": 1000,
            },
        ],
    },
    "account of somebody else": {"serviceAccount": {"create": False, "name": "theirs"}},
    "account": {"serviceAccount": {"name": "ours", "annotations": {"a": "b"}}},
    "no hooks": {"preStopSleepSeconds": 0, "minReadySeconds": 0, "revisionHistoryLimit": 0},
    "unset": dict.fromkeys(
        ["resources", "podSecurityContext", "securityContext", "nodeSelector", "topologySpreadConstraints"]
    ),
    "names": {"fullnameOverride": "a" * 63},
}


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_accepted(control_plane: ControlPlane, namespace: str, values: Values) -> None:
    """The API server takes every object as it is, unknown fields and repeated keys refused."""
    # What `helm test` installs has tests of its own: its pod needs its account.
    objects = rendered(values, namespace=namespace, tests=False)

    # Forced: the kind of the tables may be there from a release.
    how = ("--server-side", "--force-conflicts", "--dry-run=server", "--filename=-")
    told = control_plane.kubectl("apply", *how, given=objects)

    assert len(told.splitlines()) == objects.count("\nkind: ")


def test_a_misspelt_security_context_is_refused(control_plane: ControlPlane, namespace: str) -> None:
    """The schema leaves Kubernetes' own types open because the API server is strict about them."""
    objects = rendered({"securityContext": {"runAsNonRot": True}}, namespace=namespace)

    with pytest.raises(ProcessFailed, match="runAsNonRot"):
        control_plane.kubectl("apply", "--server-side", "--dry-run=server", "--filename=-", given=objects)


@pytest.fixture
def restricted(control_plane: ControlPlane, namespace: str) -> str:
    """Return a namespace that refuses pods which are not `restricted`, with the operator's account."""
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    for account in ("workload-identity-operator", "workload-identity-operator-test", "theirs", "ours"):
        control_plane.kubectl("create", "serviceaccount", account, f"--namespace={namespace}")
    return namespace


def own_pod(objects: dict[str, Any]) -> str:
    """Return the pod that the Deployment's template makes."""
    pod = {"apiVersion": "v1", "kind": "Pod", **objects["Deployment"]["spec"]["template"]}
    pod["metadata"]["name"] = "pod"
    return json.dumps(pod)


@pytest.mark.parametrize("case", ["default", "extras", "ports", "image", "scheduling", "account"])
def test_pods_are_restricted(control_plane: ControlPlane, restricted: str, render: Render, case: str) -> None:
    """Pod Security `restricted` lets our own pods in, whatever values add, and that of `helm test`."""
    objects = render(MATRIX[case], namespace=restricted)

    where = (f"--namespace={restricted}", "--dry-run=server", "--filename=-", "--output=name")
    assert control_plane.kubectl("create", *where, given=own_pod(objects)) == "pod/pod\n"
    told = control_plane.kubectl("create", *where, given=json.dumps(objects["test Pod"]))
    assert told == "pod/workload-identity-operator-test\n"


def test_pods_that_are_not_restricted_would_be_refused(
    control_plane: ControlPlane, restricted: str, render: Render
) -> None:
    """The namespace of the test above does judge."""
    pod = own_pod(render({"securityContext": {"allowPrivilegeEscalation": True}}))

    where = (f"--namespace={restricted}", "--dry-run=server", "--filename=-")
    with pytest.raises(ProcessFailed, match='violates PodSecurity "restricted'):
        control_plane.kubectl("create", *where, given=pod)


# manifests/


def test_the_static_manifest_installs_and_updates() -> None:
    """One command brings all, namespace included; the same again leaves the operator's writes alone.

    In a cluster of its own: its names are fixed.
    """
    text = (ROOT / "manifests" / "install.yaml").read_text(encoding="utf-8")
    text = text.replace("${AZURE_TENANT_ID}", TENANT).replace("${AZURE_ENVIRONMENT}", "AzurePublicCloud")
    objects = {document["kind"]: document for document in yaml.safe_load_all(text)}
    namespace = objects["Namespace"]["metadata"]["name"]
    inside = f"--namespace={namespace}"
    webhook = ("mutatingwebhookconfiguration", objects["MutatingWebhookConfiguration"]["metadata"]["name"])
    bundle_path = "/webhooks/0/clientConfig/caBundle"

    with ControlPlane() as plane, ExitStack() as end:
        end.callback(plane.kubectl, "delete", "--wait=false", "--filename=-", given=text)
        plane.kubectl("apply", "--filename=-", given=text)
        policy = plane.kubectl("apply", f"--filename={ROOT / 'manifests' / 'policy.yaml'}")
        bundle = base64.b64encode(plane.ca_file.read_bytes()).decode()
        patch = json.dumps([{"op": "add", "path": bundle_path, "value": bundle}])
        plane.kubectl("patch", *webhook, "--type=json", f"--patch={patch}")
        plane.kubectl("apply", "--filename=-", given=text)
        kept = plane.kubectl("get", *webhook, "--output=jsonpath={.webhooks[0].clientConfig.caBundle}")
        pod = own_pod(objects)
        told = plane.kubectl("create", inside, "--dry-run=server", "--filename=-", "--output=name", given=pod)

    assert kept == bundle
    assert policy.count(" created\n") == 7
    assert told == "pod/pod\n"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(control_plane: ControlPlane, namespace: str, example: Path) -> None:
    """What the README shows can be applied as it is, once its namespace is there."""
    shown = example.read_text(encoding="utf-8")
    assert shown.count("namespace: demo\n") == 1
    if "kind: ServiceAccount" not in shown:
        control_plane.kubectl("create", "serviceaccount", "billing", f"--namespace={namespace}")

    applied = shown.replace("namespace: demo", f"namespace: {namespace}")
    told = control_plane.kubectl("apply", "--dry-run=server", "--filename=-", given=applied)

    assert told.endswith(" created (server dry run)\n")


def test_examples_belong_together() -> None:
    """The account has the annotation, pod and template have the label and name the account."""
    account, deployment, pod = (
        yaml.safe_load((ROOT / "manifests" / "examples" / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("serviceaccount", "deployment", "pod")
    )

    assert [path.stem for path in EXAMPLES] == ["deployment", "pod", "serviceaccount"]
    assert account["metadata"]["annotations"].keys() <= contract.SERVICE_ACCOUNT_ANNOTATIONS
    for wired in (pod, deployment["spec"]["template"]):
        assert wired["metadata"]["labels"][contract.USE_LABEL] == "true"
        assert wired["spec"]["serviceAccountName"] == account["metadata"]["name"]
