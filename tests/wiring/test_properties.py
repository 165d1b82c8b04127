"""What holds for any pod: repeating, renaming and injecting containers add nothing twice and lose nothing."""

import copy
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from workload_identity_operator import contract
from workload_identity_operator.errors import PodRefused
from workload_identity_operator.identity import Identity
from workload_identity_operator.wiring import volume_name, wire

Json = dict[str, Any]

pytestmark = pytest.mark.soak

KINDS = ("initContainers", "containers")
NAMES = ("app", "side", "init", "other")
POD_NAMES = ("pod-a", "pod-b", "")
OURS = (volume_name("pod-a"), volume_name("pod-b"), contract.VOLUME_PREFIX + "0" * 30)
VOLUMES = ("data", "my-token", *OURS)
BASE = contract.BASE_PATH
ELSEWHERE = ("/data", "/var/run/secrets/azure", BASE + "2", "/")
AT_OUR_PLACE = (BASE, BASE + "/", f"{BASE}/0123456789abcdef")
VARIABLES = (contract.ENV_CLIENT_ID, contract.ENV_TENANT_ID, contract.ENV_TOKEN_FILE, "LEVEL")

# Cold caches and a busy machine make single examples slow; that is no failure.
slowly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Objects that have some of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


def lists(items: st.SearchStrategy[Any], longest: int = 3) -> st.SearchStrategy[list[Any] | None]:
    """Lists, or null."""
    return st.none() | st.lists(items, max_size=longest)


tokens = st.builds(
    lambda path, seconds: {
        "serviceAccountToken": {"path": path, "expirationSeconds": seconds, "audience": "a"}
    },
    st.sampled_from([contract.TOKEN_PATH, "token"]),
    st.sampled_from([3600, 7200]),
)
projections = optional(
    sources=lists(tokens | st.just({"configMap": {"name": "more"}})), defaultMode=st.just(420)
)
volumes: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"name": st.sampled_from(VOLUMES)}, optional={"projected": projections, "emptyDir": st.just({})}
)
mounts: st.SearchStrategy[Json] = st.one_of(
    st.builds(dict, name=st.sampled_from(VOLUMES), mountPath=st.sampled_from(ELSEWHERE)),
    st.builds(dict, name=st.sampled_from(VOLUMES[1:]), mountPath=st.sampled_from(AT_OUR_PLACE)),
)
variables = st.fixed_dictionaries(
    {"name": st.sampled_from(VARIABLES)},
    optional={"value": st.text(max_size=3), "valueFrom": st.just({"fieldRef": {}})},
)
containers = st.fixed_dictionaries(
    {"name": st.sampled_from(NAMES)},
    optional={
        "env": lists(variables),
        "envFrom": lists(st.just({"configMapRef": {"name": "c"}}), 1),
        "volumeMounts": lists(mounts, 2),
        "restartPolicy": st.just("Always"),
        "future": st.just({"a": [None]}),
    },
)
metadata = optional(name=st.sampled_from(POD_NAMES), generateName=st.sampled_from(["web-", ""]))
pods = st.fixed_dictionaries(
    {
        "metadata": metadata,
        "spec": optional(
            initContainers=lists(containers, 2),
            containers=lists(containers),
            # One of a name, as the API server demands: of twins, which one a mount means is not defined.
            volumes=st.none() | st.lists(volumes, max_size=4, unique_by=lambda volume: str(volume["name"])),
        ),
    }
)
identities = st.builds(
    Identity,
    client_id=st.sampled_from(["", "client"]),
    tenant_id=st.sampled_from(["", "tenant"]),
    authority_host=st.just("https://login.example/"),
    audience=st.just("api://audience"),
    expiration=st.sampled_from([3600, 7200]),
    skip=st.frozensets(st.sampled_from(NAMES), max_size=2),
)


def patched(pod: Json, identity: Identity) -> Json:
    """Return the pod as wiring leaves it; another example when it is refused."""
    try:
        operations = wire(pod, identity).operations
    except PodRefused:
        assume(False)
    result: Json = jsonpatch.apply_patch(pod, operations)
    return result


def wired(pod: Json, identity: Identity) -> Json:
    """Return the pod as the API server has it then, its own defaults filled in."""
    result = patched(pod, identity)
    for volume in result["spec"].get("volumes") or ():
        if "projected" in volume:
            volume["projected"].setdefault("defaultMode", 420)
    return result


def containers_of(pod: Json) -> list[Json]:
    """Return all containers that wiring looks at."""
    return [container for kind in KINDS for container in pod["spec"].get(kind) or ()]


def read_by(container: Json) -> str:
    """Return the token file that a container is told to read."""
    return next(str(entry["value"]) for entry in container["env"] if entry["name"] == contract.ENV_TOKEN_FILE)


