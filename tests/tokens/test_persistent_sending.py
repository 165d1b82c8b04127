"""What is sent again, after which pause, and when not, played by hand."""

from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from workload_identity.errors import ClientAuthenticationError
from workload_identity.options import Options
from workload_identity.retry import persistently
from workload_identity.steps import Response, Send, Unreachable, Wait

Stage = Any
Answer = Callable[..., Response]
REQUEST = Send("https://login.microsoftonline.com/t", {}, {}, deadline=1e9)


def pauses(stage: Stage) -> list[tuple[float, float]]:
    """Return the shortest and the longest pause of each wait."""
    return [(wait.shortest, wait.longest) for wait in stage.of(Wait)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 506, 599])
def test_transient_statuses_are_repeated(stage: Stage, answer: Answer, status: int) -> None:
    """Three repetitions: at once, then after pauses that grow; the last answer is returned."""
    stage.answers = [answer(status)]

    last = stage.play(persistently(REQUEST, Options({})))

    assert last.status == status
    assert stage.of(Send) == [REQUEST] * 4
    assert pauses(stage) == [(0.8, 1.6), (1.6, 3.2)]


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 501, 505])
def test_other_statuses_are_answers(stage: Stage, answer: Answer, status: int) -> None:
    """What another try would not change is returned at once."""
    stage.answers = [answer(status)]

    stage.play(persistently(REQUEST, Options({})))

    assert len(stage.of(Send)) == 1


def test_more_statuses_can_be_named(stage: Stage, answer: Answer) -> None:
    """retry_on_status_codes adds to what is repeated."""
    stage.answers = [answer(404), answer(200)]

    assert stage.play(persistently(REQUEST, Options({"retry_on_status_codes": [404]}))).status == 200


@pytest.mark.parametrize("kind", ["connect", "read"])
def test_broken_connections_are_repeated(stage: Stage, answer: Answer, kind: str) -> None:
    """A token request may be sent twice without harm."""
    stage.answers = [Unreachable(kind, "broken"), answer(200)]

    assert stage.play(persistently(REQUEST, Options({}))).status == 200


@pytest.mark.parametrize("kind", ["trust", "fault"])
def test_what_cannot_heal_is_not_repeated(stage: Stage, kind: str) -> None:
    """A certificate that is not trusted, or a proxy that is no URL, stays so."""
    stage.answers = [Unreachable(kind, "certificate verify failed")]

    with pytest.raises(ClientAuthenticationError, match=r"1 try.*certificate verify failed") as raised:
        stage.play(persistently(REQUEST, Options({})))

    assert not raised.value.retryable
    assert len(stage.of(Send)) == 1


@pytest.mark.parametrize(
    ("name", "kind"), [("retry_status", "status"), ("retry_connect", "connect"), ("retry_read", "read")]
)
def test_counts_are_by_reason(stage: Stage, answer: Answer, name: str, kind: str) -> None:
    """Each reason has its own number of repetitions."""
    stage.answers = [answer(503) if kind == "status" else Unreachable(kind, "broken"), answer(200)]

    options = Options({name: 0})
    if kind == "status":
        assert stage.play(persistently(REQUEST, options)).status == 503
    else:
        with pytest.raises(ClientAuthenticationError):
            stage.play(persistently(REQUEST, options))

    assert len(stage.of(Send)) == 1


def test_total_limits_all_reasons(stage: Stage, answer: Answer) -> None:
    """retry_total counts whatever the reasons are."""
    stage.answers = [answer(503), Unreachable("read", "broken"), answer(200)]

    with pytest.raises(ClientAuthenticationError):
        stage.play(persistently(REQUEST, Options({"retry_total": 1})))

    assert len(stage.of(Send)) == 2


def test_fixed_pauses(stage: Stage, answer: Answer) -> None:
    """In mode "fixed" every pause but the first is the factor."""
    stage.answers = [answer(503)]

    stage.play(persistently(REQUEST, Options({"retry_mode": "fixed"})))

    assert pauses(stage) == [(0.4, 0.8), (0.4, 0.8)]


def test_pauses_have_a_maximum(stage: Stage, answer: Answer) -> None:
    """However often it is repeated, a pause is not longer than retry_backoff_max."""
    stage.answers = [answer(503)]

    stage.play(persistently(REQUEST, Options({"retry_status": 9, "retry_backoff_max": 5})))

    assert max(longest for _, longest in pauses(stage)) == 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "2500"}, 2.5),
        ({"retry-after": formatdate(1_000_009, usegmt=True)}, 9),
    ],
)
def test_server_says_how_long_to_pause(
    stage: Stage, answer: Answer, headers: dict[str, str], seconds: float
) -> None:
    """Retry-After and its relatives are heeded exactly, with any status that refuses."""
    stage.answers = [answer(400, headers={"retry-after": "x", **headers}), answer(200)]

    assert stage.play(persistently(REQUEST, Options({}))).status == 200
    assert pauses(stage) == [(seconds, seconds)]


@pytest.mark.parametrize(
    "value", ["-5", "nan", "inf", "soon", "", "0", "1e400", formatdate(0, usegmt=True), "32 Foo 99999"]
)
def test_unusable_wishes_of_a_server_leave_our_own_pauses(stage: Stage, answer: Answer, value: str) -> None:
    """What is past, or no time at all, does not count."""
    stage.answers = [answer(429, headers={"retry-after": value}), answer(200)]

    assert stage.play(persistently(REQUEST, Options({}))).status == 200
    assert pauses(stage) == []


def test_pause_beyond_the_deadline_is_not_begun(stage: Stage, answer: Answer) -> None:
    """A server that asks for more time than there is gets its answer returned at once."""
    stage.answers = [answer(429, headers={"retry-after": "121"})]
    request = Send(REQUEST.url, {}, {}, deadline=stage.monotonic + 120)

    assert stage.play(persistently(request, Options({}))).status == 429
    assert len(stage.of(Send)) == 1


def test_background_does_not_pause_long(stage: Stage, answer: Answer) -> None:
    """While a good token is held, nobody waits for long to get the next."""
    stage.answers = [answer(429, headers={"retry-after": "61"})]

    assert stage.play(persistently(REQUEST, Options({}), longest_pause=60)).status == 429
    assert pauses(stage) == []
