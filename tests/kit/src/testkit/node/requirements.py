"""What a machine must have for a node: told in one line where it has not, installed where we may."""

import os
import shutil
from pathlib import Path
from typing import Final

from testkit.console import step
from testkit.node.cgroups import hierarchies
from testkit.processes import ProcessFailed, finish, output_of

PACKAGES: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "hostname": "hostname",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
"""The programs, and the Debian package that has each."""
PLUGINS: Final = ("bridge", "host-local", "loopback")
PLUGIN_PACKAGE: Final = "containernetworking-plugins"
PLUGIN_FOLDERS: Final = tuple(map(Path, ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")))
"""Where Debian, kubeadm and Fedora have them."""
PROBE: Final = (
    "mount -t tmpfs probe /proc/fs && ip link add probe type bridge && nft add table ip probe"
    " && ip route add unreachable default"
)
"""What a node does in its namespaces, in short; /proc/fs is a folder that every kernel has."""


def lacking() -> str | None:
    """Return in one line why no node can run here; None when one can."""
    if os.geteuid():
        return "A node needs root: namespaces, mounts and cgroups are its work."
    if packages := missing():
        return f"A node needs Debian's {' '.join(packages)}: `make setup` as root, or apt-get install them."
    for root in hierarchies():
        if not os.access(root, os.W_OK):
            return f"A node needs cgroups of its own: {root} cannot be written to."
    command = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"]
    probe = finish([*command, "sh", "-c", PROBE], env=environment())
    if probe.status:
        said = " ".join(probe.errors.split())
        return f"A node needs namespaces, bridges and nftables, which are refused here: {said}"
    return None


def missing() -> list[str]:
    """Return the Debian packages that are to be installed, sorted."""
    path = environment()["PATH"]
    packages = {package for program, package in PACKAGES.items() if not shutil.which(program, path=path)}
    return sorted(packages if plugins() else packages | {PLUGIN_PACKAGE})


def plugins() -> Path | None:
    """Return the folder that has the CNI plugins, if there is one."""
    having = (folder for folder in PLUGIN_FOLDERS if all((folder / name).exists() for name in PLUGINS))
    return next(having, None)


def environment() -> dict[str, str]:
    """Return our environment with the folders of the administrator's programs on the PATH."""
    path = os.environ.get("PATH", os.defpath)
    return os.environ | {"PATH": os.pathsep.join([path, "/usr/sbin", "/sbin"]), "LC_ALL": "C"}


def install() -> None:
    """Install the packages that are missing, where we are root and there is an apt-get.

    Raises:
        StepFailed: apt-get failed; its words were shown.
    """
    if os.geteuid() or not shutil.which("apt-get") or not (packages := missing()):
        return
    with step(f"apt-get install {' '.join(packages)}") as taken:
        env = environment() | {"DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        try:
            output_of(command, env=env)
        except ProcessFailed:
            # Its lists are old, or there are none.
            output_of(["apt-get", "update"], env=env)
            output_of(command, env=env)
        taken.detail = "for pods that run: a node of our own"
