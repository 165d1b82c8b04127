"""Edge: keeps the webhook for pods without the label, where the chart says that those are the webhook's too.

It is an entry of our own MutatingWebhookConfiguration: the chart's once more, but for pods that do not say
whether they want to be wired, in namespaces with a ServiceAccount that names an identity; it refuses none.
The chart does not render it, since only the operator knows those namespaces. So that there is one source, all
else follows the chart's entry, through upgrades and new certificates. Every replica keeps it, and all write
the same; what another replica wrote is given a few seconds before we disagree about the namespaces.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from workload_identity_operator import contract
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.following import RETRY_AFTER
from workload_identity_operator.kube import ApiError, KubeApi
from workload_identity_operator.shapes import Json

BATCH: Final = 0.25
"""Seconds after a write in which more changes make one write."""
RECONSIDER: Final = 5.0
"""Seconds until we disagree with the namespaces that another replica wrote."""

_log = logging.getLogger(__name__)


def entry_beside(first: Json, namespaces: Sequence[str]) -> Json:
    """Return the webhook for unlabelled pods.

    Args:
        first: The chart's, as stored; never changed.
        namespaces: Whose pods it is for.
    """
    pods, places = first.get("objectSelector") or {}, first.get("namespaceSelector") or {}
    labels = {
        key: value for key, value in (pods.get("matchLabels") or {}).items() if key != contract.USE_LABEL
    }
    undecided = {"key": contract.USE_LABEL, "operator": "NotIn", "values": ["true", "false"]}
    among = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(namespaces)}
    return {
        **first,
        "name": contract.UNLABELLED_WEBHOOK,
        "clientConfig": _with_path(first["clientConfig"]),
        "failurePolicy": "Ignore",
        "objectSelector": ({"matchLabels": labels} if labels else {})
        | {"matchExpressions": [*(pods.get("matchExpressions") or ()), undecided]},
        "namespaceSelector": {
            **places,
            "matchExpressions": [*(places.get("matchExpressions") or ()), among],
        },
    }


def _with_path(called: Json) -> Json:
    """Return a clientConfig for the path on which no pod is refused."""
    if service := called.get("service"):
        path = (service.get("path") or "").rstrip("/") + contract.UNLABELLED_PATH
        return {**called, "service": {**service, "path": path}}
    return {**called, "url": called["url"].rstrip("/") + contract.UNLABELLED_PATH}


class Unlabelled:
    """Keeps the entry. `run` must be running, and `start` be called once the table is complete."""

    def __init__(self, api: KubeApi, accounts: Accounts, ours: str) -> None:
        """Start knowing nothing; `ours` is the name of our configuration."""
        self._api = api
        self._accounts = accounts
        self._ours = ours
        self._found: Json | None = None
        self._complete = asyncio.Event()
        self._wake = asyncio.Event()
        self._certain = False

    def start(self) -> None:
        """Take that the table is complete."""
        self._complete.set()
        self.changed()

    def changed(self) -> None:
        """Take that the table has changed."""
        self._certain = True
        self._wake.set()

    def take_configurations(self, configurations: Mapping[str, Json]) -> None:
        """Take all MutatingWebhookConfigurations, by name."""
        found = configurations.get(self._ours)
        if found != self._found:
            self._found = found
            self._wake.set()

    async def run(self) -> None:
        """Keep it for ever."""
        await self._complete.wait()
        told = ""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._settle()
                told = ""
            except ApiError as error:
                if str(error) != told:
                    told = str(error)
                    _log.warning("the webhook for unlabelled pods cannot be kept: %s", told)
                asyncio.get_running_loop().call_later(RETRY_AFTER, self.changed)
            await asyncio.sleep(BATCH)

    async def _settle(self) -> None:
        if self._found is None:
            return
        certain, self._certain = self._certain, False
        webhooks = {webhook["name"]: webhook for webhook in self._found.get("webhooks") or ()}
        stored, wanted = webhooks.get(contract.UNLABELLED_WEBHOOK), self._wanted(self._found, webhooks)
        if stored == wanted:
            return
        if wanted is None:
            self._found = (
                await self._api.remove_webhook(self._found, contract.UNLABELLED_WEBHOOK) or self._found
            )
        elif stored and not certain and _differ_in_namespaces(stored, wanted):
            asyncio.get_running_loop().call_later(RECONSIDER, self.changed)
        else:
            self._found = await self._api.apply_webhook(self._ours, wanted)

    def _wanted(self, found: Json, webhooks: Mapping[str, Json]) -> Json | None:
        """Return the entry as it should be; None when there should be none."""
        first = webhooks.get(contract.WEBHOOK_NAME)
        annotations = found["metadata"].get("annotations") or {}
        if first is None or annotations.get(contract.UNLABELLED_PODS) != "webhook":
            return None
        namespaces = self._accounts.namespaces_with_identities()
        return entry_beside(first, namespaces) if namespaces else None


def _differ_in_namespaces(one: Json, other: Json) -> bool:
    """Whether two entries differ, and in nothing else."""
    return one | {"namespaceSelector": None} == other | {"namespaceSelector": None}
