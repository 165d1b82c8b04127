"""What somebody deletes or edits of the policy is noticed, told and put right; pods are wired all along."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

import kubernetes.client
import pytest

from testkit.control_plane import ControlPlane
from testkit.installation import NAMESPACE, RELEASE, Served, install_chart, second_running
from testkit.processes import ProcessFailed
from testkit.workloads import CLIENT, Namespace, env_of, eventually, pod
from workload_identity_operator import contract

POLICY = "mutatingadmissionpolicy"
BINDING = "mutatingadmissionpolicybinding"
CRD = "podwirings.workload-identity.io"
KINDS = {
    POLICY: "MutatingAdmissionPolicy",
    BINDING: "MutatingAdmissionPolicyBinding",
    "crd": "CustomResourceDefinition",
}
WIRED = {
    "AZURE_CLIENT_ID": CLIENT,
    "AZURE_TENANT_ID": "99999999-8888-7777-6666-555555555555",
    "AZURE_FEDERATED_TOKEN_FILE": contract.TOKEN_FILE,
    "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
}


def look(inside: Namespace) -> dict[str, Any]:
    """Return a labelled pod as it would be stored."""
    return inside.create(pod("web", "billing"), "--dry-run=server")


def by_policy(stored: Mapping[str, Any]) -> bool:
    """Whether the API server itself wired a pod."""
    return contract.POLICY_VOLUME in {volume["name"] for volume in stored["spec"].get("volumes") or ()}


def audiences(pods: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the audiences of all tokens of ours in stored pods."""
    volumes = [
        volume
        for one in pods
        for volume in one["spec"]["volumes"]
        if volume["name"].startswith(contract.VOLUME_PREFIX)
    ]
    return {
        source["serviceAccountToken"]["audience"]
        for volume in volumes
        for source in volume["projected"]["sources"]
    }


def found(plane: ControlPlane, kind: str, name: str = RELEASE) -> dict[str, Any] | None:
    """Return an object; None when it is not there."""
    (one,) = plane.get(kind, f"--field-selector=metadata.name={name}")["items"] or (None,)
    return dict(one) if one else None


def told(served: Served, kind: str, name: str = RELEASE) -> set[str]:
    """Return the reasons of the Events about an object."""
    events = served.plane.get("events", "--namespace=default")["items"]
    return {
        one["reason"]
        for one in events
        if (one["involvedObject"]["kind"], one["involvedObject"]["name"]) == (KINDS[kind], name)
    }


def repairs(served: Served, kind: str) -> float:
    """Return how often the operator put an object of a kind right."""
    return served.operator.metric(f'workload_identity_policy_repairs_total{{object="{KINDS[kind]}"}}')


def state(served: Served, kind: str, state: str = "declared") -> bool:
    """Whether the operator's metrics tell that an object of a kind is in a state."""
    return (
        served.operator.metric(f'workload_identity_policy_state{{object="{KINDS[kind]}",state="{state}"}}')
        == 1
    )


def known(inside: Namespace) -> None:
    """Annotate a ServiceAccount and wait until the API server wires its pods."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    eventually(lambda: by_policy(look(inside)))


@contextmanager
def pods_all_along(inside: Namespace) -> Iterator[list[dict[str, Any]]]:
    """Create labelled pods without pause meanwhile; the list has them afterwards, as stored."""
    core: Any = kubernetes.client.CoreV1Api(inside.plane.client())
    over, stored = Event(), list[dict[str, Any]]()

    def create() -> None:
        number = 0
        while not over.is_set():
            core.create_namespaced_pod(inside.name, pod(f"pod-{number}", "billing"))
            number += 1
            time.sleep(0.02)

    with ThreadPoolExecutor(1) as somebody:
        creating = somebody.submit(create)
        try:
            yield stored
        finally:
            over.set()
        creating.result()
    stored += inside.get("pods")["items"]


def wrong_audience(policy: dict[str, Any]) -> None:
    """Have the policy ask for tokens that nobody trusts."""
    (mutation,) = policy["spec"]["mutations"]
    changed = mutation["jsonPatch"]["expression"].replace("params.spec.audience", '"api://wrong"')
    mutation["jsonPatch"]["expression"] = changed


def added_condition(policy: dict[str, Any]) -> None:
    """Add what the chart does not mention, so that applying it does not take it away."""
    policy["spec"]["matchConditions"].append({"name": "never", "expression": "false"})


def broken(policy: dict[str, Any]) -> None:
    """Have the policy fail, in a way that the API server finds out with the first pod only."""
    policy["spec"]["matchConditions"][0]["expression"] = 'params.spec.identities["nobody"].clientID == ""'


def other_parameter(binding: dict[str, Any]) -> None:
    """Have the policy read what is not there, by a field that applying ours does not take away."""
    binding["spec"]["paramRef"] = {"name": "another", "parameterNotFoundAction": "Allow"}


def other_namespaces(binding: dict[str, Any]) -> None:
    """Have the policy see no pods but those of a namespace that is not there."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "nowhere"}}
    binding["spec"]["matchResources"] = {"namespaceSelector": selector}


