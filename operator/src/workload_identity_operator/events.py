"""Edge: Events, by which `kubectl describe` and `kubectl get events` tell what was done to an object."""

import hashlib
import logging
import os
import time
from datetime import UTC, datetime
from typing import Final

from workload_identity_operator.kube import ApiError, KubeApi
from workload_identity_operator.shapes import Json

# Reasons: what happened to the object.
RECREATED: Final = "Recreated"
"""It was missing and is there again."""
REVERTED: Final = "Reverted"
"""It had been edited and is as the chart declares it again."""
CONTESTED: Final = "Contested"
"""Somebody undoes what was put right, again and again."""

SAME_FOR: Final = 10 * 60
"""Seconds in which the same thing is told once, whichever replica tells it."""
_LONGEST_NOTE: Final = 1000
"""Characters; the API server takes 1024 bytes."""
_LONGEST_NAME: Final = 200

_log = logging.getLogger(__name__)


async def tell(api: KubeApi, regarding: Json, reason: str, note: str, *, warning: bool = False) -> None:
    """Tell what happened to an object, once in `SAME_FOR`; what cannot be told is left to the log.

    Args:
        api: Whom to tell.
        regarding: The object, as stored.
        reason: One of the reasons above.
        note: A sentence for people.
        warning: Whether somebody should look.
    """
    now, meta = time.time(), regarding["metadata"]
    namespace = meta.get("namespace") or "default"  # where Events of objects without a namespace are kept
    same = f"{regarding['kind']} {meta['name']} {reason} {note} {int(now / SAME_FOR)}"
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        # The same name for the same thing: the second replica's is there already.
        "metadata": {
            "name": f"{meta['name'][:_LONGEST_NAME]}.{hashlib.sha256(same.encode()).hexdigest()[:16]}",
            "namespace": namespace,
        },
        "eventTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "action": reason,
        "note": note[:_LONGEST_NOTE],
        "reportingController": "workload-identity.io/operator",
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
