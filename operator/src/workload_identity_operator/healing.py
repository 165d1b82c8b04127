"""What may be done for the owner of pods that are not wired as they should be. No clock, no network.

Only what replaces its pods by itself, a few at a time, is restarted: Deployments, StatefulSets, DaemonSets,
by an annotation of their template. Pods of a ReplicaSet or ReplicationController on its own are evicted, and
so is one for which a StatefulSet waits before it replaces any. All else, such as a Job or a pod that nobody
made, is only told of.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from workload_identity_operator import contract
from workload_identity_operator.errors import quoted
from workload_identity_operator.labels import selects
from workload_identity_operator.shapes import Json

Mode: TypeAlias = Literal["off", "dryRun", "annotated", "restart"]
"""Nothing is done; told what would be; done where an annotation asks for it; done, unless one declines."""
MODES: Final[tuple[Mode, ...]] = ("off", "dryRun", "annotated", "restart")
WISHES: Final = ("off", "dryRun", "restart")
"""What the annotation of an owner or a ServiceAccount may say."""
DEFAULT_PAUSE: Final = 10.0
"""Seconds from the end of one roll-out to the next restart."""
_LONGEST_PAUSE: Final = 24 * 3600.0
_PATIENCE: Final = ("progressDeadlineSeconds", "minReadySeconds")
_CONTROLLERS: Final = 60
"""Seconds that a controller has to say so itself."""
_LONGEST_PATIENCE: Final = 6 * 3600
"""Seconds; the longest deadline there is means none."""

_PATHS: Final = {
    ("apps/v1", "Deployment"): "/apis/apps/v1/namespaces/{}/deployments/{}",
    ("apps/v1", "StatefulSet"): "/apis/apps/v1/namespaces/{}/statefulsets/{}",
    ("apps/v1", "DaemonSet"): "/apis/apps/v1/namespaces/{}/daemonsets/{}",
    ("apps/v1", "ReplicaSet"): "/apis/apps/v1/namespaces/{}/replicasets/{}",
    ("batch/v1", "Job"): "/apis/batch/v1/namespaces/{}/jobs/{}",
    ("v1", "ReplicationController"): "/api/v1/namespaces/{}/replicationcontrollers/{}",
}
RESTARTED: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet"})
EVICTED: Final = frozenset({"ReplicaSet", "ReplicationController"})
ALONE: Final = "delete it and create it again, nobody else would"
"""How a person makes a pod anew that nobody made."""
_OTHERWISE: Final = {
    "Job": "delete the Job and create it again, no restart replaces its pods",
    "CronJob": "those of its next run have one, or delete the Job of this one",
    **dict.fromkeys(EVICTED, "delete these pods, and it makes new ones"),
}
"""How a person makes pods of such an owner anew."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the chart says of healing.

    Attributes:
        mode: See `Mode`.
        pause: Seconds from the end of one roll-out to the next restart.
    """

    mode: Mode = "off"
    pause: float = DEFAULT_PAUSE


def plan_of(annotations: Mapping[str, str]) -> Plan:
    """Return what the annotations of the webhook's configuration say; what cannot be read is off."""
    mode: Mode = next((known for known in MODES if annotations.get(contract.HEALING) == known), "off")
    try:
        pause = float(annotations.get(contract.HEALING_PAUSE) or DEFAULT_PAUSE)
    except ValueError:
        return Plan()
    return Plan(mode, pause) if 0 <= pause <= _LONGEST_PAUSE else Plan()


def mode_for(plan: Plan, owner: Mapping[str, str], account: Mapping[str, str]) -> Mode:
    """Return what is to be done for one owner: never more than the chart allows.

    Args:
        plan: The chart's.
        owner: The owner's annotations.
        account: Its pods' ServiceAccount's; the owner's count first.
    """
    own = owner.get(contract.HEALING) or account.get(contract.HEALING) or ""
    if plan.mode == "off" or own not in {"", *WISHES} or own == "off":
        return "off"  # a wish that cannot be read may have been to be left alone
    if own == "dryRun" or plan.mode == "dryRun":
        return "dryRun"
    return "restart" if plan.mode == "restart" or own == "restart" else "off"


def is_restartable(reference: Mapping[str, str], namespace: str) -> bool:
    """Whether the object of an ownerReference is of a kind whose pods a restart replaces."""
    return reference.get("kind") in RESTARTED and path_of(reference, namespace) is not None


def reference_to(workload: Json) -> Json:
    """Return apiVersion, kind and name of a workload of a kind that we know, as ownerReferences have them."""
    kind = workload["kind"]
    version = next((version for version, known in _PATHS if known == kind), "")
    return {"apiVersion": version, "kind": kind, "name": workload["metadata"]["name"]}


