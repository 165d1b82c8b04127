"""The command lines and configuration of a node's programs, and of the control plane on it.

Addresses are the same on every node: each has a network of its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from testkit.components import kept_small
from testkit.pki import Party

NAME: Final = "node"
ADDRESS: Final = "10.88.0.1"
"""Of the node, on the bridge of its pods: their gateway and their name server."""
BITS: Final = 16
SERVICES: Final = "10.96.0.0/16"
KUBERNETES: Final = "10.96.0.1"
"""The first address of the Services, which is that of `kubernetes.default`."""
PORT: Final = 6443
DNS_READY_PORT: Final = 8181
ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
"""Pods find the issuer's documents there, with the certificate authority that each of them is given."""

PARTIES: Final = {
    "server": Party(
        (
            *("127.0.0.1", "localhost", ADDRESS, KUBERNETES, "kubernetes", "kubernetes.default"),
            *("kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
        )
    ),
    "admin": Party(("admin",), "admin", "system:masters"),
    "controllers": Party(("controllers",), "system:kube-controller-manager"),
    "scheduler": Party(("scheduler",), "system:kube-scheduler"),
    "proxy": Party(("proxy",), "system:kube-proxy"),
    "kubelet": Party(("kubelet",), f"system:node:{NAME}", "system:nodes"),
    "kubelet-server": Party((ADDRESS, NAME), f"system:node:{NAME}", "system:nodes"),
    # As whom the API server asks the kubelet for logs and to execute.
    "kubelet-client": Party(("kubelet-client",), "kubelet-client", "system:masters"),
}
CLIENTS: Final = ("admin", "controllers", "scheduler", "proxy", "kubelet")
"""Those of them that the node has a kubeconfig for, `kubeconfig-NAME`."""


def api_server(program: Path, folder: Path) -> list[str]:
    """Return how to run kube-apiserver for pods that run."""
    pki = folder / "pki"
    return [
        str(program),
        *kept_small(folder),
        # Loopback would not do: it becomes the endpoint of kubernetes.default.
        f"--advertise-address={ADDRESS}",
        f"--secure-port={PORT}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-jwks-uri={ISSUER}/openid/v1/jwks",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # A webhook is called at a pod's address, in turn, however the node rewrites Services.
        "--enable-aggregator-routing",
        # Otherwise the node's name is looked up for logs and exec, in vain.
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
    ]


def controller_manager(program: Path, folder: Path) -> list[str]:
    """Return how to run kube-controller-manager with all its controllers."""
    pki = folder / "pki"
    return [
        str(program),
        f"--kubeconfig={folder}/kubeconfig-controllers",
        "--secure-port=0",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki}/service-accounts.key",
        f"--root-ca-file={pki}/ca.crt",
        # At the defaults, its controllers' credentials alone take seconds.
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
        f"--flex-volume-plugin-dir={folder}/volume-plugins",
        "--profiling=false",
    ]


def scheduler(program: Path, folder: Path) -> list[str]:
    """Return how to run kube-scheduler."""
    kubeconfig = f"--kubeconfig={folder}/kubeconfig-scheduler"
    return [str(program), kubeconfig, "--leader-elect=false", "--secure-port=0"]


def containerd(folder: Path) -> list[str]:
    """Return how to run containerd."""
    return ["containerd", f"--config={folder}/containerd.toml"]


def containerd_socket(folder: Path) -> Path:
    """Return where that containerd is asked."""
    return folder / "containerd.sock"


def kubelet(program: Path, folder: Path, cgroup: str) -> list[str]:
    """Return how to run the kubelet."""
    return [
        str(program),
        f"--config={folder}/kubelet.json",
        f"--kubeconfig={folder}/kubeconfig-kubelet",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
        f"--runtime-cgroups=/{cgroup}",
    ]


def proxy(program: Path, folder: Path) -> list[str]:
    """Return how to run kube-proxy."""
    return [str(program), f"--config={folder}/kube-proxy.json"]


