"""Mistakes in annotations and labels: keys that mean nothing where they are, values that Azure rejects."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from workload_identity_operator import contract, healing
from workload_identity_operator.check.cluster import annotations_of, labels_of, object_of
from workload_identity_operator.check.findings import Finding, Object
from workload_identity_operator.errors import PodRefused, quoted
from workload_identity_operator.identity import SHAPES, token_expiration

POD: Final = "Pod"
ACCOUNT: Final = "ServiceAccount"

_OTHERS: Final = (f"{contract.POD_WIRING_GROUP}/", "azure-workload-identity.io/")
"""Prefixes that only look like a mistake: our own other one, and that of the peer's chart."""
_WORDS: Final = ("azure", "workload", "identity")
_LETTERS: Final = re.compile("[^a-z]")
_ALIKE: Final = 0.75
"""Of 1: how much of a key's letters agree with one of ours, in their order, for it to be meant."""
_NO_ID: Final = re.compile("[0-]+")


@dataclass(frozen=True, slots=True)
class Keys:
    """Which of our keys mean something where.

    Attributes:
        endpoint: The pod annotation that asks for the custom token endpoint; "" when there is none, None
            when it is not known whether there is one.
    """

    endpoint: str | None = None

    @property
    def on_pods(self) -> frozenset[str]:
        """Annotations of pods."""
        return contract.POD_ANNOTATIONS | ({self.endpoint} if self.endpoint else frozenset())

    def may_be_endpoint(self, key: str) -> bool:
        """Whether a key asks for an endpoint of which nothing is known."""
        return self.endpoint is None and key.startswith(f"{contract.USE_LABEL}-")

    def home_of(self, key: str) -> str:
        """Return where a key belongs; "" when it is none of ours."""
        if key == contract.USE_LABEL:
            return "a label of the pod"
        if key in contract.SERVICE_ACCOUNT_ANNOTATIONS and key in self.on_pods:
            return "an annotation of the pod or of its ServiceAccount"
        if key in contract.SERVICE_ACCOUNT_ANNOTATIONS:
            return "an annotation of the ServiceAccount"
        return "an annotation of the pod" if key in self.on_pods else ""

    def meant_by(self, key: str) -> str:
        """Return which of our keys a key is meant to be; "" when it is another's altogether."""
        if key.startswith(_OTHERS):
            return ""
        plain = _letters(key)
        if not key.startswith(contract.PREFIX) and sum(word in plain for word in _WORDS) < 2:  # noqa: PLR2004 - one is chance
            return ""
        known = {contract.USE_LABEL, *self.on_pods, *contract.SERVICE_ACCOUNT_ANNOTATIONS}
        likeness, nearest = max((_likeness(plain, _letters(one)), one) for one in sorted(known))
        return nearest if likeness >= _ALIKE else ""


def _letters(key: str) -> str:
    return _LETTERS.sub("", key.lower())


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def key_mistakes(kind: str, found: Mapping[str, Any], keys: Keys, about: Object) -> Iterator[Finding]:
    """Tell of keys that mean nothing on an object, but not of the opt-in label's level.

    Args:
        kind: What the object is: `POD` for pods and templates of pods, `ACCOUNT`, or any other.
        found: Its metadata are read.
        keys: Which mean something.
        about: What the findings are about.
    """
    fine = {
        POD: (frozenset({contract.USE_LABEL}), keys.on_pods),
        ACCOUNT: (frozenset({contract.USE_LABEL}), contract.SERVICE_ACCOUNT_ANNOTATIONS),
    }
    labels, annotations = fine.get(kind, (frozenset({contract.USE_LABEL}), frozenset()))
    for what, present, known in (
        ("label", labels_of(found), labels),
        ("annotation", annotations_of(found), annotations),
    ):
        for key in sorted(present):
            if key == contract.HEALING and what == "annotation":
                yield from _healing_mistakes(kind, present[key], about)
                continue
            if key in known or (kind == POD and what == "annotation" and keys.may_be_endpoint(key)):
                continue
            if (
                kind == POD
                and what == "annotation"
                and key.startswith(f"{contract.USE_LABEL}-")
                and not keys.endpoint
            ):
                yield Finding(
                    "annotation-idle",
                    about,
                    "a custom token endpoint, which the annotation asks for",
                    f"annotation {key}, and no such endpoint",
                    "set the chart's customTokenEndpoint, or remove the annotation",
                )
            elif home := keys.home_of(key):
                yield Finding(
                    "annotation-misplaced",
                    about,
                    f"{key} as {home}",
                    f"{what} {key}={quoted(present[key], 48)} on {_where(kind)}, where it has no effect",
                    f"make it {home}",
                )
            elif key.startswith(contract.PREFIX) or keys.meant_by(key):
                meant = keys.meant_by(key)
                yield Finding(
                    "annotation-unknown",
                    about,
                    f"{meant}, {keys.home_of(meant)}" if meant else f"a key of ours under {contract.PREFIX}",
                    f"{what} {quoted(key, 100)}, which has no effect",
                    f"write {meant} as {keys.home_of(meant)}"
                    if meant
                    else "correct its spelling, or remove it",
                )