def path_of(reference: Mapping[str, str], namespace: str) -> str | None:
    """Return where the object of an ownerReference is; None for kinds that we do not know."""
    pattern = _PATHS.get((reference.get("apiVersion", ""), reference.get("kind", "")))
    return pattern and pattern.format(namespace, reference["name"])


def template_of(workload: Json) -> Json:
    """Return what a workload's pods are made from."""
    template: Json = (workload.get("spec") or {}).get("template") or {}
    return template


def obstacle(workload: Json) -> str:
    """Return why a restart would not replace a workload's pods, or not now; "" when it would."""
    if why := kept(workload):
        return why
    if _is_rolling(workload):
        return "a roll-out of it is under way"
    return _for_people(kept_by_order(workload))


def kept(workload: Json) -> str:
    """Return why a workload's pods are not to be replaced, however; "" when they are."""
    if workload["metadata"].get("deletionTimestamp"):
        return "it is being deleted"
    if why := _refusal(workload):
        return f"its controller cannot make pods now: {why}"
    return _for_people(_kept_by_strategy(workload))


def _refusal(workload: Json) -> str:
    """Return why a controller cannot make a workload's pods, such as a quota; "" where it can."""
    conditions = (workload.get("status") or {}).get("conditions") or ()
    return next(
        (
            str(one.get("message") or one.get("reason"))
            for one in conditions
            if (one.get("type"), one.get("status")) == ("ReplicaFailure", "True")
        ),
        "",
    )


def _for_people(why: str) -> str:
    return why and f"{why}; delete these pods when it suits you"


def _kept_by_strategy(workload: Json) -> str:
    """Return why a workload has pods that only a deletion replaces; "" when it has none."""
    kind = workload["kind"]
    if kind == "Deployment" and (workload.get("spec") or {}).get("paused"):
        return "its roll-outs are paused"
    strategy = (workload.get("spec") or {}).get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return "its updateStrategy is OnDelete"
    partition = (strategy.get("rollingUpdate") or {}).get("partition")
    if kind == "StatefulSet" and partition:
        return f"its updateStrategy leaves the pods below partition {partition} as they are"
    return ""


def kept_by_order(workload: Json) -> str:
    """Return why a StatefulSet that goes by its pods' order replaces none now; "" when it does."""
    parallel = (workload.get("spec") or {}).get("podManagementPolicy") == "Parallel"
    if workload["kind"] != "StatefulSet" or parallel or _available(workload) >= _replicas(workload):
        return ""
    return "one of its pods is not available, and before that it replaces none"


def holds_up(workload: Json, pods: Mapping[str, bool]) -> str:
    """Return which pod a StatefulSet that goes by their order waits for; "" when none is there to wait for.

    Args:
        workload: The StatefulSet.
        pods: Whether each is ready, by name; those on their way out left out.
    """
    first = ((workload.get("spec") or {}).get("ordinals") or {}).get("start") or 0
    for ordinal in range(first, first + _replicas(workload)):
        name = f"{workload['metadata']['name']}-{ordinal}"
        if not pods.get(name, False):
            return name if name in pods else ""
    return ""


def is_complete(workload: Json) -> bool:
    """Whether a workload's roll-out is through: all pods are of its latest template, and available.

    As `kubectl rollout status` has it.
    """
    status, kind = workload.get("status") or {}, workload["kind"]
    if _is_rolling(workload):
        return False
    if kind == "StatefulSet":
        return _available(workload) >= _replicas(workload)
    wanted = "updatedReplicas" if kind == "Deployment" else "desiredNumberScheduled"
    return _available(workload) >= int(status.get(wanted, 0))


def is_as_before(workload: Json, before: Json) -> bool:
    """Whether as many of a workload's pods are available as were at another time, and any are."""
    return _available(workload) >= max(1, _available(before))


def has_failed(workload: Json) -> str:
    """Return why a roll-out will not go on, where its controller has given it up; "" otherwise."""
    status = workload.get("status") or {}
    if int(status.get("observedGeneration", 0)) < int(workload["metadata"].get("generation", 0)):
        return ""  # that was the one before
    conditions = status.get("conditions") or ()
    for condition in conditions:
        if condition.get("reason") == "ProgressDeadlineExceeded":
            return _refusal(workload) or str(condition.get("message") or "its progress deadline is exceeded")
    return ""


def progress(workload: Json) -> tuple[int, ...]:
    """Return numbers that change as long as a roll-out goes on."""
    status = workload.get("status") or {}
    return tuple(status[key] for key in sorted(status) if isinstance(status[key], int))


def patience(workload: Json) -> float:
    """Return how many seconds a roll-out may stand still by what its author says: pods can be slow."""
    spec = workload.get("spec") or {}
    wanted = max(spec.get(key) or 0 for key in _PATIENCE)
    return float(min(wanted + _CONTROLLERS, _LONGEST_PATIENCE)) if wanted else 0.0