def dns(program: Path, folder: Path) -> list[str]:
    """Return how to run CoreDNS: on the node, so that no image has to be made of it."""
    return [str(program), "-conf", f"{folder}/Corefile"]


def write_configuration(folder: Path, cgroup: str, plugins: Path, snapshotter: str, pause: str) -> None:
    """Write what those programs are configured by into the node's folder.

    Args:
        folder: The node's own.
        cgroup: Below which its pods are.
        plugins: The folder of the CNI plugins.
        snapshotter: What containerd keeps images with.
        pause: The image that holds the namespaces of a pod.
    """
    _write_json(folder / "cni" / "10-bridge.conflist", _network())
    _write_json(folder / "kubelet.json", _kubelet(folder, cgroup))
    _write_json(folder / "kube-proxy.json", _proxy(folder))
    (folder / "Corefile").write_text(_corefile(folder), encoding="ascii")
    containerd = _containerd(folder, plugins, snapshotter, pause)
    (folder / "containerd.toml").write_text(containerd, encoding="ascii")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="ascii")


def _network() -> dict[str, Any]:
    pods = {"subnet": f"{ADDRESS.rpartition('.')[0]}.0/{BITS}", "gateway": ADDRESS}
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,  # a pod may reach itself through its own Service
        "ipam": {
            "type": "host-local",
            "dataDir": "/var/lib/cni/networks",
            "ranges": [[pods]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}


def _kubelet(folder: Path, cgroup: str) -> dict[str, Any]:
    pki = folder / "pki"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,  # since 1.35 a kubelet has to be told that version 1 is all there is
        "cgroupDriver": "cgroupfs",  # there need be no systemd; containerd before 2 cannot tell the kubelet
        "cgroupRoot": f"/{cgroup}",
        "enforceNodeAllocatable": ["pods"],
        "containerRuntimeEndpoint": f"unix://{containerd_socket(folder)}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-server.key",
        "failSwapOn": False,
        "resolvConf": "",  # the host's name servers are out of reach
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "podLogsDir": "/var/lib/kubelet/pod-logs",
        "volumePluginDir": f"{folder}/volume-plugins",
        # An image that was loaded cannot be pulled again, and how full the host's disk is, is not our matter.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "64Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "syncFrequency": "10s",  # a changed Secret reaches its pods so soon, not in a minute
        "kubeAPIQPS": 1000,
        "kubeAPIBurst": 2000,
    }


def _proxy(folder: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": f"{folder}/kubeconfig-proxy"},
        "hostnameOverride": NAME,
        "nodePortAddresses": [f"{ADDRESS}/32"],
        # Settings of the whole machine, or read-only in a network of one's own: leave them.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }


def _corefile(folder: Path) -> str:
    """Return what CoreDNS does: it knows the cluster's names, and that there are no others."""
    return f"""\
cluster.local:53 in-addr.arpa:53 {{
  bind {ADDRESS}
  errors
  ready 127.0.0.1:{DNS_READY_PORT}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {folder}/kubeconfig-admin
    ttl 1
  }}
}}
.:53 {{
  bind {ADDRESS}
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
"""


def _containerd(folder: Path, plugins: Path, snapshotter: str, pause: str) -> str:
    """Return its configuration: root, state and socket of its own, and no registry that is ever asked.

    restrict_oom_score_adj: without CAP_SYS_RESOURCE nobody may lower a score, a pod's has to be, and no pod
    would start.
    """
    unused = ["internal.v1.opt", "internal.v1.tracing", "tracing.processor.v1.otlp"]
    unused += [f"snapshotter.v1.{kind}" for kind in ("aufs", "btrfs", "devmapper", "zfs")]
    return f"""\
version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
disabled_plugins = {json.dumps([f"io.containerd.{name}" for name in unused])}
[grpc]
address = "{containerd_socket(folder)}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
restrict_oom_score_adj = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{folder}/runc"
"""
