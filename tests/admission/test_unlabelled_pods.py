"""Pods without the label, by the webhook: those of ServiceAccounts that name an identity are wired too."""

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from testkit.control_plane import ControlPlane
from testkit.installation import (
    CONFIGURATION,
    NAMESPACE,
    RELEASE,
    Served,
    free_port,
    install_chart,
    operator_running,
    second_running,
    serve,
)
from testkit.processes import ProcessFailed, finish
from testkit.workloads import CLIENT, Namespace, env_of, eventually, fresh_namespace, pod
from workload_identity_operator import contract
from workload_identity_operator.unlabelled import entry_beside

TENANT = "99999999-8888-7777-6666-555555555555"
VALUES = {"azureTenantID": TENANT, "engine": "webhook"}
WEBHOOKS = ("mutatingwebhookconfiguration", CONFIGURATION)


def labelled(value: str | None) -> dict[str, Any]:
    """Return a pod's metadata, with that value of the label or without it."""
    return {"labels": {"app": "web"} | ({} if value is None else {contract.USE_LABEL: value})}


def entry(plane: ControlPlane) -> dict[str, Any] | None:
    """Return the webhook for unlabelled pods; None when there is none."""
    webhooks = plane.get(*WEBHOOKS)["webhooks"]
    return next((found for found in webhooks if found["name"] == contract.UNLABELLED_WEBHOOK), None)


def covered(plane: ControlPlane) -> list[str]:
    """Return the namespaces that it is for."""
    found = entry(plane)
    if found is None:
        return []
    names: list[str] = found["namespaceSelector"]["matchExpressions"][-1]["values"]
    return names


def create(
    inside: Namespace, name: str, value: str | None = None, account: str = "billing"
) -> dict[str, str]:
    """Create a pod and return its container's environment as stored."""
    return env_of(inside.create(pod(name, account, metadata=labelled(value))))


@pytest.fixture
def annotated(inside: Namespace) -> Namespace:
    """A namespace with an identity, once its unlabelled pods are looked at."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    inside.account("plain")
    inside.account("tenant", {contract.TENANT_ID: "other", contract.PREFIX + "typo": "x"})
    eventually(lambda: inside.name in covered(inside.plane))
    eventually(lambda: looked_at(inside))
    return inside


def looked_at(inside: Namespace) -> bool:
    """Whether the API server knows by now that it has to ask about the namespace's pods."""
    return bool(env_of(inside.create(pod("probe", "billing", metadata=labelled(None)), "--dry-run=server")))


# Which pods.


@pytest.mark.parametrize("value", [None, "yes", "True", ""])
def test_pod_of_an_annotated_account_is_wired(annotated: Namespace, value: str | None) -> None:
    """Annotating the ServiceAccount is enough; only the label's two values have a say."""
    assert create(annotated, "web", value)["AZURE_CLIENT_ID"] == CLIENT


def test_opting_out(annotated: Namespace) -> None:
    """The label's value "false" leaves a pod as its author wrote it."""
    assert create(annotated, "web", "false") == {}


@pytest.mark.parametrize("account", ["plain", "tenant", "default"])
def test_other_accounts_pods_are_left_alone(annotated: Namespace, account: str) -> None:
    """Without a client id nothing is added and nothing is said."""
    kubectl = annotated.plane.folder / "bin" / "kubectl"

    told = finish(
        [kubectl, f"--namespace={annotated.name}", "create", "--filename=-", "--output=json"],
        env=annotated.plane.environment,
        given=json.dumps(pod("web", account, metadata=labelled(None))),
    )

    assert env_of(json.loads(told.output)) == {}
    assert told.errors == ""


def test_pod_that_cannot_be_wired_is_warned_of(annotated: Namespace) -> None:
    """Nobody asked for it to be wired, so it is made; its author learns what is in the way."""
    kubectl = annotated.plane.folder / "bin" / "kubectl"
    metadata = labelled(None) | {"annotations": {contract.EXPIRATION: "1h"}}

    told = finish(
        [kubectl, f"--namespace={annotated.name}", "create", "--filename=-", "--output=json"],
        env=annotated.plane.environment,
        given=json.dumps(pod("web", "billing", metadata=metadata)),
    )

    assert env_of(json.loads(told.output)) == {}
    assert f"Warning: no Azure identity: annotation {contract.EXPIRATION} of the pod" in told.errors


