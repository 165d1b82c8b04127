"""The operator keeps each namespace's PodWiring what its ServiceAccounts say, whoever else touches it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testkit.installation import Served, second_running
from testkit.processes import ProcessFailed
from testkit.workloads import CLIENT, Namespace, eventually
from workload_identity_operator import contract


def table(inside: Namespace) -> dict[str, Any] | None:
    """Return the namespace's PodWiring; None when there is none."""
    found: list[dict[str, Any]] = inside.get("podwirings")["items"]
    return found[0] if found else None


def identities(inside: Namespace) -> dict[str, Any]:
    """Return the identities in it."""
    found = table(inside)
    return dict(found["spec"]["identities"]) if found else {}


def settled(inside: Namespace) -> dict[str, Any] | None:
    """Return the PodWiring once its status is about its spec."""
    found = table(inside)
    current = found and found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
    return found if current else None


def test_annotated_accounts_come_and_go(inside: Namespace) -> None:
    """The first makes the PodWiring, a change changes it, and with the last it goes."""
    inside.account("unrelated", {"team": "a"})
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    eventually(lambda: identities(inside) == {"billing": {"clientID": CLIENT, "expirationSeconds": 3600}})

    inside.kubectl("annotate", "serviceaccount", "billing", f"{contract.EXPIRATION}=7200")
    eventually(lambda: identities(inside)["billing"]["expirationSeconds"] == 7200)

    inside.kubectl(
        "annotate", "serviceaccount", "billing", f"{contract.CLIENT_ID}-", f"{contract.EXPIRATION}-"
    )
    eventually(lambda: table(inside) is None)


def test_status_reads_well(inside: Namespace) -> None:
    """`kubectl get pw` tells how many are in and how many are left out, and why."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    inside.account("broken", {contract.CLIENT_ID: CLIENT, contract.EXPIRATION: "1h"})

    found = eventually(lambda: (one := settled(inside)) and one["status"]["leftOut"] and one)
    shown = inside.kubectl("get", "pw", "--output=wide")

    assert found["status"]["problems"][0]["serviceAccount"] == "broken"
    assert '"1h": invalid syntax' in found["status"]["problems"][0]["reason"]
    columns = [*("IDENTITIES", "LEFT", "OUT", "WIRED", "UNWIRED", "OUTDATED"), *("WRONG", "PROBLEM", "AGE")]
    assert shown.splitlines()[0].split()[1:] == columns
    assert shown.splitlines()[1].split()[:3] == ["workload-identity", "1", "1"]


def test_whatever_is_annotated_is_written(inside: Namespace) -> None:
    """One ServiceAccount with an emoji or a control character keeps no other's identity from the table."""
    odd = {
        "emoji": "\U0001f680",
        "delete": "a\x7f",
        "control": "\x80\x85",
        "line": "\u2028\ufeff",
        "end": "\uffff",
    }
    for name, client in odd.items():
        inside.account(name, {contract.CLIENT_ID: client})
    inside.account("usual", {contract.CLIENT_ID: CLIENT})

    eventually(lambda: identities(inside).keys() == {*odd, "usual"})

    assert {name: found["clientID"] for name, found in identities(inside).items()} == {**odd, "usual": CLIENT}


def test_many_changes_make_few_writes(inside: Namespace) -> None:
    """A list of 200 applied at once is written in batches, not one by one."""
    accounts = [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": f"sa-{number}", "annotations": {contract.CLIENT_ID: CLIENT}},
        }
        for number in range(200)
    ]
    inside.kubectl("create", "--filename=-", given={"apiVersion": "v1", "kind": "List", "items": accounts})

    eventually(lambda: len(identities(inside)) == 200)

    found = eventually(lambda: settled(inside))
    assert found["metadata"]["generation"] < 100


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"tenantID": "evil"}},
        {"spec": {"identities": {"billing": {"clientID": "evil"}}}},
        {"spec": {"identities": {"another": {"clientID": "evil", "expirationSeconds": 3600}}}},
        {"spec": {"identities": {"billing": None}}},
    ],
    ids=["setting", "identity", "addition", "removal"],
)
def test_edit_by_hand_is_put_right(inside: Namespace, patch: dict[str, Any]) -> None:
    """Whoever edits it finds it as it was a moment later."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    before = eventually(lambda: settled(inside))

    inside.kubectl("patch", "pw", contract.POD_WIRING_NAME, "--type=merge", f"--patch={json.dumps(patch)}")

    after = eventually(lambda: (one := table(inside)) and one["spec"] == before["spec"] and one)
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 2


def test_status_edited_by_hand_is_put_right(inside: Namespace) -> None:
    """Nobody is told wrong numbers for longer than a few seconds."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    before = eventually(lambda: settled(inside))

    how = ("--subresource=status", "--type=merge", '--patch={"status": {"identities": 42}}')
    inside.kubectl("patch", "pw", contract.POD_WIRING_NAME, *how)

    # What it says of pods comes with the audit, in its own time.
    wanted = {**before["status"], "pods": None}
    eventually(lambda: (one := table(inside)) and {**one["status"], "pods": None} == wanted)


