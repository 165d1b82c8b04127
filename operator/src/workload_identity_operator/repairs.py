"""Edge: keeps the policy, its binding and the kind of its tables what the chart declares.

Somebody may delete or edit them by hand. Pods go to the webhook where the policy is gone, so nothing is lost
by a second's thought, and much by haste: an upgrade or a removal of the release looks like edits and
deletions. So the declaration is read anew before each repair, and a new one is given the time to come true.
Every replica does this; a pause that is partly chance lets one be first.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from workload_identity_operator import events
from workload_identity_operator.declared import (
    KINDS,
    Declaration,
    DeclarationUnreadable,
    Declared,
    Patience,
    State,
    difference,
    editors,
    read_declaration,
    settings_checksum,
)
from workload_identity_operator.following import FORBIDDEN, RETRY_AFTER, follow, pause_after
from workload_identity_operator.kube import FIELD_MANAGER, HAND_OFF_MANAGER, ApiError, KubeApi
from workload_identity_operator.metrics import Metrics
from workload_identity_operator.releases import is_of_chart, leaves_out_others, release_of
from workload_identity_operator.settings import Settings
from workload_identity_operator.shapes import Json

SETTLE: Final = 0.7
"""Seconds from a change to the look at it, at least; at most twice that."""
RECONSIDER: Final = 5.0
"""Seconds that whoever changed the declaration has to change the objects."""
LOOK_EVERY: Final = 5 * 60.0
"""Seconds between looks when nothing is told."""

_BINDING: Final = "MutatingAdmissionPolicyBinding"
_DEFINITION: Final = "CustomResourceDefinition"

_log = logging.getLogger(__name__)


class Repairs:
    """Keeps them; `run` must be running."""

    def __init__(
        self,
        api: KubeApi,
        settings: Settings,
        metrics: Metrics,
        hand_off: Callable[[], tuple[Json, Json]],
        on_settings: Callable[[str], None],
    ) -> None:
        """Start knowing nothing.

        Args:
            api: Where they are.
            settings: Say where they are declared.
            metrics: Learn how they are.
            hand_off: Returns the annotations and the part of its spec that a binding made anew has at once
                beside what is declared, see `Peer.hand_off`.
            on_settings: Told the checksum of the settings that are declared, first and at each change; ""
                when none is, see `PodWirings.take_declared`.
        """
        self._api = api
        self._hand_off = hand_off
        self._on_settings = on_settings
        self._metrics = metrics
        self._config_maps = f"/api/v1/namespaces/{settings.namespace}/configmaps"
        self._name = settings.declaration
        self._where = f"ConfigMap {settings.namespace}/{settings.declaration}"
        self._version, self._since = "", 0.0
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._patience: defaultdict[str, Patience] = defaultdict(Patience)
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Keep them for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_declaration())
            tasks.create_task(self._keep(tasks))

    async def _follow_declaration(self) -> None:
        """Wake up at each change of what is declared, and pass on of which settings it is."""
        known = False

        async def watch() -> None:
            nonlocal known
            found: Json | None = None
            async for kind, one in self._api.changes(self._config_maps, self._name):
                if kind != "SYNCED":
                    found = None if kind == "DELETED" else one
                if kind != "LISTED":
                    known = True
                    self._on_settings(settings_checksum(found))
                    self._wake.set()

        def lose(error: ApiError) -> None:
            # Ours to see it never was; what was seen once holds while rights are away.
            if error.status == FORBIDDEN and not known:
                self._on_settings("")

        await follow(watch, lose)

    async def _follow(self, collection: str, name: str) -> None:
        """Wake up at each change of an object. What goes wrong is told by the look at it."""

        async def watch() -> None:
            async for kind, _ in self._api.changes(collection, name):
                if kind != "LISTED":
                    self._wake.set()

        await follow(watch, lambda _: None)

    async def _keep(self, tasks: asyncio.TaskGroup) -> None:
        told, faults = "", 0
        while True:
            try:
                pause = await self._look(tasks)
            except (ApiError, DeclarationUnreadable) as error:
                faults += 1
                pause = pause_after(faults, RETRY_AFTER, LOOK_EVERY)
                # The first is passing mostly: a kind that is not served yet, a replica that was faster.
                if faults > 1 and str(error) != told:
                    told = str(error)
                    _log.warning("what %s declares is not kept: %s", self._where, told)
            else:
                told, faults = "", 0
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(random.uniform(SETTLE, 2 * SETTLE))  # noqa: S311 - no secret
            self._wake.clear()

    async def _look(self, tasks: asyncio.TaskGroup) -> float:
        """Put right what is not as declared; return the seconds until the next look.

        Raises:
            ApiError: An object could not be judged or put right; the others were.
            DeclarationUnreadable: Nothing can be.
        """
        found = await self._api.get(f"{self._config_maps}/{self._name}")
        # Without one the release is going, or has no policy: nothing of it is brought back.
        gone = found is None or "deletionTimestamp" in found["metadata"]
        declaration = Declaration((), "", "") if found is None or gone else read_declaration(found)
        self._watch(declaration, tasks)
        news = RECONSIDER - self._age(declaration.version)
        states: dict[str, State] = dict.fromkeys((one.kind for one in declaration.objects), "unknown")
        pause, fault = LOOK_EVERY, None
        for one in declaration.objects:
            try:
                states[one.kind], live, fields = await self._judge(one)
                if states[one.kind] != "declared":
                    pause = min(
                        pause, news if news > 0 else await self._put_right(one, declaration, live, fields)
                    )
                if states[one.kind] == "missing":
                    break  # the API server takes nothing that needs it
            except ApiError as error:
                fault = fault or error
        self._metrics.policy_states(states)
        if fault:
            raise fault
        return pause

    def _age(self, version: str) -> float:
        """Return how long, in seconds, the declaration has been as it is."""
        now = asyncio.get_running_loop().time()
        if version != self._version:
            self._version, self._since = version, now
            _log.info(
                "the policy is kept as %s declares it" if version else "there is no %s: no policy is kept",
                self._where,
            )
        return now - self._since

    def _watch(self, declaration: Declaration, tasks: asyncio.TaskGroup) -> None:
        """Follow what is declared, and nothing else."""
        wanted = {one.path: one for one in declaration.objects}
        for path in self._watches.keys() - wanted.keys():
            self._watches.pop(path).cancel()
        for path in wanted.keys() - self._watches.keys():
            one = wanted[path]
            self._watches[path] = tasks.create_task(self._follow(one.collection, one.name))

    async def _judge(self, one: Declared) -> tuple[State, Json | None, tuple[str, ...]]:
        """Return how an object is, the object, and the fields in which it differs."""
        live = await self._api.get(one.path)
        if live is None or "deletionTimestamp" in live["metadata"]:
            return "missing", live, ()
        path, body = one.rehearsal()
        wanted = await self._api.apply(path, body, dry=True)
        fields = difference(one.kind, wanted, live)
        if one.kind == _BINDING and leaves_out_others(live):
            fields += ("matchResources",)  # nobody's but ours, and we leave out none but the peer's
        if fields and one.kind == _DEFINITION and await self._is_anothers(one, live):
            fields = ()
        return ("edited" if fields else "declared"), live, fields

    async def _is_anothers(self, one: Declared, live: Json) -> bool:
        """Whether another release that is there has an object of which a cluster has but one.

        Of two releases that found it without an owner the last to put it right has it: otherwise two versions
        of the chart would undo each other's for ever.
        """
        owner = release_of(live)
        if not all(owner) or owner == release_of(one.body):
            return False
        others = await self._api.webhook_configurations_now()
        return any(is_of_chart(other) and release_of(other) == owner for other in others)

    async def _put_right(
        self, one: Declared, declaration: Declaration, live: Json | None, fields: tuple[str, ...]
    ) -> float:
        """Put an object right, unless it is not the moment; return the seconds until the next look."""
        if live is not None and not fields:
            return RECONSIDER  # on its way out, the end of which wakes us
        patience, now = self._patience[one.path], asyncio.get_running_loop().time()
        if wait := patience.wait(now):
            return wait
        if live is not None and one.kind == _BINDING and leaves_out_others(live):
            widened = await self._api.remove(one.path, live, "/spec/matchResources")
            if widened is None:
                return SETTLE
            annotations, spec = self._hand_off()
            if spec:
                await self._api.apply_hand_off(widened, annotations, spec)
        manager = declaration.manager or FIELD_MANAGER
        stored = await self._apply(one, manager, anew=live is None)
        if live is not None and KINDS[one.kind].replaceable and (await self._judge(one))[0] == "edited":
            # Somebody added what the declaration does not mention, so applying does not take it away.
            await self._api.delete(one.path, stored)
            stored = await self._apply(one, manager, anew=True)
        insists = patience.repaired(now)
        self._metrics.policy_repaired(one.kind)
        await self._tell(one, stored, _event(live, fields, manager), insists=insists)
        return SETTLE

    async def _apply(self, one: Declared, manager: str, *, anew: bool) -> Json:
        """Make an object what is declared; return it as stored."""
        if anew and one.kind == _BINDING:
            annotations, spec = self._hand_off()
            if spec:  # from its first instant: API servers may go by it at once
                stored = await self._api.apply(one.path, one.extended(annotations, spec), manager)
                # What stays has another owner: as the chart's the next upgrade would take it away.
                await self._api.apply_hand_off(stored, annotations, spec)
        return await self._api.apply(one.path, one.body, manager)

    async def _tell(
        self, one: Declared, stored: Json, event: tuple[events.Reason, str], *, insists: bool
    ) -> None:
        """Tell that an object was put right; of somebody who insists, once."""
        reason, what = event
        if insists:
            note = f"{what} again and again: from now on put right at growing intervals; change the chart"
            _log.warning("%s %s was %s", one.kind, one.name, note)
            await events.tell(self._api, stored, events.CONTESTED, note)
        elif not self._patience[one.path].contested:
            note = f"{what}: put right, as {self._where} declares it"
            _log.warning("%s %s was %s", one.kind, one.name, note)
            await events.tell(self._api, stored, reason, note)


def _event(live: Json | None, fields: tuple[str, ...], manager: str) -> tuple[events.Reason, str]:
    """Return the reason that an object was put right for, and what had happened to it."""
    if live is None:
        return events.RECREATED, "deleted"
    by = ", ".join(editors(live, {manager, HAND_OFF_MANAGER}))
    where = ", ".join(f"spec.{field}" for field in fields)
    return events.REVERTED, f"edited{f' by {by}' if by else ''} in {where}"
