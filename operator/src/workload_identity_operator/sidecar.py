"""The proxy sidecar, for programs that still call the instance metadata service (IMDS).

A pod that asks for it gets two containers: `azwi-proxy` trades the pod's token for what such calls want,
and `azwi-proxy-init` redirects the pod's calls to it. Where kubelets know native sidecars (init containers
that are restarted), the proxy is one: it then runs before, and ends after, the pod's own containers, so that
a Job can finish. Elsewhere it is an ordinary container.

Source: Azure/azure-workload-identity v1.6.0, but for these: `false` means no; where the proxy runs before the
author's init containers, so does the redirect; the proxy has its own user, whatever the pod's is; the init
container is not privileged; ports are checked; what could never run is refused.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from workload_identity_operator import contract
from workload_identity_operator.errors import PodRefused, quoted
from workload_identity_operator.shapes import Json, flag, integer, mapping, objects, text
from workload_identity_operator.token_endpoint import TokenEndpoint

_NAMES: Final = frozenset({contract.PROXY_NAME, contract.PROXY_INIT_NAME})
_INIT: Final = "initContainers"
_MAIN: Final = "containers"
_WINDOWS: Final = "windows"
_LAST_PORT: Final = 65535
_VERSION: Final = re.compile(r"v?([0-9]{1,9})\.([0-9]{1,9})\.[0-9]+([^0-9.].*)?")
# They are beta, and so on, since 1.29; kubelets may be three minor versions behind the API server.
_NATIVE_SINCE: Final = (1, 32)


@dataclass(frozen=True, slots=True)
class Proxy:
    """What the operator's settings say of the sidecar.

    Attributes:
        image: Of `azwi-proxy`.
        init_image: Of `azwi-proxy-init`.
        log_level: How much the proxy logs, in the operator's own words; "" for warnings only.
    """

    image: str
    init_image: str
    log_level: str


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a pod asks for.

    Attributes:
        proxy: Images and log level.
        port: Where the proxy listens, inside the pod; 1 to 65535.
        native: Whether it is a native sidecar.
    """

    proxy: Proxy
    port: int
    native: bool


class Insertion(NamedTuple):
    """A container to insert.

    Attributes:
        kind: The list that it goes into, `initContainers` or `containers`.
        place: Its index there, the insertions before it already done.
        container: As it is without an identity.
    """

    kind: str
    place: int
    container: Json


