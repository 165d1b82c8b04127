"""Beside Azure/azure-workload-identity: labelled pods are its, and ours again when it goes.

But for the last test, its configuration is there and nobody answers behind it: it is set to Ignore, so what
the API server's policy leaves alone is our webhook's. The last one runs its own program, where PEER_WEBHOOK
names it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException

from testkit.bench.peer import PORT, named, peer_running
from testkit.binaries import provide
from testkit.control_plane import ControlPlane
from testkit.installation import (
    NAMESPACE,
    RELEASE,
    Served,
    free_port,
    install_chart,
    operator_running,
    second_running,
    serve,
)
from testkit.neighbours import installed, peer_configuration
from testkit.processes import ProcessFailed
from testkit.workloads import CLIENT, Namespace, env_of, eventually, fresh_namespace, pod
from workload_identity_operator import contract
from workload_identity_operator.releases import peer_among

TENANT = "99999999-8888-7777-6666-555555555555"
VALUES = {"azureTenantID": TENANT, "engine": "auto"}
BINDING = ("mutatingadmissionpolicybinding", RELEASE)
PEER = contract.PEER_CONFIGURATION
STAND_IN = peer_configuration(PEER, 1, failurePolicy="Ignore")
KIND = "MutatingAdmissionPolicyBinding"
REPAIRED = f'workload_identity_policy_repairs_total{{object="{KIND}"}}'
AS_DECLARED = f'workload_identity_policy_state{{object="{KIND}",state="declared"}}'
UNLABELLED = {"labels": {"app": "web"}}
HANDED_OFF, TAKEN_OVER = "LabelledPodsHandedOff", "LabelledPodsTakenOver"


@pytest.fixture(scope="module")
def served(pytestconfig: pytest.Config) -> Iterator[Served]:
    """A cluster whose API server wires pods, and the operator."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    with ControlPlane() as plane, serve(plane, VALUES) as found:
        yield found


@pytest.fixture
def inside(served: Served) -> Iterator[Namespace]:
    """A namespace with a ServiceAccount whose pods the policy wires, labelled or not."""
    with fresh_namespace(served.plane) as namespace:
        known(namespace)
        yield namespace


def known(inside: Namespace) -> None:
    """Annotate a ServiceAccount and wait until the policy wires its unlabelled pods."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    eventually(lambda: by_policy(inside, metadata=UNLABELLED))


def look(inside: Namespace, **parts: Any) -> dict[str, Any]:
    """Return a labelled pod, or one with other metadata, as it would be stored."""
    return inside.create(pod("web", "billing", **parts), "--dry-run=server")


def ours(stored: Mapping[str, Any]) -> list[str]:
    """Return the names of the pod's volumes that carry the token."""
    names = (volume["name"] for volume in stored["spec"].get("volumes") or ())
    return [name for name in names if name.startswith(contract.VOLUME_PREFIX)]


def by_policy(inside: Namespace, **parts: Any) -> bool:
    """Whether the policy would wire a pod."""
    return ours(look(inside, **parts)) == [contract.POLICY_VOLUME]


def left_to(plane: ControlPlane) -> str:
    """Return whose the binding says that labelled pods are; "" when they are ours."""
    binding = plane.get(*BINDING)
    annotations = binding["metadata"].get("annotations", {})
    selector = binding["spec"].get("matchResources", {}).get("objectSelector", {})
    assert bool(selector) is (contract.LEFT_TO in annotations)
    return str(annotations.get(contract.LEFT_TO, ""))


def told(plane: ControlPlane, reason: str) -> int:
    """Return how many Events of a reason `kubectl describe` shows of the binding."""
    return plane.kubectl("describe", *BINDING).count(reason)


# Who is the peer.


def configuration(name: str, webhook: str = "x.example.com", chart: str = "") -> dict[str, Any]:
    """Return a configuration with one webhook."""
    labels = {"labels": {"helm.sh/chart": chart}} if chart else {}
    return {"metadata": {"name": name, **labels}, "webhooks": [{"name": webhook}]}


