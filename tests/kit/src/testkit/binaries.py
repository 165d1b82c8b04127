"""The programs of a Kubernetes control plane, and what judges a chart's alerts, found or built.

Looked for in this order: the folder `KUBEBUILDER_ASSETS` names (those it has), our cache
(`${XDG_CACHE_HOME:-~/.cache}/workload-identity-operator/bin/<name>-<version>`), and else built once
from their Go modules into that cache. What is on the PATH is not used: its version is anybody's guess.
Kubernetes' own are of the version that `TESTKIT_KUBERNETES` names, such as v1.37.2, or of the usual one.
"""

import errno
import fcntl
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testkit.console import console, duration, long_step
from testkit.folders import throwaway_folder
from testkit.processes import ProcessFailed, output_of, running

GO: Final = "1.26"
"""The oldest Go that builds all of them."""


class BinariesMissing(RuntimeError):  # noqa: N818 - it reads as what happened
    """A program is neither there nor can it be built; the message says what to install or set."""


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module at a version."""

    path: str
    version: str
    stamps: tuple[str, ...] = ()
    """Variables the linker sets: a module's version is not known to the code in it."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the seconds its build took on two cores, nothing cached, in the order of PROGRAMS."""

    name: str
    module: Module
    package: str
    cold: float
    tags: str = ""
    """Go's build tags, which leave out what we never use."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A program that can be run; `origin` tells people where it comes from."""

    name: str
    version: str
    path: Path
    origin: str


def kubernetes(version: str) -> Module:
    """Return Kubernetes of a version; "" is the usual one."""
    version = version or "v1.36.3"
    major, _, rest = version.removeprefix("v").partition(".")
    minor = rest.partition(".")[0]
    stamped = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    stamps = tuple(f"k8s.io/component-base/version.{name}={value}" for name, value in stamped.items())
    return Module("k8s.io/kubernetes", version, stamps)


KUBERNETES: Final = kubernetes(os.environ.get("TESTKIT_KUBERNETES", ""))
ETCD: Final = Module("go.etcd.io/etcd/server/v3", "v3.7.3")
COREDNS: Final = Module("github.com/coredns/coredns", "v1.15.0")
HELM: Final = Module("helm.sh/helm/v4", "v4.3.1")
PROMETHEUS: Final = Module("github.com/prometheus/prometheus", "v0.316.0")

