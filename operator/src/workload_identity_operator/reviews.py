"""Admission reviews: bytes in, bytes out. No I/O.

Reviews of `admission.k8s.io/v1` and `v1beta1` are read; an answer repeats the request's version
and uid. A request that is no review at all is still answered with a well-formed v1 review, whose
status says why, so that whoever sent it can read the reason.
"""

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from workload_identity_operator import contract
from workload_identity_operator.errors import PodRefused
from workload_identity_operator.shapes import Json, mapping, text

V1: Final = "admission.k8s.io/v1"
VERSIONS: Final = frozenset({V1, "admission.k8s.io/v1beta1"})
CONTENT_TYPE: Final = "application/json"

LONGEST_WARNING: Final = 120
"""Characters; the API server cuts longer ones off."""

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LARGEST_MENDED: Final = 1024 * 1024
"""Bytes. An API server has no lone surrogates to send; mending takes twenty times a body's size in memory."""


class NoReview(Exception):  # noqa: N818 - what was received
    """The request's body is no admission review.

    Attributes:
        status: HTTP status that fits, 400 or 413.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Review:
    """What the API server asks.

    Attributes:
        api_version: The review's own, repeated in the answer.
        uid: Of the request, repeated in the answer.
        namespace: Where the pod will be; its own metadata may not say.
        operation: `CREATE` and kin.
        subresource: "" for the object itself.
        kind: Kind of the object, "Deployment.apps" where it has a group; "" when not told.
        pod: What is created, as sent; None when there is none.
        dry_run: Whether the object will not be stored, whatever the answer.
    """

    api_version: str
    uid: str
    namespace: str
    operation: str
    subresource: str
    kind: str
    pod: object
    dry_run: bool = False


def read_review(body: bytes) -> Review:
    """Return the review.

    Raises:
        NoReview: Not JSON, nested too deeply, of too many parts, or not of an admission review's shape.
    """
    if (parts := sum(map(body.count, b"{[,"))) > contract.MAX_REVIEW_PARTS:
        raise NoReview(
            f"wanted at most {contract.MAX_REVIEW_PARTS} braces, brackets and commas, found {parts}", 413
        )
    received = _decoded(body.removeprefix(b"\xef\xbb\xbf"))
    try:
        review = mapping(received, "review")
        version, kind = text(review, "apiVersion", "review"), text(review, "kind", "review")
        if version not in VERSIONS or kind != "AdmissionReview":
            raise NoReview(
                f"wanted an AdmissionReview of {' or '.join(sorted(VERSIONS))}, "
                f"found kind {kind[:64]!r} of {version[:64]!r}"
            )
        request = mapping(review.get("request"), "request")
        uid = text(request, "uid", "request")
        pod = request.get("object")
        result = Review(
            api_version=version,
            uid=uid,
            namespace=text(request, "namespace", "request"),
            operation=text(request, "operation", "request"),
            subresource=text(request, "subResource", "request"),
            kind=_kind_of(mapping(request.get("kind"), "request.kind"), pod),
            pod=pod,
            dry_run=request.get("dryRun") is True,
        )
    except PodRefused as refusal:
        raise NoReview(str(refusal)) from refusal
    if not uid:
        raise NoReview("wanted request.uid to answer to, found none")
    return result


def _kind_of(told: Json, found: object) -> str:
    """Return the kind that the request tells, else the one that the object itself does."""
    kind, group = text(told, "kind", "request.kind"), text(told, "group", "request.kind")
    if not kind and isinstance(found, dict):
        kind = text(found, "kind", "request.object")
        group = text(found, "apiVersion", "request.object").rpartition("/")[0]
    return f"{kind}.{group}" if group else kind


def _decoded(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if len(body) <= _LARGEST_MENDED and _SURROGATE.search(body):
            # Lone ones are read as U+FFFD by the API server's decoder; orjson refuses them.
            with suppress(ValueError, RecursionError):
                plain = json.dumps(json.loads(body.decode()), ensure_ascii=False)
                return orjson.loads(_LONE_SURROGATE.sub("\ufffd", plain))
        found = f"{len(body)} bytes that are no JSON ({error})" if body else "nothing"
        raise NoReview(f"wanted an AdmissionReview as JSON, found {found}") from error


def allowed(
    review: Review, operations: Sequence[Mapping[str, Any]] = (), warnings: Sequence[str] = ()
) -> bytes:
    """Return the answer that lets the object through, with the operations applied."""
    response: Json = {"uid": review.uid, "allowed": True, "status": {"code": 200}}
    if operations:
        response["patchType"] = "JSONPatch"
        response["patch"] = b64encode(orjson.dumps(operations)).decode("ascii")
    if warnings:
        response["warnings"] = [_short(warning) for warning in warnings[: contract.MOST_WARNINGS]]
    return _answer(review.api_version, response)


def denied(review: Review, code: int, message: str) -> bytes:
    """Return the answer that refuses the object; the message is shown at kubectl."""
    response = {"uid": review.uid, "allowed": False, "status": {"code": code, "message": message}}
    return _answer(review.api_version, response)


def unreadable(code: int, message: str) -> bytes:
    """Return the answer to a request that is no review."""
    response = {"uid": "", "allowed": False, "status": {"code": code, "message": message}}
    return _answer(V1, response)


def _answer(version: str, response: Json) -> bytes:
    review = {"apiVersion": version, "kind": "AdmissionReview", "response": response}
    return orjson.dumps(review)


def _short(warning: str) -> str:
    return warning if len(warning) <= LONGEST_WARNING else warning[: LONGEST_WARNING - 1] + "…"