def edit(plane: ControlPlane, kind: str, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Change an object as somebody at kubectl does; return it as it was."""
    before = found(plane, kind)
    assert before is not None
    after = json.loads(json.dumps(before))
    change(after)
    plane.kubectl("replace", "--filename=-", given=json.dumps(after))
    return before


@pytest.mark.parametrize("kind", [POLICY, BINDING])
def test_deleted(served: Served, inside: Namespace, kind: str) -> None:
    """It is there again in a moment; until then, and then, each pod has its identity."""
    known(inside)
    eventually(lambda: state(served, kind))
    before = found(served.plane, kind)
    assert before is not None

    with pods_all_along(inside) as pods:
        served.plane.kubectl("delete", kind, RELEASE)
        after = eventually(lambda: found(served.plane, kind))
        eventually(lambda: by_policy(look(inside)))
        eventually(lambda: state(served, kind))

    assert after["spec"] == before["spec"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert repairs(served, kind) == 1
    assert told(served, kind) >= {"Recreated"}
    assert f"{KINDS[kind]} {RELEASE} was deleted: put right" in served.operator.child.log.read_text()
    assert {tuple(sorted(env_of(one).items())) for one in pods} == {tuple(sorted(WIRED.items()))}
    assert {by_policy(one) for one in pods} == {True, False}


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        (POLICY, wrong_audience, "mutations"),
        (POLICY, added_condition, "matchConditions"),
        (POLICY, broken, "matchConditions"),
        (BINDING, other_parameter, "paramRef"),
        (BINDING, other_namespaces, "matchResources"),
    ],
    ids=["audience", "addition", "failure", "parameter", "namespaces"],
)
def test_edited(
    served: Served, inside: Namespace, kind: str, change: Callable[[dict[str, Any]], None], field: str
) -> None:
    """It is as declared in a moment, which the log and an Event tell; each pod has a token for Azure."""
    known(inside)
    eventually(lambda: state(served, kind))

    with pods_all_along(inside) as pods:
        before = edit(served.plane, kind, change)
        eventually(lambda: (one := found(served.plane, kind)) and one["spec"] == before["spec"])
        eventually(lambda: by_policy(look(inside)) and state(served, kind))

    assert repairs(served, kind) == 1
    assert told(served, kind) >= {"Reverted"}
    log = served.operator.child.log.read_text()
    assert f"{KINDS[kind]} {RELEASE} was edited by kubectl-replace in spec.{field}: put right" in log
    assert audiences(pods) == {"api://AzureADTokenExchange"}
    assert {tuple(sorted(env_of(one).items())) for one in pods} == {tuple(sorted(WIRED.items()))}


def test_left_alone(served: Served, inside: Namespace) -> None:
    """What others note beside the spec is no edit, and outlives the repair of one."""
    known(inside)

    served.plane.kubectl("annotate", BINDING, RELEASE, "note=mine")
    edit(served.plane, POLICY, wrong_audience)
    eventually(lambda: repairs(served, POLICY) == 1)

    binding = found(served.plane, BINDING)
    assert binding is not None
    assert binding["metadata"]["annotations"]["note"] == "mine"
    assert repairs(served, BINDING) == 0


def test_kind_of_the_tables_deleted(served: Served, inside: Namespace) -> None:
    """All PodWirings go with it, and pods to the webhook; then all is back, and the policy wires again."""
    known(inside)
    eventually(lambda: state(served, "crd"))

    with pods_all_along(inside) as pods:
        served.plane.kubectl("delete", "crd", CRD)
        eventually(lambda: (one := found(served.plane, "crd", CRD)) and "status" in one)
        eventually(lambda: inside.get("podwirings")["items"])
        eventually(lambda: by_policy(look(inside)), within=60)

    assert served.operator.ready()
    assert repairs(served, "crd") == 1
    assert told(served, "crd", CRD) >= {"Recreated"}
    assert {tuple(sorted(env_of(one).items())) for one in pods} == {tuple(sorted(WIRED.items()))}
    definition = found(served.plane, "crd", CRD)
    assert definition is not None
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert definition["metadata"]["annotations"]["meta.helm.sh/release-name"] == RELEASE


def test_kind_of_the_tables_edited(served: Served, inside: Namespace) -> None:
    """It is never deleted: the PodWirings are the same ones afterwards."""
    known(inside)
    (before,) = inside.get("podwirings")["items"]

    patch = '--patch=[{"op": "remove", "path": "/spec/names/shortNames"}]'
    served.plane.kubectl("patch", "crd", CRD, "--type=json", patch)
    eventually(lambda: repairs(served, "crd") == 1)

    definition = found(served.plane, "crd", CRD)
    (after,) = inside.get("podwirings")["items"]
    assert definition is not None
    assert definition["spec"]["names"]["shortNames"] == ["pw"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert told(served, "crd", CRD) >= {"Reverted"}


@pytest.mark.parametrize("change", [added_condition, wrong_audience], ids=["addition", "audience"])
def test_replicas(served: Served, inside: Namespace, change: Callable[[dict[str, Any]], None]) -> None:
    """Two that notice the same do not get in each other's way, and leave it at that."""
    known(inside)
    with second_running(served) as second:
        replicas = (served, replace(served, operator=second))
        eventually(lambda: all(state(one, POLICY) for one in replicas))

        before = edit(served.plane, POLICY, change)
        eventually(lambda: (one := found(served.plane, POLICY)) and one["spec"] == before["spec"])
        time.sleep(3)

        after = found(served.plane, POLICY)
        assert after is not None
        assert after["spec"] == before["spec"]
        assert 1 <= sum(repairs(one, POLICY) for one in replicas) <= 2
        assert all(state(one, POLICY) for one in replicas)


@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_table_deleted_or_emptied(inside: Namespace, how: str) -> None:
    """A PodWiring that somebody deletes or edits is as it was in a moment, and no pod went without."""
    known(inside)
    (before,) = inside.get("podwirings")["items"]

    with pods_all_along(inside) as pods:
        if how == "deleted":
            inside.kubectl("delete", "pw", contract.POD_WIRING_NAME)
        else:
            patch = '--patch={"spec": {"identities": {"billing": null}}}'
            inside.kubectl("patch", "pw", contract.POD_WIRING_NAME, "--type=merge", patch)
        eventually(lambda: [one["spec"] for one in inside.get("podwirings")["items"]] == [before["spec"]])
        eventually(lambda: by_policy(look(inside)))

    assert audiences(pods) == {"api://AzureADTokenExchange"}
    assert {tuple(sorted(env_of(one).items())) for one in pods} == {tuple(sorted(WIRED.items()))}


# Releases.


def upgraded(served: Served, **values: object) -> None:
    """Upgrade the release with other values."""
    tenant = served.environ["AZURE_TENANT_ID"]
    install_chart(served.plane, served.port, {"azureTenantID": tenant, "engine": "auto", **values})


def test_upgrade_after_repairs(served: Served, inside: Namespace) -> None:
    """Helm finds the objects as its own and is not undone; what it declares now is what is kept now."""
    known(inside)
    for kind in (POLICY, BINDING):
        served.plane.kubectl("delete", kind, RELEASE)
        eventually(partial(repairs, served, kind))

    upgraded(served, commonLabels={"changed": "yes"}, selection="label")

    policy, binding = found(served.plane, POLICY), found(served.plane, BINDING)
    assert policy is not None
    assert binding is not None
    assert policy["metadata"]["labels"]["changed"] == binding["metadata"]["labels"]["changed"] == "yes"
    selector = policy["spec"]["matchConstraints"]["objectSelector"]
    assert selector["matchLabels"] == {contract.USE_LABEL: "true"}
    time.sleep(8)  # longer than the operator thinks about it
    assert (found(served.plane, POLICY), found(served.plane, BINDING)) == (policy, binding)

    served.plane.kubectl("delete", POLICY, RELEASE)
    after = eventually(lambda: found(served.plane, POLICY))
    assert after["spec"] == policy["spec"]
    assert after["metadata"]["labels"] == policy["metadata"]["labels"]


def test_upgrades_are_not_fought(served: Served, inside: Namespace) -> None:
    """However often the chart's declaration changes, nothing of it is undone."""
    known(inside)
    for number in range(4):
        upgraded(served, mutatingWebhookNamespaceSelector={"matchLabels": {"round": str(number)}})
        time.sleep(0.5 * number)
    changed = found(served.plane, POLICY)

    time.sleep(8)

    assert changed is not None
    assert changed["spec"]["matchConstraints"]["namespaceSelector"]["matchLabels"] == {"round": "3"}
    assert found(served.plane, POLICY) == changed
    assert repairs(served, POLICY) == 0


def test_turned_off_and_uninstalled(served: Served, inside: Namespace) -> None:
    """What an upgrade to the webhook engine takes away stays away, as does a release that is uninstalled."""
    known(inside)

    upgraded(served, engine="webhook")
    time.sleep(4)
    assert found(served.plane, POLICY) is None
    assert found(served.plane, BINDING) is None
    assert env_of(look(inside)) == WIRED

    upgraded(served)
    eventually(lambda: state(served, BINDING))
    served.plane.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}")
    time.sleep(4)
    assert found(served.plane, POLICY) is None
    assert found(served.plane, BINDING) is None
    assert repairs(served, POLICY) + repairs(served, BINDING) == 0
    served.operator.child.check()


