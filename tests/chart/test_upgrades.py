"""Releases of former charts, and of the peer's, become releases of this one without losing what they hold."""

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.control_plane import ControlPlane
from testkit.manifests import CHART, TENANT, rendered

FORMER = Path(__file__).parent / "former"
WEBHOOK = "MutatingWebhookConfiguration"
PEERS_SECRET = "azure-wi-webhook-server-cert"
DATA = {"ca.crt": "YQ==", "ca.key": "Yg==", "tls.crt": "Yw==", "tls.key": "ZA=="}

PEERS_VALUES: dict[str, Any] = {
    "replicaCount": 2,
    "image": {
        "repository": "mcr.microsoft.com/oss/azure/workload-identity/webhook",
        "release": "v1.6.0",
        "pullPolicy": "IfNotPresent",
    },
    "imagePullSecrets": [],
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "resources": {
        "limits": {"cpu": "100m", "memory": "30Mi"},
        "requests": {"cpu": "100m", "memory": "20Mi"},
    },
    "tolerations": [],
    "affinity": {},
    "topologySpreadConstraints": [],
    "service": {"type": "ClusterIP", "port": 443, "targetPort": 9443},
    "azureEnvironment": "AzurePublicCloud",
    "azureTenantID": TENANT,
    "logLevel": "info",
    "metricsAddr": ":8095",
    "metricsBackend": "prometheus",
    "priorityClassName": "system-cluster-critical",
    "mutatingWebhookAnnotations": {},
    "podLabels": {},
    "podAnnotations": {},
    "mutatingWebhookNamespaceSelector": {},
    "podDisruptionBudget": {"minAvailable": 1},
    "customTokenEndpoint": {
        "annotationSuffix": "",
        "audience": "",
        "azureKubernetesCaData": "",
        "azureKubernetesSniName": "",
        "azureKubernetesTokenProxy": "",
        "azureKubernetesCAConfigMapName": "",
        "azureKubernetesCACTBSignerName": "",
        "azureKubernetesCACTBLabelSelector": "",
    },
    "extraEnv": [],
    "extraVolumes": [],
    "extraVolumeMounts": [],
    "revisionHistoryLimit": 3,
    "nameOverride": "",
    "fullnameOverride": "",
}
"""All values of Azure/azure-workload-identity's chart 1.6.0 with their defaults; one has none there."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release in a namespace of its own, whose webhook sees pods of no namespace."""

    plane: ControlPlane
    name: str
    namespace: str

    def helm(self, verb: str, chart: Path, *flags: str, **values: Any) -> None:
        """Install or upgrade."""
        nowhere = {"matchLabels": {"kubernetes.io/metadata.name": "nowhere"}}
        given = {"azureTenantID": TENANT, "mutatingWebhookNamespaceSelector": nowhere} | values
        where = (f"--namespace={self.namespace}", "--values=-")
        self.plane.helm(verb, self.name, chart, *where, *flags, given=json.dumps(given))

    def get(self, kind: str, name: str) -> Any:
        """Return an object."""
        return json.loads(
            self.plane.kubectl("get", kind, name, "--output=json", f"--namespace={self.namespace}")
        )

    def patch(self, kind: str, name: str, path: str, value: object) -> None:
        """Write a part of an object, as somebody else than Helm."""
        patch = json.dumps([{"op": "add", "path": path, "value": value}])
        how = ("--type=json", "--field-manager=someone", f"--namespace={self.namespace}")
        self.plane.kubectl("patch", kind, name, *how, f"--patch={patch}")

    def objects(self) -> dict[tuple[str, str], str]:
        """Return the uid of each object of the release's manifest, by kind and name."""
        manifest = self.plane.helm("get", "manifest", self.name, f"--namespace={self.namespace}")
        named = [
            (found["kind"], found["metadata"]["name"]) for found in yaml.safe_load_all(manifest) if found
        ]
        return {(kind, name): self.get(kind, name)["metadata"]["uid"] for kind, name in named}


@pytest.fixture
def release(control_plane: ControlPlane, namespace: str) -> Iterator[Release]:
    """A release to be installed, which goes afterwards."""
    found = Release(control_plane, f"test-{secrets.token_hex(4)}", namespace)
    yield found
    control_plane.helm("uninstall", found.name, f"--namespace={namespace}", "--ignore-not-found")


def former_chart(folder: Path, name: str) -> Path:
    """Return a chart that makes the objects of a former one."""
    (folder / "templates").mkdir()
    chart = {"apiVersion": "v2", "name": "former", "version": "0.0.1"}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(chart), encoding="utf-8")
    objects = (FORMER / f"{name}.yaml").read_text(encoding="utf-8")
    (folder / "templates" / "all.yaml").write_text(objects, encoding="utf-8")
    return folder


