"""Every case of the webhook, through the policy of a real API server: the same pod, or left alone."""

import copy
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import kubernetes.client
import pytest

from testkit.cases import read_cases, settings_of
from testkit.control_plane import ControlPlane
from testkit.installation import free_port, install_chart
from testkit.workloads import CLIENT, eventually, pod
from workload_identity_operator import contract
from workload_identity_operator.accounts import ours
from workload_identity_operator.compiling import compile_identities

Json = dict[str, Any]

SUFFIX = "identity-binding"
"""That of the custom token endpoint in the chart; a case with another one is about the flag alone."""
CASES = {
    name: case
    for name, case in read_cases().items()
    if "wired" in case
    and case.get("settings", {}).get("--custom-token-endpoint-annotation-suffix", SUFFIX) == SUFFIX
}
UNWIRED = "reference"
"""A namespace that neither policy nor webhook looks at: what a pod is without either."""


class Refused(Exception):  # noqa: N818 - it reads as what happened
    """The API server refuses a pod."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster with the policy, the compiled identities of every case, and nobody to answer reviews."""

    plane: ControlPlane
    namespaces: Mapping[str, str]

    def create(self, namespace: str, manifest: Json) -> Json:
        """Return a pod as it would be stored; the raw one, for the client's models know no odd pods.

        Raises:
            Refused: The API server refuses it.
        """
        client: Any = self.plane.client()  # its inside has no types
        url = f"{self.plane.server}/api/v1/namespaces/{namespace}/pods?dryRun=All"
        headers = {"Content-Type": "application/json", **client.default_headers}
        answer = client.rest_client.request("POST", url, headers=headers, body=manifest)
        stored: Json = json.loads(answer.read())
        if answer.status != 201:
            raise Refused(stored["message"])
        return stored


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Install the chart without an operator and write for each case the PodWiring that one would."""
    values = {
        "azureTenantID": "unused",
        "engine": "policy",
        "failurePolicy": "Ignore",
        "mutatingWebhookNamespaceSelector": {"matchLabels": {"wired": "yes"}},
        "customTokenEndpoint": {"annotationSuffix": SUFFIX, "audience": "a"},
    }
    namespaces = {name: f"case-{number}" for number, name in enumerate(CASES)}
    with ControlPlane() as plane:
        install_chart(plane, free_port(), values)
        core: Any = kubernetes.client.CoreV1Api(plane.client())
        custom = kubernetes.client.CustomObjectsApi(plane.client())
        plane.create_namespace(UNWIRED)
        for account in {account_of(case) for case in CASES.values()} - {"default"}:
            core.create_namespaced_service_account(UNWIRED, {"metadata": {"name": account}})
        plane.kubectl("wait", "--for=condition=Established", "crd", "podwirings.workload-identity.io")
        for name, namespace in namespaces.items():
            case, account = CASES[name], account_of(CASES[name])
            core.create_namespace({"metadata": {"name": namespace, "labels": {"wired": "yes"}}})
            core.create_namespaced_service_account(namespace, {"metadata": {"name": account}})
            annotated = {account: kept} if (kept := ours(case["account"])) else {}
            if compiled := compile_identities(annotated, settings_of(case)):
                write(custom, namespace, compiled.spec)
        found = Cluster(plane, namespaces)
        # Its informer learns of them in their order: who has the last has all.
        core.create_namespace({"metadata": {"name": "last", "labels": {"wired": "yes"}}})
        core.create_namespaced_service_account("last", {"metadata": {"name": "billing"}})
        last = compile_identities({"billing": {contract.CLIENT_ID: CLIENT}}, settings_of({}))
        assert last
        write(custom, "last", last.spec)
        eventually(lambda: "volumes" in found.create("last", complete(pod("web", "billing")))["spec"])
        yield found


def write(custom: kubernetes.client.CustomObjectsApi, namespace: str, spec: Json) -> None:
    """Create a PodWiring."""
    group, version = contract.POD_WIRING_API.split("/")
    kind = {"apiVersion": contract.POD_WIRING_API, "kind": "PodWiring"}
    body = {**kind, "metadata": {"name": contract.POD_WIRING_NAME}, "spec": spec}
    custom.create_namespaced_custom_object(group, version, namespace, contract.POD_WIRINGS, body)


def account_of(case: Json) -> str:
    """Return the name of the pod's ServiceAccount."""
    return (case["pod"].get("spec") or {}).get("serviceAccountName") or "default"


