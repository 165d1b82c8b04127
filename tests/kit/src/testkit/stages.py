"""Where the demo plays: on a node of its own, or beside a control plane alone.

On a node the operator, the Entra stand-in, storage and the user's program are pods. Without one the operator
and the stand-in run on this machine, and so does the program, with exactly the pod's environment.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

from testkit import azurite, images
from testkit.applications import PROGRAM
from testkit.as_pod import SAMPLE
from testkit.azure import TRUST, TRUSTED, Azure, azure
from testkit.azurite import AzuriteMissing
from testkit.binaries import CONTROL_PLANE, provide
from testkit.console import console, step
from testkit.control_plane import ControlPlane
from testkit.entra import EntraStandIn
from testkit.folders import throwaway_folder
from testkit.images import debian
from testkit.installation import NAMESPACE, RELEASE, install_in_cluster, serve
from testkit.kubelet import run_container
from testkit.node import PROGRAMS, Node, requirements
from testkit.processes import ProcessFailed
from testkit.workloads import Namespace, eventually

TENANT: Final = "99999999-8888-7777-6666-555555555555"
AUDIENCE: Final = "api://AzureADTokenExchange"
WRITTEN_WITHIN: Final = 120
"""Seconds that the pod may take to write its blob; it takes three."""


class Stage(Protocol):
    """What runs while the demo does, and what depends on where that is."""

    @property
    def plane(self) -> ControlPlane:
        """The cluster."""

    def prepare(self, namespace: str) -> None:
        """Give a namespace what pods find in it."""

    def dress(self, spec: dict[str, Any]) -> None:
        """Add to the spec of an example's pods what they need here: an image, whom to trust."""

    def register(self, client_id: str, account: str) -> None:
        """Have an application trust a ServiceAccount, "namespace/name"."""

    def run(self, pod: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """Run the pod's program; return the claims of its access token and what is to be said of it."""

    def ways_to_play(self, pod: str, client_id: str) -> Sequence[str]:
        """Return the lines that say what one can do with what was left running."""


def lacking() -> str | None:
    """Return why no pods can run here; None when they can."""
    return requirements.lacking() or debian.lacking() or None


def set_up(stack: ExitStack, *, alone: bool) -> Stage:
    """Start what the demo plays on, and say why it is that; all lasts as long as the stack.

    Args:
        stack: What ends it.
        alone: Whether to do without a node even where one can be had.

    Raises:
        StepFailed: Something could not be started; its reason was shown.
    """
    reason = "as asked for." if alone else lacking()
    if reason is None:
        try:
            archives = _archives(stack)
        except (debian.PackagesMissing, AzuriteMissing, ProcessFailed) as failure:
            reason = f"The images that pods run cannot be made. {failure}"
        else:
            console.print("On a node of its own: pods run.")
            return _on_node(stack, archives)
    console.print(f"On the control plane alone, which runs no pods. {reason}", markup=False)
    return _alone(stack)


@dataclass(frozen=True, slots=True)
class _Alone:
    plane: ControlPlane
    entra: EntraStandIn

    def prepare(self, namespace: str) -> None:
        """Nothing is needed."""

    def dress(self, spec: dict[str, Any]) -> None:
        """Tell the program whom to trust: Entra's certificate it trusts by itself, the stand-in's not."""
        spec["containers"][0]["env"] = [{"name": "SSL_CERT_FILE", "value": str(self.entra.ca_file)}]

    def register(self, client_id: str, account: str) -> None:
        """Have an application trust a ServiceAccount."""
        subject = f"system:serviceaccount:{account.replace('/', ':')}"
        self.entra.register(client_id, tenant_id=TENANT, issuer=self.plane.issuer, subject=subject)

    def run(self, pod: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """Run the sample here as the pod's container."""
        container = pod["spec"]["containers"][0]["name"]
        run = run_container(self.plane, pod, container, [sys.executable, SAMPLE])
        if run.status:
            raise RuntimeError(f"The program ended with status {run.status}:\n{run.errors.strip()}")
        where = "run here, its environment is exactly the pod's"
        if not run.in_place:
            where += ", but for the token's path: this machine permits no mount namespace"
        claims: Mapping[str, Any] = json.loads(run.output)
        return claims, where

    def ways_to_play(self, pod: str, client_id: str) -> Sequence[str]:
        """Name kubectl, programs run as pods, and the stand-in's endpoints."""
        plane, entra = self.plane, self.entra
        curl, as_pod = f"curl --cacert {entra.ca_file}", f"{sys.executable} -m testkit.as_pod"
        credential = {
            "tenant": TENANT,
            "client_id": client_id,
            "name": "mine",
            "issuer": plane.issuer,
            "subject": "system:serviceaccount:NAMESPACE:SERVICEACCOUNT",
            "audience": AUDIENCE,
        }
        return [
            "\nRun the sample as the demo's pod, or any program as any pod:",
            f"\n  {as_pod} {pod}",
            f"  {as_pod} NAMESPACE/POD [--container NAME] PROGRAM [ARGUMENT ...]",
            f"\nA pod must trust the stand-in: give it the variable SSL_CERT_FILE={entra.ca_file}",
            f"\nThe Entra stand-in is {entra.authority}, the tenant {TENANT}.",
            "Register a federated credential, see them all, remove the demo's, see the requests so far:",
            f"\n  {curl} {entra.authority}/standin/federated-credentials \\",
            f"    --header 'Content-Type: application/json' --data '{json.dumps(credential)}'",
            f"  {curl} {entra.authority}/standin/applications",
            f"  {curl} --request DELETE \\",
            f"    '{entra.authority}/standin/federated-credentials?tenant={TENANT}&client_id={client_id}'",
            f"  {curl} {entra.authority}/standin/requests",
        ]


def _alone(stack: ExitStack) -> Stage:
    provide(CONTROL_PLANE)
    with step("Start etcd, kube-apiserver and kube-controller-manager") as taken:
        plane = stack.enter_context(ControlPlane(controllers=True))
        taken.detail = plane.server
    with step("Start the Entra stand-in") as taken:
        entra = stack.enter_context(EntraStandIn(trust=[plane.ca_file], folder=plane.folder))
        taken.detail = entra.authority
    with step("helm install the chart, start the operator with the rights of its ServiceAccount") as taken:
        values = {"azureTenantID": TENANT, "azureAuthorityHost": entra.authority}
        served = stack.enter_context(serve(plane, values))
        taken.detail = f"release {RELEASE}, reviews at {served.operator.webhook}, ready"
    return _Alone(plane, entra)


@dataclass(frozen=True, slots=True)
class _OnNode:
    plane: ControlPlane
    standins: Azure
    image: str

    def prepare(self, namespace: str) -> None:
        """Have the namespace the authorities that its pods are to trust."""
        self.standins.trust_in(Namespace(self.plane, namespace))

    def dress(self, spec: dict[str, Any]) -> None:
        """Give the container the sample's image, and what it needs to find storage and to trust it."""
        container = spec["containers"][0]
        container["image"], container["command"] = self.image, PROGRAM
        often = {"BLOB": "greeting", "EVERY": "5"}
        more = [{"name": name, "value": value} for name, value in often.items()]
        container["env"] = [*self.standins.variables(), *more]
        container["volumeMounts"] = [{"name": TRUST, "mountPath": TRUSTED, "readOnly": True}]
        spec["volumes"] = [{"name": TRUST, "configMap": {"name": TRUST}}]
        spec["terminationGracePeriodSeconds"] = 5

    def register(self, client_id: str, account: str) -> None:
        """Have an application trust a ServiceAccount."""
        self.standins.register(client_id, account)

    def run(self, pod: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """Wait until the pod has written its blob; it runs already."""
        space = Namespace(self.plane, pod["metadata"]["namespace"])
        name = pod["metadata"]["name"]

        def told() -> dict[str, Any] | None:
            status = space.get("pod", name)["status"].get("containerStatuses") or [{}]
            # It may have begun before it was trusted, and been started anew then.
            if "running" not in (status[0].get("state") or {}):
                return None
            lines = space.kubectl("logs", name).splitlines()
            return next((json.loads(line) for line in lines if line.startswith("{")), None)

        try:
            said: dict[str, Any] = eventually(told, within=WRITTEN_WITHIN)
        except AssertionError as late:
            logs = space.kubectl("logs", name)
            raise RuntimeError(f"The pod wrote no blob within {WRITTEN_WITHIN} s:\n{logs}") from late
        blob, same = said.pop("blob"), said.pop("same")
        if not same:
            raise RuntimeError(f"The blob {blob} is not what was written.")
        said.pop("credential")
        return said, f"blob {blob} written and read"

    def ways_to_play(self, pod: str, client_id: str) -> Sequence[str]:
        """Name what kubectl can be asked."""
        namespace, _, _ = pod.partition("/")
        kubectl = f"  kubectl --namespace {namespace}"
        space = self.standins.space.name
        applications = f"/api/v1/namespaces/{space}/services/https:entra:443/proxy/standin/applications"
        return [
            "\nSee its blobs being written, and what the helper says in the pod:",
            f"\n{kubectl} logs deployment/billing --follow",
            f"{kubectl} exec deployment/billing -- python -m workload_identity explain",
            "\nTake the operator away and have the pod made anew: it is wired all the same.",
            f"\n  kubectl --namespace {NAMESPACE} scale deployment/{RELEASE} --replicas=0",
            f"{kubectl} rollout restart deployment/billing",
            f"\nThe Entra stand-in knows client {client_id} of tenant {TENANT}; see what it trusts:",
            f"\n  kubectl get --raw {applications}",
        ]


def _archives(stack: ExitStack) -> list[images.Built]:
    """Build all images, unless they are kept from another time."""
    azurite.provide()  # which shows how far it is: not within a step
    with step("Build the images: operator, sample, Entra stand-in, Azurite") as taken:
        folder = stack.enter_context(throwaway_folder())
        built = [images.build(recipe, folder, newer=True) for recipe in images.RECIPES.values()]
        taken.detail = f"{sum(one.archive.stat().st_size for one in built) / 1e6:.0f} MB"
    return built


def _on_node(stack: ExitStack, archives: Sequence[images.Built]) -> Stage:
    provide(PROGRAMS)
    with step("Start a node: control plane, scheduler, containerd, kubelet, kube-proxy, CoreDNS") as taken:
        node = stack.enter_context(Node())
        for built in archives:
            node.load(built.archive)
        taken.detail = node.plane.server
    references = {one.reference.rpartition("/")[2].partition(":")[0]: one.reference for one in archives}
    with step("Start the Entra stand-in and Azurite in pods") as taken:
        standins = stack.enter_context(azure(node.plane, references))
        taken.detail = f"{standins.authority}, {standins.blobs}"
    with step("helm install the chart, helm test it") as taken:
        values = {"azureTenantID": TENANT, "azureAuthorityHost": standins.authority}
        install_in_cluster(node.plane, values)
        node.plane.helm("test", RELEASE, "--namespace", NAMESPACE)
        taken.detail = f"release {RELEASE}, two replicas ready"
    return _OnNode(node.plane, standins, references["workload-identity-sample"])


__all__ = ["AUDIENCE", "TENANT", "Stage", "lacking", "set_up"]
