"""A cluster to break, and a look at it by `check`: seeds are planted alone or together, and pulled again."""

import copy
import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import trustme
from aiohttp import web

from testkit import loopback
from testkit.control_plane import ControlPlane
from testkit.issuer import Issuer
from testkit.workloads import CLIENT, eventually, pod
from workload_identity_operator import contract
from workload_identity_operator.__main__ import flags_of
from workload_identity_operator.check.findings import Report
from workload_identity_operator.check.gathering import Api, Looking, Refused, connect, look
from workload_identity_operator.check.report import report_on

Manifest: TypeAlias = dict[str, Any]
Told: TypeAlias = set[tuple[str, str]]
"""Codes of findings, and what they are about."""

SECRET = "serving"
"""With the serving certificate, where the operator is in the cluster: not what it is called by itself."""

PATIENCE = 40
"""Seconds until an API server and an operator under load have taken note of everything."""

_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_PLACES: Mapping[str, str] = {
    "Namespace": "/api/v1/namespaces",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Service": "/api/v1/namespaces/{}/services",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "CronJob": "/apis/batch/v1/namespaces/{}/cronjobs",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "PodWiring": f"/apis/{contract.POD_WIRING_API}/namespaces/{{}}/{contract.POD_WIRINGS}",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "MutatingWebhookConfiguration": f"{_ADMISSION}/mutatingwebhookconfigurations",
    "MutatingAdmissionPolicy": f"{_ADMISSION}/mutatingadmissionpolicies",
    "MutatingAdmissionPolicyBinding": f"{_ADMISSION}/mutatingadmissionpolicybindings",
    "ValidatingAdmissionPolicy": f"{_ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{_ADMISSION}/validatingadmissionpolicybindings",
}
_API_VERSIONS: Mapping[str, str] = {
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "Deployment": "apps/v1",
    "CronJob": "batch/v1",
    "EndpointSlice": "discovery.k8s.io/v1",
}
_STORED = ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields")


class CopiedIssuer(Issuer):
    """An issuer whose public documents are copies of an API server's own, until somebody changes them."""

    documents: dict[str, Any]

    def discovery(self) -> Mapping[str, Any]:
        """Return the copied document."""
        document: Mapping[str, Any] = self.documents["discovery"]
        return document

    def keys(self) -> Mapping[str, Any]:
        """Return the copied key set."""
        document: Mapping[str, Any] = self.documents["keys"]
        return document

    def copy(self, plane: ControlPlane) -> None:
        """Publish what the API server has."""
        self.documents = {
            "discovery": json.loads(plane.kubectl("get", "--raw", "/.well-known/openid-configuration")),
            "keys": json.loads(plane.kubectl("get", "--raw", "/openid/v1/jwks")),
        }


