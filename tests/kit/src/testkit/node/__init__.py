"""A Kubernetes node of our own, where pods run: containerd, kubelet, a network, and the control plane beside.

All of it is in namespaces of its own: network, mounts, host name, IPC and process ids. The host's are neither
used nor changed, and nothing reaches a network outside. The API server is reached from here through a port of
loopback, so that programs of this machine use the cluster like any other.
"""

import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final, Self

from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import NotFoundException

from testkit import components as control
from testkit.binaries import CONTROL_PLANE, NODE_PROGRAMS, Binary, provide
from testkit.control_plane import ControlPlane, answers_ready
from testkit.folders import throwaway_folder
from testkit.node import cgroups, components, pause, requirements
from testkit.node.cgroups import filesystem, swept
from testkit.pki import certificate, write_kubeconfig, write_pki
from testkit.processes import Child, finish, output_of, running

PROGRAMS: Final = (*CONTROL_PLANE, *NODE_PROGRAMS)
START_WITHIN: Final = 120
"""Seconds for each part; all together take seven on two cores with nothing else to do."""
BOX: Final = Path(__file__).with_name("box.py")
FORWARD: Final = Path(__file__).with_name("forward.py")
ENCLOSURE: Final = Path(control.__file__).with_name("enclosure.py")
OWN_FOLDERS: Final = {
    "run": "/run",
    "cni-state": "/var/lib/cni",
    "kubelet": "/var/lib/kubelet",
    "log": "/var/log/containers",
    "pods-log": "/var/log/pods",
}
"""Where its programs write wherever they are told to: folders of the node's own are found there."""


class NodeImpossible(RuntimeError):  # noqa: N818 - it reads as what is wrong
    """This machine cannot have a node; the message says in one line why."""


