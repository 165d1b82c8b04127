"""Certificate and caBundle that someone else keeps, such as cert-manager: served, followed, never written."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testkit.installation import free_port, operator_running
from testkit.workloads import Namespace, eventually
from workload_identity_operator.certificates import Certificate, expiry_of, issue, renew
from workload_identity_operator.contract import INJECTORS
from workload_identity_operator.kube import FIELD_MANAGER

TENANT = "99999999-8888-7777-6666-555555555555"
EXPIRY = "workload_identity_certificate_expiry_timestamp_seconds"
NAMES = ["localhost", "127.0.0.1"]
HASTE = '{"trust.LOOK_AT_FILES_EVERY": 0.2}'


def mount(folder: Path, certificate: Certificate) -> None:
    """Have the certificate in a folder as the kubelet does: all its files change at once."""
    version = folder / f"..{datetime.now(UTC):%H%M%S.%f}"
    version.mkdir()
    (version / "tls.crt").write_bytes(certificate.leaf)
    (version / "tls.key").write_bytes(certificate.leaf_key)
    link = folder / "..data_tmp"
    link.symlink_to(version.name)
    link.replace(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def configuration(name: str, port: int, annotations: dict[str, str]) -> dict[str, object]:
    """Return a webhook configuration that no pod matches, without caBundle."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    webhook = {
        "name": "mutation.azure-workload-identity.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/mutate-v1-pod"},
        "objectSelector": {"matchLabels": {"matches": "nothing"}},
        "rules": [rule],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name, "annotations": annotations},
        "webhooks": [webhook],
    }


@pytest.mark.parametrize("injected", [True, False], ids=["injected", "by the system"])
def test_files_are_served_and_followed(inside: Namespace, tmp_path: Path, injected: bool) -> None:
    """Ready means caBundle vouches for the file that is served; an empty one does until it is filled."""
    plane, name, port = inside.plane, f"theirs-{inside.name}", free_port()
    first, now = issue(NAMES, datetime.now(UTC)), datetime.now(UTC)
    mount(tmp_path, first)
    inside.create(configuration(name, port, {INJECTORS[0]: "a/b"} if injected else {}))
    flags = [f"--webhook-configuration={name}", "--disable-cert-rotation", f"--webhook-cert-dir={tmp_path}"]
    environ = {"AZURE_TENANT_ID": TENANT, "POD_NAMESPACE": inside.name}

    def inject(bundle: bytes) -> None:
        value = b64encode(bundle).decode()
        patch = json.dumps([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": value}])
        how = ("--type=json", "--field-manager=injector", f"--patch={patch}")
        plane.kubectl("patch", "mutatingwebhookconfiguration", name, *how)

    try:
        with operator_running(
            plane,
            port,
            environ=environ,
            flags=flags,
            ready=not injected,
            program=("testkit.hurried", HASTE),
        ) as operator:
            if injected:
                eventually(lambda: operator.metric(EXPIRY) > 0, within=120)
                assert not operator.ready()
            inject(first.bundle)
            eventually(operator.ready, within=120)

            renewed = renew(first, NAMES, now + timedelta(minutes=30))
            mount(tmp_path, renewed)
            ends = expiry_of(renewed.leaf).timestamp()
            eventually(lambda: operator.metric(EXPIRY) == ends, within=120)
            assert operator.ready()

            mount(tmp_path, issue(NAMES, now + timedelta(minutes=45)))
            eventually(lambda: not operator.ready(), within=120)
            found = plane.get("mutatingwebhookconfiguration", name, "--show-managed-fields")
    finally:
        plane.kubectl("delete", "mutatingwebhookconfiguration", name)

    assert FIELD_MANAGER not in {one["manager"] for one in found["metadata"]["managedFields"]}
    assert inside.get("secrets")["items"] == []
