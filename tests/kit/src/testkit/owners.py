"""Whoever makes pods: manifests of Deployments and their kin, and what is told of them."""

from collections.abc import Mapping
from typing import Any

from testkit.workloads import Namespace

Json = dict[str, Any]


def workload(
    kind: str,
    name: str,
    account: str,
    *,
    replicas: int = 2,
    labels: Mapping[str, str] | None = None,
    container: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Json:
    """Return a workload with pods of a ServiceAccount, labelled `app: <name>`.

    Args:
        kind: Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob.
        name: Its name.
        account: Its pods' ServiceAccount.
        replicas: How many pods, where it has such a number.
        labels: Further labels of its pods.
        container: Further fields of their one container, `app`.
        annotations: Its own.
        spec: Further fields of its spec.
    """
    once = kind in {"Job", "CronJob"}
    inside: Json = {
        "serviceAccountName": account,
        "containers": [{"name": "app", "image": "x", **(container or {})}],
        **({"restartPolicy": "Never"} if once else {}),
    }
    template = {"metadata": {"labels": {"app": name, **(labels or {})}}, "spec": inside}
    whole: Json = (
        {"template": template} if once else {"template": template, "selector": {"matchLabels": {"app": name}}}
    )
    if kind in {"Deployment", "StatefulSet", "ReplicaSet"}:
        whole["replicas"] = replicas
    if kind == "StatefulSet":
        whole["serviceName"] = name
    if kind == "CronJob":
        whole = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": whole}}
    return {
        "apiVersion": "batch/v1" if once else "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "spec": {**whole, **(spec or {})},
    }


def events_of(inside: Namespace, kind: str, name: str) -> dict[str, str]:
    """Return notes of the Events about an object, by their reasons; the last of each."""
    found = inside.get("events.events.k8s.io")["items"]
    return {
        event["reason"]: event["note"]
        for event in sorted(found, key=lambda event: str(event["eventTime"]))
        if (event["regarding"]["kind"], event["regarding"]["name"]) == (kind, name)
        and event.get("reportingController") == "workload-identity.io/operator"
    }


def pods_of(inside: Namespace, name: str) -> list[Json]:
    """Return the pods labelled `app: <name>` that are not on their way out."""
    found = inside.get("pods", f"--selector=app={name}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