@dataclass(slots=True)
class Patient:
    """A cluster, and who looks at it.

    Attributes:
        plane: The cluster.
        api: Its API server.
        probe: Whether pods may be made by dry run.
        offline: Whether nobody else is asked.
        issuer: Where its issuer's documents are public; None where they are its own.
    """

    plane: ControlPlane
    api: Api
    probe: bool = True
    offline: bool = False
    issuer: CopiedIssuer | None = None
    _number: list[int] = field(default_factory=lambda: [0])

    def look(self, pod: tuple[str, str] | None = None, namespace: str = "") -> Report:
        """Return what `check` reports."""
        how = Looking(namespace, pod, self.offline, self.probe, flags_of, lambda _: None)
        return report_on(*look(self.api, how), pod)

    def told(self) -> Told:
        """Return what `check` finds."""
        return {(one.code, str(one.object)) for one in self.look().findings}

    def becomes(self, wanted: Told) -> None:
        """Wait until `check` finds exactly this: operator and API server need a moment."""
        last: Told = set()

        def same() -> bool:
            nonlocal last
            last = self.told()
            return last == wanted

        try:
            eventually(same, within=PATIENCE)
        except AssertionError as late:
            raise AssertionError(f"missed {wanted - last}, invented {last - wanted}") from late

    def create(self, manifest: Mapping[str, Any], namespace: str = "") -> Manifest:
        """Create an object."""
        kind = manifest["kind"]
        body = {"apiVersion": _API_VERSIONS.get(kind, "v1"), **manifest}
        return self.api.call("POST", _PLACES[kind].format(namespace), body=body)

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest:
        """Return an object."""
        return self.api.get(f"{_PLACES[kind].format(namespace)}/{name}")

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete an object, at once."""
        path = f"{_PLACES[kind].format(namespace)}/{name}"
        self.api.call("DELETE", path, body={"gracePeriodSeconds": 0, "propagationPolicy": "Background"})

    def edit(self, kind: str, name: str, namespace: str, change: Callable[[Manifest], object]) -> None:
        """Change an object as it is stored, again where a controller was faster."""

        def changed() -> bool:
            found = self.get(kind, name, namespace)
            change(found)
            found["metadata"].pop("managedFields", None)
            try:
                self.api.call("PUT", f"{_PLACES[kind].format(namespace)}/{name}", body=found)
            except Refused as refused:
                if refused.status != 409:
                    raise
                return False
            return True

        eventually(changed)

    @contextmanager
    def edited(
        self, kind: str, name: str, namespace: str, change: Callable[[Manifest], object]
    ) -> Iterator[None]:
        """Have an object changed until the block ends."""
        before = copy.deepcopy(self.get(kind, name, namespace))

        def restore(found: Manifest) -> None:
            version = found["metadata"]["resourceVersion"]
            found.clear()
            found.update(copy.deepcopy(before))
            found["metadata"]["resourceVersion"] = version

        self.edit(kind, name, namespace, change)
        try:
            yield
        finally:
            self.edit(kind, name, namespace, restore)

    @contextmanager
    def without(self, kind: str, name: str, namespace: str = "") -> Iterator[None]:
        """Have an object deleted until the block ends."""
        before = self.get(kind, name, namespace)
        self.delete(kind, name, namespace)
        try:
            yield
        finally:
            before["metadata"] = {k: v for k, v in before["metadata"].items() if k not in _STORED}
            before.pop("status", None)
            if kind == "Service":
                before["spec"].pop("clusterIP", None)
                before["spec"].pop("clusterIPs", None)
            self.api.call("POST", _PLACES[kind].format(namespace), body=before)

    @contextmanager
    def place(
        self, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
    ) -> Iterator["Place"]:
        """Have a namespace with ServiceAccounts `default`, and `billing`, which has an identity."""
        self._number[0] += 1
        name = f"place-{self._number[0]}"
        with ExitStack() as stack:
            metadata = {"name": name, "labels": dict(labels or {}), "annotations": dict(annotations or {})}
            self.create({"kind": "Namespace", "metadata": metadata})
            stack.callback(self.delete, "Namespace", name)
            place = Place(self, name)
            stack.callback(place.clear)
            place.account("default")
            place.account("billing", {contract.CLIENT_ID: CLIENT})
            yield place


@contextmanager
def taking_away(patient: Patient, *, last: bool) -> Iterator[None]:
    """Have a webhook of somebody else's take from pods what they were given before it.

    Each time, that is: the first one takes what the policy gave, the last one also what our webhook did.
    """

    async def undo(request: web.Request) -> web.Response:
        uid = (await request.json())["request"]["uid"]
        paths = ("/spec/volumes", "/spec/containers/0/volumeMounts", "/spec/containers/0/env")
        patch = json.dumps([{"op": "add", "path": path, "value": []} for path in paths])
        response = {"uid": uid, "allowed": True, "patchType": "JSONPatch"}
        response["patch"] = b64encode(patch.encode()).decode()
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        return web.json_response(review)

    authority, application = trustme.CA(), web.Application()
    application.router.add_post("/undo", undo)
    tls = loopback.server_tls(authority, "127.0.0.1")
    with loopback.listening("127.0.0.1", 0) as listener, loopback.serving(application, listener, tls):
        bundle = b64encode(authority.cert_pem.bytes()).decode()
        pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        webhook = {
            "name": "undo.example.com",
            "clientConfig": {"url": f"{loopback.address(listener)}/undo", "caBundle": bundle},
            "rules": [pods],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "reinvocationPolicy": "IfNeeded",
        }
        kind, name = "MutatingWebhookConfiguration", "zz-others" if last else "aa-others"
        patient.create({"kind": kind, "metadata": {"name": name}, "webhooks": [webhook]})
        try:
            yield
        finally:
            patient.delete(kind, name)


@dataclass(slots=True)
class Place:
    """A namespace of a patient, whose objects are gone at once when it is cleared."""

    patient: Patient
    name: str
    _made: list[tuple[str, str]] = field(default_factory=list)

    def make(self, manifest: Mapping[str, Any]) -> Manifest:
        """Create an object here."""
        stored = self.patient.create(manifest, self.name)
        self._made.append((manifest["kind"], stored["metadata"]["name"]))
        return stored

    def account(self, name: str, annotations: Mapping[str, str] | None = None, **metadata: Any) -> None:
        """Create a ServiceAccount, unless it is there."""
        meta = {"name": name, "annotations": dict(annotations or {}), **metadata}
        try:
            self.make({"kind": "ServiceAccount", "metadata": meta})
        except Refused as refused:
            if refused.status != 409:  # a controller may have made `default`
                raise
            self._made.append(("ServiceAccount", name))

    def annotate(self, account: str, annotations: Mapping[str, str]) -> None:
        """Give a ServiceAccount these annotations instead of its own."""
        self.edit(
            "ServiceAccount", account, lambda found: found["metadata"].update(annotations=dict(annotations))
        )

    def edit(self, kind: str, name: str, change: Callable[[Manifest], object]) -> None:
        """Change an object here."""
        self.patient.edit(kind, name, self.name, change)

    def pod(self, name: str = "web", account: str = "billing", **parts: Any) -> Manifest:
        """Create a labelled pod, once it is let in: a webhook just restored needs a second."""
        return self.make(pod(name, account, **parts))

    def deployment(
        self,
        name: str = "web",
        account: str = "billing",
        *,
        above: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> Manifest:
        """Create a Deployment of labelled pods, without any; `above` are its own metadata."""
        made = pod(name, account, **parts)
        made["metadata"].pop("name")
        labels = {**made["metadata"].get("labels", {}), "app": name}
        template = {"metadata": {**made["metadata"], "labels": labels}, "spec": made["spec"]}
        spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template}
        return self.make({"kind": "Deployment", "metadata": {"name": name, **(above or {})}, "spec": spec})

    def clear(self) -> None:
        """Delete what was made here."""
        for kind, name in reversed(self._made):
            try:
                self.patient.delete(kind, name, self.name)
            except Refused as refused:
                if refused.status != 404:
                    raise


def patient_of(plane: ControlPlane, **how: Any) -> Patient:
    """Return a cluster as its administrator sees it."""
    return Patient(plane, connect(str(plane.kubeconfig), ""), **how)


def trusting(bundle: bytes) -> Callable[[Manifest], None]:
    """Return what makes a webhook configuration trust these authorities, in PEM."""

    def change(found: Manifest) -> None:
        for webhook in found["webhooks"]:
            webhook["clientConfig"]["caBundle"] = b64encode(bundle).decode("ascii")

    return change
