"""The API server wires pods by itself; the webhook is asked for the rest only."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from testkit.control_plane import ControlPlane
from testkit.crowds import annotate_and_create, create_account, create_pod, together, wrongly_wired
from testkit.installation import Served, serve
from testkit.neighbours import other_webhook
from testkit.processes import ProcessFailed
from testkit.tally import Tally
from testkit.workloads import CLIENT, LABELS, Namespace, env_of, eventually, fresh_namespace, pod
from workload_identity_operator import contract

TENANT = "99999999-8888-7777-6666-555555555555"
WIRED = {
    "AZURE_CLIENT_ID": CLIENT,
    "AZURE_TENANT_ID": TENANT,
    "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/wi/token/azure-identity-token",
    "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
}


def ours(stored: Mapping[str, Any]) -> list[str]:
    """Return the names of the pod's volumes that are ours."""
    names = (volume["name"] for volume in stored["spec"].get("volumes") or ())
    return [name for name in names if name.startswith(contract.VOLUME_PREFIX)]


def look(inside: Namespace, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pod as it would be stored."""
    return inside.create(manifest, "--dry-run=server")


def known(inside: Namespace, name: str = "billing") -> None:
    """Annotate a ServiceAccount and wait until the API server wires its pods."""
    inside.account(name, {contract.CLIENT_ID: CLIENT})
    eventually(lambda: ours(look(inside, pod("known", name))) == [contract.POLICY_VOLUME])


def reviews(served: Served, inside: Namespace) -> float:
    """Return how many pods of the namespace the webhook was asked about."""
    return served.operator.reviews_of(inside.name)


# With nobody to ask.


IDENTITIES = 50


@pytest.fixture(scope="module")
def abandoned() -> Iterator[Namespace]:
    """A namespace with known ServiceAccounts, and an operator that was killed since."""
    with ControlPlane() as plane, fresh_namespace(plane) as inside:
        with serve(plane, {"azureTenantID": TENANT, "engine": "auto"}) as served:
            together(lambda number: create_account(inside, number), IDENTITIES)
            inside.account("unknown", {})
            eventually(
                lambda: (
                    [len(one["spec"]["identities"]) for one in inside.get("podwirings")["items"]]
                    == [IDENTITIES]
                )
            )
            known(inside)  # the last one, so who has that has all
            served.operator.child.end(grace=0)
        yield inside


@pytest.mark.soak(200, 1000)
def test_known_pods_are_wired_without_the_operator(abandoned: Namespace, size: int, tally: Tally) -> None:
    """Pods of fifty ServiceAccounts, half of them without the label: each has its own one's identity."""

    def create(number: int) -> None:
        create_pod(
            abandoned, f"pod-{number}", number % IDENTITIES, LABELS if number // IDENTITIES % 2 else {}
        )
        tally.one("pods with nobody to ask")

    together(create, size)

    stored = abandoned.get("pods")["items"]
    assert len(stored) == size
    assert wrongly_wired(abandoned, TENANT) == {}
    assert {tuple(ours(one)) for one in stored} == {(contract.POLICY_VOLUME,)}
    tally.tell(f"operator killed, policy on: {size:,} pods created, {len(stored):,} wired, each checked")


def test_opting_out(abandoned: Namespace) -> None:
    """The label's value "false" leaves a pod as its author wrote it."""
    stored = look(abandoned, pod("web", "billing", metadata={"labels": {contract.USE_LABEL: "false"}}))

    assert env_of(stored) == {}
    assert ours(stored) == []


ADDED: dict[str, Any] = {"name": "sidecar", "image": "x"}
SIDECAR = {"op": "add", "path": "/spec/containers/0", "value": ADDED}


@pytest.mark.parametrize("mesh", ["istio-sidecar-injector", "zz-injector"])
@pytest.mark.parametrize("labels", [LABELS, {}], ids=["labelled", "unlabelled"])
def test_mesh_needs_nobody(abandoned: Namespace, mesh: str, labels: Mapping[str, str]) -> None:
    """A container that another webhook adds is wired by the API server, whatever that webhook is called."""
    with other_webhook(abandoned, [SIDECAR], mesh):
        stored = look(abandoned, pod("web", "billing", metadata={"labels": dict(labels)}))

    assert env_of(stored, "sidecar") == env_of(stored, "app") == WIRED
    assert ours(stored) == [contract.POLICY_VOLUME]


OUR_MOUNT = {"name": contract.POLICY_VOLUME, "mountPath": contract.BASE_PATH, "readOnly": True}


@pytest.mark.parametrize(
    "patch",
    [
        [{**SIDECAR, "value": {**ADDED, "volumeMounts": [OUR_MOUNT]}}],
        [SIDECAR, {"op": "remove", "path": "/spec/containers/1/env"}],
    ],
    ids=["with the mount of another", "and takes a variable away"],
)
@pytest.mark.parametrize("labels", [LABELS, {}], ids=["labelled", "unlabelled"])
def test_what_another_webhook_leaves_half_wired(
    abandoned: Namespace, patch: list[Mapping[str, Any]], labels: Mapping[str, str]
) -> None:
    """Each container gets what it lacks, be it the mount or the variables."""
    with other_webhook(abandoned, patch, "zz-injector"):
        stored = look(abandoned, pod("web", "billing", metadata={"labels": dict(labels)}))

    assert env_of(stored, "sidecar") == env_of(stored, "app") == WIRED
    for container in stored["spec"]["containers"]:
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert paths.count(contract.BASE_PATH) == 1


def test_other_accounts_need_nobody(abandoned: Namespace) -> None:
    """An unlabelled pod of a ServiceAccount without annotations is made as ever."""
    stored = look(abandoned, pod("web", "unknown", metadata={"labels": {}}))

    assert env_of(stored) == {}


def test_unknown_account_of_a_labelled_pod(abandoned: Namespace) -> None:
    """It may have been annotated a moment ago, so the webhook has to be asked: refused, never unwired."""
    with pytest.raises(ProcessFailed, match=f'failed calling webhook "{contract.WEBHOOK_NAME}"'):
        look(abandoned, pod("web", "unknown"))


UNUSUAL: dict[str, Mapping[str, Any]] = {
    "proxy": {"metadata": {"labels": dict(LABELS), "annotations": {contract.INJECT_PROXY: "true"}}},
    "expiration": {"metadata": {"labels": dict(LABELS), "annotations": {contract.EXPIRATION: "1h"}}},
    "skip list": {"metadata": {"labels": dict(LABELS), "annotations": {contract.SKIP_CONTAINERS: " app"}}},
    "volume": {
        "spec": {"volumes": [{"name": contract.VOLUME_PREFIX + "x", "emptyDir": {}}]},
    },
    "mount": {
        "spec": {
            "volumes": [{"name": "mine", "emptyDir": {}}],
            "containers": [
                {
                    "name": "app",
                    "image": "x",
                    "volumeMounts": [{"name": "mine", "mountPath": contract.BASE_PATH}],
                }
            ],
        }
    },
}


@pytest.mark.parametrize("parts", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_pods_are_the_webhooks(abandoned: Namespace, parts: Mapping[str, Any]) -> None:
    """What the policy does not do exactly it does not do at all."""
    with pytest.raises(ProcessFailed, match=f'failed calling webhook "{contract.WEBHOOK_NAME}"'):
        look(abandoned, pod("web", "billing", **parts))


USUAL: dict[str, Mapping[str, str]] = {
    "container to skip": {contract.SKIP_CONTAINERS: "proxy;nobody"},
    "no proxy": {contract.INJECT_PROXY: "False"},
    "no legacy path": {contract.LEGACY_PATH_ANNOTATION: "false"},
    "expiration": {contract.EXPIRATION: "07200"},
}


@pytest.mark.parametrize("annotations", USUAL.values(), ids=USUAL)
def test_annotated_pods_need_nobody(abandoned: Namespace, annotations: Mapping[str, str]) -> None:
    """What the policy has done exactly as it was asked to leaves nothing for the webhook."""
    spec = {"containers": [{"name": name, "image": "x"} for name in ("app", "proxy")]}
    metadata = {"labels": dict(LABELS), "annotations": dict(annotations)}

    stored = look(abandoned, pod("web", "billing", metadata=metadata, spec=spec))

    assert env_of(stored) == WIRED
    assert env_of(stored, "proxy") == ({} if contract.SKIP_CONTAINERS in annotations else WIRED)
    assert ours(stored) == [contract.POLICY_VOLUME]


def test_mirror_pods_need_nobody(abandoned: Namespace) -> None:
    """The kubelet's copy of a static pod may use no token: whatever its label, nobody is asked."""
    metadata = {"labels": dict(LABELS), "annotations": {contract.MIRROR_POD: "x"}}
    manifest = pod("web", "", metadata=metadata, spec={"nodeName": "some-node"})

    assert env_of(look(abandoned, manifest)) == {}


# Beside the webhook.


def test_wired_pods_are_not_reviewed(served: Served, inside: Namespace) -> None:
    """Once its ServiceAccount is known, no pod is sent to the webhook."""
    known(inside)
    before = reviews(served, inside)

    stored = [inside.create(pod(f"pod-{number}", "billing")) for number in range(5)]

    assert [env_of(one) for one in stored] == [WIRED] * 5
    assert reviews(served, inside) == before


MARKED = {**LABELS, contract.WIRED_BY: contract.WIRED_BY_POLICY}


@pytest.mark.parametrize("labels", [LABELS, {}], ids=["labelled", "unlabelled"])
def test_labelled_pods_say_that_they_need_no_webhook(inside: Namespace, labels: Mapping[str, str]) -> None:
    """The API server then need not find out whether ours is to be asked; of others it never would."""
    known(inside)

    stored = look(inside, pod("web", "billing", metadata={"labels": dict(labels)}))

    assert stored["metadata"].get("labels", {}) == (MARKED if labels else {})
    assert env_of(stored) == WIRED


@pytest.mark.parametrize("account", ["billing", "unheard-of"])
@pytest.mark.parametrize("mark", [contract.WIRED_BY_POLICY, "webhook", ""])
def test_what_an_author_says_of_who_wired_the_pod(inside: Namespace, account: str, mark: str) -> None:
    """It keeps no pod from the webhook: only the policy may say so."""
    known(inside)
    if account != "billing":
        inside.account(account, {contract.TENANT_ID: "other"})
    metadata = {"labels": {**LABELS, contract.WIRED_BY: mark}, "annotations": {contract.INJECT_PROXY: "true"}}

    stored = look(inside, pod("web", account, metadata=metadata))

    assert stored["metadata"]["labels"] == LABELS
    assert env_of(stored)["AZURE_FEDERATED_TOKEN_FILE"] == contract.TOKEN_FILE
    assert contract.PROXY_NAME in {one["name"] for one in stored["spec"]["initContainers"]}


def test_pod_pasted_from_a_wired_one_and_changed(inside: Namespace) -> None:
    """What no longer fits what it asks for is put right by the webhook, which the policy leaves it to."""
    known(inside)
    stored = look(inside, pod("web", "billing"))
    labels = stored["metadata"]["labels"]
    assert labels == MARKED
    fresh = {"name": "again", "labels": labels, "annotations": {contract.EXPIRATION: "7200"}}
    longer = {**stored, "metadata": fresh}
    beside = copy.deepcopy({**stored, "metadata": {**fresh, "annotations": {}}})
    (mount,) = (
        one
        for one in beside["spec"]["containers"][0]["volumeMounts"]
        if one["mountPath"] == contract.BASE_PATH
    )
    mount["subPath"] = "token"

    volumes = {volume["name"]: volume for volume in look(inside, longer)["spec"]["volumes"]}
    mounts = look(inside, beside)["spec"]["containers"][0]["volumeMounts"]

    (source,) = volumes[contract.POLICY_VOLUME]["projected"]["sources"]
    assert source["serviceAccountToken"]["expirationSeconds"] == 7200
    assert [one for one in mounts if one["mountPath"] == contract.BASE_PATH] == [OUR_MOUNT]


def test_init_containers_and_annotations(inside: Namespace) -> None:
    """Tenant from the account, expiration from the pod, simple names skipped, what is set kept."""
    inside.account("other", {contract.CLIENT_ID: CLIENT, contract.TENANT_ID: "other"})
    known(inside)
    annotations = {contract.EXPIRATION: "7200", contract.SKIP_CONTAINERS: "proxy;nobody"}
    preset = [{"name": "AZURE_CLIENT_ID", "value": "mine"}]
    spec = {
        "initContainers": [{"name": "first", "image": "x", "env": preset}],
        "containers": [{"name": "app", "image": "x"}, {"name": "proxy", "image": "x"}],
    }
    manifest = pod("a", "other", metadata={"labels": dict(LABELS), "annotations": annotations}, spec=spec)

    stored = eventually(
        lambda: (one := look(inside, manifest)) and ours(one) == [contract.POLICY_VOLUME] and one
    )

    assert env_of(stored) == WIRED | {"AZURE_TENANT_ID": "other"}
    assert env_of(stored, "first") == WIRED | {"AZURE_TENANT_ID": "other", "AZURE_CLIENT_ID": "mine"}
    assert env_of(stored, "proxy") == {}
    volumes = {volume["name"]: volume for volume in stored["spec"]["volumes"]}
    (source,) = volumes[contract.POLICY_VOLUME]["projected"]["sources"]
    assert source["serviceAccountToken"] == {
        "audience": "api://AzureADTokenExchange",
        "expirationSeconds": 7200,
        "path": "token/azure-identity-token",
    }


@pytest.mark.soak(200, 1000)
def test_no_pod_slips_between_the_engines(inside: Namespace, size: int, tally: Tally) -> None:
    """Annotated, and a labelled pod created at once: by policy or by webhook, each is wired right."""
    refusals = annotate_and_create(inside, size, LABELS, tally)

    assert [why for why in refusals if "the same create may succeed later" not in why] == []
    stored = inside.get("pods")["items"]
    assert len(stored) == size
    assert wrongly_wired(inside, TENANT) == {}
    by_policy = [one for one in stored if ours(one) == [contract.POLICY_VOLUME]]
    tally.tell(
        f"policy and webhook: {size:,} times annotated and a pod at once, all wired "
        f"({len(by_policy):,} by policy), {len(refusals)} refused at first"
    )


def test_pod_wired_by_hand_in_part_is_finished(inside: Namespace) -> None:
    """Pasted from a running pod, with a container more: that one is wired, the rest stays."""
    known(inside)
    first = inside.create(pod("first", "billing"))
    spec = first["spec"]
    spec["containers"].append({"name": "another", "image": "x"})

    second = inside.create(pod("second", "billing", spec=spec))

    assert ours(second) == [contract.POLICY_VOLUME]
    assert env_of(second, "another") == env_of(second) == WIRED


@pytest.mark.parametrize("labels", [LABELS, {}], ids=["labelled", "unlabelled"])
def test_container_that_a_later_webhook_adds(inside: Namespace, labels: Mapping[str, str]) -> None:
    """The API server asks its policies once more; no webhook is asked then that was not asked before."""
    known(inside)

    with other_webhook(inside, [SIDECAR], "later"):
        stored = inside.create(pod("web", "billing", metadata={"labels": dict(labels)}))

    assert env_of(stored, "sidecar") == env_of(stored, "app") == WIRED
    assert ours(stored) == [contract.POLICY_VOLUME]


def test_container_added_to_a_pod_that_was_wired_before(inside: Namespace) -> None:
    """Who had nothing to do at first is not asked again: that one is left to the audit and the guard."""
    known(inside)
    wired = inside.create(pod("first", "billing"))

    with other_webhook(inside, [SIDECAR], "later"):
        stored = inside.create(pod("second", "billing", spec=wired["spec"]))

    assert env_of(stored) == WIRED
    assert env_of(stored, "sidecar") == {}


# Whom the webhook is asked about must never break a pod.


@pytest.mark.parametrize("containers", [None, []])
def test_pod_without_containers_gets_the_usual_message(
    inside: Namespace, containers: list[Any] | None
) -> None:
    """It is refused for what it lacks, not for an expression that looked for it."""
    inside.account("fresh", {})

    with pytest.raises(ProcessFailed, match=r"spec\.containers: Required value"):
        inside.create(pod("web", "fresh", spec={"containers": containers}), "--validate=false")


def test_volume_of_ours_without_sources(inside: Namespace) -> None:
    """A reserved name with nothing in it is no wiring: the webhook is asked, and puts the token there."""
    inside.account("fresh", {contract.CLIENT_ID: CLIENT})
    volumes = [{"name": contract.VOLUME_PREFIX + "x", "projected": {"sources": None}}]

    stored = look(inside, pod("web", "fresh", spec={"volumes": volumes}))

    assert env_of(stored) == WIRED


def test_largest_pods_are_within_the_expressions_budget(served: Served, inside: Namespace) -> None:
    """Hundreds of containers with hundreds of variables, wired: still judged, not refused for the effort."""
    known(inside)
    env = [{"name": f"V{number}", "value": "x"} for number in range(200)]
    containers = [{"name": f"c{number}", "image": "x", "env": env} for number in range(100)]
    before = reviews(served, inside)

    stored = look(inside, pod("web", "billing", spec={"containers": containers}))

    assert env_of(stored, "c99").items() >= WIRED.items()
    assert ours(stored) == [contract.POLICY_VOLUME]
    assert reviews(served, inside) == before
