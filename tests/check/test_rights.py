"""What the operator may do: `check` wants what the chart gives, no more and no less."""

from typing import Any

import pytest
import yaml

from testkit.installation import NAMESPACE, RELEASE
from testkit.manifests import rendered
from testkit.rights import rights_of as rights_in
from testkit.rights import roles_of
from workload_identity_operator import contract
from workload_identity_operator.check.cluster import Cluster, Right
from workload_identity_operator.check.rights import given, lacking, rights_of, told

CONFIGURATION = contract.CONFIGURATION_PREFIX + RELEASE


def documents(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the chart renders."""
    return [one for one in yaml.safe_load_all(rendered(values, namespace=NAMESPACE)) if one]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"engine": "policy"}, {"policy": True}),
        ({"engine": "webhook", "certManager": {"enabled": True}}, {"secret": ""}),
        ({"engine": "webhook", "healing": {"mode": "dryRun"}}, {"healing": "dryRun"}),
        ({"engine": "policy", "healing": {"mode": "restart"}}, {"policy": True, "healing": "restart"}),
    ],
    ids=str,
)
def test_what_is_wanted_is_what_the_chart_gives(values: dict[str, Any], wanted: dict[str, Any]) -> None:
    """A right that the chart gives and nobody looks for is one that goes missing unnoticed."""
    objects = documents(values)
    granted = {right for role in roles_of(objects, RELEASE) for right in rights_in(role)}
    parts = {"secret": f"{RELEASE}-certificate", "policy": False, "healing": "", **wanted}

    found = rights_of(RELEASE, NAMESPACE, CONFIGURATION, **parts)

    assert set(found) == granted
    cluster = Cluster("https://example.com")
    for one in objects:
        cluster.objects.setdefault(one["kind"], []).append(one)
    assert lacking(found, given(cluster, RELEASE, NAMESPACE)) == []
    assert lacking(found, given(cluster, "another", NAMESPACE)) == found


@pytest.mark.parametrize(
    ("has", "enough"),
    [
        (Right("*", "*", "*"), True),
        (Right("get", "", "secrets", "", "here"), True),
        (Right("get", "", "secrets", "other", "here"), False),
        (Right("get", "", "secrets", "", "there"), False),
        (Right("get", "apps", "secrets"), False),
        (Right("list", "", "secrets"), False),
    ],
)
def test_wider_rights_are_enough(has: Right, *, enough: bool) -> None:
    """As an administrator's are, of all objects or of everything."""
    wanted = Right("get", "", "secrets", "certificate", "here")

    assert (lacking([wanted], [has]) == []) is enough


def test_rights_are_told_in_a_line() -> None:
    """By resource, and no more than one reads."""
    verbs = [Right("list", "", "pods"), Right("list", "", "pods", "a"), Right("get", "", "pods")]

    assert told(verbs) == "list, get pods"
    many = [Right("get", "", resource) for resource in "abcdefg"]
    assert told(many) == "get a; get b; get c; get d; get e and more of 2 other resources"
