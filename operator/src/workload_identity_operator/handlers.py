"""Edge: what kopf runs for us. Handlers take what the API server told and write nothing anywhere."""

from typing import Any, Final, cast

import kopf

from workload_identity_operator.accounts import Accounts
from workload_identity_operator.kube import PAGE, Cluster
from workload_identity_operator.serving import AdmissionServer

# A worker for each object lives this long, in seconds, after its last event: with kopf's five
# seconds the first listing of 10,000 ServiceAccounts holds twice the memory.
_IDLE_WORKER: Final = 0.1
# Seconds. A watch that the network dropped silently is noticed within these.
_WATCH: Final = 10 * 60


def registry(accounts: Accounts, cluster: Cluster, server: AdmissionServer) -> kopf.OperatorRegistry:
    """Return kopf's handlers: its settings, its login, and the watch that keeps the table."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.admission.server = cast("Any", server)
        settings.admission.managed = None  # the chart owns the configuration; kopf would delete it at exit
        settings.posting.enabled = False
        settings.scanning.disabled = True  # no watch on CustomResourceDefinitions
        settings.queueing.idle_timeout = _IDLE_WORKER
        settings.watching.chunk_size = PAGE
        settings.watching.server_timeout = _WATCH
        settings.watching.client_timeout = _WATCH + 60
        settings.persistence.finalizer = "workload-identity.io/never-set"

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=cluster.server, aiohttp_session=cluster.open())

    # on.event, not index: an index makes every object wait for all others, which is quadratic.
    @kopf.on.event("", "v1", "serviceaccounts", registry=handlers)
    async def take(event: kopf.RawEvent, **_: Any) -> None:
        meta = event["object"]["metadata"]
        if event["type"] == "DELETED":
            accounts.drop(meta["namespace"], meta["name"])
        else:
            accounts.put(meta["namespace"], meta["name"], meta.get("annotations"))

    return handlers
