"""The person who annotates a ServiceAccount is told at kubectl what will not work."""

import json
from collections.abc import Mapping

import pytest

from testkit.installation import Served
from testkit.processes import finish
from testkit.workloads import CLIENT, Namespace, eventually, fresh_namespace
from workload_identity_operator import contract
from workload_identity_operator.identity import account_warnings

EXPECTED = {
    "client-id": ({contract.CLIENT_ID: "billing"}, "client-id is no GUID: 'billing'"),
    "client-id with a digit too few": ({contract.CLIENT_ID: CLIENT[:-1]}, "client-id is no GUID"),
    "client-id too long to quote": ({contract.CLIENT_ID: "x" * 100_000}, "client-id is no GUID"),
    "tenant-id": ({contract.TENANT_ID: "my tenant"}, "neither a GUID nor a domain name: 'my tenant'"),
    "expiration": ({contract.EXPIRATION: "1h"}, "is '1h': wanted 3600 to 86400 seconds"),
    "expiration too short": ({contract.EXPIRATION: "3599"}, "is '3599': wanted 3600 to 86400 seconds"),
    "expiration too long": ({contract.EXPIRATION: "86401"}, "is '86401': wanted 3600 to 86400 seconds"),
    "misspelt": ({contract.PREFIX + "client_id": CLIENT}, f"annotation {contract.PREFIX}client_id"),
    "of a pod": ({contract.SKIP_CONTAINERS: "a"}, f"annotation {contract.SKIP_CONTAINERS}"),
}
FINE = {
    "nothing of ours": {"team": "a"},
    "identity": {contract.CLIENT_ID: CLIENT, contract.TENANT_ID: CLIENT, contract.EXPIRATION: "3600"},
    "upper case and blanks": {contract.CLIENT_ID: f" {CLIENT.upper()}\n"},
    "domain": {contract.TENANT_ID: "contoso.onmicrosoft.com"},
    "sign and zeros": {contract.EXPIRATION: "+00086400"},
    "empty": {contract.CLIENT_ID: "", contract.TENANT_ID: "", contract.EXPIRATION: ""},
}


def warnings(inside: Namespace, *args: str, given: object = None) -> str:
    """Return what kubectl warns of, done with the administrator's rights."""
    kubectl = inside.plane.folder / "bin" / "kubectl"
    command = [str(kubectl), f"--namespace={inside.name}", *args]
    done = finish(command, env=inside.plane.environment, given=None if given is None else json.dumps(given))
    assert done.status == 0, done.errors
    return done.errors


def create(inside: Namespace, annotations: Mapping[str, str]) -> str:
    """Return what is warned of when a ServiceAccount with these annotations is created."""
    metadata = {"name": "billing", "annotations": dict(annotations)}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    return warnings(inside, "create", "--dry-run=server", "--filename=-", given=account)


@pytest.fixture(scope="module", autouse=True)
def known(served: Served) -> None:
    """Wait until the API server has learned of the policy."""
    with fresh_namespace(served.plane) as inside:
        eventually(lambda: create(inside, {contract.CLIENT_ID: "billing"}))


@pytest.mark.parametrize(("annotations", "told"), EXPECTED.values(), ids=EXPECTED)
def test_what_looks_wrong_is_told(inside: Namespace, annotations: dict[str, str], told: str) -> None:
    """One warning, and the ServiceAccount is stored all the same."""
    found = create(inside, annotations)

    assert found.count("Warning: ") == 1
    assert told in found


@pytest.mark.parametrize("annotations", FINE.values(), ids=FINE)
def test_what_is_fine_is_not_told(inside: Namespace, annotations: dict[str, str]) -> None:
    """No noise; the webhook, which warns the author of a pod, has nothing to say either."""
    assert create(inside, annotations) == ""
    ours = {key: value for key, value in annotations.items() if key.startswith(contract.PREFIX)}
    assert account_warnings(ours) == []


def test_only_the_change_is_told(inside: Namespace) -> None:
    """Who labels a ServiceAccount with an old mistake is left in peace; who annotates it anew is not."""
    inside.account("billing", {contract.CLIENT_ID: "billing"})

    assert warnings(inside, "label", "serviceaccount", "billing", "team=a") == ""
    found = warnings(inside, "annotate", "serviceaccount", "billing", f"{contract.TENANT_ID}={CLIENT}")
    assert "client-id is no GUID" in found


@pytest.mark.parametrize("key", [contract.CLIENT_ID, contract.TENANT_ID, contract.EXPIRATION])
def test_label_in_place_of_an_annotation_is_told(inside: Namespace, key: str) -> None:
    """Who labels a ServiceAccount with what is an annotation is told, once."""
    inside.account("billing")

    found = warnings(inside, "label", "serviceaccount", "billing", f"{key}=3600")
    assert found.count("Warning: ") == 1
    assert f"label {key}; it is an annotation" in found
    assert warnings(inside, "label", "serviceaccount", "billing", "team=a") == ""