def test_pod_made_at_once_after_its_account_was_annotated_is_wired(annotated: Namespace) -> None:
    """In a namespace that has an identity already the ServiceAccount is looked up live."""
    for number in range(20):
        annotated.account(f"sa-{number}", {contract.CLIENT_ID: CLIENT})
        assert create(annotated, f"pod-{number}", account=f"sa-{number}")["AZURE_CLIENT_ID"] == CLIENT


# The entry.


def test_namespaces_follow_the_accounts(served: Served, inside: Namespace) -> None:
    """With its first client id a namespace is covered, with its last it is no more."""
    inside.account("tenant", {contract.TENANT_ID: "other"})
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    eventually(lambda: inside.name in covered(served.plane))

    inside.kubectl("annotate", "serviceaccount", "billing", f"{contract.CLIENT_ID}-")
    eventually(lambda: inside.name not in covered(served.plane))
    inside.kubectl("annotate", "serviceaccount", "tenant", f"{contract.CLIENT_ID}={CLIENT}")
    eventually(lambda: inside.name in covered(served.plane))
    inside.kubectl("delete", "serviceaccount", "tenant")
    eventually(lambda: inside.name not in covered(served.plane))


# Others' hands, upgrades, certificates, outages.


@pytest.fixture(scope="module")
def installed() -> Iterator[tuple[Served, Namespace]]:
    """A release to be changed, with a namespace that has an identity."""
    with ControlPlane() as plane, serve(plane, VALUES) as served, fresh_namespace(plane) as inside:
        inside.account("billing", {contract.CLIENT_ID: CLIENT})
        eventually(lambda: inside.name in covered(plane))
        eventually(lambda: looked_at(inside))
        yield served, inside


@pytest.mark.parametrize("path", ["", "/namespaceSelector/matchExpressions/0/values", "/failurePolicy"])
def test_edit_by_hand_is_put_right(installed: tuple[Served, Namespace], path: str) -> None:
    """Removed or changed it is a moment later what it was."""
    plane = installed[0].plane
    before = plane.get(*WEBHOOKS)
    patch: dict[str, Any] = {"op": "remove", "path": f"/webhooks/1{path}"}
    if path:
        patch = {**patch, "op": "replace", "value": "Fail" if path == "/failurePolicy" else ["elsewhere"]}

    plane.kubectl("patch", *WEBHOOKS, "--type=json", f"--patch={json.dumps([patch])}")

    after = eventually(
        lambda: (one := plane.get(*WEBHOOKS)) and one["webhooks"] == before["webhooks"] and one
    )
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 2


def test_replicas_agree(installed: tuple[Served, Namespace]) -> None:
    """A second one, started later, finds what it would write."""
    served, inside = installed
    plane = served.plane
    before = plane.get(*WEBHOOKS)["metadata"]["resourceVersion"]
    with second_running(served) as second:
        second.child.wait_until(lambda: "PodWirings are kept" in second.child.log.read_text(), within=20)
        assert plane.get(*WEBHOOKS)["metadata"]["resourceVersion"] == before
        with fresh_namespace(plane) as another:
            another.account("billing", {contract.CLIENT_ID: CLIENT})
            eventually(lambda: {inside.name, another.name} <= set(covered(plane)))


@pytest.mark.parametrize("how", ["--server-side=true", "--server-side=false"])
def test_it_survives_and_follows_an_upgrade(installed: tuple[Served, Namespace], how: str) -> None:
    """What an upgrade changes in the chart's webhook changes in this one, and nothing else."""
    (served, inside), seconds = installed, 7 if how == "--server-side=true" else 9
    before = entry(served.plane)
    assert before

    selector = {"matchExpressions": [{"key": "quiet", "operator": "DoesNotExist"}]}
    changed = {"timeoutSeconds": seconds, "mutatingWebhookObjectSelector": selector}
    install_chart(served.plane, served.port, VALUES | changed, how)

    after = eventually(lambda: (one := entry(served.plane)) and one["timeoutSeconds"] == seconds and one)
    assert after["namespaceSelector"] == before["namespaceSelector"]
    assert after["objectSelector"]["matchExpressions"][0] == selector["matchExpressions"][0]
    served.plane.helm("rollback", RELEASE, f"--namespace={NAMESPACE}")
    eventually(lambda: entry(served.plane) == before)
    eventually(lambda: looked_at(inside))


