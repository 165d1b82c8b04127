"""A review is read from bytes that anyone may have sent, and answered in its own version."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workload_identity_operator import contract, reviews
from workload_identity_operator.reviews import NoReview, Review, read_review

Json = dict[str, Any]

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"
REQUEST: Json = {
    "uid": UID,
    "kind": {"group": "", "version": "v1", "kind": "Pod"},
    "namespace": "shop",
    "operation": "CREATE",
    "object": {"metadata": {"name": "pod-a"}},
}


def review_of(request: object = REQUEST, version: str = "admission.k8s.io/v1") -> bytes:
    """Return a review as the API server sends it."""
    return json.dumps({"kind": "AdmissionReview", "apiVersion": version, "request": request}).encode()


def with_object(raw: str) -> bytes:
    """Return a review whose object is this piece of JSON."""
    return review_of({**REQUEST, "object": "OBJECT"}).replace(b'"OBJECT"', raw.encode())


def refusal_of(body: bytes) -> NoReview:
    """Return why these bytes are no review."""
    with pytest.raises(NoReview) as refused:
        read_review(body)
    return refused.value


@pytest.mark.parametrize("version", ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"])
def test_answers_repeat_version_and_uid(version: str) -> None:
    """Whatever the answer, it is of the review's own version and for its uid."""
    review = read_review(review_of(version=version))

    for answer in (
        reviews.allowed(review),
        reviews.allowed(review, [{"op": "add", "path": "/spec", "value": {}}], ["careful"]),
        reviews.denied(review, 400, "no"),
    ):
        told = json.loads(answer)
        assert (told["apiVersion"], told["kind"]) == (version, "AdmissionReview")
        assert told["response"]["uid"] == UID


def test_all_that_is_read() -> None:
    """Everything that matters of a request is there; what it lacks is empty."""
    assert read_review(review_of({**REQUEST, "subResource": "status", "dryRun": True})) == Review(
        api_version="admission.k8s.io/v1",
        uid=UID,
        namespace="shop",
        operation="CREATE",
        subresource="status",
        kind="Pod",
        pod={"metadata": {"name": "pod-a"}},
        dry_run=True,
    )
    assert read_review(review_of({"uid": UID, "object": None, "namespace": None})) == Review(
        "admission.k8s.io/v1", UID, "", "", "", "", None
    )


@pytest.mark.parametrize(
    ("told", "of_the_object", "kind"),
    [
        ({"group": "", "version": "v1", "kind": "Pod"}, {}, "Pod"),
        ({"kind": "Pod"}, {"kind": "Deployment"}, "Pod"),
        ({"group": "metrics.k8s.io", "version": "v1", "kind": "Pod"}, {}, "Pod.metrics.k8s.io"),
        ({"group": "apps", "version": "v1", "kind": "Deployment"}, {}, "Deployment.apps"),
        (None, {"apiVersion": "v1", "kind": "Pod"}, "Pod"),
        ({}, {"apiVersion": "apps/v1", "kind": "Deployment"}, "Deployment.apps"),
        (None, {}, ""),
    ],
)
def test_kinds(told: Json | None, of_the_object: Json, kind: str) -> None:
    """The kind is the request's, with its group, else the object's own."""
    assert read_review(review_of({**REQUEST, "kind": told, "object": of_the_object})).kind == kind


def test_byte_order_mark() -> None:
    """A byte-order mark before the review is no obstacle; a second one is."""
    assert read_review(b"\xef\xbb\xbf" + review_of()).uid == UID
    assert refusal_of(b"\xef\xbb\xbf" * 2 + review_of()).status == 400


def test_duplicate_keys() -> None:
    """Of a key that stands twice the last one counts."""
    assert read_review(with_object('{"spec": 1, "spec": {"a": 1, "a": 2}}')).pod == {"spec": {"a": 2}}


