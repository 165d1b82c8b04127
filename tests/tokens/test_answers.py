"""What the token endpoint's answers mean."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workload_identity.cache import Held
from workload_identity.clock import Instant
from workload_identity.entra import Granted, judged
from workload_identity.errors import FailedResponse
from workload_identity.refusals import Refusal
from workload_identity.steps import Response

Answer = Callable[..., Response]
START = Instant(1_000_000.0, 50.0)
SECRET = "planted-secret"


def response(body: bytes, status: int = 200, **headers: str) -> Response:
    """Return an answer that was asked for at START."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, "OK", named, body, START)


def granted(**members: object) -> Held:
    """Return the token of an answer with these members."""
    answer = judged(response(json.dumps({"access_token": SECRET, **members}).encode()))
    assert isinstance(answer, Granted), answer
    return answer.held


def refused(body: bytes, status: int = 200, **headers: str) -> Refusal:
    """Return what is wrong with an answer."""
    refusal = judged(response(body, status, **headers))
    assert isinstance(refusal, Refusal), refusal
    return refusal


@pytest.mark.parametrize("lasts", [3600, "3600", 3600.9, "3600.0"])
def test_lifetime_in_any_notation(lasts: object) -> None:
    """Numbers are floored, decimal texts are read."""
    held = granted(expires_in=lasts)

    assert held.token.expires_on == 1_003_600
    assert held.over_epoch == 1_003_600
    assert held.over_monotonic == 3650


def test_end_by_the_service_is_returned_ours_decides() -> None:
    """With both fields callers get the service's end; freshness follows the lifetime, whatever its clock."""
    held = granted(expires_in=3600, expires_on=1_009_999)

    assert held.token.expires_on == 1_009_999
    assert held.info.expires_on == 1_009_999
    assert held.over_epoch == 1_003_600


@pytest.mark.parametrize(
    "members",
    [
        {"expires_in": "", "expires_on": "1003600"},
        {"expires_in": "3600", "expires_on": "", "refresh_in": ""},
        {"expires_in": None, "expires_on": 1_003_600, "refresh_in": None},
        {"expires_in": 3600, "error": "", "error_description": ""},
        {"expires_in": 3600, "error": None},
    ],
)
def test_what_is_empty_is_not_said(members: dict[str, Any]) -> None:
    """Some identity endpoints have every field in every answer."""
    held = granted(**members)

    assert held.token.expires_on == held.over_epoch == 1_003_600


def test_end_alone_is_enough() -> None:
    """With expires_on only, the lifetime is counted from the request."""
    held = granted(expires_on="1003600")

    assert held.token.expires_on == 1_003_600
    assert held.over_monotonic == 3650


@pytest.mark.parametrize(("lasts", "refresh_on"), [(7199, None), (7200, 1_003_600), (86_400, 1_043_200)])
def test_long_lives_are_due_at_half(lasts: int, refresh_on: int | None) -> None:
    """From two hours on, half of the life is the time to ask for another."""
    assert granted(expires_in=lasts).info.refresh_on == refresh_on


def test_service_says_when_to_refresh() -> None:
    """`refresh_in` wins over half of the life, as a number or a text."""
    assert granted(expires_in=86_400, refresh_in="100").info.refresh_on == 1_000_100


def test_life_that_is_over_is_no_fault() -> None:
    """This machine's clock may be fast: the token is given, and is not good for a second call."""
    held = granted(expires_in=0)

    assert held.token.token == SECRET
    assert held.freshness(START) == "over"


@pytest.mark.parametrize(
    ("kind", "expected"), [("pop", "pop"), (None, "Bearer"), (7, "Bearer"), ("a\nb", "Bearer")]
)
def test_type_of_the_token(kind: object, expected: str) -> None:
    """What is no word is Bearer."""
    assert granted(expires_in=3600, token_type=kind).info.token_type == expected


def test_body_decides_not_the_status() -> None:
    """A token is a token with any status, an error an error."""
    body = json.dumps({"access_token": SECRET, "expires_in": 3600}).encode()

    assert isinstance(judged(response(body, 500)), Granted)
    assert isinstance(judged(response(b'{"error": "invalid_client"}', 200)), Refusal)


def test_refusal_has_fields() -> None:
    """All that Entra says becomes a field."""
    body = {
        "error": "invalid_client",
        "error_description": "AADSTS700213: No matching record.",
        "error_codes": [700213],
        "suberror": "bad",
        "correlation_id": "the-correlation",
        "trace_id": "the-trace",
        "claims": '{"access_token":{"polids":{"essential":true}}}',
    }
    refusal = refused(json.dumps(body).encode(), 401)

    fields = dict(refusal.fields)
    answered = fields.pop("response")
    assert fields == {**body, "retryable": False, "retry_after": None}
    assert isinstance(answered, FailedResponse)
    assert answered.status_code == 401


@pytest.mark.parametrize(
    ("members", "codes"),
    [
        ({"error_description": "AADSTS70021: x"}, [70021]),
        ({"error_codes": ["70021", None, True], "error_description": "AADSTS90002"}, [90002]),
        ({}, []),
    ],
)
def test_codes_from_list_or_text(members: dict[str, Any], codes: list[int]) -> None:
    """Where the list is missing or damaged, the text tells the code."""
    assert refused(json.dumps({"error": "e", **members}).encode()).codes == codes


