"""Edge: leaves labelled pods to the peer, Azure/azure-workload-identity, where it is installed as well.

AKS's add-on is one. Our webhook needs no care: it is asked only while something is left to wire, and adopts
the peer's volume. The API server's policy comes before every webhook and cannot compute the name of that
volume, so both would mount at the same path, and the API server would refuse the pod. While the peer is there
the policy's binding therefore leaves labelled pods out. Every replica sees to it; the one whose write counts
tells of it by an Event.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from workload_identity_operator import contract, events
from workload_identity_operator.following import RETRY_AFTER
from workload_identity_operator.kube import ApiError, KubeApi
from workload_identity_operator.releases import UNLABELLED_ONLY, left_to, peer_among
from workload_identity_operator.settings import Settings
from workload_identity_operator.shapes import Json

RELOADED_AFTER: Final = 3.0
"""Seconds from a change of the binding until API servers surely go by it; they reload once a second."""

_log = logging.getLogger(__name__)


class Peer:
    """Keeps the binding of our policy. `run` must be running, and both `take_…` be called.

    Attributes:
        settled: Set once API servers go by the binding as it must be, or there is none: from then on pods may
            be wired by the policy.
    """

    def __init__(self, api: KubeApi, settings: Settings, on_change: Callable[[bool], None]) -> None:
        """Start knowing nothing.

        Args:
            api: Where the binding is.
            settings: What our webhook's configuration and the binding are called.
            on_change: Told whether the peer is there, when that is known and when it changes.
        """
        self._api = api
        self._settings = settings
        self._on_change = on_change
        self._peer: str | None = None
        self._binding: Json | None = None
        self._binding_known = False
        self._wake = asyncio.Event()
        self.settled = asyncio.Event()

    def take_configurations(self, configurations: Mapping[str, Json]) -> None:
        """Take all MutatingWebhookConfigurations, by name."""
        former, self._peer = self._peer, peer_among(configurations, self._settings.webhook_configuration)
        if self._peer == former:
            return
        if self._peer:
            _log.warning("labelled pods are left to Azure/azure-workload-identity: found %s", self._peer)
        elif former:
            _log.info("labelled pods are ours: Azure/azure-workload-identity is gone")
        self._on_change(bool(self._peer))
        self._wake.set()

    def take_binding(self, bindings: Mapping[str, Json]) -> None:
        """Take the binding of our policy, by name; none where there is no policy."""
        self._binding, self._binding_known = bindings.get(self._settings.release), True
        self._wake.set()

    def hand_off(self) -> tuple[Json, Json]:
        """Return the annotations, and the part of its spec, by which a binding leaves labelled pods out.

        Both are empty where the peer is not there, or not known to be.
        """
        if not self._peer:
            return {}, {}
        return {contract.LEFT_TO: self._peer}, {"matchResources": {"objectSelector": UNLABELLED_ONLY}}

    async def run(self) -> None:
        """Keep the binding for ever."""
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
                    _log.warning("the policy's binding cannot be kept: %s", told)
                asyncio.get_running_loop().call_later(RETRY_AFTER, self._wake.set)

    async def _settle(self) -> None:
        if self._peer is None or not self._binding_known:
            return
        binding, peer = self._binding, self._peer
        if binding and not _leaves(binding, peer):
            former = left_to(binding)
            written = await self._api.apply_hand_off(binding, *self.hand_off())
            if written is None:
                return  # somebody wrote it meanwhile: the watch brings what they wrote
            self._binding = written
            if bool(former) != bool(peer):
                await self._tell(written, peer, former)
        # Another replica may have written it an instant ago.
        asyncio.get_running_loop().call_later(RELOADED_AFTER if peer else 0, self.settled.set)

    async def _tell(self, binding: Json, peer: str, former: str) -> None:
        """Tell of a hand-off or a take-over."""
        if peer:
            note = f"labelled pods are wired by {peer} from now on, unlabelled ones by this policy"
            await events.tell(self._api, binding, events.HANDED_OFF, note)
        else:
            note = f"{former} is gone: labelled pods are wired by this policy again"
            await events.tell(self._api, binding, events.TAKEN_OVER, note)


def _leaves(binding: Json, peer: str) -> bool:
    """Whether the binding leaves labelled pods to that peer; to nobody when that is ""."""
    selector = ((binding.get("spec") or {}).get("matchResources") or {}).get("objectSelector")
    return left_to(binding) == peer and (selector == UNLABELLED_ONLY) is bool(peer)