@pytest.mark.parametrize(
    ("escaped", "read"),
    [
        (r"\ud800", "\ufffd"),
        (r"\uDFFF", "\ufffd"),
        (r"a\ud800b", "a\ufffdb"),
        (r"\ud83d\ude80", "🚀"),
        (r"\ud800\ud83d\ude80", "\ufffd🚀"),
        (r"\ude80\ud83d", "\ufffd\ufffd"),
        (r"\ud800\\ud800", "\ufffd\\ud800"),
        (r"\ud800\n\"\u0000é", '\ufffd\n"\x00é'),
    ],
)
def test_lone_surrogates(escaped: str, read: str) -> None:
    """Half a surrogate pair is read as the replacement character, in values and in keys; whole ones stay."""
    found = read_review(with_object(f'{{"{escaped}": ["{escaped}", 1.5, 12345678901234567890]}}')).pod

    assert found == {read: [read, 1.5, 12345678901234567890]}


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "-0", "1e308", "5e-324", "0.1"])
def test_odd_numbers(number: str) -> None:
    """Numbers of any size are no obstacle."""
    assert read_review(with_object(f'{{"n": {number}}}')).pod == {"n": pytest.approx(float(number))}


BODIES = {
    "nothing": (b"", "found nothing"),
    "blank": (b" ", "no JSON"),
    "cut off": (review_of()[:-1], "no JSON"),
    "more behind": (review_of() + b"}", "no JSON"),
    "not UTF-8": (review_of().replace(b"shop", b"sh\xffp"), "no JSON"),
    "UTF-16": (review_of().decode().encode("utf-16"), "no JSON"),
    "raw control character": (review_of().replace(b"shop", b"sh\x01p"), "no JSON"),
    "NaN": (with_object("NaN"), "no JSON"),
    "Infinity": (with_object("[-Infinity]"), "no JSON"),
    "beyond a double": (with_object('{"n": 1e400}'), "no JSON"),
    "lone surrogate and NaN": (with_object(r'["\ud800", NaN]'), "no JSON"),
    "lone surrogate and cut off": (with_object(r'"\ud800'), "no JSON"),
    "lone surrogate and digits": (with_object(r'["\ud800", %s]' % ("9" * 5000)), "no JSON"),
    "lists 10,000 deep": (with_object("[" * 10_000 + "]" * 10_000), "no JSON"),
    "objects 10,000 deep": (with_object('{"a":' * 10_000 + "1" + "}" * 10_000), "no JSON"),
    "200,000 deep": (with_object("[" * 200_000), "no JSON"),
    "lone surrogate and 10,000 deep": (
        with_object(r'["\ud800",' + "[" * 10_000 + "]" * 10_000 + "]"),
        "no JSON",
    ),
    "null": (b"null", "found kind '' of ''"),
    "list": (b"[]", "review: wanted an object, found a list"),
    "text": (b'"review"', "review: wanted an object, found a string"),
    "no version": (b'{"kind": "AdmissionReview"}', "found kind 'AdmissionReview' of ''"),
    "another version": (review_of(version="admission.k8s.io/v2"), "admission.k8s.io/v2"),
    "another group": (review_of(version="v1"), "wanted an AdmissionReview of admission.k8s.io/v1"),
    "another kind": (review_of().replace(b"AdmissionReview", b"Pod"), "found kind 'Pod'"),
    "kind of a number": (review_of().replace(b'"AdmissionReview"', b"1"), "review.kind: wanted a string"),
    "no request": (review_of(None), "wanted request.uid"),
    "request a list": (review_of([]), "request: wanted an object, found a list"),
    "no uid": (review_of({**REQUEST, "uid": None}), "wanted request.uid"),
    "empty uid": (review_of({**REQUEST, "uid": ""}), "wanted request.uid"),
    "uid a number": (review_of({**REQUEST, "uid": 1}), "request.uid: wanted a string, found a number"),
    "namespace a list": (review_of({**REQUEST, "namespace": []}), "request.namespace: wanted a string"),
    "operation a boolean": (review_of({**REQUEST, "operation": True}), "request.operation: wanted a string"),
    "subresource an object": (review_of({**REQUEST, "subResource": {}}), "request.subResource: wanted"),
    "kind a text": (review_of({**REQUEST, "kind": "Pod"}), "request.kind: wanted an object"),
    "group a number": (review_of({**REQUEST, "kind": {"group": 1}}), "request.kind.group: wanted a string"),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_is_no_review(name: str) -> None:
    """Anything else is refused with 400 and a short reason, and never an end of the process."""
    body, reason = BODIES[name]

    refusal = refusal_of(body)

    assert refusal.status == 400
    assert reason in str(refusal)
    assert len(str(refusal)) < 300


@pytest.mark.parametrize("many", ["[{}]", "[[]]", "[1]", '{"":0}'])
def test_review_of_too_many_parts(many: str) -> None:
    """Millions of values fit into the bytes of a review, and would take seconds and the operator's memory."""
    inside = ",".join([many[1:-1]] * contract.MAX_REVIEW_PARTS)

    refusal = refusal_of(with_object(many[0] + inside + many[-1]))

    assert refusal.status == 413
    assert "wanted at most 250000 braces, brackets and commas" in str(refusal)


def test_largest_review() -> None:
    """As many parts as there may be are read, in a body as large as it may be."""
    padding = "x" * (contract.MAX_REVIEW_BYTES - len(review_of()) - 2 * contract.MAX_REVIEW_PARTS)
    parts = contract.MAX_REVIEW_PARTS - review_of().count(b",") - 100

    assert read_review(with_object(f'["{padding}", {"1," * parts}1]')).uid == UID


def test_lone_surrogates_in_a_large_review() -> None:
    """They are not mended there, which would take more memory than the operator has: refused, with why."""
    refusal = refusal_of(with_object(rf'["\ud800", "{"x" * 1024 * 1024}"]'))

    assert refusal.status == 400
    assert "surrogate" in str(refusal)


@pytest.mark.parametrize("object_", ["[]", '"pod"', "7", "true"])
def test_object_that_is_none_is_still_a_review(object_: str) -> None:
    """An object that is no object is for the answer to refuse: the review has a uid to answer to."""
    assert json.loads(object_) == reviews.read_review(with_object(object_)).pod


def test_answer_to_what_is_no_review() -> None:
    """Whoever sent it is answered with a whole v1 review that holds code and reason."""
    assert json.loads(reviews.unreadable(413, "too much")) == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "", "allowed": False, "status": {"code": 413, "message": "too much"}},
    }