@pytest.mark.parametrize(
    ("found", "peer"),
    [
        (configuration(PEER), PEER),
        (configuration("renamed", contract.WEBHOOK_NAME), "renamed"),
        (configuration("ours", contract.WEBHOOK_NAME), ""),
        (configuration("b-ours", contract.WEBHOOK_NAME, "workload-identity-operator-0.1.0"), ""),
        (configuration("theirs", contract.WEBHOOK_NAME, "workload-identity-webhook-1.6.0"), "theirs"),
        (configuration("another"), ""),
        ({"metadata": {"name": PEER}}, PEER),
        ({"metadata": {"name": "empty", "labels": None}, "webhooks": None}, ""),
    ],
)
def test_who_is_the_peer(found: dict[str, Any], peer: str) -> None:
    """By the name of its configuration or of its webhook; neither ours nor another release of our chart."""
    assert peer_among({found["metadata"]["name"]: found}, "ours") == peer


# It comes and goes.


def test_labelled_pods_are_handed_off_and_taken_over(served: Served, inside: Namespace) -> None:
    """The policy leaves them while its configuration is there; unlabelled ones it wires all along."""
    plane, log = served.plane, served.operator.child.log
    before = told(plane, HANDED_OFF), told(plane, TAKEN_OVER)
    assert by_policy(inside)
    with installed(plane, STAND_IN):
        eventually(lambda: not by_policy(inside))
        stored = look(inside)
        assert left_to(plane) == PEER
        assert len(ours(stored)) == 1
        assert env_of(stored)["AZURE_CLIENT_ID"] == CLIENT
        assert by_policy(inside, metadata=UNLABELLED)
        assert served.operator.metric("workload_identity_peer_present") == 1
        eventually(lambda: told(plane, HANDED_OFF) == before[0] + 1)

    eventually(lambda: by_policy(inside))
    assert left_to(plane) == ""
    assert served.operator.metric("workload_identity_peer_present") == 0
    eventually(lambda: told(plane, TAKEN_OVER) == before[1] + 1)
    assert f"are left to Azure/azure-workload-identity: found {PEER}" in log.read_text()
    assert "labelled pods are ours: Azure/azure-workload-identity is gone" in log.read_text()


def test_renamed_configuration_counts(served: Served, inside: Namespace) -> None:
    """Its webhook has the name that it always has."""
    with installed(served.plane, peer_configuration("renamed", 1, failurePolicy="Ignore")):
        eventually(lambda: left_to(served.plane) == "renamed")
    eventually(lambda: by_policy(inside))


@pytest.mark.parametrize("how", ["--server-side=true", "--server-side=false"])
def test_upgrades_leave_the_hand_off_alone(how: str) -> None:
    """Neither way of helm to write takes back what the operator wrote, nor meets a conflict."""
    with ControlPlane() as plane, installed(plane, STAND_IN):
        with serve(plane, VALUES) as found:
            eventually(lambda: left_to(plane) == PEER)

        install_chart(plane, found.port, {**VALUES, "commonLabels": {"changed": "yes"}}, how)

        assert plane.get(*BINDING)["metadata"]["labels"]["changed"] == "yes"
        assert left_to(plane) == PEER


def test_edit_by_hand_is_put_right(served: Served) -> None:
    """Whoever takes the hand-off away finds it there again; it is no second hand-off."""
    plane = served.plane
    with installed(plane, STAND_IN):
        eventually(lambda: left_to(plane) == PEER)
        eventually(lambda: told(plane, HANDED_OFF))
        before = told(plane, HANDED_OFF)
        patch = [{"op": "remove", "path": "/spec/matchResources"}]
        plane.kubectl("patch", *BINDING, "--type=json", f"--patch={json.dumps(patch)}")
        selector = "--output=jsonpath={.spec.matchResources.objectSelector.matchExpressions}"
        eventually(lambda: plane.kubectl("get", *BINDING, selector))
        places = {"matchLabels": {"kubernetes.io/metadata.name": "nowhere"}}
        merge = json.dumps({"spec": {"matchResources": {"namespaceSelector": places}}})
        plane.kubectl("patch", *BINDING, "--type=merge", f"--patch={merge}")
        eventually(lambda: "nowhere" not in plane.kubectl("get", *BINDING, "--output=yaml"))
        eventually(lambda: plane.kubectl("get", *BINDING, selector))
        assert told(plane, HANDED_OFF) == before
    eventually(lambda: left_to(plane) == "")