def test_without_a_policy(served: Served, inside: Namespace) -> None:
    """Nothing is kept then: a missing kind of the tables is said once, and its return noticed."""
    known(inside)
    upgraded(served, engine="webhook")
    definition = found(served.plane, "crd", CRD)
    assert definition is not None
    definition.pop("status")
    for key in ("resourceVersion", "uid", "creationTimestamp", "generation"):
        definition["metadata"].pop(key)
    log = served.operator.child.log

    served.plane.kubectl("delete", "crd", CRD)
    eventually(lambda: "PodWirings are not installed" in log.read_text())
    time.sleep(4)
    assert found(served.plane, "crd", CRD) is None
    assert served.operator.ready()
    served.plane.kubectl("create", "--filename=-", given=json.dumps(definition))

    eventually(lambda: inside.get("podwirings")["items"])
    assert log.read_text().count("PodWirings are not installed") == 1


def test_without_the_rights(served: Served) -> None:
    """With the rights of an older chart it says so once, and does the rest of its work."""
    served.plane.kubectl("delete", "role", RELEASE, f"--namespace={NAMESPACE}")
    served.plane.kubectl("delete", POLICY, RELEASE)

    log = served.operator.child.log
    eventually(lambda: "is not kept" in log.read_text())
    time.sleep(3)

    assert log.read_text().count("is not kept") == 1
    assert served.operator.ready()
    assert found(served.plane, POLICY) is None


# Somebody who insists.


def test_somebody_insists(served: Served, inside: Namespace) -> None:
    """Whoever undoes each repair is told once and met at growing intervals; then it is as declared."""
    known(inside)
    over = Event()

    def insist() -> None:
        while not over.is_set():
            one = found(served.plane, POLICY)
            if one and all(condition["name"] != "never" for condition in one["spec"]["matchConditions"]):
                added_condition(one)
                try:
                    served.plane.kubectl("replace", "--filename=-", given=json.dumps(one))
                except ProcessFailed:
                    continue  # changed meanwhile
            time.sleep(0.05)

    with ThreadPoolExecutor(1) as somebody:
        insisting = somebody.submit(insist)
        try:
            eventually(lambda: "Contested" in told(served, POLICY), within=60)
            before = repairs(served, POLICY)
            time.sleep(3)
            assert repairs(served, POLICY) <= before + 1
        finally:
            over.set()
        insisting.result()

    assert served.operator.child.log.read_text().count("again and again") == 1
    eventually(lambda: state(served, POLICY), within=60)
    eventually(lambda: by_policy(look(inside)))