PROGRAMS: Final = {
    program.name: program
    for program in (
        Program("kube-apiserver", KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver", 168),
        Program("kube-controller-manager", KUBERNETES, "k8s.io/kubernetes/cmd/kube-controller-manager", 46),
        Program("kubectl", KUBERNETES, "k8s.io/kubernetes/cmd/kubectl", 16),
        Program("etcd", ETCD, "go.etcd.io/etcd/server/v3", 30),
        Program("helm", HELM, "helm.sh/helm/v4/cmd/helm", 180),
        # Judges alerts and metrics; without the clouds in which Prometheus looks for what to scrape.
        Program("promtool", PROMETHEUS, f"{PROMETHEUS.path}/cmd/promtool", 130, tags="remove_all_sd"),
    )
}
CONTROL_PLANE: Final = tuple(name for name in PROGRAMS if name != "promtool")
"""What a cluster needs, and nobody who only wants to look at one should wait for more."""
NODE_PROGRAMS: Final = {
    program.name: program
    for program in (
        Program("kubelet", KUBERNETES, "k8s.io/kubernetes/cmd/kubelet", 60),
        Program("kube-scheduler", KUBERNETES, "k8s.io/kubernetes/cmd/kube-scheduler", 20),
        Program("kube-proxy", KUBERNETES, "k8s.io/kubernetes/cmd/kube-proxy", 20),
        Program("coredns", COREDNS, "github.com/coredns/coredns", 104),
    )
}
"""What a node needs besides, where there is one: `testkit.node`."""
_ALL: Final = PROGRAMS | NODE_PROGRAMS
_WIDTH: Final = max(map(len, _ALL))


def provide(names: Iterable[str] = PROGRAMS) -> dict[str, Binary]:
    """Return the named programs, building those that are nowhere; progress goes to the console.

    Raises:
        BinariesMissing: One is nowhere and cannot be built.
    """
    found = {name: find(_ALL[name]) for name in names}
    if all(found.values()):
        return {name: binary for name, binary in found.items() if binary}
    with alone(cache()), throwaway_folder() as folder:
        # Somebody else may have built them while we waited.
        return {name: find(_ALL[name]) or _build(_ALL[name], folder) for name in found}


def find(program: Program) -> Binary | None:
    """Return the program if it is there.

    Raises:
        BinariesMissing: `KUBEBUILDER_ASSETS` names no folder, or `TESTKIT_KUBERNETES` no version.
    """
    if not re.fullmatch(r"v1\.\d+\.\d+(-[\w.]+)?", version := KUBERNETES.version):
        raise BinariesMissing(
            f"TESTKIT_KUBERNETES is {version!r}, which is no version such as v1.37.2: correct or unset it."
        )
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        if not Path(assets).is_dir():
            raise BinariesMissing(
                f"KUBEBUILDER_ASSETS is {assets!r}, which is no folder: correct or unset it."
            )
        if os.access(given := Path(assets, program.name).absolute(), os.X_OK):
            return Binary(program.name, "as given", given, "KUBEBUILDER_ASSETS")
    if (cached := _cached(program)).exists():
        return Binary(program.name, program.module.version, cached, "cached")
    return None


def cache() -> Path:
    """Return the folder of the programs that were built here."""
    # Source: XDG Base Directory Specification 0.8: an empty or relative value is as good as none.
    home = Path(os.environ.get("XDG_CACHE_HOME") or ".")
    if not home.is_absolute():
        home = Path.home() / ".cache"
    return home / "workload-identity-operator" / "bin"


def _cached(program: Program) -> Path:
    return cache() / f"{program.name}-{program.module.version}"


@contextmanager
def alone(folder: Path, doing: str = "builds the control plane's programs") -> Iterator[None]:
    """Wait until no other process does this. The lock is the kernel's: it ends with its holder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"Waiting for another process that {doing}.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(program: Program, folder: Path) -> Binary:
    """Build a program into the cache; `folder` keeps the modules' go.mod from one program to the next."""
    module, started = program.module, time.monotonic()
    title = f"Building {program.name} {module.version}"
    unfinished = _cached(program).with_name(f".{program.name}")
    # A go.work of the user's must not take part.
    env = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    try:
        with long_step(title, program.cold * 2 / (os.cpu_count() or 1)) as tick:
            place = _workspace(module, folder, env)
            linked = " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in module.stamps)])
            flags = [
                "-mod=mod",
                "-trimpath",
                "-tags",
                program.tags,
                "-ldflags",
                linked,
                "-o",
                str(unfinished),
            ]
            command = ["go", "build", *flags, program.package]
            with running(command, log=place / "go.log", env=env, cwd=place, grace=0) as go:
                while go.status is None:
                    tick()
                    time.sleep(0.2)
                if go.status:
                    go.check()
        unfinished.replace(_cached(program))
    except (ProcessFailed, OSError) as failure:
        raise BinariesMissing(explain(program, str(failure))) from failure
    finally:
        unfinished.unlink(missing_ok=True)
    spent = duration(time.monotonic() - started)
    console.print(f"[green]✓[/] {title}  [dim]{spent}[/]")
    return Binary(program.name, module.version, _cached(program), f"built in {spent}")


def _workspace(module: Module, folder: Path, env: dict[str, str]) -> Path:
    """Return a folder whose go.mod asks for the module."""
    place = folder / module.path.replace("/", "-")
    if place.exists():
        return place
    place.mkdir()
    wanted = f"module build\n\ngo {GO}\n"
    (place / "go.mod").write_text(wanted, encoding="utf-8")
    fetch = ["go", "list", "-mod=mod", "-m", "-f", "{{.GoMod}}", f"{module.path}@{module.version}"]
    its_own = Path(output_of(fetch, env=env, cwd=place).strip()).read_text(encoding="utf-8")
    replaces = "".join(
        f"replace {staged} => {staged} v0{module.version.removeprefix('v1')}\n" for staged in staging(its_own)
    )
    wanted += f"\nrequire {module.path} {module.version}\n\n{replaces}"
    (place / "go.mod").write_text(wanted, encoding="utf-8")
    return place


def staging(go_mod: str) -> list[str]:
    """Return the modules that a go.mod requires as v0.0.0, which nobody published.

    Kubernetes replaces them by folders of its repository, which does not reach those who require it;
    for its v1.x.y the same code is published as their v0.x.y.
    """
    return re.findall(r"^\s+(k8s\.io/\S+) v0\.0\.0(?:\s|$)", go_mod, re.MULTILINE)


def explain(program: Program, said: str) -> str:
    """Return what to do about a build that failed, given what Go or the system said."""
    install = f"Install Go {GO} or later (https://go.dev/dl)"
    match said:
        case _ if "go cannot be run" in said:
            cure = f"Go is not on the PATH. {install}"
        case _ if re.search(r"requires go >= |requires Go 1|invalid go version", said):
            cure = f"This Go is too old. {install}"
        case _ if os.strerror(errno.ENOSPC).lower() in said.lower():
            cure = (
                "The disk is full. Make room, or have GOCACHE and GOMODCACHE (6 GB together) "
                "or XDG_CACHE_HOME (0.4 GB) elsewhere"
            )
        case _ if re.search(r"dial tcp|proxyconnect|i/o timeout|TLS handshake|lookup disabled", said):
            cure = "Go cannot fetch its modules. Check the network and what `go env GOPROXY` says"
        case _:
            cure = "Go cannot build it. Correct what it says below"
    cure += ", or set KUBEBUILDER_ASSETS to a folder that has the program."
    return f"{program.name} {program.module.version} is not there and cannot be built. {cure}\n{said}"


def main() -> int:
    """Make sure that all are there, and list them."""
    try:
        binaries = provide()
    except BinariesMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    for binary in binaries.values():
        console.print(f"{binary.name:<{_WIDTH}}  {binary.version:<8}  {binary.path}  ({binary.origin})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
