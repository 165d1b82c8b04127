"""`audit`: which stored pods are not as they would be wired now. No clock, no network.

A pod is judged by the very computation that wires one, so the two cannot disagree: where that would change
something, something is wrong. It changes no variable that is there, since that may be the author's own. Whose
it is, and so whether an identity was changed since, is told here by what the author wrote: the template that
the pod was made from. Where nobody kept that, the place tells: ours are a run, after all others.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

from workload_identity_operator import contract
from workload_identity_operator.accounts import Annotations
from workload_identity_operator.admission import wiring_of
from workload_identity_operator.errors import PodRefused, quoted
from workload_identity_operator.identity import Identity, identity_of
from workload_identity_operator.settings import Settings
from workload_identity_operator.shapes import Json, items, mapping, objects, text, texts
from workload_identity_operator.sidecar import sidecar_of
from workload_identity_operator.wiring import Operation, wanted_variables, wire

State: TypeAlias = Literal["unwired", "outdated", "wrong"]
"""No identity; that of before an annotation or a setting was changed; in part or in the wrong place."""
STATES: Final[tuple[State, ...]] = ("unwired", "outdated", "wrong")

Written: TypeAlias = Mapping[str, frozenset[str]]
"""Names of the variables that a pod's author wrote, by container."""

_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_ACCOUNTS_OWN: Final = frozenset({contract.ENV_CLIENT_ID, contract.ENV_TENANT_ID})
"""What comes from the ServiceAccount's annotations."""
_PLACES: Final = {name: place for place, name in enumerate(contract.VARIABLES)}
_MOST_DIFFERENCES: Final = 2
"""Named in a reason; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What pods are judged by, beside their ServiceAccounts.

    Attributes:
        settings: The operator's.
        label_only: Whether only labelled pods are wired, or also those whose ServiceAccount has a client id.
        native_sidecars: Whether the cluster runs them.
        known: Identities of pods that were judged by these rules: most are alike, and they cost the most.
    """

    settings: Settings
    label_only: bool = False
    native_sidecars: bool = True
    known: dict[tuple[object, ...], Identity] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """What else is known of how a pod came to be.

    Attributes:
        written: What its author wrote, from the template that it was made from; None when nobody kept it.
        account_unchanged: Whether its ServiceAccount is as it was when the pod was made: where the pod's
            variables say something else, that is then its author's own.
    """

    written: Written | None = None
    account_unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A pod that is not as it would be wired now.

    Attributes:
        namespace: The pod's.
        pod: Its name.
        uid: Its uid.
        account: Name of its ServiceAccount.
        state: See `State`.
        reason: What is wrong with it, a clause for people.
        refused: Whether a pod like it would be refused now, so that making it anew does not help.
        doubtful: Whether its only fault may be its author's will: see `Origin`.
        controller: The ownerReference of the object that made it; None for a pod that nobody would make anew.
    """

    namespace: str
    pod: str
    uid: str
    account: str
    state: State
    reason: str
    refused: bool = False
    doubtful: bool = False
    controller: Json | None = None


class Audit(NamedTuple):
    """What became of a listing.

    Attributes:
        wired: How many pods are wired as they should be.
        findings: The others, of those that should be.
    """

    wired: int
    findings: list[Finding]

    def by_state(self) -> Mapping[str, int]:
        """Return how many pods are "wired", "unwired", "outdated" and "wrong"."""
        found = Counter(finding.state for finding in self.findings)
        return {"wired": self.wired} | {state: found[state] for state in STATES}


def audit(
    pods: Iterable[Json],
    identities: Mapping[str, Annotations],
    rules: Rules,
    origins: Mapping[str, Origin] | None = None,
) -> Audit:
    """Return how the pods of a namespace are wired.

    Pods that have ended or are about to, mirror pods and those that opt out are none of ours.

    Args:
        pods: As stored.
        identities: Annotations of the namespace's annotated ServiceAccounts, by name.
        rules: What else they are judged by.
        origins: What else is known of some of them, by uid.
    """
    wired, findings = 0, []
    for pod in pods:
        account = str((pod.get("spec") or {}).get("serviceAccountName") or "default")
        uid = str(pod["metadata"].get("uid", ""))
        judged = judge(pod, identities.get(account, {}), rules, (origins or {}).get(uid, _UNKNOWN))
        wired += judged == "wired"
        if isinstance(judged, Finding):
            findings.append(judged)
    return Audit(wired, findings)


_UNKNOWN: Final = Origin()


def judge(
    pod: Json, account: Annotations, rules: Rules, origin: Origin = _UNKNOWN
) -> Finding | Literal["wired", "not ours"]:
    """Return what is wrong with a pod, if anything; see `audit`."""
    metadata = pod["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    ended = (pod.get("status") or {}).get("phase") in _FINISHED
    if ended or metadata.get("deletionTimestamp") or contract.MIRROR_POD in annotations:
        return "not ours"
    if origin.written is None and _APPLIED in annotations:
        origin = Origin(_applied(annotations[_APPLIED]), origin.account_unchanged)
    if not is_chosen(labels, account, label_only=rules.label_only):
        withdrawn = _withdrawn(pod, labels, account, origin)
        return _finding(pod, "outdated", withdrawn, doubtful=True, origin=origin) if withdrawn else "not ours"
    try:
        settings, native = rules.settings, rules.native_sidecars
        sidecar = sidecar_of(annotations, pod["spec"], settings.proxy, settings.token_endpoint, native=native)
        identity = _identity(labels, annotations, account, rules)
        wiring = wire(pod, identity, sidecar)
        stale = [
            difference
            for name, env, wanted in wanted_variables(pod, identity)
            for difference in _differences(name, env, wanted, origin)
        ]
    except PodRefused as refusal:
        state: State = "wrong" if _has_token(pod) else "unwired"
        # Who did not ask is let in all the same.
        become = "be refused" if labels.get(contract.USE_LABEL) == "true" else "have no Azure identity"
        return _finding(pod, state, f"a pod like it would {become}: {refusal}", refused=True)
    if wiring.operations:
        return _finding(pod, *_fault(wiring.operations, stale))
    if stale:
        return _finding(pod, "outdated", _told(stale), doubtful=True, origin=origin)
    return "wired"


def _identity(
    labels: Mapping[str, str], annotations: Mapping[str, str], account: Annotations, rules: Rules
) -> Identity:
    """Return what a pod would be given, which nothing but our keys decides."""
    key = tuple(
        (name, value)
        for present in (labels, annotations, account)
        for name, value in (*present.items(), ("", ""))
        if name.startswith(contract.PREFIX) or not name
    )
    if (known := rules.known.get(key)) is None:
        known = rules.known[key] = identity_of(labels, annotations, account, rules.settings)
    return known


def is_chosen(labels: Mapping[str, str], account: Annotations, *, label_only: bool) -> bool:
    """Whether a pod with these labels should be wired: by its label, else by its account's client id."""
    chosen = labels.get(contract.USE_LABEL)
    if chosen == "true":
        return True
    return chosen != "false" and not label_only and bool(account.get(contract.CLIENT_ID))


