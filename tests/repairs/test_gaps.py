"""What happened while nobody watched is found out by the next listing, on a real API server."""

import aiohttp
import pytest

from testkit.control_plane import ControlPlane
from testkit.workloads import CLIENT, fresh_namespace
from workload_identity_operator import contract
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.kube import KubeApi, find_cluster


async def test_deleted_while_nobody_watched(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted, stripped, annotated, created: the table is right again, whole namespaces included."""
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    cluster = find_cluster(None)
    with fresh_namespace(plane) as one, fresh_namespace(plane) as other:
        for inside in (one, other):
            for name in ("deleted", "stripped"):
                inside.account(name, {contract.CLIENT_ID: CLIENT})
        one.account("annotated")
        async with cluster.open(aiohttp.ClientResponse) as session:
            api = KubeApi(cluster.server, session)
            accounts = Accounts(api.service_account)
            await accounts.fill(api.service_accounts())
            assert accounts.identities(one.name).keys() == {"deleted", "stripped"}

            for inside in (one, other):
                inside.kubectl("delete", "serviceaccount", "deleted")
                inside.kubectl("annotate", "serviceaccount", "stripped", f"{contract.CLIENT_ID}-")
            one.kubectl("annotate", "serviceaccount", "annotated", f"{contract.CLIENT_ID}={CLIENT}")
            one.account("created", {contract.CLIENT_ID: CLIENT})
            await accounts.fill(api.service_accounts())

        assert accounts.identities(one.name).keys() == {"annotated", "created"}
        assert other.name not in accounts.namespaces()