@pytest.mark.parametrize("how", ["--server-side=true", "--server-side=false"])
def test_from_the_first_chart(release: Release, tmp_path: Path, how: str) -> None:
    """Every object but the renamed one is still the same afterwards, with what the operator wrote into it."""
    fullname = f"{release.name}-workload-identity-operator"
    former, renamed = (WEBHOOK, fullname), (WEBHOOK, f"azure-{fullname}")
    bundle = base64.b64encode(release.plane.ca_file.read_bytes()).decode()
    release.helm("install", former_chart(tmp_path, "first"), how)
    release.patch("secret", f"{fullname}-certificate", "/data", DATA)
    before = release.objects()

    release.helm("upgrade", CHART, how)

    after = release.objects()
    assert set(before) - set(after) == {former}
    assert {**before, former: ""}.items() <= {**after, former: ""}.items()
    assert {kind for kind, _ in before} < {kind for kind, _ in after}
    assert release.get("secret", f"{fullname}-certificate")["data"] == DATA

    release.patch(*renamed, "/webhooks/0/clientConfig/caBundle", bundle)
    release.helm("upgrade", CHART, how, logLevel="debug")

    assert release.objects().items() >= after.items()
    assert release.get(*renamed)["webhooks"][0]["clientConfig"]["caBundle"] == bundle


def test_back_to_the_first_chart(release: Release, tmp_path: Path) -> None:
    """A rollback finds its objects as it left them; what came since goes, but for the kind of the tables."""
    renamed_since = {(WEBHOOK, f"{release.name}-workload-identity-operator"): "made anew"}
    release.helm("install", former_chart(tmp_path, "first"))
    before = release.objects()
    release.helm("upgrade", CHART)

    release.plane.helm("rollback", release.name, "1", f"--namespace={release.namespace}")

    assert release.objects() | renamed_since == before | renamed_since


def test_from_the_peers_chart_in_its_place(release: Release, tmp_path: Path) -> None:
    """The Secret that both have the certificate in stays with its data; all else of the peer's goes."""
    release.helm("install", former_chart(tmp_path, "peer"))
    release.patch("secret", PEERS_SECRET, "/data", DATA)
    before = release.objects()

    values = PEERS_VALUES | {"certificateSecret": PEERS_SECRET}
    del values["mutatingWebhookNamespaceSelector"]
    release.helm("upgrade", CHART, **values)

    after = release.objects()
    assert (
        before.items() & after.items() == {("Secret", PEERS_SECRET): before["Secret", PEERS_SECRET]}.items()
    )
    assert release.get("secret", PEERS_SECRET)["data"] == DATA
    left = release.plane.kubectl("get", WEBHOOK, "--output=name")
    assert "azure-wi-webhook" not in left


def test_beside_the_peers_chart(release: Release, tmp_path: Path, control_plane: ControlPlane) -> None:
    """In the same namespace no name is the other's: one comes and goes without a trace in the other."""
    peer = Release(control_plane, f"{release.name}-peer", release.namespace)
    peer.helm("install", former_chart(tmp_path, "peer"))
    try:
        peer.patch("secret", PEERS_SECRET, "/data", DATA)
        before = peer.objects()

        release.helm("install", CHART)
        assert not before.keys() & release.objects().keys()
        release.plane.helm("uninstall", release.name, f"--namespace={release.namespace}")

        assert peer.objects() == before
        assert peer.get("secret", PEERS_SECRET)["data"] == DATA
    finally:
        control_plane.helm("uninstall", peer.name, f"--namespace={peer.namespace}")


def test_the_peers_values_mean_the_same() -> None:
    """A values file with every value of the peer's renders, and each value is where its meaning is."""
    values = PEERS_VALUES | {
        "replicaCount": 3,
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "podDisruptionBudget": {"maxUnavailable": 0},
        "extraEnv": [{"name": "PROXY_IMAGE", "value": "mine/proxy:1"}],
        "metricsAddr": ":9095",
    }

    objects = {found["kind"]: found for found in yaml.safe_load_all(rendered(values, tests=False)) if found}

    deployment = objects["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert (deployment["replicas"], deployment["revisionHistoryLimit"]) == (3, 3)
    assert container["image"] == "mcr.microsoft.com/oss/azure/workload-identity/webhook:v1.6.0"
    assert container["resources"] == values["resources"]
    assert {"name": "PROXY_IMAGE", "value": "mine/proxy:1"} in container["env"]
    assert {"--metrics-addr=:9095", "--log-level=info", "--metrics-backend=prometheus"} <= {
        *container["args"]
    }
    assert pod["tolerations"] == values["tolerations"]
    assert pod["nodeSelector"] == values["nodeSelector"]
    assert pod["priorityClassName"] == "system-cluster-critical"
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 0
    assert objects["Service"]["spec"]["ports"][0]["port"] == 443