@pytest.mark.parametrize("how", ["--server-side=true", "--server-side=false"])
def test_deleted_binding_comes_back_handed_off(how: str) -> None:
    """From its first instant, so the policy gets no labelled pod; the hand-off is no edit, nor helm's."""
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane())
        inside = stack.enter_context(fresh_namespace(plane))
        stack.enter_context(installed(plane, STAND_IN))
        port = free_port()
        install_chart(plane, port, VALUES, how)
        kubeconfig, environ = plane.kubeconfig_for(RELEASE, NAMESPACE), {"AZURE_TENANT_ID": TENANT}
        operator = stack.enter_context(operator_running(plane, port, environ=environ, kubeconfig=kubeconfig))
        known(inside)
        eventually(lambda: not by_policy(inside))
        eventually(lambda: operator.metric(AS_DECLARED) == 1)
        before = plane.get(*BINDING)

        plane.kubectl("delete", *BINDING)
        eventually(lambda: operator.metric(REPAIRED) == 1)
        eventually(lambda: by_policy(inside, metadata=UNLABELLED))
        eventually(lambda: operator.metric(AS_DECLARED) == 1)

        assert not by_policy(inside)
        versions = stored_since(plane, before["metadata"]["resourceVersion"])
        assert versions
        assert before["metadata"]["uid"] not in {one["metadata"]["uid"] for one in versions}
        for one in versions:
            assert one["spec"] == before["spec"]
            assert one["metadata"]["annotations"][contract.LEFT_TO] == PEER
        assert operator.metric(REPAIRED) == 1
        eventually(lambda: told(plane, "Recreated"))
        assert told(plane, HANDED_OFF) == 0

        install_chart(plane, port, {**VALUES, "commonLabels": {"changed": "yes"}}, how)
        assert plane.get(*BINDING)["metadata"]["labels"]["changed"] == "yes"
        assert left_to(plane) == PEER
        plane.kubectl("delete", "mutatingwebhookconfiguration", PEER)
        eventually(lambda: by_policy(inside))
        assert left_to(plane) == ""


def stored_since(plane: ControlPlane, version: str) -> list[dict[str, Any]]:
    """Return the binding as each write after that version left it."""
    path = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings"
    query = f"watch=true&resourceVersion={version}&fieldSelector=metadata.name={RELEASE}&timeoutSeconds=2"
    lines = plane.kubectl("get", f"--raw={path}?{query}").splitlines()
    return [one["object"] for one in map(json.loads, lines) if one["type"] != "DELETED"]


def test_replicas_tell_once(served: Served) -> None:
    """Both see to it, the one whose write counts tells of it."""
    plane = served.plane
    before = told(plane, HANDED_OFF), told(plane, TAKEN_OVER)
    with second_running(served) as second:
        with installed(plane, STAND_IN):
            eventually(lambda: second.metric("workload_identity_peer_present") == 1)
            eventually(lambda: left_to(plane) == PEER)
        eventually(lambda: second.metric("workload_identity_peer_present") == 0)
        eventually(lambda: left_to(plane) == "")
        eventually(lambda: told(plane, TAKEN_OVER) > before[1])

    assert (told(plane, HANDED_OFF), told(plane, TAKEN_OVER)) == (before[0] + 1, before[1] + 1)


# It was there first, or came and went while we were away.


def test_install_beside_it_touches_no_labelled_pod() -> None:
    """API servers leave labelled pods alone before there is anything that the policy could wire from."""
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane())
        inside = stack.enter_context(fresh_namespace(plane))
        stack.enter_context(installed(plane, STAND_IN))
        inside.account("billing", {contract.CLIENT_ID: CLIENT})
        port = free_port()
        install_chart(plane, port, VALUES)
        with table_by_hand(inside):
            eventually(
                lambda: labelled(inside) == [contract.POLICY_VOLUME]
            )  # it is in force, and not settled
        eventually(lambda: labelled(inside) != [contract.POLICY_VOLUME])
        kubeconfig, environ = plane.kubeconfig_for(RELEASE, NAMESPACE), {"AZURE_TENANT_ID": TENANT}
        running = operator_running(plane, port, environ=environ, kubeconfig=kubeconfig, ready=False)
        stack.enter_context(running)

        client: Any = plane.client()  # kubectl would be too slow to see it
        create: Any = CoreV1Api(client).create_namespaced_pod

        def at_once(**parts: Any) -> list[str]:
            with suppress(ApiException):
                stored = create(inside.name, pod("web", "billing", **parts), dry_run="All")
                return ours(client.sanitize_for_serialization(stored))
            return []

        while at_once(metadata=UNLABELLED) != [contract.POLICY_VOLUME]:
            assert at_once() != [contract.POLICY_VOLUME]
        for _ in range(100):
            assert at_once() != [contract.POLICY_VOLUME]
        assert left_to(plane) == PEER