class Node:
    """A cluster of one node, ready for pods, from entering the context to leaving it.

    Any number can run side by side. Images are what `load` was given: there is no registry, and no name
    outside the cluster. Pods reach the API server, Services and each other as in any cluster.

    Attributes:
        folder: Its private folder: certificates, configuration, logs.
        plane: The cluster as a ControlPlane: kubectl, helm, clients, its issuer.
    """

    folder: Path
    plane: ControlPlane
    _kubelet: Child

    def __init__(self) -> None:
        """Prepare one; `with` starts it."""
        self._open = ExitStack()
        self._parts: list[Child] = []

    def __enter__(self) -> Self:
        if reason := requirements.lacking():
            raise NodeImpossible(reason)
        with ExitStack() as stack:
            self._start(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    # What callers do with it.

    def load(self, archive: Path) -> None:
        """Give the node the images of an OCI archive, under the names that the archive gives them."""
        output_of(self.importing(archive), env=requirements.environment())

    def importing(self, archive: Path | str) -> list[str]:
        """Return the command that does so."""
        return self._containerd("images", "import", f"--snapshotter={self._snapshotter}", str(archive))

    def memory_of(self, pod: str) -> int:
        """Return the bytes of memory that the processes of a pod, named by its uid, cannot be without."""
        return cgroups.own_memory(self.folder.name, pod)

    def kill(self, container: str) -> None:
        """End a container, named as in its pod's status, as the kernel would: SIGKILL."""
        name = container.removeprefix("containerd://")
        output_of(self._containerd("tasks", "kill", "--signal=SIGKILL", name), env=requirements.environment())

    def restart_kubelet(self) -> None:
        """End the kubelet and start another, to which pods' tokens are news: each is given a new one."""
        self._parts.remove(self._kubelet)
        self._kubelet.end(10)
        self._kubelet = self._run(self._open, self._kubelet_command)

    def inside(self, command: Sequence[str | Path], *, network: bool = False) -> list[str | Path]:
        """Return how to run a command in the node's namespaces, or in its network only."""
        if network:
            return ["nsenter", f"--net={self._namespace('net')}", "--", *command]
        kinds = ["--net", "--mount", "--uts", "--ipc", "--pid"]
        return ["nsenter", "--target", str(self._first), *kinds, "--", *command]

    # How it comes to be.

    def _start(self, stack: ExitStack) -> None:
        binaries = provide(PROGRAMS)
        self.folder = folder = stack.enter_context(throwaway_folder())
        cgroup = stack.enter_context(swept(folder))
        self._configure(cgroup)
        self._open_box(stack)

        containerd = self._run(stack, components.containerd(folder))
        self._start_control_plane(stack, binaries)
        kube_scheduler = components.scheduler(binaries["kube-scheduler"].path, folder)
        self._run(stack, kube_scheduler, network=True)
        dns = self._run(stack, components.dns(binaries["coredns"].path, folder), network=True)
        containerd.wait_until(self._containerd_answers, within=START_WITHIN)
        self.load(pause.archive())
        self._kubelet_command = components.kubelet(binaries["kubelet"].path, folder, cgroup)
        kubelet = self._kubelet = self._run(stack, self._kubelet_command)
        proxy = self._run(stack, components.proxy(binaries["kube-proxy"].path, folder))

        # Before that, pods are refused, wait, or find nobody.
        kubelet.wait_until(self._ready, within=START_WITHIN)
        kubelet.wait_until(self._has_default_account, within=START_WITHIN)
        kubernetes = partial(self._answers, f"https://{components.KUBERNETES}", "/readyz")
        proxy.wait_until(kubernetes, within=START_WITHIN)
        names = partial(self._answers, f"http://127.0.0.1:{components.DNS_READY_PORT}", "/ready")
        dns.wait_until(names, within=START_WITHIN)

    def _configure(self, cgroup: str) -> None:
        folder = self.folder
        write_pki(folder / "pki", components.PARTIES)
        server = f"https://{components.ADDRESS}:{components.PORT}"
        for client in components.CLIENTS:
            user = certificate(folder / "pki", client)
            write_kubeconfig(folder / f"kubeconfig-{client}", server, folder / "pki" / "ca.crt", user)
        # An overlay cannot be laid over an overlay, which a container's own disk is.
        self._snapshotter = "native" if filesystem(folder) == "overlayfs" else "overlayfs"
        plugins = requirements.plugins() or requirements.PLUGIN_FOLDERS[0]
        components.write_configuration(folder, cgroup, plugins, self._snapshotter, pause.NAME)

    def _open_box(self, stack: ExitStack) -> None:
        """Make the namespaces, and their first process."""
        folder = self.folder
        pairs: list[str] = []
        for name, path in OWN_FOLDERS.items():
            (folder / name).mkdir()
            pairs += [str(folder / name), path]
        unshare = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        address = f"{components.ADDRESS}/{components.BITS}"
        command = [
            *(*unshare, "--mount-proc"),
            *(sys.executable, "-I", "-S", str(ENCLOSURE), *pairs, "--"),
            *(sys.executable, "-I", "-S", str(BOX), str(folder), components.NAME, address),
            components.SERVICES,
        ]
        log = folder / "box.log"
        box = stack.enter_context(running(command, log=log, env=requirements.environment(), grace=0))
        self._parts.append(box)
        box.wait_until(lambda: log.read_text().endswith("ready\n"), within=START_WITHIN)
        children = Path(f"/proc/{box.pid}/task/{box.pid}/children").read_text(encoding="ascii")
        self._first = int(children.split()[0])

    def _start_control_plane(self, stack: ExitStack, binaries: Mapping[str, Binary]) -> None:
        folder, pki = self.folder, self.folder / "pki"
        self._run(stack, control.etcd(binaries["etcd"].path, folder), network=True)
        command = components.api_server(binaries["kube-apiserver"].path, folder)
        api_server = self._run(stack, command, network=True)
        port = self._forward(stack)
        tls = ssl.create_default_context(cafile=pki / "ca.crt")
        tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        # Its clients start only then: one that is refused waits for seconds before it tries again.
        api_server.wait_until(partial(answers_ready, port, tls), within=START_WITHIN)
        command = components.controller_manager(binaries["kube-controller-manager"].path, folder)
        self._run(stack, command, network=True)
        self.plane = self._join(stack, port)

    def _forward(self, stack: ExitStack) -> int:
        """Have a port of this machine's loopback lead to the API server, and return it."""
        onward = [self._namespace("net"), components.ADDRESS, str(components.PORT)]
        log = self.folder / "forward.log"
        command = [sys.executable, "-I", "-S", str(FORWARD), *onward]
        forward = stack.enter_context(running(command, log=log, cwd=self.folder, grace=0, name="forward"))
        self._parts.append(forward)
        forward.wait_until(lambda: log.read_text().endswith("\n"), within=START_WITHIN)
        return int(log.read_text())

    def _join(self, stack: ExitStack, port: int) -> ControlPlane:
        """Return the cluster as programs of this machine see it."""
        pki, kubeconfig = self.folder / "pki", self.folder / "kubeconfig"
        write_kubeconfig(kubeconfig, f"https://127.0.0.1:{port}", pki / "ca.crt", certificate(pki, "admin"))
        plane = stack.enter_context(ControlPlane(kubeconfig=kubeconfig, parts=self._parts))
        plane.publish_discovery()
        return plane

    def _run(self, stack: ExitStack, command: Sequence[str], *, network: bool = False) -> Child:
        name = Path(command[0]).name
        child = stack.enter_context(
            running(
                self.inside(command, network=network),
                log=self.folder / f"{name}.log",
                env=requirements.environment(),
                cwd=self.folder,
                grace=0,
                name=name,
            )
        )
        self._parts.append(child)
        return child

    def _namespace(self, kind: str) -> str:
        return f"/proc/{self._first}/ns/{kind}"

    def _containerd(self, *args: str) -> list[str]:
        return ["ctr", f"--address={components.containerd_socket(self.folder)}", "--namespace=k8s.io", *args]

    def _containerd_answers(self) -> bool:
        return not finish(self._containerd("version"), env=requirements.environment()).status

    def _ready(self) -> bool:
        nodes = self.plane.get("nodes")["items"]
        states = [state for node in nodes for state in node["status"].get("conditions", ())]
        return any((state["type"], state["status"]) == ("Ready", "True") for state in states)

    def _has_default_account(self) -> bool:
        with suppress(NotFoundException):
            CoreV1Api(self.plane.client()).read_namespaced_service_account("default", "default")
            return True
        return False

    def _answers(self, server: str, path: str) -> bool:
        """Whether an address in the node's network says that it is ready."""
        kubectl = [str(self.plane.folder / "bin" / "kubectl"), f"--kubeconfig={self.folder}/kubeconfig-admin"]
        asked = [f"--server={server}", "--request-timeout=1s", "get", "--raw", path]
        return not finish(self.inside([*kubectl, *asked], network=True)).status