def test_warnings_are_few_and_short() -> None:
    """Of many warnings the first five are sent, each within 120 characters."""
    told = json.loads(
        reviews.allowed(read_review(review_of()), warnings=[f"{n}" + "x" * n for n in range(115, 125)])
    )

    warnings = told["response"]["warnings"]
    assert [len(warning) for warning in warnings] == [118, 119, 120, 120, 120]
    assert [warning[-1] for warning in warnings] == ["x", "x", "x", "…", "…"]


def test_nothing_to_do() -> None:
    """Where there is nothing to do, neither patch nor patch type nor warnings are sent."""
    assert json.loads(reviews.allowed(read_review(review_of())))["response"] == {
        "uid": UID,
        "allowed": True,
        "status": {"code": 200},
    }


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.soak
@given(st.binary() | st.builds(lambda value: json.dumps(value).encode(), values))
def test_any_bytes(body: bytes) -> None:
    """Any bytes, and any JSON, are refused; nothing but the refusal is raised."""
    assert refusal_of(body).status == 400


@pytest.mark.soak
@given(st.fixed_dictionaries({}, optional={**dict.fromkeys(REQUEST, values), "subResource": values}))
def test_any_request(request: Json) -> None:
    """Any JSON in a review's request is read or refused."""
    try:
        review = read_review(review_of(request))
    except NoReview:
        return
    assert review.uid == request["uid"]
