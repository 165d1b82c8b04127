"""The command lines of the control plane's programs: cheap to run, quick to start, safe to throw away."""

from collections.abc import Sequence
from pathlib import Path

CONTROLLERS = (
    "clusterrole-aggregation-controller",  # without it the roles view, edit and admin are empty
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",  # evictions respect PodDisruptionBudgets
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",  # every pod mounts kube-root-ca.crt
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",  # type-checks the expressions of admission policies
)
"""What runs in kube-controller-manager; the rest needs nodes, volumes or a network, or nobody misses it."""

_ISSUER = "--service-account-issuer="  # the first one signs; the API server takes none twice


def etcd(program: Path, folder: Path) -> list[str]:
    """Return how to run etcd with data and sockets inside the folder.

    Sockets of the file system need no ports and keep other users of this machine out.
    """
    peer = f"unix://{folder}/etcd-peer.sock"
    return [
        str(program),
        f"--data-dir={folder}/etcd",
        "--name=throwaway",
        f"--listen-client-urls={etcd_url(folder)}",
        f"--advertise-client-urls={etcd_url(folder)}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=throwaway={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def etcd_url(folder: Path) -> str:
    """Return where that etcd is asked."""
    return f"unix://{folder}/etcd.sock"


def api_server(program: Path, folder: Path, port: int, extra: Sequence[str]) -> list[str]:
    """Return how to run kube-apiserver on a port that is reserved with SO_REUSEPORT."""
    server = f"https://127.0.0.1:{port}"
    return [
        str(program),
        *kept_small(folder),
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        "--permit-port-sharing",  # with the socket that reserves the port
        f"--service-account-issuer={issuer_among(extra) or server}",
        f"--service-account-jwks-uri={server}/openid/v1/jwks",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--authorization-mode=RBAC",
        "--endpoint-reconciler-type=none",  # a loopback address is no endpoint
        *(one for one in extra if one != f"{_ISSUER}{issuer_among(extra)}"),
    ]


def kept_small(folder: Path) -> list[str]:
    """Return what any kube-apiserver of ours is told: its store, its keys, and to take on what tests ask."""
    pki = folder / "pki"
    return [
        f"--etcd-servers={etcd_url(folder)}",
        f"--tls-cert-file={pki}/server.crt",
        f"--tls-private-key-file={pki}/server.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--service-account-key-file={pki}/service-accounts.key",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        "--allow-privileged",
        # Tests want answers, not fairness; the defaults would throttle the big ones.
        "--enable-priority-and-fairness=false",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
        "--profiling=false",
    ]


def issuer_among(arguments: Sequence[str]) -> str:
    """Return the first issuer that kube-apiserver's arguments name; "" when they name none."""
    return next((one.removeprefix(_ISSUER) for one in arguments if one.startswith(_ISSUER)), "")


def controller_manager(program: Path, folder: Path, kubeconfig: Path) -> list[str]:
    """Return how to run kube-controller-manager, without a port of its own."""
    pki = folder / "pki"
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--secure-port=0",
        "--leader-elect=false",
        "--use-service-account-credentials",  # pods are created by whom a cluster has them created
        f"--service-account-private-key-file={pki}/service-accounts.key",
        f"--root-ca-file={pki}/ca.crt",
        # The defaults, 20 and 30 a second, would make tests with many objects wait.
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
        "--profiling=false",
    ]
