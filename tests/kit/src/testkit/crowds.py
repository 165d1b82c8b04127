"""Many ServiceAccounts and pods at once, and whether each pod was given its own ServiceAccount's identity."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import kubernetes.client
from kubernetes.client.exceptions import ApiException

from testkit.tally import Tally
from testkit.workloads import Namespace, env_of, pod
from workload_identity_operator import contract

T = TypeVar("T")

PEOPLE = 4
"""How many create things at the same time."""


def client_of(number: int) -> str:
    """Return the client id of ServiceAccount `sa-<number>`, which no other has."""
    return f"{number:08d}-0000-4000-8000-000000000000"


def together(work: Callable[[int], T], count: int) -> list[T]:
    """Do it for 0 to count - 1, several at a time."""
    with ThreadPoolExecutor(PEOPLE) as people:
        return list(people.map(work, range(count)))


def create_account(inside: Namespace, number: int) -> None:
    """Create ServiceAccount `sa-<number>`, annotated."""
    metadata = {"name": f"sa-{number}", "annotations": {contract.CLIENT_ID: client_of(number)}}
    _core(inside).create_namespaced_service_account(inside.name, {"metadata": metadata})


def create_pod(inside: Namespace, name: str, number: int, labels: Mapping[str, str]) -> None:
    """Create a pod of ServiceAccount `sa-<number>`."""
    manifest = pod(name, f"sa-{number}", metadata={"labels": dict(labels)})
    _core(inside).create_namespaced_pod(inside.name, manifest)


def annotate_and_create(inside: Namespace, count: int, labels: Mapping[str, str], tally: Tally) -> list[str]:
    """Make so many ServiceAccounts, annotate each and create its pod `pod-<number>` in the same breath.

    Half of them exist, without annotations, before they are annotated.

    Returns:
        Why pods were refused. Each of them was created a second time, as its controller would do.

    Raises:
        ApiException: A pod was refused twice.
    """
    refusals = []

    def hurry(number: int) -> None:
        if number % 2:
            create_account(inside, number)
        else:
            annotated = {"metadata": {"annotations": {contract.CLIENT_ID: client_of(number)}}}
            bare = {"metadata": {"name": f"sa-{number}"}}
            _core(inside).create_namespaced_service_account(inside.name, bare)
            _core(inside).patch_namespaced_service_account(f"sa-{number}", inside.name, annotated)
        try:
            create_pod(inside, f"pod-{number}", number, labels)
        except ApiException as refused:
            refusals.append(str(json.loads(str(refused.body))["message"]))
            create_pod(inside, f"pod-{number}", number, labels)
        tally.one("ServiceAccounts annotated, and a pod at once")

    together(hurry, count)
    return refusals


def wrongly_wired(inside: Namespace, tenant: str) -> dict[str, str]:
    """Return what is wrong with the pods of a namespace, by their names; {} when nothing is."""
    faults = {one["metadata"]["name"]: fault_of(one, tenant) for one in inside.get("pods")["items"]}
    return {name: fault for name, fault in faults.items() if fault}


def fault_of(stored: Mapping[str, Any], tenant: str) -> str:
    """Return what differs from a pod that is wired for its ServiceAccount; "" when nothing does."""
    number = int(stored["spec"]["serviceAccountName"].removeprefix("sa-"))
    wanted = {
        "AZURE_CLIENT_ID": client_of(number),
        "AZURE_TENANT_ID": tenant,
        "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/wi/token/azure-identity-token",
        "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
    }
    if (env := env_of(stored)) != wanted:
        return f"variables {env}"
    ours = [v for v in stored["spec"]["volumes"] if v["name"].startswith(contract.VOLUME_PREFIX)]
    token = {
        "audience": "api://AzureADTokenExchange",
        "expirationSeconds": 3600,
        "path": "token/azure-identity-token",
    }
    if [volume.get("projected", {}).get("sources") for volume in ours] != [[{"serviceAccountToken": token}]]:
        return f"volumes {ours}"
    mounts = stored["spec"]["containers"][0]["volumeMounts"]
    mounts = [mount for mount in mounts if mount["mountPath"].startswith("/var/run/secrets/azure")]
    wanted_mount = {"name": ours[0]["name"], "mountPath": "/var/run/secrets/azure/wi", "readOnly": True}
    return "" if mounts == [wanted_mount] else f"mounts {mounts}"


def _core(inside: Namespace) -> Any:
    # The client's methods are typed for its models, and take the JSON trees of which those are made.
    return kubernetes.client.CoreV1Api(inside.plane.client())
