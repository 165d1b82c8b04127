"""What happens while the operator is away, and when it comes back."""

import socket
import sys
from pathlib import Path

import pytest

from testkit.control_plane import ControlPlane
from testkit.installation import NAMESPACE, RELEASE, free_port, install_chart, operator_running
from testkit.processes import ProcessFailed, finish
from testkit.workloads import CLIENT, LABELS, Namespace, env_of, fresh_namespace, pod
from workload_identity_operator import contract

TENANT = "99999999-8888-7777-6666-555555555555"


def replica_set() -> dict[str, object]:
    """Return a ReplicaSet of one labelled pod."""
    template = {
        "metadata": {"labels": {**LABELS, "app": "web"}},
        "spec": {"serviceAccountName": "billing", "containers": [{"name": "app", "image": "x"}]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"}, "spec": spec}


def pods_of(namespace: Namespace) -> list[dict[str, object]]:
    """Return the ReplicaSet's pods."""
    found: list[dict[str, object]] = namespace.get("pods", "--selector=app=web")["items"]
    return found


def test_no_labelled_pod_slips_through_while_the_operator_is_away() -> None:
    """Labelled pods are refused, others made; controllers retry, and a restarted operator wires them."""
    with ControlPlane(controllers=True) as plane, fresh_namespace(plane) as inside:
        port = free_port()
        install_chart(plane, port, {"azureTenantID": TENANT, "engine": "webhook"})
        inside.account("billing", {contract.CLIENT_ID: CLIENT})

        with pytest.raises(ProcessFailed, match=r"mutation\.azure-workload-identity\.io"):
            inside.create(pod("labelled", "billing"))
        inside.create(pod("plain", "billing", metadata={"labels": {}}))
        inside.create(replica_set())
        assert pods_of(inside) == []

        kubeconfig = plane.kubeconfig_for(RELEASE, NAMESPACE)
        for _ in range(2):  # as often as one likes: each start makes a new authority and publishes it
            start_and_wire(plane, port, kubeconfig, inside)


def start_and_wire(plane: ControlPlane, port: int, kubeconfig: Path, inside: Namespace) -> None:
    """Start the operator; the controller's pod, and one of ours, come to be and are wired."""
    environ = {"AZURE_TENANT_ID": TENANT}
    with operator_running(plane, port, environ=environ, kubeconfig=kubeconfig) as operator:
        operator.child.wait_until(lambda: bool(pods_of(inside)), within=60)
        (stored,) = pods_of(inside)
        assert env_of(stored)["AZURE_CLIENT_ID"] == CLIENT
        inside.create(pod("at-once", "billing"))
        inside.kubectl("delete", "pod", "at-once", "--force", "--grace-period=0")


def test_operator_waits_for_its_webhook_configuration(control_plane: ControlPlane) -> None:
    """Started before the chart is installed it says what is missing, and is not ready."""
    flags = ["--webhook-configuration=not-installed"]
    environ = {"AZURE_TENANT_ID": TENANT}
    with operator_running(control_plane, free_port(), environ=environ, flags=flags, ready=False) as operator:
        operator.child.wait_until(
            lambda: "not-installed is not there" in operator.child.last_words(), within=20
        )

        assert not operator.ready()
        assert "install the chart" in operator.child.last_words()


def test_operator_without_its_rights_is_not_ready(control_plane: ControlPlane, namespace: str) -> None:
    """Without its ClusterRole it says what is forbidden and goes on trying; it does not answer half-blind."""
    control_plane.kubectl("create", "serviceaccount", "nobody", f"--namespace={namespace}")
    kubeconfig = control_plane.kubeconfig_for("nobody", namespace)
    environ = {"AZURE_TENANT_ID": TENANT}
    with operator_running(
        control_plane, free_port(), environ=environ, kubeconfig=kubeconfig, ready=False
    ) as operator:
        operator.child.wait_until(lambda: "cannot list resource" in operator.child.last_words(), within=20)

        assert not operator.ready()


def test_cluster_without_any_account_is_served() -> None:
    """The API server lists none as null: the operator is ready all the same."""
    with ControlPlane() as plane:
        port = free_port()
        install_chart(plane, port, {"azureTenantID": TENANT, "engine": "webhook"})
        plane.kubectl("delete", "serviceaccounts", "--all", "--all-namespaces")
        with operator_running(plane, port, environ={"AZURE_TENANT_ID": TENANT}) as operator:
            assert operator.metric("workload_identity_identities") == 0


@pytest.mark.parametrize("flag", ["--listen", "--health-addr", "--metrics-addr"])
def test_taken_address_is_told_in_one_line(control_plane: ControlPlane, flag: str) -> None:
    """Nothing is started when someone else has one of the addresses: status 1, one line."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        free = dict.fromkeys(("--listen", "--health-addr", "--metrics-addr"), "127.0.0.1:0")
        addresses = [f"{name}={where}" for name, where in (free | {flag: f"127.0.0.1:{port}"}).items()]
        command = [sys.executable, "-m", "workload_identity_operator", "run", *addresses]
        env = control_plane.environment | {"AZURE_TENANT_ID": TENANT}

        ended = finish(command, env=env, timeout=30)

    assert ended.status == 1
    (line,) = ended.errors.splitlines()
    assert line.startswith(f"error: 127.0.0.1:{port} cannot be listened on: Address already in use")
