"""A container's environment is what a kubelet would make of its pod."""

from typing import Any

import pytest

from testkit.kubelet import NeedsNode, container_env, expand

EXPANSIONS = [
    ("plain", "plain"),
    ("$(A)", "a"),
    ("$(A)$(B)", "ab"),
    ("-$(A)-$(B)-", "-a-b-"),
    ("$(UNKNOWN)", "$(UNKNOWN)"),
    ("$(UNKNOWN)$(A)", "$(UNKNOWN)a"),
    ("$$(A)", "$(A)"),
    ("$$$(A)", "$a"),
    ("$$$$(A)", "$$(A)"),
    ("$$", "$"),
    ("$", "$"),
    ("$A", "$A"),
    ("$(A", "$(A"),
    ("$(A$(B)", "$(A$(B)"),
    ("$()", "$()"),
    ("$(A)$", "a$"),
    ("$((A))", "$((A))"),
    ("$ (A)", "$ (A)"),
    ("${A}", "${A}"),
    ("ä$(A)ö", "äaö"),
    ("$(EMPTY)|", "|"),
    ("$(NESTED)", "$(A)"),
]


@pytest.mark.parametrize(("value", "expanded"), EXPANSIONS, ids=[value for value, _ in EXPANSIONS])
def test_references_are_expanded(value: str, expanded: str) -> None:
    """References to known names are replaced once, doubled dollars are plain ones, the rest stays."""
    assert expanded == expand(value, {"A": "a", "B": "b", "EMPTY": "", "NESTED": "$(A)"})


def pod(*env: dict[str, Any], **container: Any) -> dict[str, Any]:
    """Return a stored pod whose container `main` has these variables."""
    return {
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "uid": "d0a1",
            "labels": {"app": "web"},
            "annotations": {"example.com/note": "a note"},
        },
        "spec": {
            "serviceAccountName": "clerk",
            "initContainers": [{"name": "init", "image": "i", "env": [{"name": "A", "value": "init"}]}],
            "containers": [{"name": "main", "image": "i", "env": list(env), **container}],
        },
    }


def field(path: str) -> dict[str, Any]:
    """Return a variable F that shows a field of the pod."""
    return {"name": "F", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def test_variables_see_those_before_them() -> None:
    """A reference reaches earlier variables only; a name declared twice has its last value."""
    variables = [
        {"name": "LATE", "value": "$(A)"},
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)2"},
        {"name": "A", "value": "$(A)$(B)"},
        {"name": "NOTHING"},
    ]

    env = container_env(pod(*variables), "main")

    assert env == {"LATE": "$(A)", "A": "112", "B": "12", "NOTHING": ""}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "d0a1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['example.com/note']", "a note"),
        ("spec.serviceAccountName", "clerk"),
    ],
)
def test_fields_of_the_pod_are_shown(path: str, value: str) -> None:
    """What the pod itself knows needs no node; field values are not expanded, references to them are."""
    after = {"name": "AFTER", "value": "<$(F)>"}

    assert {"F": value, "AFTER": f"<{value}>"} == container_env(pod(field(path), after), "main")


def test_init_containers_have_their_own() -> None:
    """A container of either list is found by its name."""
    assert container_env(pod(), "init") == {"A": "init"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (pod(field("status.podIP")), "field 'status.podIP' has no value without a node"),
        (pod(field("spec.nodeName")), "field 'spec.nodeName'"),
        (
            pod({"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
            "variable 'S' of container 'main' has its value from a secretKeyRef",
        ),
        (pod(envFrom=[{"configMapRef": {"name": "c"}}]), "container 'main' has envFrom"),
    ],
)
def test_what_needs_more_is_refused(asked: dict[str, Any], told: str) -> None:
    """Nothing is left out in silence: what cannot be known here is an error that names it."""
    with pytest.raises(NeedsNode, match=told):
        container_env(asked, "main")


def test_unknown_container_is_refused() -> None:
    """The error names pod and container."""
    with pytest.raises(NeedsNode, match="pod 'web-1' has no container 'other'"):
        container_env(pod(), "other")
