"""What holds for any pod that asks for the proxy: it gets one, once, in order, whatever it is made of."""

import copy
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from workload_identity_operator import contract
from workload_identity_operator.errors import PodRefused
from workload_identity_operator.identity import Identity
from workload_identity_operator.shapes import integer
from workload_identity_operator.sidecar import Proxy, Sidecar, sidecar_of
from workload_identity_operator.wiring import wire

Json = dict[str, Any]

pytestmark = pytest.mark.soak

KINDS = ("initContainers", "containers")
OURS = (contract.PROXY_NAME, contract.PROXY_INIT_NAME)
NAMES = (*OURS, "app", "side", "init")
PROXY = Proxy("registry.example/proxy", "registry.example/proxy-init", "info")

slowly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ports = st.fixed_dictionaries(
    {"containerPort": st.sampled_from([80, 8000])}, optional={"protocol": st.sampled_from(["TCP", "UDP"])}
)
variables = st.fixed_dictionaries(
    {"name": st.sampled_from([contract.ENV_CLIENT_ID, "PROXY_PORT"])}, optional={"value": st.text(max_size=3)}
)


def containers(names: tuple[str, ...]) -> st.SearchStrategy[Json]:
    """Containers of these names."""
    return st.fixed_dictionaries(
        {"name": st.sampled_from(names)},
        optional={
            "env": st.none() | st.lists(variables, max_size=2),
            "ports": st.none() | st.lists(ports, max_size=2),
            "restartPolicy": st.just("Always"),
        },
    )


def pods_of(names: tuple[str, ...]) -> st.SearchStrategy[Json]:
    """Pods whose containers have these names, each once, as the API server demands; lists may be null."""

    def parted(found: list[Json], at: int, null: bool) -> Json:
        lists = (found[:at], found[at:])
        spec = {kind: None if null and not part else part for kind, part in zip(KINDS, lists, strict=True)}
        return {"metadata": {"name": "pod-a"}, "spec": spec}

    some = st.lists(containers(names), max_size=5, unique_by=lambda container: str(container["name"]))
    return st.builds(parted, some, st.integers(0, 5), st.booleans())


pods = pods_of(NAMES)
bare_pods = pods_of(NAMES[2:])
sidecars = st.builds(Sidecar, st.just(PROXY), st.sampled_from([8000, 9000]), st.booleans())
identities = st.builds(
    Identity,
    client_id=st.sampled_from(["", "client"]),
    tenant_id=st.just("tenant"),
    authority_host=st.just("https://login.example/"),
    audience=st.just("api://audience"),
    skip=st.frozensets(st.sampled_from(NAMES), max_size=3),
)


def wired(pod: Json, identity: Identity, sidecar: Sidecar) -> Json:
    """Return the pod as wiring leaves it, sharing no part with any other."""
    result: Json = jsonpatch.apply_patch(pod, wire(pod, identity, sidecar).operations)
    return copy.deepcopy(result)


def containers_of(pod: Json) -> list[Json]:
    """Return all containers in the order in which they start."""
    return [container for kind in KINDS for container in pod["spec"].get(kind) or ()]


def names_in(pod: Json, kind: str) -> list[str]:
    """Return the names of one list's containers."""
    return [container["name"] for container in pod["spec"].get(kind) or ()]


@slowly
@given(pods, identities, sidecars, sidecars)
def test_wiring_again_changes_nothing(pod: Json, identity: Identity, first: Sidecar, second: Sidecar) -> None:
    """A pod that has its proxy is left alone, even when port or Kubernetes changed between two calls."""
    assert wire(wired(pod, identity, first), identity, second).operations == []


@slowly
@given(pods, identities, sidecars)
def test_each_is_there_once(pod: Json, identity: Identity, sidecar: Sidecar) -> None:
    """Both containers are there, once, whatever the pod had; nothing else is added."""
    before, after = containers_of(pod), containers_of(wired(pod, identity, sidecar))

    found = [container["name"] for container in after]
    assert sorted(found) == sorted({*OURS, *(container["name"] for container in before)})


@slowly
@given(pods, identities, sidecars)
def test_authors_containers_keep_order_and_content(pod: Json, identity: Identity, sidecar: Sidecar) -> None:
    """Without what was injected the pod is the one that wiring without a proxy makes."""
    before = copy.deepcopy(pod)
    plain: Json = jsonpatch.apply_patch(pod, wire(pod, identity).operations)
    theirs = {container["name"] for container in containers_of(pod)}

    after = wired(pod, identity, sidecar)

    assert before == pod
    for kind in KINDS:
        kept = [container for container in after["spec"].get(kind) or () if container["name"] in theirs]
        assert kept == (plain["spec"].get(kind) or [])