def complete(manifest: Json) -> Json:
    """Return a pod with all that the API server wants and the case does not care about."""
    found = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(manifest)}
    spec = found.get("spec") or {}
    # Otherwise a volume of a random name stands before ours in one pod and after it in the other.
    spec["automountServiceAccountToken"] = False
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        if container is not None:
            container.setdefault("image", "x")
    return found


def normal(stored: Json) -> Json:
    """Return what two dry runs must agree on; the token's volume has another name in each engine."""
    metadata = stored["metadata"]
    for key in ("uid", "creationTimestamp", "namespace", "managedFields"):
        metadata.pop(key, None)
    if "generateName" in metadata:
        metadata.pop("name", None)
    spec = stored["spec"]
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    mounts = [mount for container in containers for mount in container.get("volumeMounts") or ()]
    for named in [*(spec.get("volumes") or ()), *mounts]:
        if named["name"].startswith(contract.VOLUME_PREFIX):
            named["name"] = "ours"
    return stored


def is_plain(case: Json) -> bool:
    """Whether the policy should wire the pod: what it leaves to the webhook, told in another way."""
    pod, account = case["pod"], case["account"] or {}
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    annotations = {key: value or "" for key, value in (metadata.get("annotations") or {}).items()}
    label = (metadata.get("labels") or {}).get(contract.USE_LABEL)
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    mounts = [mount for container in containers for mount in container.get("volumeMounts") or ()]
    written = [mount["mountPath"] for mount in mounts]  # one that only passes through is odd enough, too
    paths = [*written, *(posixpath.normpath("/" + path.lstrip("/")) for path in written)]
    expirations = [
        value for value in (annotations.get(contract.EXPIRATION), account.get(contract.EXPIRATION)) if value
    ]
    return (
        bool(ours(account))
        and (label == "true" or bool(account.get(contract.CLIENT_ID)))
        and label != "false"
        and contract.MIRROR_POD not in annotations
        and contract.PREFIX + "use-" + SUFFIX not in annotations
        and annotations.get(contract.INJECT_PROXY, "false").lower() == "false"
        and re.fullmatch("[-a-z0-9;]*", annotations.get(contract.SKIP_CONTAINERS, "")) is not None
        and annotations.get(contract.EXPIRATION) != ""
        and all(re.fullmatch("[0-9]{4,5}", value) for value in expirations[:1])
        and not any(volume["name"].startswith(contract.VOLUME_PREFIX) for volume in spec.get("volumes") or ())
        and not any(f"{path}/".startswith(contract.BASE_PATH + "/") for path in paths)
    )


def outcome_of(cluster: Cluster, name: str) -> str:
    """Return "wired", "left" for the webhook, or "refused" by the API server; fail for anything between."""
    case = CASES[name]
    try:
        wanted = normal(cluster.create(UNWIRED, complete(case["wired"])))
        bare = normal(cluster.create(UNWIRED, complete(case["pod"])))
    except Refused:
        return "refused"
    found = normal(cluster.create(cluster.namespaces[name], complete(case["pod"])))
    if found == bare:
        return "left"
    assert found == wanted, name
    return "wired"


def test_every_case(cluster: Cluster) -> None:
    """Plain pods become the pods that the webhook makes, all else stays exactly as it was."""
    outcomes = {name: outcome_of(cluster, name) for name in CASES}

    reached = {name: outcome for name, outcome in outcomes.items() if outcome != "refused"}
    assert reached == {name: "wired" if is_plain(CASES[name]) else "left" for name in reached}
    counts = {outcome: list(outcomes.values()).count(outcome) for outcome in ("wired", "left", "refused")}
    print(counts)  # how many cases no API server takes, too
    assert counts["wired"] >= 40
    assert counts["left"] >= 30