@contextmanager
def table_by_hand(inside: Namespace) -> Iterator[None]:
    """Have what the policy wires from in a namespace meanwhile."""
    identities = {"billing": {"clientID": CLIENT, "expirationSeconds": 3600}}
    audience = "api://AzureADTokenExchange"  # with another one the pod would be the webhook's
    spec = {"tenantID": "t", "authorityHost": "h", "audience": audience, "identities": identities}
    kind = {"apiVersion": contract.POD_WIRING_API, "kind": "PodWiring"}
    inside.create({**kind, "metadata": {"name": contract.POD_WIRING_NAME}, "spec": spec})
    yield
    inside.kubectl("delete", "pw", contract.POD_WIRING_NAME)


def labelled(inside: Namespace) -> list[str]:
    """Return what volumes of ours a labelled pod would have; none while nobody answers for it."""
    try:
        return ours(look(inside))
    except ProcessFailed:
        return []


def test_restarts_in_both_states() -> None:
    """It came, or went, while no operator ran: the one that starts puts it right; else it writes nothing."""
    with ControlPlane() as plane, fresh_namespace(plane) as inside:
        port = free_port()
        install_chart(plane, port, VALUES)
        kubeconfig, environ = plane.kubeconfig_for(RELEASE, NAMESPACE), {"AZURE_TENANT_ID": TENANT}

        def start() -> Any:
            return operator_running(plane, port, environ=environ, kubeconfig=kubeconfig)

        with start():
            known(inside)
        with installed(plane, STAND_IN):
            with start():
                eventually(lambda: left_to(plane) == PEER)
                eventually(lambda: not by_policy(inside))
            version = plane.get(*BINDING)["metadata"]["resourceVersion"]
            with start() as again:
                again.child.wait_until(lambda: "PodWirings are kept" in again.child.last_words(), within=20)
                assert not by_policy(inside)
            assert plane.get(*BINDING)["metadata"]["resourceVersion"] == version
        with start():
            eventually(lambda: by_policy(inside))
            assert left_to(plane) == ""
            assert (told(plane, HANDED_OFF), told(plane, TAKEN_OVER)) == (1, 1)


def test_policy_turned_on_beside_it() -> None:
    """The binding that an upgrade brings leaves labelled pods out a moment later."""
    with ControlPlane() as plane, installed(plane, STAND_IN):
        values = {**VALUES, "engine": "webhook"}
        with serve(plane, values) as found, fresh_namespace(plane) as inside:
            inside.account("billing", {contract.CLIENT_ID: CLIENT})
            assert found.operator.metric("workload_identity_peer_present") == 1
            assert len(ours(look(inside))) == 1

            install_chart(plane, found.port, VALUES)

            eventually(lambda: left_to(plane) == PEER)
            eventually(lambda: by_policy(inside, metadata=UNLABELLED))
            eventually(lambda: not by_policy(inside))


# The peer itself.


@pytest.mark.skipif(not named(), reason="PEER_WEBHOOK names no binary of the peer")
def test_its_own_program_wires_labelled_pods_until_it_goes() -> None:
    """A pod is stored with one volume: the peer's, as long as it is there, then the policy's."""
    binary = named()
    assert binary
    with ControlPlane() as plane, serve(plane, VALUES), fresh_namespace(plane) as inside:
        known(inside)
        with peer_running(binary, plane, TENANT) as peer:
            with installed(plane, peer_configuration(PEER, PORT, peer.ca)):
                eventually(lambda: labelled(inside) not in ([], [contract.POLICY_VOLUME]))
                stored = inside.create(pod("theirs", "billing"))
                assert len(ours(stored)) == 1
                assert ours(stored) != [contract.POLICY_VOLUME]
                assert env_of(stored)["AZURE_CLIENT_ID"] == CLIENT
                assert by_policy(inside, metadata=UNLABELLED)
            eventually(lambda: labelled(inside) == [contract.POLICY_VOLUME])
        assert ours(inside.create(pod("ours", "billing"))) == [contract.POLICY_VOLUME]