@slowly
@given(bare_pods, identities, sidecars)
def test_skip_list_cannot_unwire_what_is_injected(pod: Json, identity: Identity, sidecar: Sidecar) -> None:
    """However many names it lists, both injected containers have the token file and the tenant."""
    after = {container["name"]: container for container in containers_of(wired(pod, identity, sidecar))}

    for name in OURS:
        env = {entry["name"]: entry["value"] for entry in after[name]["env"]}
        assert env[contract.ENV_TENANT_ID] == "tenant"
        assert env[contract.ENV_TOKEN_FILE] == contract.TOKEN_FILE
        assert [mount["mountPath"] for mount in after[name]["volumeMounts"]] == [contract.BASE_PATH]


@slowly
@given(bare_pods, identities, sidecars)
def test_places(pod: Json, identity: Identity, sidecar: Sidecar) -> None:
    """A native proxy and the redirect are the first two; an ordinary one is first, its redirect last."""
    after = wired(pod, identity, sidecar)

    init, main = (names_in(after, kind) for kind in KINDS)
    if sidecar.native:
        assert init[:2] == [*OURS]
    else:
        assert (main[0], init[-1]) == OURS


@slowly
@given(pods, identities, sidecars, containers(("mesh",)), st.sampled_from(KINDS), st.data())
def test_container_put_anywhere_is_wired(
    pod: Json, identity: Identity, sidecar: Sidecar, added: Json, kind: str, data: st.DataObject
) -> None:
    """A container that another webhook puts anywhere afterwards is wired, and nothing else changes."""
    between = wired(pod, identity, sidecar)
    there = list(between["spec"].get(kind) or ())
    index = data.draw(st.integers(0, len(there)))
    again = copy.deepcopy(between)
    again["spec"][kind] = [*there[:index], added, *there[index:]]

    after = wired(again, identity, sidecar)

    found = after["spec"][kind].pop(index)
    assert {contract.ENV_TOKEN_FILE, contract.ENV_TENANT_ID} <= {entry["name"] for entry in found["env"]}
    assert (after["spec"].get(kind) or []) == there


@slowly
@given(st.sampled_from(["", "true", "TRUE", "no", "0", " false", "false "]) | st.text(), st.booleans())
def test_anything_but_false_asks_for_it(value: str, native: bool) -> None:
    """Every value but false, in any case, asks for the proxy."""
    assume(value.lower() != "false")

    asked = sidecar_of({contract.INJECT_PROXY: value}, {}, PROXY, None, native=native)

    assert asked == Sidecar(PROXY, contract.DEFAULT_PROXY_PORT, native)


@pytest.mark.parametrize("value", ["false", "False", "FALSE", "fAlSe"])
def test_false_asks_for_none(value: str) -> None:
    """False in any case asks for none, and nothing else about the proxy is looked at."""
    annotations = {contract.INJECT_PROXY: value, contract.PROXY_PORT: "nonsense"}

    assert sidecar_of(annotations, {"hostNetwork": "?"}, PROXY, None, native=True) is None


@slowly
@given(st.integers(-(2**40), 2**40) | st.integers(-2, 65540), st.integers(0, 5))
def test_ports(number: int, zeros: int) -> None:
    """Exactly 1 to 65535 are ports, with leading zeros or without."""
    written = f"{'-' if number < 0 else ''}{'0' * zeros}{abs(number)}"
    annotations = {contract.INJECT_PROXY: "true", contract.PROXY_PORT: written}

    if 1 <= number <= 65535:
        asked = sidecar_of(annotations, {}, PROXY, None, native=True)
        assert asked == Sidecar(PROXY, number, native=True)
    else:
        with pytest.raises(PodRefused, match="wanted 1 to 65535"):
            sidecar_of(annotations, {}, PROXY, None, native=True)


@pytest.mark.parametrize("bits", [32, 64])
def test_bounds_of_an_integer(bits: int) -> None:
    """The largest and the smallest number of so many bits are read; one more or less is out of range."""
    most = 2 ** (bits - 1)

    assert integer(str(most - 1), bits, "port", "wanted one") == most - 1
    assert integer(str(-most), bits, "port", "wanted one") == -most
    for beyond in (most, -most - 1):
        with pytest.raises(PodRefused, match=f"out of range of {bits} bits"):
            integer(str(beyond), bits, "port", "wanted one")
