"""What a ConfigMap declares, in what an object differs from it, and how patient we are."""

import json
from typing import Any

import pytest

from workload_identity_operator.declared import (
    CALM,
    FREE,
    KINDS,
    LONGEST_PAUSE,
    DeclarationUnreadable,
    Patience,
    difference,
    editors,
    read_declaration,
)

POLICY = "MutatingAdmissionPolicy"
BINDING = "MutatingAdmissionPolicyBinding"


def declared(kind: str, **more: Any) -> str:
    """Return an object as the chart declares it."""
    body = {"apiVersion": KINDS[kind].api, "kind": kind, "metadata": {"name": "ours", "labels": {"a": "b"}}}
    return json.dumps({**body, "spec": {}, **more})


def config_map(data: dict[str, str], **meta: Any) -> dict[str, Any]:
    """Return a ConfigMap as stored."""
    return {"metadata": {"name": "x", "resourceVersion": "7", **meta}, "data": data}


def owner(manager: str, how: str, part: str = "f:data") -> dict[str, Any]:
    """Return an entry of `managedFields`."""
    return {"manager": manager, "operation": how, "fieldsV1": {part: {}}}


def test_objects_come_in_the_order_of_need() -> None:
    """The kind of a policy's parameters first, the binding last."""
    found = read_declaration(config_map({kind: declared(kind) for kind in sorted(KINDS, reverse=True)}))

    assert [one.kind for one in found.objects] == [
        "CustomResourceDefinition",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    ]
    assert found.version == "7"


def test_an_object_is_marked_as_its_release() -> None:
    """Helm takes an object as its own by its annotations, other tools by their labels."""
    marks = {"meta.helm.sh/release-name": "r", "meta.helm.sh/release-namespace": "n", "note": "of the map"}

    (one,) = read_declaration(
        config_map({POLICY: declared(POLICY)}, annotations=marks, labels={"app": "x"})
    ).objects

    assert one.body["metadata"] == {
        "name": "ours",
        "labels": {"a": "b", "app": "x"},
        "annotations": {"meta.helm.sh/release-name": "r", "meta.helm.sh/release-namespace": "n"},
    }


@pytest.mark.parametrize(
    ("owners", "manager"),
    [
        ([owner("helm", "Apply")], "helm"),
        ([owner("someone", "Apply", "f:metadata"), owner("argocd-controller", "Apply")], "argocd-controller"),
        ([owner("helm", "Update")], ""),
        ([], ""),
    ],
    ids=["helm", "other", "helm-3", "none"],
)
def test_manager_is_who_applied_the_declaration(owners: list[dict[str, Any]], manager: str) -> None:
    """Who applied it finds its own fields at the next upgrade; who wrote it otherwise meets no conflicts."""
    assert read_declaration(config_map({}, managedFields=owners)).manager == manager


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"Secret": "{}"}, "Secret: wanted one of CustomResourceDefinition, Mutating"),
        ({POLICY: "{"}, "MutatingAdmissionPolicy: is no object"),
        ({POLICY: "[]"}, "MutatingAdmissionPolicy: is no object"),
        ({POLICY: "{}"}, "MutatingAdmissionPolicy: is no object"),
        ({POLICY: declared(BINDING)}, "wanted a MutatingAdmissionPolicy of admissionregistration"),
        ({POLICY: declared(POLICY, apiVersion="v1")}, "wanted a MutatingAdmissionPolicy of admissionregistr"),
        ({POLICY: declared(POLICY, metadata={"name": "../x"})}, "with a name"),
        ({POLICY: declared(POLICY, metadata={"name": 7})}, "MutatingAdmissionPolicy: is no object"),
        ({POLICY: declared(POLICY, metadata=7)}, "MutatingAdmissionPolicy: is no object"),
        ({POLICY: declared(POLICY, metadata={"name": "a", "labels": "b"})}, "is no object"),
    ],
)
def test_declaration_that_cannot_be_read(data: dict[str, str], told: str) -> None:
    """Nothing becomes part of a request but a name that Kubernetes accepts."""
    with pytest.raises(DeclarationUnreadable, match=told):
        read_declaration(config_map(data))


def test_rehearsals_are_never_about_the_object_itself() -> None:
    """But for a definition, whose name belongs to what it defines."""
    found = read_declaration(config_map({kind: declared(kind) for kind in KINDS})).objects

    assert [(one.rehearsal()[0] == one.path) for one in found] == [True, False, False]
    path, body = found[1].rehearsal()
    assert path.endswith("/mutatingadmissionpolicies/ours-declared")
    assert body["metadata"] == {"name": "ours-declared"}


def test_differences_are_named() -> None:
    """Fields that differ, are missing or too many; what is not the chart's is none."""
    wanted = {"spec": {"a": 1, "b": {"c": 2}, "d": 3}}
    found = {"spec": {"a": 1, "b": {"c": 3}, "e": 4, "matchResources": {}}}

    assert difference(BINDING, wanted, found) == ("b", "d", "e")
    assert difference(POLICY, wanted, found) == ("b", "d", "e", "matchResources")
    assert difference(POLICY, wanted, wanted) == ()


def test_editors_are_named() -> None:
    """Whoever owns a part of the spec, but for who is to own it."""
    owners = [
        owner("helm", "Apply", "f:spec"),
        owner("kubectl-edit", "Update", "f:spec"),
        owner("x", "Update"),
    ]

    assert editors({"metadata": {"managedFields": owners}}, {"helm"}) == ("kubectl-edit",)


def test_patience_grows_and_comes_back() -> None:
    """The first repair waits for nothing, each further one twice as long as the last, up to minutes."""
    patience, now, pauses, said = Patience(), 1000.0, [], []
    for _ in range(12):
        pause = patience.wait(now)
        assert patience.wait(now + pause) == 0
        now += pause
        pauses.append(pause)
        said.append(patience.repaired(now))

    assert pauses == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, LONGEST_PAUSE, LONGEST_PAUSE]
    assert [number for number, moment in enumerate(said, 1) if moment] == [FREE + 1]
    assert patience.contested
    assert patience.wait(now + CALM + 1) == 0
    assert not patience.repaired(now + CALM + 1)
    assert not patience.contested