def taken_at_once(workload: Json) -> int:
    """Return how many pods a roll-out may take away before their successors are there."""
    spec, kind = workload.get("spec") or {}, workload["kind"]
    if kind == "Deployment":
        strategy = spec.get("strategy") or {}
        if strategy.get("type") == "Recreate":
            return _replicas(workload)
        rolling = strategy.get("rollingUpdate") or {}
        taken = _share(rolling.get("maxUnavailable", "25%"), _replicas(workload), math.floor)
        more = _share(rolling.get("maxSurge", "25%"), _replicas(workload), math.ceil)
        return taken if taken or more else 1  # as its controller has it, or nothing would move
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    if kind == "StatefulSet":
        return max(1, _share(rolling.get("maxUnavailable", 1), _replicas(workload), math.floor))
    desired = int((workload.get("status") or {}).get("desiredNumberScheduled", 0))
    return _share(rolling.get("maxUnavailable", 1), desired, math.ceil)


def budget_in_the_way(budgets: Sequence[Json], labels: Mapping[str, str], taken: int) -> str:
    """Return which PodDisruptionBudget does not allow so many pods to be taken now; "" when all do.

    Args:
        budgets: Those of the namespace.
        labels: Of the pods.
        taken: How many.
    """
    for budget in budgets:
        selector = (budget.get("spec") or {}).get("selector")
        if not taken or selector is None or not selects(selector, labels):
            continue
        status, meta = budget.get("status") or {}, budget["metadata"]
        current = int(status.get("observedGeneration", 0)) >= int(meta.get("generation", 0))
        allowed = int(status.get("disruptionsAllowed", 0)) if current else 0
        if allowed < taken:
            return (
                f"PodDisruptionBudget {meta['name']} allows {allowed} of its pods to be away, wanted {taken}"
            )
    return ""


def restart_patch(workload: Json, now: str, fingerprint: str) -> Json:
    """Return the merge patch that restarts a workload, unless it was changed since it was read.

    Args:
        workload: As it was read.
        now: RFC 3339.
        fingerprint: What its pods shall be given; see `audit.fingerprint`.
    """
    annotations = {contract.RESTARTED_AT: now, contract.RESTARTED_FOR: fingerprint}
    return {
        "metadata": {"resourceVersion": workload["metadata"]["resourceVersion"]},
        "spec": {"template": {"metadata": {"annotations": annotations}}},
    }


def restarted(workload: Json) -> tuple[str, str]:
    """Return when we restarted a workload last, RFC 3339, and for what; two "" when we never did."""
    annotations = (template_of(workload).get("metadata") or {}).get("annotations") or {}
    return str(annotations.get(contract.RESTARTED_AT, "")), str(annotations.get(contract.RESTARTED_FOR, ""))


def by_hand(reference: Mapping[str, Any], namespace: str, workload: Json | None = None) -> str:
    """Return how a person makes an owner's pods anew, a clause.

    Args:
        reference: Its apiVersion, kind and name.
        namespace: Its namespace.
        workload: As stored, where that is known.
    """
    kind, name = str(reference["kind"]), str(reference["name"])
    if path_of(reference, namespace) is None and kind != "CronJob":
        return f"have {quoted(kind, 40)} {name} make them anew"  # other groups have a StatefulSet or Job too
    if kind in RESTARTED:
        if workload and (why := _kept_by_strategy(workload) or kept_by_order(workload)):
            return f"delete these pods, and it makes new ones; a restart would not, since {why}"
        return f"kubectl rollout restart {kind.lower()} {name} --namespace {namespace}"
    return _OTHERWISE[kind]


def _is_rolling(workload: Json) -> bool:
    """Whether pods of an earlier template are still being replaced, or will be in a moment."""
    status, kind = workload.get("status") or {}, workload["kind"]
    if int(status.get("observedGeneration", 0)) < int(workload["metadata"].get("generation", 0)):
        return True
    if kind == "DaemonSet":
        return int(status.get("updatedNumberScheduled", 0)) < int(status.get("desiredNumberScheduled", 0))
    if kind == "StatefulSet" and status.get("updateRevision") == status.get("currentRevision"):
        return False  # its updatedReplicas are counted anew for each roll-out
    updated = int(status.get("updatedReplicas", 0))
    return updated < _replicas(workload) or int(status.get("replicas", 0)) > updated


def _available(workload: Json) -> int:
    """Return how many pods of a workload are available."""
    count = "numberAvailable" if workload["kind"] == "DaemonSet" else "availableReplicas"
    return int((workload.get("status") or {}).get(count, 0))


def _replicas(workload: Json) -> int:
    return int((workload.get("spec") or {}).get("replicas", 1))


def _share(value: int | str, of: int, rounded: Any) -> int:
    """Return a number of pods that is written as such or as a percentage."""
    if isinstance(value, str):
        return int(rounded(of * int(value.removesuffix("%")) / 100))
    return value
