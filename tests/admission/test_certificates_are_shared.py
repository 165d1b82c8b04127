"""The serving certificate: shared through the Secret, published in the caBundle, nothing else written."""

from base64 import b64decode, b64encode

import pytest

from testkit.control_plane import ControlPlane
from testkit.installation import CONFIGURATION, Served, free_port, operator_running
from testkit.workloads import Namespace
from workload_identity_operator.kube import FIELD_MANAGER

TENANT = "99999999-8888-7777-6666-555555555555"
KEYS = {"ca.crt", "ca.key", "tls.crt", "tls.key"}


def bundle_of(plane: ControlPlane, name: str) -> bytes:
    """Return the caBundle of a configuration's first webhook."""
    found = plane.get("mutatingwebhookconfiguration", name)
    return b64decode(found["webhooks"][0]["clientConfig"].get("caBundle", ""))


def configuration(name: str, port: int, bundle: str = "") -> dict[str, object]:
    """Return a webhook configuration that no pod matches."""
    webhook = {
        "name": "mutation.azure-workload-identity.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/mutate-v1-pod"}
        | ({"caBundle": bundle} if bundle else {}),
        "objectSelector": {"matchLabels": {"matches": "nothing"}},
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        ],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name, "annotations": {"keep": "me"}},
        "webhooks": [webhook],
    }


@pytest.mark.parametrize("content", [{}, {"ca.crt": "", "tls.crt": "bm9uc2Vuc2U="}])
def test_two_operators_share_one_certificate(inside: Namespace, content: dict[str, str]) -> None:
    """An empty or wiped Secret is filled by one of them; both serve it, and the caBundle is its authority."""
    plane, name = inside.plane, f"shared-{inside.name}"
    ports = [free_port(), free_port()]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "certificate"}, "data": content}
    inside.create(secret)
    inside.create(configuration(name, ports[0]))
    flags = [f"--webhook-configuration={name}", "--certificate-secret=certificate"]
    environ = {"AZURE_TENANT_ID": TENANT, "POD_NAMESPACE": inside.name}
    try:
        with (
            operator_running(plane, ports[0], environ=environ, flags=flags) as one,
            operator_running(plane, ports[1], environ=environ, flags=flags) as other,
        ):
            assert one.ready()
            assert other.ready()
            found = inside.get("secret", "certificate")["data"]
            assert found.keys() == KEYS
            assert b64decode(found["ca.crt"]) == bundle_of(plane, name)
            expiry = "workload_identity_certificate_expiry_timestamp_seconds"
            assert one.metric(expiry) == other.metric(expiry) > 0
    finally:
        plane.kubectl("delete", "mutatingwebhookconfiguration", name)


def test_only_the_ca_bundle_is_written(served: Served) -> None:
    """Our field manager owns caBundle and the webhook's key, and nothing that the chart set."""
    plane = served.plane
    found = plane.get("mutatingwebhookconfiguration", CONFIGURATION, "--show-managed-fields")

    (ours,) = (m for m in found["metadata"]["managedFields"] if m["manager"] == FIELD_MANAGER)
    (webhook,) = ours["fieldsV1"]["f:webhooks"].values()
    assert ours["operation"] == "Apply"
    assert ours["fieldsV1"].keys() == {"f:webhooks"}
    assert webhook == {".": {}, "f:clientConfig": {"f:caBundle": {}}, "f:name": {}}


def test_foreign_bundle_is_replaced_and_annotations_stay(inside: Namespace) -> None:
    """What someone else left in caBundle goes; what they wrote elsewhere stays."""
    plane, name, port = inside.plane, f"foreign-{inside.name}", free_port()
    foreign = bundle_of(plane, CONFIGURATION)
    inside.create(configuration(name, port, b64encode(foreign).decode()))
    environ = {"AZURE_TENANT_ID": TENANT, "POD_NAMESPACE": inside.name}
    try:
        with operator_running(plane, port, environ=environ, flags=[f"--webhook-configuration={name}"]):
            found = plane.get("mutatingwebhookconfiguration", name)

            assert bundle_of(plane, name) != foreign
            assert found["metadata"]["annotations"] == {"keep": "me"}
    finally:
        plane.kubectl("delete", "mutatingwebhookconfiguration", name)