def written_in(template: Mapping[str, Any]) -> Written:
    """Return what the author of a pod wrote.

    Args:
        template: What the pod was made from, `metadata` and `spec`.

    Raises:
        PodRefused: It has the wrong shape.
    """
    spec = mapping(template.get("spec"), "spec")
    return {
        text(container, "name", kind): frozenset(
            text(found, "name", kind) for found in objects(container, "env", kind)
        )
        for kind in ("initContainers", "containers")
        for container in objects(spec, kind, "spec")
    }


def was_unchanged(account: Json, pod: Json) -> bool:
    """Whether a ServiceAccount's annotations are as they were when a pod was made.

    Args:
        account: Its metadata, as stored.
        pod: The pod's.
    """
    if contract.CLIENT_ID not in (account.get("annotations") or {}):
        return False  # when it was taken away, nobody keeps
    writes = [
        str(manager.get("time", ""))
        for manager in account.get("managedFields") or ()
        if any(
            key.startswith(f"f:{contract.PREFIX}")
            for key in ((manager.get("fieldsV1") or {}).get("f:metadata") or {}).get("f:annotations") or {}
        )
    ]
    changed, made = max([str(account["creationTimestamp"]), *writes]), str(pod["creationTimestamp"])
    if changed > made or (writes and changed < made):
        return changed < made
    # Times are whole seconds, and no write is recorded of what was created with nothing in it, as by `kubectl
    # create serviceaccount`. Versions come from one counter, though Kubernetes does not promise it.
    versions = str(account["resourceVersion"]), str(pod["resourceVersion"])
    return all(map(str.isdigit, versions)) and int(versions[0]) < int(versions[1])


