"""Every case of the webhook, through the policy of a real API server: the same pod, or left alone."""

import copy
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonpatch
import kubernetes.client
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from testkit.cases import read_cases, settings_of
from testkit.control_plane import ControlPlane
from testkit.installation import CONFIGURATION, Served, free_port, install_chart
from testkit.tally import Tally
from testkit.workloads import CLIENT, Namespace, eventually, pod
from workload_identity_operator import contract
from workload_identity_operator.accounts import ours
from workload_identity_operator.compiling import compile_identities
from workload_identity_operator.errors import PodRefused
from workload_identity_operator.identity import identity_of
from workload_identity_operator.settings import Settings
from workload_identity_operator.sidecar import sidecar_of
from workload_identity_operator.wiring import wire

Json = dict[str, Any]

SUFFIX = "identity-binding"
"""That of the custom token endpoint in the chart; a case with another one is about the flag alone."""
CASES = {
    name: case
    for name, case in read_cases().items()
    if "wired" in case
    and case.get("settings", {}).get("--custom-token-endpoint-annotation-suffix", SUFFIX) == SUFFIX
    and "--legacy-token-path" not in case.get("settings", {})  # the chart installs no policy beside it
}
KEPT = ("apiVersion", "kind", "metadata", "spec")
UNWIRED = "reference"
"""A namespace that neither policy nor webhook looks at: what a pod is without either."""


class Refused(Exception):  # noqa: N818 - it reads as what happened
    """The API server refuses a pod."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster with the policy, the compiled identities of every case, and nobody to answer reviews."""

    plane: ControlPlane
    namespaces: Mapping[str, str]

    def create(self, namespace: str, manifest: Json) -> Json:
        """Return a pod as it would be stored. Raises Refused when it would not be."""
        return dry_run(self.plane, namespace, manifest)


def dry_run(plane: ControlPlane, namespace: str, manifest: Json) -> Json:
    """Return a pod as it would be stored; the raw one, for the client's models know no odd pods.

    Raises:
        Refused: The API server refuses it.
    """
    client: Any = plane.client()  # its inside has no types
    url = f"{plane.server}/api/v1/namespaces/{namespace}/pods?dryRun=All"
    headers = {"Content-Type": "application/json", **client.default_headers}
    answer = client.rest_client.request("POST", url, headers=headers, body=manifest)
    stored: Json = json.loads(answer.read())
    if answer.status != 201:
        raise Refused(stored["message"])
    return stored


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Install the chart without an operator and write for each case the PodWiring that one would."""
    values = {
        "azureTenantID": "unused",
        "engine": "policy",
        "failurePolicy": "Ignore",
        "mutatingWebhookNamespaceSelector": {"matchLabels": {"wired": "yes"}},
        "customTokenEndpoint": {"annotationSuffix": SUFFIX, "audience": "a"},
    }
    namespaces = {name: f"case-{number}" for number, name in enumerate(CASES)}
    with ControlPlane() as plane:
        install_chart(plane, free_port(), values)
        core: Any = kubernetes.client.CoreV1Api(plane.client())
        custom = kubernetes.client.CustomObjectsApi(plane.client())
        plane.create_namespace(UNWIRED)
        for account in {account_of(case) for case in CASES.values()} - {"default"}:
            core.create_namespaced_service_account(UNWIRED, {"metadata": {"name": account}})
        plane.kubectl("wait", "--for=condition=Established", "crd", "podwirings.workload-identity.io")
        for name, namespace in namespaces.items():
            case, account = CASES[name], account_of(CASES[name])
            core.create_namespace({"metadata": {"name": namespace, "labels": {"wired": "yes"}}})
            core.create_namespaced_service_account(namespace, {"metadata": {"name": account}})
            annotated = {account: kept} if (kept := ours(case["account"])) else {}
            if compiled := compile_identities(annotated, settings_of(case)):
                write(custom, namespace, compiled.spec)
        found = Cluster(plane, namespaces)
        # Its informer learns of them in their order: who has the last has all.
        core.create_namespace({"metadata": {"name": "last", "labels": {"wired": "yes"}}})
        core.create_namespaced_service_account("last", {"metadata": {"name": "billing"}})
        last = compile_identities({"billing": {contract.CLIENT_ID: CLIENT}}, settings_of({}))
        assert last
        write(custom, "last", last.spec)
        eventually(lambda: "volumes" in found.create("last", complete(pod("web", "billing")))["spec"])
        yield found


def write(custom: kubernetes.client.CustomObjectsApi, namespace: str, spec: Json) -> None:
    """Create a PodWiring."""
    group, version = contract.POD_WIRING_API.split("/")
    kind = {"apiVersion": contract.POD_WIRING_API, "kind": "PodWiring"}
    body = {**kind, "metadata": {"name": contract.POD_WIRING_NAME}, "spec": spec}
    custom.create_namespaced_custom_object(group, version, namespace, contract.POD_WIRINGS, body)


def account_of(case: Json) -> str:
    """Return the name of the pod's ServiceAccount."""
    return (case["pod"].get("spec") or {}).get("serviceAccountName") or "default"


