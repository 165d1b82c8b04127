"""Two clusters to break: one whose operator runs outside of it and answers, one whose operator is in it.

The second has no nodes: what a kubelet and the operator would do there is done by hand.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from testkit.ailments import SECRET, CopiedIssuer, Patient, patient_of, trusting
from testkit.binaries import provide
from testkit.control_plane import ControlPlane
from testkit.installation import CONFIGURATION, NAMESPACE, RELEASE, free_port, install_chart, operator_running
from testkit.manifests import CHART
from workload_identity_operator.certificates import issue

TENANT = "99999999-8888-7777-6666-555555555555"
SERVICE = f"{RELEASE}.{NAMESPACE}.svc"


@pytest.fixture(scope="package")
def outside(pytestconfig: pytest.Config) -> Iterator[Patient]:
    """A cluster wired by its policy and by an operator on this machine; nothing is wrong with it.

    Its issuer's documents are public at a server of their own, as for a cluster that Azure does not host.
    """
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    with pytest.MonkeyPatch.context() as environment, CopiedIssuer(path="/cluster/") as issuer:
        environment.setenv("SSL_CERT_FILE", str(issuer.ca_file))
        published = f"--service-account-jwks-uri={issuer.url}openid/v1/jwks"
        arguments = [f"--service-account-issuer={issuer.url}", published]
        with ControlPlane(controllers=True, apiserver_args=arguments) as plane:
            issuer.copy(plane)
            port = free_port()
            install_chart(plane, port, {"azureTenantID": TENANT, "engine": "auto"})
            certificate = issue(["127.0.0.1"], datetime.now(UTC))
            for name, content in certificate.as_secret().items():
                (plane.folder / name).write_bytes(content)
            found = patient_of(plane, issuer=issuer)
            found.edit("MutatingWebhookConfiguration", CONFIGURATION, "", trusting(certificate.authority))
            # It repairs nothing, neither the policy nor caBundle, so that what is broken stays so.
            flags = ["--declaration=none", "--disable-cert-rotation", f"--webhook-cert-dir={plane.folder}"]
            environ = {"AZURE_TENANT_ID": TENANT}
            kubeconfig = plane.kubeconfig_for(RELEASE, NAMESPACE)
            with operator_running(plane, port, environ=environ, flags=flags, kubeconfig=kubeconfig):
                yield found


@pytest.fixture(scope="package")
def inside(pytestconfig: pytest.Config) -> Iterator[Patient]:
    """A cluster whose operator is in it, with the custom token endpoint on; nothing is wrong with it."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    endpoint = {
        "annotationSuffix": "identity-binding",
        "audience": "api://AKSIdentityBinding",
        "azureKubernetesTokenProxy": "https://kubernetes.default.svc",
        "azureKubernetesCAConfigMapName": "endpoint-ca",
    }
    values = {
        "azureTenantID": TENANT,
        "engine": "webhook",
        "selection": "label",
        "customTokenEndpoint": endpoint,
        "certificateSecret": SECRET,
    }
    with ControlPlane() as plane:
        plane.helm(
            *("install", RELEASE, CHART, "--namespace", NAMESPACE, "--create-namespace", "--values", "-"),
            given=json.dumps(values),
        )
        found = patient_of(plane, probe=False, offline=True)
        _be_the_operator(found)
        yield found


def _be_the_operator(patient: Patient) -> None:
    """Do what kubelets, controllers and the operator would."""
    certificate = issue([SERVICE], datetime.now(UTC))
    patient.create(
        {
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{RELEASE}-1",
                "labels": {"kubernetes.io/service-name": RELEASE},
            },
            "addressType": "IPv4",
            "ports": [{"name": "webhook", "port": 9443, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": True}}],
        },
        NAMESPACE,
    )
    deployment = patient.get("Deployment", RELEASE, NAMESPACE)
    deployment["status"] = {
        "replicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "observedGeneration": 1,
    }
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{RELEASE}/status"
    patient.api.call("PUT", path, body=deployment)
    data = {key: b64encode(value).decode() for key, value in certificate.as_secret().items()}
    patient.edit("Secret", SECRET, NAMESPACE, lambda found: found.update(data=data))
    patient.edit("MutatingWebhookConfiguration", CONFIGURATION, "", trusting(certificate.authority))