def fingerprint(template: Mapping[str, Any], account: Annotations, settings: Settings) -> str:
    """Return a digest of what pods made now from a template are given, warnings aside.

    Raises:
        PodRefused: They would be refused.
    """
    metadata = mapping(template.get("metadata"), "metadata")
    labels, annotations = texts(metadata, "labels", "metadata"), texts(metadata, "annotations", "metadata")
    identity = replace(identity_of(labels, annotations, account, settings), warnings=())
    told = [repr(value) for value in astuple(replace(identity, skip=frozenset()))] + sorted(identity.skip)
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def would_help(template: Mapping[str, Any], account: Annotations, rules: Rules) -> str:
    """Return why pods made now from a template would not be wired; "" when they would."""
    try:
        metadata = mapping(template.get("metadata"), "metadata")
        labels, annotations = (
            texts(metadata, "labels", "metadata"),
            texts(metadata, "annotations", "metadata"),
        )
        if not is_chosen(labels, account, label_only=rules.label_only):
            return (
                f"its template has no label {contract.USE_LABEL}: its pods were given theirs by someone else"
            )
        wiring_of(
            template, labels, annotations, account, rules.settings, native_sidecars=rules.native_sidecars
        )
    except PodRefused as refusal:
        return str(refusal)
    return ""


def _finding(
    pod: Json,
    state: State,
    reason: str,
    *,
    refused: bool = False,
    doubtful: bool = False,
    origin: Origin | None = None,
) -> Finding:
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or ()
    return Finding(
        namespace=metadata.get("namespace", ""),
        pod=metadata.get("name", ""),
        uid=metadata.get("uid", ""),
        account=pod["spec"].get("serviceAccountName") or "default",
        state=state,
        reason=reason,
        refused=refused,
        doubtful=doubtful and origin is not None and origin.written is None,
        controller=next((owner for owner in owners if owner.get("controller")), None),
    )


def _fault(operations: Sequence[Operation], stale: Sequence[str]) -> tuple[State, str]:
    """Return what is wrong with a pod that wiring would change.

    Args:
        operations: What it would do.
        stale: What differs in variables, which it would leave.
    """
    volumes = [found for found in operations if found["path"].startswith("/spec/volumes")]
    sources = [found for found in volumes if found["path"].endswith("/projected/sources")]
    if len(volumes) > len(sources):
        return "unwired", "has no Azure identity"
    variables = [found for found in operations if "env" in found["path"].split("/")[-2:]]
    added = {name for found in variables for name in _names_added(found)}
    former = [found for found in operations if _mounts_at_former_path(found)]
    if len(operations) > len(sources + variables + former) or contract.ENV_TOKEN_FILE in added:
        return "wrong", "has an Azure identity in part only: a container lacks the token, or what names it"
    told = [f"its token is for {_token_of(found)} now" for found in sources]
    if former:
        told.append(f"lacks the token at {contract.LEGACY_PATH}")
    return "outdated", _told([*told, *(f"lacks {name}" for name in sorted(added)), *stale])


def _names_added(operation: Operation) -> list[str]:
    """Return the names of the variables that an operation adds to an env."""
    value = operation["value"]
    return [variable["name"] for variable in (value if isinstance(value, list) else [value])]


