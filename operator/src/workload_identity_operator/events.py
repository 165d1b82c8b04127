"""Edge: Events, by which `kubectl describe` and `kubectl get events` tell what was done to an object."""

import hashlib
import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from workload_identity_operator import contract
from workload_identity_operator.kube import ApiError, KubeApi
from workload_identity_operator.shapes import Json


@dataclass(frozen=True, slots=True)
class Reason:
    """What happened to an object.

    Attributes:
        name: As `kubectl` shows it.
        warning: Whether somebody should look.
        each: Whether it is told each time that the object was written; else once in `SAME_FOR`,
            whichever replica tells it.
    """

    name: str
    warning: bool = False
    each: bool = False


RECREATED: Final = Reason("Recreated", warning=True)
"""It was missing and is there again."""
REVERTED: Final = Reason("Reverted", warning=True)
"""It had been edited and is as the chart declares it again."""
CONTESTED: Final = Reason("Contested", warning=True)
"""Somebody undoes what was put right, again and again."""
HANDED_OFF: Final = Reason("LabelledPodsHandedOff", each=True)
"""The peer came: the policy leaves labelled pods to it."""
TAKEN_OVER: Final = Reason("LabelledPodsTakenOver", each=True)
"""The peer went: they are the policy's again."""
UNWIRED: Final = Reason("PodsUnwired", warning=True)
"""Pods of it have no identity, and should."""
OUTDATED: Final = Reason("PodsOutdated", warning=True)
"""Pods of it have the identity of before an annotation or a setting was changed."""
WRONG: Final = Reason("PodsWronglyWired", warning=True)
"""Pods of it have an identity in part, or in the wrong place."""
RESTARTED: Final = Reason("Restarted", each=True)
"""It was restarted, so that its pods are wired."""
EVICTED: Final = Reason("PodEvicted")
"""A pod of it was evicted, so that its successor is wired."""
WOULD_RESTART: Final = Reason("WouldRestart")
"""It would have been restarted, or its pods evicted, were healing no dry run."""
WITHHELD: Final = Reason("RestartWithheld", warning=True)
"""A restart would not help now, or is not allowed now."""
NO_HELP: Final = Reason("RestartDidNotHelp", warning=True)
"""It was restarted, and its pods are as before, or are not all there; it is not restarted again."""
REASONS: Final = (
    *(RECREATED, REVERTED, CONTESTED, HANDED_OFF, TAKEN_OVER),
    *(UNWIRED, OUTDATED, WRONG, RESTARTED, EVICTED, WOULD_RESTART, WITHHELD, NO_HELP),
)
"""All there are."""

SAME_FOR: Final = 10 * 60
"""Seconds in which the same thing is told once."""
_LONGEST_NOTE: Final = 1000
"""Bytes; the API server takes 1024."""
_LONGEST_NAME: Final = 200

AGAIN_AFTER: Final = 55 * 60.0
"""Seconds until what goes on is told again; an Event is kept for an hour."""

_MANY: Final = 1000
"""Things told that are remembered in any case."""

_log = logging.getLogger(__name__)


class Told:
    """Tells each thing of an object once, and again when its Event is about to be forgotten."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._told: dict[tuple[str, str, str], float] = {}
        self._untold: set[tuple[str, str, str]] = set()
        self._most = _MANY

    async def tell(self, regarding: Json, reason: Reason, note: str) -> bool:
        """Tell it as `tell` does, unless it was told; return whether it was news.

        What could not be told is no news the next time, and is told then.
        """
        now = time.monotonic()
        key = (regarding["metadata"]["uid"], reason.name, note)
        news = now - self._told.get(key, -AGAIN_AFTER) >= AGAIN_AFTER
        if news:
            self._told[key] = now
            self._untold.add(key)
            if len(self._told) > self._most:
                self._forget(now)
        if key in self._untold and await tell(self._api, regarding, reason, note):
            self._untold.discard(key)
        return news

    def _forget(self, now: float) -> None:
        """Forget what is to be told again anyway; seldom, since all is looked at for it."""
        self._told = {known: when for known, when in self._told.items() if now - when < AGAIN_AFTER}
        self._untold &= self._told.keys()
        self._most = max(_MANY, 2 * len(self._told))


async def tell(api: KubeApi, regarding: Json, reason: Reason, note: str) -> bool:
    """Tell what happened to an object; what cannot be told is left to the log.

    Returns:
        Whether there is an Event now.

    Args:
        api: Whom to tell.
        regarding: The object, as stored.
        reason: One of the reasons above.
        note: A sentence for people.
    """
    now, meta = time.time(), regarding["metadata"]
    namespace = meta.get("namespace") or "default"  # where Events of objects without a namespace are kept
    when = meta["resourceVersion"] if reason.each else int(now / SAME_FOR)
    same = f"{regarding['kind']} {meta['name']} {reason.name} {note} {when}"
    name = meta["name"][:_LONGEST_NAME].rstrip("-.")
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        # The same name for the same thing: the second replica's is there already.
        "metadata": {
            "name": f"{name}.{hashlib.sha256(same.encode()).hexdigest()[:16]}",
            "namespace": namespace,
        },
        "eventTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Warning" if reason.warning else "Normal",
        "reason": reason.name,
        "action": reason.name,
        "note": note.encode()[:_LONGEST_NOTE].decode(errors="ignore"),
        "reportingController": f"{contract.POD_WIRING_GROUP}/operator",
        "reportingInstance": os.uname().nodename,
        "regarding": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            **{key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in meta},
        },
    }
    try:
        await api.create(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body)
    except ApiError as error:
        _log.info("an Event could not be written: %s", error)
        return False
    return True
