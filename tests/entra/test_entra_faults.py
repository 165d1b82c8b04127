"""Faults on demand, as a client sees them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime

import httpx
import jwt
import pytest

from testkit.entra import EntraStandIn, faults
from testkit.entra.fixtures import TENANT_ID, Ask

OTHER_ID = "99999999-8888-4777-8666-555555555555"


def wait_until(reached: Callable[[], bool]) -> None:
    """Wait for what is bound to happen soon; a test that waits in vain fails here."""
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def outcomes(entra: EntraStandIn) -> list[str]:
    """Return what the stand-in recorded."""
    return [request.outcome for request in entra.requests]


# --- faults that answer in place of the service


def test_throttled_says_when_to_come_back(ask: Ask, entra: EntraStandIn) -> None:
    """429 with Retry-After in seconds."""
    with entra.fault(faults.Throttled(retry_after=7)):
        answer = ask()

    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "7"
    assert answer.json()["error"] == "temporarily_unavailable"
    assert outcomes(entra) == ["throttled"]


def test_throttled_may_leave_the_time_open(ask: Ask, entra: EntraStandIn) -> None:
    """429 without Retry-After."""
    with entra.fault(faults.Throttled(retry_after=None)):
        answer = ask()

    assert answer.status_code == 429
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_failing_has_the_status_asked_for(ask: Ask, entra: EntraStandIn, status: int) -> None:
    """The body is Entra's own for a transient error, whatever the status."""
    with entra.fault(faults.Failing(status, retry_after=2)):
        answer = ask()

    assert answer.status_code == status
    assert answer.headers["Retry-After"] == "2"
    assert answer.json()["error_codes"] == [90033]
    assert outcomes(entra) == ["failing"]


@pytest.mark.parametrize("status", [200, 502])
def test_html_comes_in_place_of_json(ask: Ask, entra: EntraStandIn, status: int) -> None:
    """A page, and said to be one."""
    with entra.fault(faults.Html(status)):
        answer = ask()

    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.text.startswith("<!DOCTYPE html>")
    assert outcomes(entra) == ["html"]


@pytest.mark.parametrize("status", [200, 500])
def test_an_empty_body_is_said_to_be_json(ask: Ask, entra: EntraStandIn, status: int) -> None:
    """Nothing to parse, under a content type that promises something."""
    with entra.fault(faults.Empty(status)):
        answer = ask()

    assert answer.status_code == status
    assert answer.content == b""
    assert answer.headers["Content-Type"].startswith("application/json")
    assert outcomes(entra) == ["empty"]


def test_json_that_is_no_object(ask: Ask, entra: EntraStandIn) -> None:
    """A list parses, and has no members."""
    with entra.fault(faults.NotAnObject()):
        answer = ask()

    assert answer.status_code == 200
    assert isinstance(answer.json(), list)
    assert outcomes(entra) == ["not-an-object"]


def test_a_reset_connection_has_no_answer(ask: Ask, entra: EntraStandIn) -> None:
    """The client sees its connection end; the record has no status."""
    with entra.fault(faults.Reset()), pytest.raises(httpx.TransportError):
        ask()

    (request,) = entra.requests
    assert (request.outcome, request.status) == ("reset", 0)
    assert ask().status_code == 200


# --- faults that damage the service's own answer


def test_an_incomplete_answer_ends_before_its_announced_length(ask: Ask, entra: EntraStandIn) -> None:
    """The client is told that bytes are missing."""
    with (
        entra.fault(faults.Incomplete()),
        pytest.raises(httpx.RemoteProtocolError, match="complete message body"),
    ):
        ask()

    assert outcomes(entra) == ["granted, incomplete"]


def test_truncated_json_is_complete_http(ask: Ask, entra: EntraStandIn) -> None:
    """Nothing is missing but the rest of the JSON."""
    with entra.fault(faults.Truncated()):
        answer = ask()

    assert answer.status_code == 200
    assert answer.text.startswith('{"token_type": "Bearer"')
    with pytest.raises(ValueError, match="Unterminated string"):
        answer.json()
    assert outcomes(entra) == ["granted, truncated"]


def test_a_refusal_is_damaged_like_a_grant(ask: Ask, entra: EntraStandIn) -> None:
    """The service judges first; then its answer is damaged."""
    with entra.fault(faults.Truncated()):
        answer = ask(client_id=OTHER_ID)

    assert answer.status_code == 400
    assert answer.text.startswith('{"error": "unauthorized_client"')
    assert outcomes(entra) == ["AADSTS700016, truncated"]


def test_the_right_answer_under_another_content_type(ask: Ask, entra: EntraStandIn) -> None:
    """Only the header is wrong."""
    with entra.fault(faults.ContentType("text/plain")):
        answer = ask()

    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.json()["token_type"] == "Bearer"


def test_members_of_an_answer_can_be_altered(ask: Ask, entra: EntraStandIn) -> None:
    """Other values, further members, and members left out."""
    with entra.fault(faults.Altered({"expires_in": "60", "scope": "a", "access_token": None})):
        answer = ask()

    assert answer.status_code == 200
    assert answer.json() == {
        "token_type": "Bearer",
        "expires_in": "60",
        "ext_expires_in": 3599,
        "scope": "a",
    }
    assert outcomes(entra) == ["granted, altered"]


def test_an_altered_answer_may_have_another_status(ask: Ask, entra: EntraStandIn) -> None:
    """So any of Entra's errors can be had, also those that the stand-in does not know."""
    members = {"error": "interaction_required", "suberror": "basic_action", "error_codes": [50076]}
    with entra.fault(faults.Altered(members, status=400)):
        answer = ask()

    assert answer.status_code == 400
    assert members.items() <= answer.json().items()