def _mounts_at_former_path(operation: Operation) -> bool:
    """Whether an operation adds what a setting, or the pod's annotation, asks for beside the identity."""
    if "volumeMounts" not in operation["path"].split("/")[-2:] or operation["op"] != "add":
        return False
    value = operation["value"]
    mounts = value if isinstance(value, list) else [value]
    return all(mount["mountPath"] == contract.LEGACY_PATH for mount in mounts)


def _token_of(operation: Operation) -> str:
    token = next(
        source["serviceAccountToken"] for source in operation["value"] if "serviceAccountToken" in source
    )
    return f"{quoted(token['audience'])}, {token['expirationSeconds']} s"


def _differences(
    container: str, env: Sequence[Json], wanted: Mapping[str, str], origin: Origin
) -> Iterable[str]:
    """Tell of variables that we appended once, and would give another value now."""
    own = (variable for variable in env if variable.get("name") in _PLACES)
    if all(variable.get("value") == wanted.get(variable["name"], "") for variable in own):
        return  # as nearly always
    authors = (origin.written or {}).get(container, frozenset())
    may_be_authors = origin.written is None
    for variable in _appended(env):
        name, carried = variable["name"], variable["value"]
        if wanted.get(name, "") == carried:
            may_be_authors = False  # nor are those that follow, since ours come last
            continue
        if name in authors or (may_be_authors and _is_authors(name, origin)):
            continue
        should = f"not {quoted(wanted[name])}" if name in wanted else "not none"
        yield f"container {quoted(container, 20)} has {name} {quoted(carried)}, {should}"


def _is_authors(name: str, origin: Origin) -> bool:
    """Whether a variable that has another value than we would give it must be the author's own."""
    return name == contract.ENV_TOKEN_FILE or (origin.account_unchanged and name in _ACCOUNTS_OWN)


def _appended(env: Sequence[Json]) -> Sequence[Json]:
    """Return the variables that may be ours: the last run of literal ones of our names, in our order."""
    runs: list[list[Json]] = [[]]
    last = len(_PLACES)
    for variable in env:
        place = _PLACES.get(variable.get("name", ""))
        if place is None or not isinstance(variable.get("value"), str) or not variable["value"]:
            last = len(_PLACES)
            continue
        if place <= last:
            runs.append([])
        runs[-1].append(variable)
        last = place
    return runs[-1]


def _withdrawn(pod: Json, labels: Mapping[str, str], account: Annotations, origin: Origin) -> str:
    """Tell of an identity that a pod was given by its ServiceAccount's client id, which is there no more."""
    if labels.get(contract.USE_LABEL) == "false" or account.get(contract.CLIENT_ID) or not _has_token(pod):
        return ""
    try:
        for kind in ("initContainers", "containers"):
            for container in objects(pod["spec"], kind, "spec"):
                env = objects(container, "env", kind)
                for found in _differences(text(container, "name", kind), env, {}, origin):
                    if contract.ENV_CLIENT_ID in found:
                        return f"its ServiceAccount has no client id any more: {found}"
    except PodRefused:
        return ""
    return ""


def _has_token(pod: Json) -> bool:
    """Whether a volume of ours, or the peer's, is there."""
    return any(
        isinstance(volume, dict) and str(volume.get("name", "")).startswith(contract.VOLUME_PREFIX)
        for volume in items(pod["spec"], "volumes", "spec")
    )


def _applied(configuration: str) -> Written | None:
    """Return what the author wrote, where `kubectl apply` keeps it; None where that cannot be read."""
    try:
        return written_in(mapping(orjson.loads(configuration), "configuration"))
    except (orjson.JSONDecodeError, PodRefused):
        return None


def _told(differences: Sequence[str]) -> str:
    shown = ", ".join(differences[:_MOST_DIFFERENCES])
    more = len(differences) - _MOST_DIFFERENCES
    return f"{shown} and {more} more" if more > 0 else shown
