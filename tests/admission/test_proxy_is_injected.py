"""The proxy sidecar on a real API server, which must accept what is injected."""

import time
from typing import Any

import jsonpatch
import pytest

from testkit.processes import ProcessFailed
from testkit.workloads import CLIENT, LABELS, Namespace, env_of, pod
from workload_identity_operator import contract
from workload_identity_operator.identity import Identity
from workload_identity_operator.sidecar import Proxy, Sidecar
from workload_identity_operator.wiring import wire

TENANT = "99999999-8888-7777-6666-555555555555"
WANTED = {contract.INJECT_PROXY: "true"}


def init_containers(stored: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the init containers of a stored pod by their names, in their order."""
    return {container["name"]: container for container in stored["spec"].get("initContainers", ())}


def test_proxy_is_a_native_sidecar(inside: Namespace) -> None:
    """The API server, of 1.36, stores it ahead of all else, restartable, with its identity and its port."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    spec = {"initContainers": [{"name": "first", "image": "x"}], "securityContext": {"runAsUser": 0}}
    annotations = {**WANTED, contract.PROXY_PORT: "9000"}

    stored = inside.create(pod("web", "billing", metadata={"annotations": annotations}, spec=spec))

    found = init_containers(stored)
    assert [*found] == ["azwi-proxy", "azwi-proxy-init", "first"]
    proxy, redirect = found["azwi-proxy"], found["azwi-proxy-init"]
    assert proxy["restartPolicy"] == "Always"
    assert proxy["ports"] == [{"containerPort": 9000, "protocol": "TCP"}]
    assert proxy["securityContext"]["runAsUser"] == 1501
    assert redirect["securityContext"] == {
        "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        "runAsNonRoot": False,
        "runAsUser": 0,
    }
    assert env_of(stored, "azwi-proxy-init")["PROXY_PORT"] == "9000"
    for name in (*found, "app"):
        assert env_of(stored, name).items() >= {"AZURE_CLIENT_ID": CLIENT, "AZURE_TENANT_ID": TENANT}.items()


def test_pod_of_a_job_has_its_proxy(inside: Namespace) -> None:
    """The Job's controller makes the pod, and no ordinary container keeps it from its end."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    template = {
        "metadata": {"labels": {**LABELS, "app": "web"}, "annotations": WANTED},
        "spec": {
            "serviceAccountName": "billing",
            "restartPolicy": "Never",
            "containers": [{"name": "app", "image": "x"}],
        },
    }

    inside.create(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "web"}, "spec": {"template": template}}
    )

    (stored,) = eventually_pods(inside)
    assert [*init_containers(stored)] == ["azwi-proxy", "azwi-proxy-init"]
    assert [container["name"] for container in stored["spec"]["containers"]] == ["app"]


def eventually_pods(inside: Namespace) -> list[dict[str, Any]]:
    """Return the pods of the Job once there are any."""
    deadline = time.monotonic() + 20
    while True:
        found: list[dict[str, Any]] = inside.get("pods", "--selector=app=web")["items"]
        if found:
            return found
        assert time.monotonic() < deadline, "the Job has no pod"
        time.sleep(0.1)


def test_ordinary_proxy_is_accepted_too(inside: Namespace) -> None:
    """What is injected before 1.32 is a valid pod as well."""
    sidecar = Sidecar(Proxy("x", "x", ""), contract.DEFAULT_PROXY_PORT, native=False)
    identity = Identity(CLIENT, TENANT, "https://login.example/", "api://audience")
    unlabelled = pod("web", "default", metadata={"labels": {}})

    stored = inside.create(jsonpatch.apply_patch(unlabelled, wire(unlabelled, identity, sidecar).operations))

    assert [*init_containers(stored)] == ["azwi-proxy-init"]
    assert [container["name"] for container in stored["spec"]["containers"]] == ["azwi-proxy", "app"]


def test_namespace_of_a_pod_security_standard_refuses_the_redirect(inside: Namespace) -> None:
    """Its init container needs capabilities that even baseline withholds; Kubernetes says which."""
    inside.plane.kubectl("label", "namespace", inside.name, "pod-security.kubernetes.io/enforce=baseline")
    inside.account("billing", {contract.CLIENT_ID: CLIENT})

    with pytest.raises(ProcessFailed) as refused:
        inside.create(pod("web", "billing", metadata={"annotations": WANTED}))

    assert 'container "azwi-proxy-init" must not include "NET_ADMIN", "NET_RAW"' in str(refused.value)
    assert "privileged" not in str(refused.value)


def test_pod_with_its_proxy_can_be_pasted_into_a_new_one(inside: Namespace) -> None:
    """`kubectl get pod -o yaml`, rename, create: both are there already and are not injected again."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    asking = {"annotations": WANTED}
    first = inside.create(pod("first", "billing", metadata=asking))

    second = inside.create(pod("second", "billing", metadata=asking, spec=first["spec"]))

    assert init_containers(second) == init_containers(first)


@pytest.mark.parametrize(
    ("annotations", "spec", "said"),
    [
        ({}, {"hostNetwork": True}, "the pod has hostNetwork"),
        ({}, {"os": {"name": "windows"}}, "this is a Windows pod"),
        ({contract.PROXY_PORT: "70000"}, {}, "70000 is out of bounds; wanted 1 to 65535"),
        ({contract.PROXY_PORT: ""}, {}, '"": invalid syntax'),
    ],
)
def test_pod_in_which_the_proxy_cannot_run_is_refused(
    inside: Namespace, annotations: dict[str, str], spec: dict[str, Any], said: str
) -> None:
    """The person at kubectl reads the webhook's reason, not the API server's complaint about a field."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    wrong = pod(
        "web",
        "billing",
        metadata={"annotations": {**WANTED, **annotations}},
        spec=spec,
    )

    with pytest.raises(ProcessFailed) as refused:
        inside.create(wrong)

    assert 'admission webhook "mutation.azure-workload-identity.io" denied the request' in str(refused.value)
    assert said in str(refused.value)
