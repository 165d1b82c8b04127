"""What a kubelet does for a pod that was admitted and stored, on a machine that is no node.

It asks for the pod's projected ServiceAccount tokens, works out a container's environment, and runs a
program that finds both as it would in that container. Images, other volumes, services' environment
variables and whatever else needs a node are not there; nor are file owners and modes, for the program
runs as ourselves.

Source: Kubernetes v1.36.3, pkg/kubelet/kubelet_pods.go and pkg/volume/projected/projected.go.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from testkit.control_plane import ControlPlane
from testkit.processes import finish

Pod = Mapping[str, Any]
"""A pod as the API server returns it, in JSON."""

ENCLOSURE = Path(__file__).with_name("enclosure.py")
ISOLATIONS = (["--mount"], ["--user", "--map-root-user", "--mount"])
"""How to get a mount namespace of one's own: as root, and as anybody where that is permitted."""


class NeedsNode(RuntimeError):  # noqa: N818 - it reads as what is wrong
    """The pod asks for something that only a node can give; the message names it."""


@dataclass(frozen=True, slots=True)
class ContainerRun:
    """How a program in a container ended.

    Attributes:
        status: Exit status, negative for a signal.
        output: What it wrote to stdout.
        errors: What it wrote to stderr.
        in_place: Whether tokens were at their paths. False where this machine permits no mount
            namespaces: then the paths in its environment were changed to where the tokens are.
    """

    status: int
    output: str
    errors: str
    in_place: bool


def run_container(
    plane: ControlPlane, pod: Pod, container: str, argv: Sequence[str | Path], *, timeout: float = 60
) -> ContainerRun:
    """Run a program of this machine as a container of a stored pod: its environment, its tokens.

    Args:
        plane: Where the pod is stored.
        pod: The pod.
        container: The container's name; an init container's too.
        argv: The program, as an absolute path, and its arguments.
        timeout: Seconds after which it is killed.

    Raises:
        NeedsNode: The container's environment or a token's mount asks for more than there is here.
        ProcessFailed: A token was refused, or the program did not end in time.
    """
    env = container_env(pod, container)
    with tempfile.TemporaryDirectory(dir=plane.folder, prefix="pod-") as root:
        mounts = {path: Path(f"{root}{path}") for path in project_tokens(plane, pod, container, Path(root))}
        command = list(argv)
        if enclosed := _enclosed():
            pairs = [str(item) for path, folder in mounts.items() for item in (folder, path)]
            command = [*enclosed, *pairs, "--", *command]
        else:
            env = {name: _moved(value, mounts) for name, value in env.items()}
        ended = finish(command, env=env, cwd=Path("/"), timeout=timeout)
    return ContainerRun(ended.status, ended.output, ended.errors, in_place=bool(enclosed))


def project_tokens(plane: ControlPlane, pod: Pod, container: str, root: Path) -> list[str]:
    """Write the tokens a container mounts to `<root>/<mountPath>/<path>` and return the mount paths.

    Of projected volumes only the tokens are written, each as the pod's: bound to it, with the audience and
    the lifetime its source asks for.
    """
    volumes = {volume["name"]: volume.get("projected") for volume in pod["spec"].get("volumes") or ()}
    paths = []
    for mount in _container(pod, container).get("volumeMounts") or ():
        sources = (volumes[mount["name"]] or {}).get("sources") or ()
        tokens = [source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source]
        if not tokens:
            continue
        if "subPath" in mount or "subPathExpr" in mount:
            raise NeedsNode(f"container {container!r} mounts token volume {mount['name']!r} by a subPath.")
        paths.append(mount["mountPath"])
        for token in tokens:
            file = Path(f"{root}{mount['mountPath']}", token["path"])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_token(plane, pod, token), encoding="utf-8")
    return paths


def _token(plane: ControlPlane, pod: Pod, source: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    audience = [f"--audience={source['audience']}"] if source.get("audience") else []
    return plane.kubectl(
        "create",
        "token",
        pod["spec"]["serviceAccountName"],
        f"--namespace={metadata['namespace']}",
        f"--duration={source['expirationSeconds']}s",
        *audience,
        "--bound-object-kind=Pod",
        f"--bound-object-name={metadata['name']}",
        f"--bound-object-uid={metadata['uid']}",
    ).strip()


def container_env(pod: Pod, container: str) -> dict[str, str]:
    """Return a container's environment: what its `env` says, in its order, and nothing else.

    Raises:
        NeedsNode: A value comes from elsewhere than the pod itself.
    """
    found = _container(pod, container)
    if found.get("envFrom"):
        raise NeedsNode(f"container {container!r} has envFrom, which is not read here.")
    env: dict[str, str] = {}
    for variable in found.get("env") or ():
        match variable:
            case {"value": str(value)} if value:
                # What is declared later is not seen, as with the kubelet.
                env[variable["name"]] = expand(value, env)
            case {"valueFrom": {"fieldRef": {"fieldPath": str(path)}}}:
                env[variable["name"]] = _field(pod, path)
            case {"valueFrom": {**source}}:
                kind = next(iter(source))
                raise NeedsNode(
                    f"variable {variable['name']!r} of container {container!r} has its value from a {kind}, "
                    "which is not read here."
                )
            case _:
                env[variable["name"]] = ""
    return env


def expand(value: str, env: Mapping[str, str]) -> str:
    """Replace each `$(NAME)` that `env` has; others stay. `$$` is a plain `$`.

    Source: Kubernetes v1.36.3, third_party/forked/golang/expansion.
    """

    def replacement(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else env.get(found["name"], found[0])

    return re.sub(r"\$\$|\$\((?P<name>[^)]*)\)", replacement, value)


def _field(pod: Pod, path: str) -> str:
    metadata = pod["metadata"]
    match re.fullmatch(r"metadata\.(labels|annotations)\['(.*)'\]", path), path:
        case re.Match() as found, _:
            return str((metadata.get(found[1]) or {}).get(found[2], ""))
        case _, "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(metadata[path.removeprefix("metadata.")])
        case _, "spec.serviceAccountName":
            return str(pod["spec"]["serviceAccountName"])
        case _:
            raise NeedsNode(f"field {path!r} has no value without a node.")


def _container(pod: Pod, name: str) -> Mapping[str, Any]:
    spec = pod["spec"]
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        if container["name"] == name:
            found: Mapping[str, Any] = container
            return found
    raise NeedsNode(f"pod {pod['metadata']['name']!r} has no container {name!r}.")


@cache
def _enclosed() -> list[str]:
    """Return the command that encloses another one on this machine; empty where none is permitted."""
    if not (unshare := shutil.which("unshare")):
        return []
    for isolation in ISOLATIONS:
        enclosed = [unshare, *isolation, sys.executable, "-I", "-S", str(ENCLOSURE)]
        with tempfile.TemporaryDirectory() as folder:
            # Some systems give a namespace to anybody and then permit no mount in it.
            trial = [*enclosed, folder, f"{folder}/missing/path", "--", sys.executable, "-I", "-S", "-c", ""]
            if finish(trial).status == 0:
                return enclosed
    return []


def _moved(value: str, mounts: Mapping[str, Path]) -> str:
    for path, folder in mounts.items():
        if value == path or value.startswith(f"{path}/"):
            return f"{folder}{value.removeprefix(path)}"
    return value