# --- conditions


def test_slow_answers_come_late_and_right(ask: Ask, entra: EntraStandIn) -> None:
    """The delay passes before the answer, which is the usual one."""
    with entra.fault(faults.Slow(0.2)):
        started = time.monotonic()
        answer = ask()

    assert time.monotonic() - started >= 0.2
    assert answer.status_code == 200


def test_a_client_that_gives_up_is_recorded(client: httpx.Client, ask: Ask, entra: EntraStandIn) -> None:
    """The request was made, so it counts, although nobody waited for the answer."""
    client.timeout = httpx.Timeout(5, read=0.2)
    with entra.fault(faults.Slow(60), times=1), pytest.raises(httpx.ReadTimeout):
        ask()

    wait_until(lambda: outcomes(entra) == ["given up by the client"])
    assert ask().status_code == 200


@pytest.mark.parametrize("shift", [7200, -7200])
def test_a_service_whose_clock_is_off_refuses_what_is_valid(
    ask: Ask, entra: EntraStandIn, shift: int
) -> None:
    """Ahead: the assertion is over; behind: it has not begun. The answer's own times are off alike."""
    with entra.fault(faults.ClockSkew(shift)):
        answer = ask()

    assert answer.json()["error_codes"] == [700024]
    told = datetime.fromisoformat(answer.json()["timestamp"]).timestamp()
    assert abs(told - (time.time() + shift)) < 60
    assert abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - told) <= 1


def test_tokens_of_a_service_whose_clock_is_a_little_off(ask: Ask, entra: EntraStandIn) -> None:
    """The assertion is still valid then; the token's times are the service's."""
    with entra.fault(faults.ClockSkew(600)):
        token = ask().json()["access_token"]

    claims = jwt.decode(token, options={"verify_signature": False})
    assert abs(claims["exp"] - (time.time() + 600 + 3599)) < 60


def test_a_fresh_credential_takes_some_requests_to_be_known(ask: Ask, entra: EntraStandIn) -> None:
    """AADSTS70021 although it is registered, then a token without further ado."""
    entra.fault(faults.Propagation(), times=2)

    assert [ask().status_code for _ in range(3)] == [400, 400, 200]
    assert outcomes(entra) == ["AADSTS70021", "AADSTS70021", "granted"]


def test_a_fresh_credential_takes_some_time_to_be_known(ask: Ask, entra: EntraStandIn) -> None:
    """The same for a number of seconds."""
    entra.fault(faults.Propagation(), seconds=0.5)

    assert ask().json()["error_codes"] == [70021]
    wait_until(lambda: ask().status_code == 200)


# --- the queue


def test_faults_are_met_in_the_order_they_were_placed(ask: Ask, entra: EntraStandIn) -> None:
    """One for each request, until the queue is empty."""
    entra.fault(faults.Failing(503), times=2)
    entra.fault(faults.Throttled(), times=1)

    assert [ask().status_code for _ in range(4)] == [503, 503, 429, 200]


def test_a_fault_without_number_stays_until_it_is_removed(ask: Ask, entra: EntraStandIn) -> None:
    """Removing it twice does no harm."""
    placed = entra.fault(faults.Failing())

    assert [ask().status_code for _ in range(3)] == [503, 503, 503]
    placed.remove()
    placed.remove()
    assert ask().status_code == 200


def test_a_fault_goes_at_the_end_of_its_block_whatever_happens(ask: Ask, entra: EntraStandIn) -> None:
    """An exception in the block leaves no fault behind."""
    with pytest.raises(ZeroDivisionError), entra.fault(faults.Failing()):
        assert ask().status_code / 0

    assert ask().status_code == 200


def test_a_fault_meets_only_its_tenant_and_client(ask: Ask, entra: EntraStandIn) -> None:
    """Others go on undisturbed; ids compare without regard to case."""
    entra.add_application(OTHER_ID, tenant_id=TENANT_ID)
    entra.fault(faults.Failing(502), tenant_id=TENANT_ID.upper(), client_id=OTHER_ID.upper())
    entra.fault(faults.Failing(504), tenant_id=OTHER_ID)

    assert ask().status_code == 200
    assert ask(client_id=OTHER_ID).status_code == 502
    assert ask(tenant=OTHER_ID).status_code == 504


def test_conditions_apply_together_and_with_another_fault(ask: Ask, entra: EntraStandIn) -> None:
    """Slow, off the clock and throttled: all at once."""
    entra.fault(faults.Slow(0.1), times=1)
    entra.fault(faults.ClockSkew(7200), times=1)
    entra.fault(faults.Throttled(), times=1)

    started = time.monotonic()
    answer = ask()

    assert time.monotonic() - started >= 0.1
    assert answer.status_code == 429
    assert datetime.fromisoformat(answer.json()["timestamp"]).timestamp() > time.time() + 7000
    assert ask().status_code == 200


def test_of_many_at_once_exactly_so_many_meet_a_fault(ask: Ask, entra: EntraStandIn) -> None:
    """A number is a number, under whatever load."""
    entra.fault(faults.Throttled(), times=7)

    with ThreadPoolExecutor(30) as threads:
        statuses = list(threads.map(lambda _: ask().status_code, range(30)))

    assert statuses.count(429) == 7
    assert statuses.count(200) == 23


def test_discovery_meets_no_fault(client: httpx.Client, entra: EntraStandIn) -> None:
    """Faults are the token endpoint's: resource servers go on verifying."""
    with entra.fault(faults.Failing()):
        assert client.get(f"/{TENANT_ID}/discovery/v2.0/keys").status_code == 200