def test_deletion_by_hand_is_put_right(inside: Namespace) -> None:
    """Deleted, it is made anew."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    before = eventually(lambda: settled(inside))

    inside.kubectl("delete", "pw", contract.POD_WIRING_NAME)

    after = eventually(lambda: settled(inside))
    assert after["spec"] == before["spec"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


def test_table_made_by_hand_goes(inside: Namespace) -> None:
    """Where no ServiceAccount is annotated nobody gets an identity by writing a PodWiring."""
    spec = {"tenantID": "t", "authorityHost": "h", "audience": "a", "identities": {}}
    kind = {"apiVersion": contract.POD_WIRING_API, "kind": "PodWiring"}

    inside.create({**kind, "metadata": {"name": contract.POD_WIRING_NAME}, "spec": spec})

    eventually(lambda: table(inside) is None)


def test_it_has_one_name(inside: Namespace) -> None:
    """Another one would look as if it did something."""
    spec = {"tenantID": "t", "authorityHost": "h", "audience": "a", "identities": {}}
    kind = {"apiVersion": contract.POD_WIRING_API, "kind": "PodWiring"}

    with pytest.raises(ProcessFailed, match="a namespace has one PodWiring, named workload-identity"):
        inside.create({**kind, "metadata": {"name": "another"}, "spec": spec})


def test_replicas_agree(served: Served, inside: Namespace) -> None:
    """A second one, started later, writes nothing that is there; then each change is made once."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    before = eventually(lambda: settled(inside))
    with second_running(served) as second:
        told = ("PodWirings are kept", "the table of ServiceAccounts is filled")
        second.child.wait_until(lambda: all(said in second.child.log.read_text() for said in told), within=60)
        time.sleep(1)  # its first look at what is there follows at once
        inside.account("shipping", {contract.CLIENT_ID: CLIENT})
        after = eventually(lambda: (one := settled(inside)) and len(one["spec"]["identities"]) == 2 and one)

        assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1


def test_largest_table_is_stored(inside: Namespace) -> None:
    """What does not fit an object is left out and said; the API server takes the rest."""
    for number in range(5):
        inside.account(f"sa-{number}", {contract.CLIENT_ID: "x" * 220_000})

    found = eventually(lambda: (one := settled(inside)) and one["status"]["leftOut"] and one)

    assert list(found["spec"]["identities"]) == ["sa-0", "sa-1", "sa-2", "sa-3"]
    assert {one["type"]: one["status"] for one in found["status"]["conditions"]}["Truncated"] == "True"


@contextmanager
def nothing_is_taken(inside: Namespace) -> Iterator[None]:
    """Have the API server call every PodWiring of the namespace invalid."""
    name = f"no-podwirings-{inside.name}"
    group = "admissionregistration.k8s.io/v1"
    rule = {
        "apiGroups": [contract.POD_WIRING_GROUP],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [contract.POD_WIRINGS],
    }
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": inside.name}}}
    policy = {
        "matchConstraints": {"resourceRules": [rule], **where},
        "validations": [{"expression": "false", "reason": "Invalid"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    for kind, spec in kinds.items():
        inside.create({"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec})
    try:
        yield
    finally:
        for kind in kinds:
            inside.kubectl("delete", kind.lower(), name)


def test_what_cannot_be_put_right_goes(inside: Namespace) -> None:
    """A table that gives a former identity is worse than none: pods are the webhook's then."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    eventually(lambda: table(inside))
    with nothing_is_taken(inside):
        time.sleep(2)  # until API servers go by the policy
        inside.kubectl("annotate", "serviceaccount", "billing", f"{contract.TENANT_ID}=other")
        eventually(lambda: table(inside) is None, within=30)

    eventually(lambda: identities(inside).get("billing", {}).get("tenantID") == "other", within=90)