def runs_native_sidecars(version: str) -> bool:
    """Whether all kubelets of a cluster run native sidecars.

    Args:
        version: `gitVersion` of the API server, such as v1.33.5-gke.1; suffixes do not matter.

    Raises:
        ValueError: It is no version.
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        raise ValueError(f"{quoted(version)} is no version: wanted one such as v1.36.3")
    return (int(found[1]), int(found[2])) >= _NATIVE_SINCE


def sidecar_of(
    annotations: Mapping[str, str],
    spec: Mapping[str, Any],
    proxy: Proxy,
    endpoint: TokenEndpoint | None,
    *,
    native: bool,
) -> Sidecar | None:
    """Return the sidecar that a pod asks for; None when it asks for none.

    Args:
        annotations: `metadata.annotations` of the pod; {} when null.
        spec: `spec` of the pod; {} when null.
        proxy: Images and log level.
        endpoint: The custom token endpoint that pods may ask for; None when there is none.
        native: Whether the cluster runs native sidecars.

    Raises:
        PodRefused: It could never run in this pod, or its port is none.
    """
    asked = annotations.get(contract.INJECT_PROXY)
    if asked is None or asked.lower() == "false":
        return None
    if obstacle := _obstacle(annotations, spec, endpoint):
        raise PodRefused(f"annotation {contract.INJECT_PROXY}: {obstacle}")
    return Sidecar(proxy, _port(annotations), native)


def insertions(spec: Mapping[str, Any], sidecar: Sidecar) -> Iterator[Insertion]:
    """Yield the containers that the pod lacks; one of that name in either list is left as it is.

    Args:
        spec: `spec` of the pod, its containers of the right shape.
        sidecar: What to insert.
    """
    names = {
        kind: [container.get("name") for container in objects(spec, kind, "spec")] for kind in (_INIT, _MAIN)
    }
    present = {*names[_INIT], *names[_MAIN]}
    if contract.PROXY_NAME not in present:
        kind = _INIT if sidecar.native else _MAIN
        names[kind].insert(0, contract.PROXY_NAME)
        yield Insertion(kind, 0, _proxy_container(sidecar))
    if contract.PROXY_INIT_NAME not in present:
        # Ahead of the author's where the proxy runs by then; else last, or their calls would go nowhere.
        runs = contract.PROXY_NAME in names[_INIT]
        place = names[_INIT].index(contract.PROXY_NAME) + 1 if runs else len(names[_INIT])
        yield Insertion(_INIT, place, _init_container(sidecar))


def port_warnings(spec: Mapping[str, Any], sidecar: Sidecar) -> Iterator[str]:
    """Tell of containers that listen where the proxy does."""
    for kind in (_INIT, _MAIN):
        for index, container in enumerate(objects(spec, kind, "spec")):
            name, where = text(container, "name", "spec"), f"spec.{kind}[{index}]"
            ports = objects(container, "ports", where) if name not in _NAMES else ()
            if any(port.get("containerPort") == sidecar.port and _is_tcp(port, where) for port in ports):
                yield (
                    f"container {quoted(name, 20)} has port {sidecar.port}, the proxy's too: "
                    f"change it, or annotation {contract.PROXY_PORT.removeprefix(contract.PREFIX)}"
                )


def _is_tcp(port: Json, where: str) -> bool:
    return text(port, "protocol", f"{where}.ports") in {"", "TCP"}


def _obstacle(
    annotations: Mapping[str, str], spec: Mapping[str, Any], endpoint: TokenEndpoint | None
) -> str | None:
    """Return why the proxy cannot run in this pod; None when it can."""
    if flag(spec, "hostNetwork", "spec"):
        return "the pod has hostNetwork, so the node's own calls would be redirected; remove one of the two"
    os = text(mapping(spec.get("os"), "spec.os"), "name", "spec.os")
    selected = text(
        mapping(spec.get("nodeSelector"), "spec.nodeSelector"), "kubernetes.io/os", "spec.nodeSelector"
    )
    if _WINDOWS in {os, selected}:
        return "the proxy runs on Linux only and this is a Windows pod; remove the annotation"
    if endpoint and endpoint.wanted_by(annotations):
        return (
            f"the proxy does not know the endpoint that {endpoint.annotation} asks for; remove one of the two"
        )
    return None


def _port(annotations: Mapping[str, str]) -> int:
    written = annotations.get(contract.PROXY_PORT)
    if written is None:
        return contract.DEFAULT_PROXY_PORT
    what, wanted = f"annotation {contract.PROXY_PORT}", f"wanted 1 to {_LAST_PORT}"
    port = integer(written, 32, what, wanted)
    if not 1 <= port <= _LAST_PORT:
        raise PodRefused(f"{what}: {port} is out of bounds; {wanted}")
    return port


def _proxy_container(sidecar: Sidecar) -> Json:
    port, level = f"--proxy-port={sidecar.port}", f"--log-level={sidecar.proxy.log_level}"
    return {
        "name": contract.PROXY_NAME,
        "image": sidecar.proxy.image,
        "imagePullPolicy": "IfNotPresent",
        "args": [port, level],
        "ports": [{"containerPort": sidecar.port}],
        # Whatever starts after it finds it listening.
        "lifecycle": {"postStart": {"exec": {"command": ["/proxy", port, "--probe", level]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            # Not the pod's: the redirect lets this user's calls pass, and would catch another's in a loop.
            "runAsUser": contract.PROXY_UID,
            "runAsGroup": contract.PROXY_UID,
        },
        **({"restartPolicy": "Always"} if sidecar.native else {}),
    }


def _init_container(sidecar: Sidecar) -> Json:
    return {
        "name": contract.PROXY_INIT_NAME,
        "image": sidecar.proxy.init_image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": contract.ENV_PROXY_PORT, "value": str(sidecar.port)}],
        "securityContext": {
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "runAsNonRoot": False,
            "runAsUser": 0,
        },
    }