def complete(manifest: Json) -> Json:
    """Return a pod with all that the API server wants and the case does not care about."""
    found = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(manifest)}
    spec = found.get("spec") or {}
    # Otherwise a volume of a random name stands before ours in one pod and after it in the other.
    spec["automountServiceAccountToken"] = False
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        if container is not None:
            container.setdefault("image", "x")
    return found


def normal(stored: Json) -> Json:
    """Return what two dry runs must agree on.

    The token's volume has another name in each engine, and only the policy marks what it wired.
    """
    metadata = stored["metadata"]
    metadata.get("labels", {}).pop(contract.WIRED_BY, None)
    for key in ("uid", "creationTimestamp", "namespace", "managedFields"):
        metadata.pop(key, None)
    if "generateName" in metadata:
        metadata.pop("name", None)
    spec = stored["spec"]
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    mounts = [mount for container in containers for mount in container.get("volumeMounts") or ()]
    for named in [*(spec.get("volumes") or ()), *mounts]:
        if named["name"].startswith(contract.VOLUME_PREFIX):
            named["name"] = "ours"
    return stored


def mark_of(stored: Json) -> str | None:
    """Return what a pod says of who wired it."""
    mark: str | None = stored["metadata"].get("labels", {}).get(contract.WIRED_BY)
    return mark


def mark_wanted(manifest: Json, *, wired: bool) -> str | None:
    """Return what it should say: only of a labelled pod need the API server know."""
    label = ((manifest.get("metadata") or {}).get("labels") or {}).get(contract.USE_LABEL)
    return contract.WIRED_BY_POLICY if wired and label == "true" else None


def is_plain(case: Json) -> bool:
    """Whether the policy should wire the pod: what it leaves to the webhook, told in another way."""
    pod, account = case["pod"], case["account"] or {}
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    annotations = {key: value or "" for key, value in (metadata.get("annotations") or {}).items()}
    label = (metadata.get("labels") or {}).get(contract.USE_LABEL)
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    mounts = [mount for container in containers for mount in container.get("volumeMounts") or ()]
    written = [mount["mountPath"] for mount in mounts]  # one that only passes through is odd enough, too
    paths = [*written, *(posixpath.normpath("/" + path.lstrip("/")) for path in written)]
    compiled = compile_identities({"a": kept} if (kept := ours(account)) else {}, settings_of({}))
    expiration = annotations.get(contract.EXPIRATION, "3600")
    return (
        compiled is not None
        and bool(compiled.spec["identities"])
        and (label == "true" or bool(account.get(contract.CLIENT_ID)))
        and label != "false"
        and contract.MIRROR_POD not in annotations
        and annotations.get(contract.PREFIX + "use-" + SUFFIX, "").lower() != "true"
        and annotations.get(contract.INJECT_PROXY, "false").lower() == "false"
        and annotations.get(contract.LEGACY_PATH_ANNOTATION, "false").lower() == "false"
        and re.fullmatch("[-a-z0-9;]*", annotations.get(contract.SKIP_CONTAINERS, "")) is not None
        and re.fullmatch("[0-9]{4,5}", expiration) is not None
        and contract.MIN_EXPIRATION <= int(expiration) <= contract.MAX_EXPIRATION
        and not any(volume["name"].startswith(contract.VOLUME_PREFIX) for volume in spec.get("volumes") or ())
        and not any(f"{path}/".startswith(contract.BASE_PATH + "/") for path in paths)
    )


def outcome_of(cluster: Cluster, name: str) -> str:
    """Return "wired", "left" for the webhook, or "refused" by the API server; fail for anything between."""
    case = CASES[name]
    try:
        wanted = normal(cluster.create(UNWIRED, complete(case["wired"])))
        bare = normal(cluster.create(UNWIRED, complete(case["pod"])))
    except Refused:
        return "refused"
    stored = cluster.create(cluster.namespaces[name], complete(case["pod"]))
    mark, found = mark_of(stored), normal(stored)
    left = found == bare
    assert mark == mark_wanted(case["pod"], wired=not left), name
    if left:
        return "left"
    assert found == wanted, name
    return "wired"


