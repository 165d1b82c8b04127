"""Azure in a cluster, for pods that run: the Entra stand-in and Azurite behind Services, over TLS.

The stand-in verifies pods' tokens by the cluster's own issuer documents; Azurite takes the tokens it gives.
Both are reached from here through the API server, so that it does not matter where the cluster is.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import trustme
import yaml

from testkit.azurite import ACCOUNT, ISSUING
from testkit.control_plane import ControlPlane
from testkit.workloads import Namespace

TENANT: Final = "99999999-8888-7777-6666-555555555555"
AUDIENCE: Final = "api://AzureADTokenExchange"
TRUST: Final = "azure-trust"
"""ConfigMap of a namespace whose pods use this Azure, and the volume it is mounted by."""
TRUSTED: Final = "/etc/azure-trust"
READY_WITHIN: Final = 120
"""Seconds; it takes three."""
RESTRICTED: Final[Mapping[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What a pod must say to be let into a namespace that enforces Pod Security `restricted`."""
CONFINED: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""Likewise each container."""
_PORT: Final = 8443
_CLUSTER_CA: Final = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"


@dataclass(frozen=True, slots=True)
class Azure:
    """What stands in for Azure, in a namespace of its own.

    Attributes:
        space: The namespace.
        authority: What pods have as AZURE_AUTHORITY_HOST.
        blobs: URL of the storage account's blobs.
        trusted: The authority behind both certificates, in PEM.
    """

    space: Namespace
    authority: str
    blobs: str
    trusted: str

    def register(self, client_id: str, account: str, *, issuer: str | None = None) -> None:
        """Let an application trust a ServiceAccount, "namespace/name", of this issuer or another."""
        body = {
            "tenant": TENANT,
            "client_id": client_id,
            "name": secrets.token_hex(4),
            "issuer": issuer or self.space.plane.issuer,
            "subject": f"system:serviceaccount:{account.replace('/', ':')}",
            "audience": AUDIENCE,
        }
        self._post("federated-credentials", body)

    def requests(self, client_id: str) -> list[dict[str, Any]]:
        """Return the token requests of a client so far, oldest first."""
        found = json.loads(self.space.plane.kubectl("get", "--raw", self._control("requests")))
        return [one for one in found if one["client_id"] == client_id]

    @contextmanager
    def fault(self, kind: str, client_id: str, **settings: object) -> Iterator[None]:
        """Have a client meet a fault, one of `testkit.entra.faults.KINDS`, until the block ends."""
        placed = self._post("faults", {"kind": kind, "client_id": client_id, **settings})
        try:
            yield
        finally:
            number = json.loads(placed)["number"]
            self.space.plane.kubectl("delete", "--raw", f"{self._control('faults')}?number={number}")

    def _post(self, what: str, body: Mapping[str, object]) -> str:
        path = self._control(what)
        return self.space.plane.kubectl("create", "--raw", path, "--filename=-", given=json.dumps(body))

    def _control(self, what: str) -> str:
        return f"/api/v1/namespaces/{self.space.name}/services/https:entra:443/proxy/standin/{what}"

    def trust_in(self, namespace: Namespace) -> None:
        """Have a namespace what its pods need to trust this Azure."""
        data = {"ca.pem": self.trusted}
        namespace.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TRUST}, "data": data})

    def variables(self) -> list[dict[str, str]]:
        """Return the environment of a container that uses this Azure."""
        pem = f"{TRUSTED}/ca.pem"
        # Of the helper, of azure-identity, and of the program.
        trusting = {"SSL_CERT_FILE": pem, "REQUESTS_CA_BUNDLE": pem, "BLOBS_CA": pem, "BLOBS": self.blobs}
        return [{"name": name, "value": value} for name, value in trusting.items()]


@contextmanager
def azure(plane: ControlPlane, images: Mapping[str, str]) -> Iterator[Azure]:
    """Run an Azure of the cluster's own until the block ends.

    Args:
        plane: The cluster; its nodes have the images or can pull them.
        images: Their references, by the names in `testkit.images.RECIPES`.
    """
    space = Namespace(plane, f"azure-{secrets.token_hex(4)}")
    plane.create_namespace(space.name)
    try:
        yield _started(space, images)
    finally:
        plane.kubectl("delete", "namespace", space.name, "--wait=false")


def _started(space: Namespace, images: Mapping[str, str]) -> Azure:
    hosts = {name: f"{name}.{space.name}.svc" for name in ("entra", "blobs")}
    certification = trustme.CA(organization_name="Azure in a cluster")
    leaf = certification.issue_cert(*hosts.values())
    pair = {
        "tls.crt": b"".join(pem.bytes() for pem in leaf.cert_chain_pems).decode(),
        "tls.key": leaf.private_key_pem.bytes().decode(),
    }
    tls = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}, "stringData": pair}
    authority = f"https://{hosts['entra']}"
    entra = [
        *(f"--listen=0.0.0.0:{_PORT}", f"--known-as={authority}", f"--issuing={ISSUING}"),
        *(f"--trust={_CLUSTER_CA}", "--certificate", "/tls/tls.crt", "/tls/tls.key"),
    ]
    storage = [
        *("--blobHost=0.0.0.0", f"--blobPort={_PORT}", "--inMemoryPersistence"),
        *("--skipApiVersionCheck", "--disableProductStyleUrl", "--disableTelemetry"),
        *("--oauth=basic", "--cert=/tls/tls.crt", "--key=/tls/tls.key"),
    ]
    objects = [
        tls,
        *_served("entra", images["workload-identity-entra-standin"], entra, "/standin/"),
        *_served("blobs", images["workload-identity-azurite"], storage, None),
    ]
    space.plane.kubectl("apply", "--filename=-", given=yaml.safe_dump_all(_in(space, objects)))
    for name in hosts:
        space.kubectl("rollout", "status", f"deployment/{name}", f"--timeout={READY_WITHIN}s")
    return Azure(
        space, authority, f"https://{hosts['blobs']}/{ACCOUNT}", certification.cert_pem.bytes().decode()
    )


def _in(space: Namespace, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "metadata": {**one["metadata"], "namespace": space.name}} for one in objects]


def _served(name: str, image: str, args: list[str], path: str | None) -> list[dict[str, Any]]:
    """Return a Deployment of one pod and its Service."""
    asked = {"httpGet": {"path": path, "port": _PORT, "scheme": "HTTPS"}} if path else None
    container = {
        "name": name,
        "image": image,
        "args": args,
        "readinessProbe": {**(asked or {"tcpSocket": {"port": _PORT}}), "periodSeconds": 1},
        "securityContext": CONFINED,
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    volumes = [{"name": "tls", "secret": {"secretName": "tls"}}, {"name": "tmp", "emptyDir": {}}]
    labels = {"app": name}
    spec = {
        "containers": [container],
        "volumes": volumes,
        "securityContext": RESTRICTED,
        "terminationGracePeriodSeconds": 1,
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    meta = {"name": name}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": _PORT}]},
        },
    ]
