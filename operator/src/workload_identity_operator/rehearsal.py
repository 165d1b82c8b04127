"""Edge: has the API server make a labelled pod in a dry run, and looks whether it would have its identity.

What `helm test` runs, in a pod of its own with the operator's image. Nothing is stored.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp

from workload_identity_operator import contract
from workload_identity_operator.kube import ApiError, Cluster, KubeApi
from workload_identity_operator.shapes import Json

_LOOK_EVERY: Final = 1.0
"""Seconds between looks at what is not yet as it should be."""
_SECURE: Final[Json] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_SMALL: Final[Json] = {"cpu": "1m", "memory": "1Mi"}

_log = logging.getLogger(__name__)


class RehearsalFailed(Exception):  # noqa: N818 - what happened
    """Something is not as it should be; the message says what, and what to change."""


async def rehearse(
    cluster: Cluster,
    *,
    namespace: str,
    labels: Mapping[str, str],
    deployment: tuple[str, str] | None,
    patience: float,
    tell: Callable[[str], None],
) -> None:
    """Look whether the operator is ready and a labelled pod would be wired, for as long as patience lasts.

    Args:
        cluster: Where.
        namespace: Of the pod.
        labels: Of the pod, beside the one that opts in.
        deployment: Namespace and name of the operator's; None looks at no Deployment.
        patience: Seconds.
        tell: Takes a line for each thing that is as it should be.

    Raises:
        RehearsalFailed: The last thing that was found.
    """
    async with cluster.open(aiohttp.ClientResponse) as session:
        api = KubeApi(cluster.server, session)
        end = asyncio.get_running_loop().time() + patience
        if deployment:
            tell(await _until(end, lambda: _ready(api, *deployment)))
        tell(await _until(end, lambda: _wired(api, namespace, labels)))


async def _until(end: float, look: Callable[[], object]) -> str:
    while True:
        try:
            return str(await look())  # type: ignore[misc]
        except RehearsalFailed:
            if asyncio.get_running_loop().time() > end:
                raise
        await asyncio.sleep(_LOOK_EVERY)


async def _ready(api: KubeApi, namespace: str, name: str) -> str:
    what = f"Deployment {namespace}/{name}"
    try:
        found = await api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
    except ApiError as error:
        raise RehearsalFailed(f"{what} could not be looked at: {error}") from error
    if found is None:
        raise RehearsalFailed(f"{what} is not there: install the chart again")
    wanted, status = found["spec"].get("replicas", 1), found.get("status", {})
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if not wanted:
        raise RehearsalFailed(f"{what} has no replicas: set replicaCount to at least 1")
    seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
    if not seen or updated < wanted or available < wanted:
        raise RehearsalFailed(
            f"{what}: wanted {wanted} ready replicas, found {min(updated, available)}; see "
            f"`kubectl -n {namespace} describe deployment {name}` and the log of its pods"
        )
    return f"{what} is ready, {available} of {wanted} replicas"


async def _wired(api: KubeApi, namespace: str, labels: Mapping[str, str]) -> str:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "workload-identity-rehearsal-",
            "labels": {**labels, contract.USE_LABEL: "true"},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "rehearsal",
                    "image": "rehearsal.invalid/none",
                    "resources": {"requests": _SMALL, "limits": _SMALL},
                    "securityContext": _SECURE,
                }
            ],
        },
    }
    what = f"a labelled pod in namespace {namespace}"
    try:
        found = await api.rehearse(f"/api/v1/namespaces/{namespace}/pods", pod)
    except ApiError as error:
        would = "would be refused" if error.status else "could not be made"
        raise RehearsalFailed(f"{what} {would}: {error}") from error
    (container,) = (one for one in found["spec"]["containers"] if one["name"] == "rehearsal")
    variables = {one["name"] for one in container.get("env") or ()}
    mounted = {one["name"] for one in container.get("volumeMounts") or ()}
    volumes = [
        volume["name"]
        for volume in found["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
        if (source.get("serviceAccountToken") or {}).get("path") == contract.TOKEN_PATH
    ]
    if contract.ENV_TOKEN_FILE not in variables or not mounted & set(volumes):
        raise RehearsalFailed(
            f"{what} would be stored without its identity: nobody wires pods there, for a selector of "
            "namespaces or pods that leaves it out; name another namespace by test.namespace"
        )
    return f"{what} would be wired, with volume {', '.join(volumes)}; nothing was stored"