def test_it_follows_the_certificate(installed: tuple[Served, Namespace]) -> None:
    """A new authority is vouched for in both webhooks."""
    served, inside = installed
    plane = served.plane
    environ, port = {"AZURE_TENANT_ID": TENANT}, free_port()
    before = entry(plane)
    assert before
    flags = ["--certificate-secret=another"]  # it is not there, so a certificate is made
    install_chart(plane, port, VALUES)
    kubeconfig = plane.kubeconfig_for(RELEASE, NAMESPACE)
    served.operator.child.end(5)

    with operator_running(plane, port, environ=environ, flags=flags, kubeconfig=kubeconfig):
        after = eventually(lambda: follows(plane) and entry(plane))
        assert after["clientConfig"]["caBundle"] != before["clientConfig"]["caBundle"]
        assert b64decode(after["clientConfig"]["caBundle"]).startswith(b"-----BEGIN CERTIFICATE")
        eventually(lambda: looked_at(inside))


def follows(plane: ControlPlane) -> bool:
    """Whether both webhooks are called at the same place, and trusted by the same authority."""
    first, second = (found["clientConfig"] for found in plane.get(*WEBHOOKS)["webhooks"])
    moved = {**first, "url": first["url"] + contract.UNLABELLED_PATH}
    return bool(moved == second)


def test_outage() -> None:
    """Nobody answers: an unlabelled pod is made as it is, a labelled one refused."""
    with ControlPlane() as plane, fresh_namespace(plane) as inside:
        with serve(plane, VALUES):
            inside.account("billing", {contract.CLIENT_ID: CLIENT})
            eventually(lambda: inside.name in covered(plane))
            eventually(lambda: looked_at(inside))

        assert create(inside, "unlabelled") == {}
        with pytest.raises(ProcessFailed, match=f'failed calling webhook "{contract.WEBHOOK_NAME}"'):
            create(inside, "labelled", "true")


def test_it_goes_with_what_asked_for_it(installed: tuple[Served, Namespace]) -> None:
    """With `selection: label`, or with the policy, an upgrade takes it away; it comes back with the value."""
    served, inside = installed
    plane, port = served.plane, free_port()
    kubeconfig = plane.kubeconfig_for(RELEASE, NAMESPACE)
    environ = {"AZURE_TENANT_ID": TENANT}
    install_chart(plane, port, VALUES)
    with operator_running(plane, port, environ=environ, kubeconfig=kubeconfig):
        for values in ({"selection": "label"}, {"engine": "policy"}):
            eventually(lambda: inside.name in covered(plane))
            install_chart(plane, port, VALUES | values)
            eventually(lambda: entry(plane) is None)
            assert len(plane.get(*WEBHOOKS)["webhooks"]) == 1
            install_chart(plane, port, VALUES)
        eventually(lambda: inside.name in covered(plane))
        install_chart(plane, port, VALUES | {"selection": "label"})
        eventually(lambda: entry(plane) is None)
        assert create(inside, "web-by-label") == {}


# Of what it is made.

FIRST: Mapping[str, Any] = {
    "name": contract.WEBHOOK_NAME,
    "clientConfig": {
        "service": {"name": "n", "namespace": "s", "path": "/mutate-v1-pod", "port": 443},
        "caBundle": "YQ==",
    },
    "failurePolicy": "Fail",
    "matchConditions": [{"name": "unwired", "expression": "true"}],
    "objectSelector": {"matchLabels": {contract.USE_LABEL: "true", "team": "a"}},
    "namespaceSelector": {
        "matchLabels": {"stage": "prod"},
        "matchExpressions": [{"key": "a", "operator": "Exists"}],
    },
    "timeoutSeconds": 5,
}


def test_it_is_the_charts_webhook_but_for_whom_it_is_called() -> None:
    """Path, policy and selectors differ; conditions, time and certificate are the same."""
    assert entry_beside(dict(FIRST), ["a", "b"]) == {
        **FIRST,
        "name": "unlabelled.mutation.workload-identity.io",
        "clientConfig": {
            "service": {"name": "n", "namespace": "s", "path": "/mutate-v1-pod/unlabelled", "port": 443},
            "caBundle": "YQ==",
        },
        "failurePolicy": "Ignore",
        "objectSelector": {
            "matchLabels": {"team": "a"},
            "matchExpressions": [
                {"key": contract.USE_LABEL, "operator": "NotIn", "values": ["true", "false"]}
            ],
        },
        "namespaceSelector": {
            "matchLabels": {"stage": "prod"},
            "matchExpressions": [
                {"key": "a", "operator": "Exists"},
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]},
            ],
        },
    }