def test_every_case(cluster: Cluster) -> None:
    """Plain pods become the pods that the webhook makes, all else stays exactly as it was."""
    outcomes = {name: outcome_of(cluster, name) for name in CASES}

    reached = {name: outcome for name, outcome in outcomes.items() if outcome != "refused"}
    assert reached == {name: "wired" if is_plain(CASES[name]) else "left" for name in reached}
    counts = {outcome: list(outcomes.values()).count(outcome) for outcome in ("wired", "left", "refused")}
    print(counts)  # how many cases no API server takes, too
    assert counts["wired"] >= 40
    assert counts["left"] >= 30


# Pods that nobody thought of.

ACCOUNTS: dict[str, dict[str, str]] = {
    "billing": {contract.CLIENT_ID: CLIENT},
    "other": {contract.CLIENT_ID: CLIENT, contract.TENANT_ID: "other", contract.EXPIRATION: "7200"},
    "nameless": {contract.TENANT_ID: ""},
    "broken": {contract.CLIENT_ID: CLIENT, contract.EXPIRATION: "1h"},
}
BASE, VOLUME = contract.BASE_PATH, contract.POLICY_VOLUME
VARIABLES = (contract.ENV_CLIENT_ID, contract.ENV_TOKEN_FILE, "AZURE_CLIENT_ID_", "LEVEL")
PATHS = ("/data", BASE, BASE + "/", BASE + "2", "/var/run//secrets/azure/wi/x", "/azure/wi", "/")
ANNOTATIONS = {
    contract.EXPIRATION: ("", "3600", "+7200", "007200", "86401", "4000"),
    contract.SKIP_CONTAINERS: ("", "a", "a;b", "a; b", ";", "A"),
    contract.INJECT_PROXY: ("false", "FALSE", "true", ""),
    contract.LEGACY_PATH_ANNOTATION: ("true", "False", ""),
    "team": ("a",),
}


def token_volume(audience: str, seconds: int) -> Json:
    """Return a volume of the policy's name."""
    token = {"path": contract.TOKEN_PATH, "audience": audience, "expirationSeconds": seconds}
    return {"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}


mounts: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"name": st.sampled_from(["data", VOLUME]), "mountPath": st.sampled_from(PATHS)},
    optional={"readOnly": st.booleans()},
)
wired_mount = st.just({"name": VOLUME, "mountPath": BASE, "readOnly": True})
variables: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"name": st.sampled_from(VARIABLES)}, optional={"value": st.sampled_from(["", "mine"])}
)
containers: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"name": st.sampled_from("abc")},
    optional={
        "env": st.lists(variables, max_size=3),
        "volumeMounts": st.lists(
            mounts | wired_mount, max_size=2, unique_by=lambda mount: str(mount["mountPath"])
        ),
    },
)
specs: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {
        "serviceAccountName": st.sampled_from(list(ACCOUNTS)),
        "containers": st.lists(containers, min_size=1, max_size=2, unique_by=lambda one: str(one["name"])),
    },
    optional={
        "initContainers": st.lists(st.builds(lambda one: one | {"name": "first"}, containers), max_size=1),
        "volumes": st.lists(
            st.just({"name": "data", "emptyDir": {}})
            | st.builds(
                token_volume,
                st.sampled_from(["api://AzureADTokenExchange", "foreign"]),
                st.sampled_from([3600, 7200]),
            ),
            max_size=2,
            unique_by=lambda volume: str(volume["name"]),
        ),
    },
)
generated = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": st.just("web")},
            optional={
                "labels": st.sampled_from([{}, {contract.USE_LABEL: "true"}, {contract.USE_LABEL: "false"}]),
                "annotations": st.fixed_dictionaries(
                    {}, optional={key: st.sampled_from(values) for key, values in ANNOTATIONS.items()}
                ),
            },
        ),
        "spec": specs,
    }
)


@dataclass(frozen=True, slots=True)
class Engines:
    """Three namespaces with the same ServiceAccounts, in a cluster that a running operator serves.

    The chart leaves two of them alone, for their label. All pods of one of these are sent to the webhook,
    also those that the policy would have wired.
    """

    plane: ControlPlane
    settings: Settings
    policy: str
    webhook: str
    neither: str

    def create(self, namespace: str, manifest: Json) -> Json | None:
        """Return a pod as it would be stored there; None when it would be refused."""
        try:
            return dry_run(self.plane, namespace, manifest)
        except Refused:
            return None

    def by_hand(self, bare: Json, account: Mapping[str, str]) -> Json | None:
        """Return what `wire` makes of a pod that no engine has touched, as it would be stored."""
        labels, annotations = (bare["metadata"].get(key, {}) for key in ("labels", "annotations"))
        try:
            sidecar = sidecar_of(annotations, bare["spec"], self.settings.proxy, None, native=True)
            wiring = wire(bare, identity_of(labels, annotations, account, self.settings), sidecar)
        except PodRefused:
            return None
        return self.create(self.neither, pasted(jsonpatch.apply_patch(bare, wiring.operations)))


