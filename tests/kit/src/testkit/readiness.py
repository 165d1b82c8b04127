"""Plays the kubelet's part of a roll-out where there is no node: pods that are stored become ready."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import kubernetes.client
from kubernetes.client.exceptions import ApiException

from testkit.workloads import Namespace

_LOOK_EVERY = 0.3
_READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def _any(_: Any) -> bool:
    return True


@contextmanager
def pods_become_ready(inside: Namespace, which: Callable[[Any], bool] = _any) -> Iterator[None]:
    """Have each pod of a namespace say that it is ready, from now on, as a kubelet would once it runs.

    Args:
        inside: The namespace.
        which: Whether a pod, of the client's model, runs without crashing.
    """
    end = threading.Event()
    thread = threading.Thread(target=_play, args=(inside, end, which), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(timeout=30)


def _play(inside: Namespace, end: threading.Event, which: Callable[[Any], bool]) -> None:
    core: Any = kubernetes.client.CoreV1Api(inside.plane.client())
    while not end.wait(_LOOK_EVERY):
        with suppress(ApiException):  # gone meanwhile, or the namespace is
            for pod in core.list_namespaced_pod(inside.name).items:
                conditions = pod.status.conditions or ()
                going = pod.metadata.deletion_timestamp or any(one.type == "Ready" for one in conditions)
                if not going and which(pod):
                    with suppress(ApiException):
                        core.patch_namespaced_pod_status(pod.metadata.name, inside.name, {"status": _READY})
