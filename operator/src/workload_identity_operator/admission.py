"""Answers a review: gather the ServiceAccount, compute the wiring, say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workload_identity_operator import contract, reviews
from workload_identity_operator.accounts import Accounts, Annotations
from workload_identity_operator.errors import AccountLookupFailed, PodRefused, quoted
from workload_identity_operator.identity import identity_of
from workload_identity_operator.reviews import Review
from workload_identity_operator.settings import Settings
from workload_identity_operator.shapes import Json, is_object_name, mapping, text, texts
from workload_identity_operator.sidecar import sidecar_of
from workload_identity_operator.wiring import Wiring, wire

_MIRROR_POD: Final = "a static pod cannot have an Azure identity: it may not project a token"
_NOT_FOUND: Final = (
    'serviceaccounts "{}" not found in namespace {}: create it, or correct the pod\'s serviceAccountName'
)
_NOT_TOLD: Final = "ServiceAccount {} could not be looked up: {}; the same create may succeed later"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a review.

    Attributes:
        body: The AdmissionReview to send back.
        outcome: "wired", "unchanged", "refused" (the author must change something), "missing"
            (no such ServiceAccount) or "failed" (the API server could not be asked).
        reason: The message of a refusal, else "".
        pod: Name or generateName of the pod, for the log.
        account: Name of its ServiceAccount, for the log.
        client_id: Of the identity that it was given, for the log.
        warnings: What its author is told, for the log.
    """

    body: bytes
    outcome: str
    reason: str = ""
    pod: str = ""
    account: str = ""
    client_id: str = ""
    warnings: Sequence[str] = ()


async def admit(
    review: Review, accounts: Accounts, settings: Settings, *, native_sidecars: bool, opted_in: bool = True
) -> Answer:
    """Answer one review. Never raises for what a review may hold.

    Args:
        review: What is asked.
        accounts: Who knows the pod's ServiceAccount.
        settings: The operator's.
        native_sidecars: Whether the cluster runs them.
        opted_in: Whether the pod asks to be wired, as its label says. One that does not is wired if its
            ServiceAccount names an identity, and never refused.
    """
    if not _concerns_us(review):
        return Answer(reviews.allowed(review), "unchanged")
    shown = account = ""
    try:
        pod = _pod_of(review)
        metadata = mapping(pod.get("metadata"), "metadata")
        labels = texts(metadata, "labels", "metadata")
        annotations = texts(metadata, "annotations", "metadata")
        name, prefix = (text(metadata, key, "metadata") for key in ("name", "generateName"))
        shown = name or prefix
        if contract.MIRROR_POD in annotations:
            warnings = [_MIRROR_POD] if opted_in else []
            return Answer(reviews.allowed(review, warnings=warnings), "unchanged", "", shown)
        spec = mapping(pod.get("spec"), "spec")
        account = text(spec, "serviceAccountName", "spec") or "default"
        _check_name("spec.serviceAccountName", account)
        found = await _account(review.namespace, account, accounts)
        if found is None:
            reason = _NOT_FOUND.format(account, quoted(review.namespace))
            return Answer(_denied(review, 400, reason, opted_in), "missing", reason, shown, account)
        wiring, client_id = Wiring([], []), found.get(contract.CLIENT_ID, "")
        if opted_in or client_id:
            wiring = wiring_of(pod, labels, annotations, found, settings, native_sidecars=native_sidecars)
    except PodRefused as refusal:
        reason = str(refusal)
        outcome = "refused" if opted_in else "unchanged"
        return Answer(_denied(review, 400, reason, opted_in), outcome, reason, shown, account)
    except AccountLookupFailed as failure:
        reason = _NOT_TOLD.format(quoted(account), failure)
        return Answer(_denied(review, 503, reason, opted_in), "failed", reason, shown, account)
    outcome = "wired" if wiring.operations else "unchanged"
    body = reviews.allowed(review, wiring.operations, wiring.warnings)
    return Answer(body, outcome, "", shown, account, client_id, wiring.warnings)


def wiring_of(
    pod: Mapping[str, Any],
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    account: Annotations,
    settings: Settings,
    *,
    native_sidecars: bool,
) -> Wiring:
    """Return what a pod would be given now, by whom it is wired and whom it is judged by alike.

    Args:
        pod: The Pod, about to be stored or stored; never changed.
        labels: Its labels; {} when null.
        annotations: Its annotations; {} when null.
        account: Annotations of its ServiceAccount.
        settings: The operator's.
        native_sidecars: Whether the cluster runs them.

    Raises:
        PodRefused: It cannot be wired as it is.
    """
    spec = mapping(pod.get("spec"), "spec")
    sidecar = sidecar_of(annotations, spec, settings.proxy, settings.token_endpoint, native=native_sidecars)
    return wire(pod, identity_of(labels, annotations, account, settings), sidecar)


def _denied(review: Review, code: int, reason: str, opted_in: bool) -> bytes:
    """Refuse the pod, or warn its author where it never asked to be wired."""
    if opted_in:
        return reviews.denied(review, code, reason)
    return reviews.allowed(review, warnings=[f"no Azure identity: {reason}"])


def _concerns_us(review: Review) -> bool:
    """Whether it is the creation of a pod; whatever else a hand-edited configuration sends passes."""
    return review.operation in {"", "CREATE"} and not review.subresource and review.kind in {"", "Pod"}


def _pod_of(review: Review) -> Json:
    if review.pod is None:
        raise PodRefused("request.object: wanted a Pod, found nothing to decode")
    pod = mapping(review.pod, "request.object")
    version, kind = (text(pod, key, "request.object") for key in ("apiVersion", "kind"))
    if version not in {"", "v1"} or kind not in {"", "Pod"}:
        raise PodRefused(f"request.object: wanted a Pod of v1, found {quoted(kind)} of {quoted(version)}")
    return pod


async def _account(namespace: str, name: str, accounts: Accounts) -> Annotations | None:
    if not namespace:
        return None
    _check_name("request.namespace", namespace)
    return await accounts.of(namespace, name)


def _check_name(what: str, name: str) -> None:
    if not is_object_name(name):
        raise PodRefused(
            f"{what}: {quoted(name)} is no Kubernetes name: wanted letters a-z, digits, '-' and '.', "
            "with a letter or digit at both ends"
        )