def test_error_of_another_shape() -> None:
    """Azure's own shape of errors is understood too."""
    refusal = refused(b'{"error": {"code": "Forbidden", "message": "Not you."}}', 403)

    assert refusal.fields["error"] == "Forbidden"
    assert "Not you." in refusal.problem


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (401, False), (408, True), (429, True), (500, True), (503, True)]
)
def test_retryable_by_status(status: int, retryable: bool) -> None:
    """What the service cannot do now it may do later; what it refuses it will refuse again."""
    assert refused(b'{"error": "e"}', status).fields["retryable"] == retryable


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "without content"),
        (b"null", "found nothing"),
        (b"[]", "a JSON array"),
        (b'"text"', "a JSON string"),
        (b"7", "a JSON number"),
        (b"true", "a JSON boolean"),
        (b"{}", "found none that is usable"),
        (b'{"access_token": ""}', "found none that is usable"),
        (b'{"access_token": 7, "expires_in": 1}', "found none that is usable"),
        (b'{"access_token": "a\\nb", "expires_in": 1}', "found none that is usable"),
        (b'{"access_token": "planted-secret"}', "found neither"),
        (b'{"access_token": "planted-secret", "expires_in": "soon"}', "a number of seconds was wanted"),
        (b'{"access_token": "planted-secret", "expires_in": true}', "a number of seconds was wanted"),
        (b'{"access_token": "planted-secret", "expires_in": 1e400}', "a number of seconds was wanted"),
        (b'{"access_token": "planted-secret", "expires_in": NaN}', "a number of seconds was wanted"),
        (b'{"access_token": "planted-secret", "expires_in": 3600, "refresh_in": {}}', "a number of seconds"),
        (b'{"access_token": "planted-sec', "a JSON object was wanted"),
        (b"\xff\xfe\x00", "a JSON object was wanted"),
        (b"[" * 100_000, "a JSON object was wanted"),
        (b"9" * 5000, "a JSON object was wanted"),
    ],
)
def test_malformed_answers_are_described(body: bytes, words: str) -> None:
    """The message says what was wanted and what was found, without a secret."""
    problem = refused(body).problem

    assert words in problem
    assert SECRET not in problem
    assert len(problem) < 600


def test_page_in_place_of_an_answer() -> None:
    """Status and content type are named, the page's words quoted without its markup."""
    page = (
        b"<html><style>a{}</style><body><h1>Sign in</h1><script>alert(1)</script> to the wifi</body></html>"
    )

    problem = refused(page, 200, content_type="text/html; charset=utf-8").problem

    assert "status 200 and content type 'text/html; charset=utf-8'" in problem
    assert "'Sign in to the wifi'" in problem
    assert "<" not in problem
    assert "alert" not in problem


def test_long_page_is_cut() -> None:
    """At most 200 letters of a foreign document are quoted."""
    assert "x" * 201 not in refused(b"x" * 10_000).problem


def test_redirection_is_told_not_followed() -> None:
    """Where an answer points is named without its path, which may hold anything."""
    problem = refused(b"", 302, location="https://portal.example/login?token=planted-secret").problem

    assert "redirects to https://portal.example, which is not followed" in problem
    assert SECRET not in problem


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
members = st.sampled_from(
    [
        "access_token",
        "expires_in",
        "expires_on",
        "refresh_in",
        "token_type",
        "error",
        "error_description",
        "error_codes",
        "suberror",
        "correlation_id",
        "trace_id",
        "claims",
    ]
)


@settings(deadline=None)
@given(st.dictionaries(members, json_values, max_size=8), st.integers(100, 599))
@example({"access_token": SECRET, "expires_in": 10**400}, 200)
@example({"error": "\ud800"}, 400)
def test_any_object_is_understood_or_refused(body: dict[str, Any], status: int) -> None:
    """No JSON object makes the interpreter of answers stumble."""
    answer = judged(response(json.dumps(body).encode(), status))

    assert isinstance(answer, Granted | Refusal)
    if isinstance(answer, Refusal):
        answer.problem.encode()


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(100, 599), st.text(max_size=20))
def test_any_bytes_are_refused(body: bytes, status: int, content_type: str) -> None:
    """Noise is refused with a message that any terminal can show."""
    answer = judged(response(body, status, content_type=content_type))

    assert isinstance(answer, Refusal)
    assert answer.problem.isprintable() or "\ufffd" in answer.problem


def test_what_came_with_a_token() -> None:
    """Refresh token, identity and account, for flows that need them; none of it is shown."""

    def part(**members: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=").decode()

    id_token = f"{part(alg='RS256')}.{part(sub='subject', oid='x')}.c2ln"
    body = {
        "access_token": SECRET,
        "expires_in": 1,
        "refresh_token": "planted-refresh",
        "id_token": id_token,
        "client_info": part(uid="user", utid="tenant"),
    }
    answer = judged(response(json.dumps(body).encode()))

    assert isinstance(answer, Granted)
    assert answer.refresh_token == "planted-refresh"
    assert answer.id_claims == {"sub": "subject", "oid": "x"}
    assert answer.account == "user.tenant"
    assert "planted" not in repr(answer)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"refresh_token": 7, "id_token": [], "client_info": "noise"},
        {"client_info": "", "id_token": "a.b"},
    ],
)
def test_nothing_came_with_a_token(more: dict[str, object]) -> None:
    """What is missing or of a wrong type is not there."""
    answer = judged(response(json.dumps({"access_token": SECRET, "expires_in": 1, **more}).encode()))

    assert isinstance(answer, Granted)
    assert (answer.refresh_token, answer.account, dict(answer.id_claims)) == (None, None, {})