@pytest.fixture(scope="module")
def engines(served: Served) -> Iterator[Engines]:
    """Have every pod of one namespace sent to the webhook, and wait until both engines know the accounts."""
    plane, alone = served.plane, "webhook-alone"
    of_it = {"matchLabels": {"kubernetes.io/metadata.name": alone}}
    found = plane.get("mutatingwebhookconfiguration", CONFIGURATION)
    (webhook,) = found["webhooks"]
    # Of another name: it would be taken for the peer's, to whom ours leaves its pods.
    webhook |= {"name": "alone.example.com", "objectSelector": {}, "matchConditions": []}
    webhook["namespaceSelector"] = of_it
    configuration = {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": {"name": alone}}
    as_served = settings_of({"settings": {**served.environ, "--log-level": "info"}})
    three = Engines(plane, as_served, "policy-too", alone, "neither")
    for name in (three.policy, three.webhook, three.neither):
        plane.create_namespace(name)
        if name != three.policy:
            plane.kubectl("label", "namespace", name, "control-plane=true")
        for account, annotations in ACCOUNTS.items():
            Namespace(plane, name).account(account, {} if name == three.neither else annotations)
    plane.kubectl("create", "--filename=-", given=json.dumps(configuration | {"webhooks": [webhook]}))
    last = complete(pod("web", "nameless"))  # of those that can be wired: who knows it knows all
    eventually(lambda: volumes_of(three.create(three.policy, last)) == [contract.POLICY_VOLUME])
    eventually(lambda: volumes_of(three.create(three.webhook, last)))
    yield three
    plane.kubectl("delete", "mutatingwebhookconfiguration", alone)


def volumes_of(stored: Json | None) -> list[str]:
    """Return the names of a pod's volumes; none of a pod that is refused."""
    return [volume["name"] for volume in (stored or {"spec": {}})["spec"].get("volumes", ())]


def pasted(stored: Json) -> Json:
    """Return a stored pod as someone writes it who copied it."""
    found = {key: copy.deepcopy(stored[key]) for key in KEPT}
    for made in ("uid", "creationTimestamp", "namespace", "managedFields", "generation"):
        found["metadata"].pop(made, None)
    return found


def lost(before: Any, after: Any) -> bool:
    """Whether something of the author's is missing, changed or in another order.

    What has one of our names is not theirs.
    """
    if isinstance(before, dict):
        if before.get("name") == "ours":
            return False
        return not isinstance(after, dict) or any(
            key not in after or lost(before[key], after[key]) for key in before
        )
    if isinstance(before, list):
        kept = [
            one for one in after if not (isinstance(one, dict) and str(one.get("name")).startswith("azwi-"))
        ]
        return len(kept) < len(before) or any(map(lost, before, kept))
    return bool(before != after)


@pytest.mark.soak
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(manifest=generated)
def test_any_pod(engines: Engines, tally: Tally, manifest: Json) -> None:
    """Policy and webhook make of it what `wire` does, lose nothing, and leave what they made as it is."""
    bare = engines.create(engines.neither, complete(manifest))
    assume(bare is not None)  # no such pod reaches either engine
    assert bare is not None
    account = ACCOUNTS[manifest["spec"]["serviceAccountName"]]
    plain = is_plain({"pod": bare, "account": account})
    unwired = normal(copy.deepcopy(bare))
    wanted = engines.by_hand(bare, account)
    by_webhook = engines.create(engines.webhook, complete(manifest))
    by_policy = engines.create(engines.policy, complete(manifest))

    assert same(by_webhook, wanted)
    if plain:
        assert by_policy is not None
        assert volumes_of(by_policy)[-1:] == [contract.POLICY_VOLUME]
        assert mark_of(by_policy) == mark_wanted(manifest, wired=True)
        assert same(by_policy, wanted)
    elif by_policy is None or normal(copy.deepcopy(by_policy)) != unwired:
        # The webhook's, whom the chart asks for labelled pods.
        assert same(by_policy, wanted)
    for namespace, stored in ((engines.webhook, by_webhook), (engines.policy, by_policy)):
        if stored is not None:
            assert not lost(unwired, normal(copy.deepcopy(stored)))
            assert same(engines.create(namespace, pasted(stored)), stored)
    event("plain" if plain else "refused" if wanted is None else "the webhook's")
    tally.one("pods by policy, webhook and wire")


def same(one: Json | None, other: Json | None) -> bool:
    """Whether both are refused, or both the same pod but for the name of the token's volume."""
    if one is None or other is None:
        return one is other
    return normal(copy.deepcopy(one)) == normal(copy.deepcopy(other))
