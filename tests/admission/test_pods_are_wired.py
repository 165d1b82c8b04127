"""The whole operator on a real API server: what users' pods become."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from testkit.crowds import annotate_and_create, wrongly_wired
from testkit.installation import Served
from testkit.neighbours import other_webhook
from testkit.processes import ProcessFailed, finish
from testkit.tally import Tally
from testkit.workloads import CLIENT, LABELS, Namespace, env_of, eventually, pod
from workload_identity_operator import contract

TENANT = "99999999-8888-7777-6666-555555555555"
WIRED = {
    "AZURE_CLIENT_ID": CLIENT,
    "AZURE_TENANT_ID": TENANT,
    "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/wi/token/azure-identity-token",
    "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
}


def volumes_of(stored: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the volumes of ours in a stored pod."""
    return [v for v in stored["spec"]["volumes"] if v["name"].startswith(contract.VOLUME_PREFIX)]


def test_labelled_pod_of_an_annotated_account_is_wired(inside: Namespace) -> None:
    """Environment, volume and mount are there, and the token is asked for as the peer asks for it."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})

    stored = inside.create(pod("web", "billing"))

    (volume,) = volumes_of(stored)
    assert env_of(stored) == WIRED
    assert volume["projected"]["sources"] == [
        {
            "serviceAccountToken": {
                "audience": "api://AzureADTokenExchange",
                "expirationSeconds": 3600,
                "path": "token/azure-identity-token",
            }
        }
    ]
    mounts = stored["spec"]["containers"][0]["volumeMounts"]
    assert {"name": volume["name"], "mountPath": "/var/run/secrets/azure/wi", "readOnly": True} in mounts


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "Job", "CronJob"])
def test_pods_of_every_controller_are_wired(inside: Namespace, kind: str) -> None:
    """Their pods reach admission with generateName, or a name, and are made by the controller manager."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    spec = {"serviceAccountName": "billing", "containers": [{"name": "app", "image": "x"}]}
    labels = {**LABELS, "app": "web"}
    template = {"metadata": {"labels": labels}, "spec": spec}
    if kind in {"Job", "CronJob"}:
        template["spec"] = {**spec, "restartPolicy": "Never"}
    of_kind: dict[str, Any] = {
        "Deployment": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
        "StatefulSet": {
            "serviceName": "web",
            "selector": {"matchLabels": {"app": "web"}},
            "template": template,
        },
        "Job": {"template": template},
        "CronJob": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}},
    }
    group = "batch/v1" if kind in {"Job", "CronJob"} else "apps/v1"
    inside.create({"apiVersion": group, "kind": kind, "metadata": {"name": "web"}, "spec": of_kind[kind]})
    if kind == "CronJob":
        inside.kubectl("create", "job", "now", "--from=cronjob/web")

    (stored, *_) = eventually(lambda: inside.get("pods", "--selector=app=web")["items"])

    assert env_of(stored) == WIRED
    assert len(volumes_of(stored)) == 1


@pytest.mark.soak(200, 1000)
def test_pod_made_at_once_after_its_account_was_annotated_is_wired(
    inside: Namespace, size: int, tally: Tally
) -> None:
    """The table may not know yet: then the ServiceAccount is looked up live, and no pod is missed."""
    refusals = annotate_and_create(inside, size, LABELS, tally)

    assert [why for why in refusals if "the same create may succeed later" not in why] == []
    assert len(inside.get("pods")["items"]) == size
    assert wrongly_wired(inside, TENANT) == {}
    tally.tell(
        f"webhook alone: {size:,} times annotated and a pod at once, all wired, "
        f"{len(refusals)} refused at first"
    )