@slowly
@given(pods, identities)
def test_wiring_twice_changes_nothing(pod: Json, identity: Identity) -> None:
    """A wired pod, its defaults filled in, yields no operation."""
    assert wire(wired(pod, identity), identity).operations == []


@slowly
@given(pods, identities, metadata)
def test_renaming_adds_nothing(pod: Json, identity: Identity, renamed: Json) -> None:
    """A wired pod that is named anew gets no second volume, mount or variable."""
    again = {**wired(pod, identity), "metadata": renamed}

    assert [found for found in wire(again, identity).operations if found["op"] == "add"] == []


@slowly
@given(pods, identities)
def test_authors_values_are_kept(pod: Json, identity: Identity) -> None:
    """Lists only grow at their end, but for entries of a reserved name; nothing else changes at all."""
    before = copy.deepcopy(pod)
    after = patched(pod, identity)

    assert before == pod
    kept = [(before["spec"], after["spec"], "volumes")]
    for old, new in zip(containers_of(before), containers_of(after), strict=True):
        kept += [(old, new, "env"), (old, new, "volumeMounts")]
    for old, new, key in kept:
        for was, became in zip(old.pop(key, None) or (), new.pop(key, None) or (), strict=False):
            if not was["name"].startswith(contract.VOLUME_PREFIX):
                assert was == became
    assert before == after


@slowly
@given(pods, identities, containers, st.sampled_from(KINDS), st.data())
def test_a_container_put_anywhere_is_wired(
    pod: Json, identity: Identity, added: Json, kind: str, data: st.DataObject
) -> None:
    """A container that another webhook puts anywhere is wired, and it alone."""
    between = wired(pod, identity)
    there = list(between["spec"].get(kind) or ())
    index = data.draw(st.integers(0, len(there)))
    between["spec"][kind] = [*there[:index], copy.deepcopy(added), *there[index:]]

    after = wired(between, identity)

    found = after["spec"][kind].pop(index)
    if found["name"] in identity.skip:
        assert added == found
    else:
        paths = [mount["mountPath"].rstrip("/") for mount in found["volumeMounts"]]
        assert any(path == BASE or path.startswith(BASE + "/") for path in paths)
        names = [entry["name"] for entry in found["env"]]
        assert {contract.ENV_TOKEN_FILE, contract.ENV_AUTHORITY_HOST} <= {*names}
    del between["spec"][kind][index]
    assert between == after


@slowly
@given(pods, identities)
def test_every_container_can_read_the_token(pod: Json, identity: Identity) -> None:
    """Where the variable is ours it points into a mount of a volume that carries the token there."""
    after = wired(pod, identity)

    carrying = {
        volume["name"]
        for volume in after["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources") or ()
        if source.get("serviceAccountToken", {}).get("path") == contract.TOKEN_PATH
    }
    for was, container in zip(containers_of(pod), containers_of(after), strict=True):
        preset = {entry["name"] for entry in was.get("env") or ()}
        if container["name"] not in identity.skip and contract.ENV_TOKEN_FILE not in preset:
            folder = read_by(container).removesuffix(f"/{contract.TOKEN_PATH}")
            mounted = {m["name"] for m in container["volumeMounts"] if m["mountPath"].rstrip("/") == folder}
            assert mounted & carrying


KEYS = (
    *("metadata", "name", "generateName", "spec", *KINDS, "volumes", "env", "envFrom", "prefix", "value"),
    *("volumeMounts", "mountPath", "projected", "sources", "serviceAccountToken", "path"),
)
TEXTS = (*VOLUMES, *ELSEWHERE, *AT_OUR_PLACE, *VARIABLES, contract.TOKEN_PATH, "")
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(TEXTS)
trees = st.recursive(
    scalars | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=40,
)


def grafted(tree: Any, where: int, pod: Json) -> Json:
    """Return the pod with one of its values, counted in their order, replaced by the tree."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys = (
            list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        )
        for key in keys:
            places.append((value, key))
            walk(value[key])

    changed = copy.deepcopy(pod)
    walk(changed)
    parent, key = places[where % len(places)]
    parent[key] = tree
    return changed


@slowly
@given(
    st.dictionaries(st.sampled_from(KEYS), trees, max_size=4)
    | st.builds(grafted, trees, st.integers(0, 200), pods),
    identities,
)
def test_any_json_is_wired_or_refused(pod: Json, identity: Identity) -> None:
    """Whatever a pod is made of, it is refused, or wired once and for all; nothing else is raised."""
    try:
        operations = wire(pod, identity).operations
    except PodRefused:
        return
    assert wire(jsonpatch.apply_patch(pod, operations), identity).operations == []
