"""Edge: what kopf runs for us. Handlers take what the API server told and write nothing anywhere."""

from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from typing import Any, Final, cast

import aiohttp
import kopf

from workload_identity_operator.accounts import Accounts
from workload_identity_operator.kube import PAGE, SERVICE_ACCOUNTS, Cluster
from workload_identity_operator.serving import AdmissionServer

# A worker for each object that changed lives this long, in seconds, after its last event: many can change at
# once.
_IDLE_WORKER: Final = 0.1
# Whole seconds that a watch lasts. Where the network has lost one, and told nobody, nothing comes any more:
# that is noticed when its end does not come either. A new one costs a request, and goes on where that was.
_WATCH: Final = 60
_LATE: Final = 15


class _Backoffs:
    """Seconds between tries where the API server does not answer, or refuses: for ever, and never long.

    kopf's own grow to minutes, by which the table would be behind when the API server is back. When they end,
    such as after some minutes without the right to watch, so does the whole operator.
    """

    def __iter__(self) -> Iterator[float]:
        return chain((1.0, 2.0), repeat(4.0))


def registry(accounts: Accounts, cluster: Cluster, server: AdmissionServer) -> kopf.OperatorRegistry:
    """Return kopf's handlers: its settings, its login, and the watch that keeps the table."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.admission.server = cast("Any", server)
        settings.admission.managed = None  # the chart owns the configuration; kopf would delete it at exit
        settings.networking.error_backoffs = _Backoffs()
        settings.posting.enabled = False
        settings.scanning.disabled = True  # no watch on CustomResourceDefinitions
        settings.queueing.idle_timeout = _IDLE_WORKER
        settings.watching.chunk_size = PAGE
        settings.watching.server_timeout = _WATCH
        settings.watching.client_timeout = _WATCH + _LATE
        settings.persistence.finalizer = "workload-identity.io/never-set"

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=cluster.server, aiohttp_session=cluster.open(listing(accounts)))

    # on.event, not index: an index makes every object wait for all others, which is quadratic.
    @kopf.on.event("", "v1", "serviceaccounts", registry=handlers)
    async def take(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] == "DELETED":
            accounts.drop(*_named(event["object"]))
        else:
            accounts.put(*_named(event["object"]), _annotations(event["object"]))

    return handlers


def listing(accounts: Accounts) -> type[aiohttp.ClientResponse]:
    """Return the class of kopf's answers: ServiceAccounts that are listed go to the table at once.

    kopf is told of none of them, only of changes: a queue, a task and a memory for each, which it keeps even
    for those that nobody annotated, were nine tenths of what starting cost in a cluster of 10,000.
    """

    class Listing(aiohttp.ClientResponse):
        async def json(self, **options: Any) -> Any:
            found = await super().json(**options)
            if self.url.path.endswith(SERVICE_ACCOUNTS) and isinstance(found, dict) and "items" in found:
                for item in found["items"] or ():
                    accounts.put(*_named(item), _annotations(item))
                found["items"] = []
            return found

    return Listing


def _named(account: Mapping[str, Any]) -> tuple[str, str]:
    return account["metadata"]["namespace"], account["metadata"]["name"]


def _annotations(account: Mapping[str, Any]) -> Mapping[str, str] | None:
    found: Mapping[str, str] | None = account["metadata"].get("annotations")
    return found