def test_annotations_of_pod_and_account_are_honoured(inside: Namespace) -> None:
    """Tenant from the account, expiration from the pod, one container skipped."""
    inside.account(
        "billing", {contract.CLIENT_ID: CLIENT, contract.TENANT_ID: "other", contract.EXPIRATION: "4000"}
    )
    annotations = {contract.EXPIRATION: "7200", contract.SKIP_CONTAINERS: "proxy"}
    containers = [{"name": "app", "image": "x"}, {"name": "proxy", "image": "x"}]
    spec = {"containers": containers, "initContainers": [{"name": "first", "image": "x"}]}

    stored = inside.create(
        pod("web", "billing", metadata={"labels": dict(LABELS), "annotations": annotations}, spec=spec)
    )

    assert env_of(stored, "first") == env_of(stored) == WIRED | {"AZURE_TENANT_ID": "other"}
    assert env_of(stored, "proxy") == {}
    token = volumes_of(stored)[0]["projected"]["sources"][0]["serviceAccountToken"]
    assert token["expirationSeconds"] == 7200


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (contract.EXPIRATION, "1h", '"1h": invalid syntax'),
        (contract.EXPIRATION, "3599", "3599 is out of bounds; wanted 3600 to 86400 seconds"),
        (contract.EXPIRATION, "99999999999999999999", "value out of range"),
    ],
)
def test_pod_with_a_broken_annotation_is_refused(
    inside: Namespace, annotation: str, value: str, said: str
) -> None:
    """The person at kubectl reads which annotation, what was found and what is wanted."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    wrong = pod("web", "billing", metadata={"labels": dict(LABELS), "annotations": {annotation: value}})

    with pytest.raises(ProcessFailed) as refused:
        inside.create(wrong)

    assert 'admission webhook "mutation.azure-workload-identity.io" denied the request' in str(refused.value)
    assert said in str(refused.value)


def test_mount_in_the_way_is_refused(inside: Namespace) -> None:
    """A volume of the author's own at the base path: the message names container, volume and path."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    mount = {"name": "mine", "mountPath": "/var/run/secrets/azure/wi/extra"}
    spec = {
        "volumes": [{"name": "mine", "emptyDir": {}}],
        "containers": [{"name": "app", "image": "x", "volumeMounts": [mount]}],
    }

    with pytest.raises(
        ProcessFailed, match='container "app" mounts volume "mine" at "/var/run/secrets/azure/wi/extra"'
    ):
        inside.create(pod("web", "billing", spec=spec))


def test_author_is_warned_of_what_looks_wrong(inside: Namespace) -> None:
    """A client id that is no GUID and a misspelt key are wired as they are, and told at kubectl."""
    inside.account("billing", {contract.CLIENT_ID: "billing", contract.PREFIX + "client_id": CLIENT})
    kubectl = inside.plane.folder / "bin" / "kubectl"

    told = finish(
        [kubectl, f"--namespace={inside.name}", "create", "--filename=-"],
        env=inside.plane.environment,
        given=json.dumps(pod("web", "billing")),
    )

    assert told.status == 0
    assert 'Warning: ServiceAccount annotation client-id is no GUID: "billing"' in told.errors
    assert 'Warning: ServiceAccount annotation "azure.workload.identity/client_id" is unknown' in told.errors


def test_container_that_a_later_webhook_adds_is_wired_too(inside: Namespace) -> None:
    """The API server calls again; the sidecar gets the identity and what was wired stays as it is."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    sidecar = {"op": "add", "path": "/spec/containers/0", "value": {"name": "sidecar", "image": "x"}}

    with other_webhook(inside, [sidecar], "later"):
        stored = inside.create(pod("web", "billing"))

    assert env_of(stored, "sidecar") == env_of(stored, "app") == WIRED
    assert len(volumes_of(stored)) == 1


def test_pod_that_a_later_webhook_names_can_still_be_created(inside: Namespace) -> None:
    """Its volume was named after the generateName; the second call must not add another one."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    named: list[Mapping[str, Any]] = [
        {"op": "add", "path": "/metadata/name", "value": "named"},
        {"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": "x"}},
    ]
    unnamed = pod("web", "billing", metadata={"name": None, "generateName": "web-", "labels": dict(LABELS)})

    with other_webhook(inside, named, "later"):
        stored = inside.create(unnamed)

    assert stored["metadata"]["name"] == "named"
    assert len(volumes_of(stored)) == 1
    assert env_of(stored, "sidecar") == WIRED


def test_wired_pod_can_be_pasted_into_a_new_one(inside: Namespace) -> None:
    """`kubectl get pod -o yaml`, rename, create: its volume has the other name's hash and is adopted."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    first = inside.create(pod("first", "billing"))

    second = inside.create(pod("second", "billing", spec=first["spec"]))

    assert volumes_of(second) == volumes_of(first)
    assert env_of(second) == env_of(first)


def test_nothing_is_written_on_accounts_or_pods(inside: Namespace) -> None:
    """No finalizer, no annotation of a framework: only what the user wrote and what wiring adds."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    stored = inside.create(pod("web", "billing"))

    account = inside.get("serviceaccount", "billing")

    assert account["metadata"]["annotations"] == {contract.CLIENT_ID: CLIENT}
    assert "finalizers" not in account["metadata"]
    assert "annotations" not in stored["metadata"]


def test_pods_are_counted(served: Served, inside: Namespace) -> None:
    """The peer's histogram has the namespace, ours the outcome."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    before = served.operator.metric('workload_identity_reviews_total{outcome="wired"}')

    inside.create(pod("web", "billing"))

    assert served.operator.reviews_of(inside.name) == 1
    assert served.operator.metric('workload_identity_reviews_total{outcome="wired"}') == before + 1