def _where(kind: str) -> str:
    return "the pod" if kind == POD else f"a {kind}"


def _healing_mistakes(kind: str, wish: str, about: Object) -> Iterator[Finding]:
    """Tell of a wish about healing that nobody reads, or that cannot be read."""
    homes = (*sorted(healing.RESTARTED | healing.EVICTED), ACCOUNT)
    if kind not in homes:
        yield Finding(
            "annotation-misplaced",
            about,
            f"{contract.HEALING} as an annotation of what makes the pods: {', '.join(homes)}",
            f"annotation {contract.HEALING}={quoted(wish, 48)} on {_where(kind)}, where it has no effect",
            "annotate that one, or the ServiceAccount of its pods",
        )
    elif wish not in {"", *healing.WISHES}:
        yield Finding(
            "healing-invalid",
            about,
            f"annotation {contract.HEALING} to be {', '.join(healing.WISHES[:-1])} or {healing.WISHES[-1]}",
            f"{quoted(wish, 48)}, which counts as off",
            f"correct annotation {contract.HEALING}, or remove it",
        )


def value_mistakes(account: Mapping[str, Any], tenant: str) -> Iterator[Finding]:
    """Tell of values of a ServiceAccount's annotations that cannot work; `tenant` is the cluster's, or ""."""
    about, present = object_of(ACCOUNT, account), annotations_of(account)
    for key, code, name in (
        (contract.CLIENT_ID, "client-id-invalid", "client id"),
        (contract.TENANT_ID, "tenant-id-invalid", "tenant id"),
    ):
        value = present.get(key)
        fault = None if value is None else _fault_of(key, value)
        if key == contract.CLIENT_ID and value and not fault and value.lower() == tenant.lower():
            fault = "the tenant's id"
        if fault:
            yield Finding(
                code,
                about,
                f"a {name} in annotation {key}: 8-4-4-4-12 hexadecimal digits"
                + (", or a domain name" if key == contract.TENANT_ID else ""),
                f"{quoted(value or '', 60)}, {fault}",
                f"kubectl -n {about.namespace} annotate serviceaccount {about.name} --overwrite {key}="
                + ((value or "").strip() if fault == "blanks around it" else name.upper().replace(" ", "_")),
            )
    try:
        token_expiration({}, present)
    except PodRefused as refusal:
        yield expiration_mistake(about, refusal)


def expiration_mistake(about: Object, refusal: PodRefused) -> Finding:
    """Return the finding that a pod is refused for its token's lifetime."""
    return Finding(
        "expiration-invalid",
        about,
        f"{contract.MIN_EXPIRATION} to {contract.MAX_EXPIRATION}, a whole number of seconds",
        str(refusal).partition("; wanted")[0],
        f"correct annotation {contract.EXPIRATION}, or remove it for {contract.DEFAULT_EXPIRATION}",
    )


def _fault_of(key: str, value: str) -> str | None:
    """Return what a value is instead of an id; None when it is one."""
    if SHAPES[key].fullmatch(value):
        return "a placeholder" if _NO_ID.fullmatch(value) else None
    if not value:
        return f"empty: {key.removeprefix(contract.PREFIX)} is left out of pods"
    if SHAPES[key].fullmatch(value.strip()):
        return "blanks around it"
    return "which is none"
