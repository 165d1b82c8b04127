"""What kopf lists goes to the table at once; kopf is left with what changes."""

import pytest

from testkit.control_plane import ControlPlane
from testkit.workloads import CLIENT, Namespace
from workload_identity_operator import contract
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.handlers import listing
from workload_identity_operator.kube import SERVICE_ACCOUNTS, find_cluster


async def never(_namespace: str, _name: str) -> None:
    """No live look-up is expected."""
    raise AssertionError


@pytest.mark.cluster
async def test_listing_fills_the_table(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And takes out who lost the annotations while nobody watched; other listings stay as they are."""
    monkeypatch.setenv("KUBECONFIG", "")
    inside = Namespace(control_plane, namespace)
    inside.account("billing", {contract.CLIENT_ID: CLIENT, "team": "a"})
    inside.account("plain")
    accounts = Accounts(never)
    accounts.put(namespace, "plain", {contract.CLIENT_ID: "of old"})
    cluster = find_cluster(control_plane.kubeconfig)

    async with cluster.open(listing(accounts)) as session:
        async with session.get(cluster.server + SERVICE_ACCOUNTS) as answer:
            told = await answer.json()
        async with session.get(cluster.server + "/api/v1/namespaces") as answer:
            others = await answer.json()

    assert accounts.identities(namespace) == {"billing": {contract.CLIENT_ID: CLIENT}}
    assert told["items"] == []
    assert told["metadata"]["resourceVersion"]
    assert namespace in {item["metadata"]["name"] for item in others["items"]}
