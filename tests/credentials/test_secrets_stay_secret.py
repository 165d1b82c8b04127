"""Neither the pod's token nor an access token is seen where it does not belong."""

import json
import logging
import traceback
from typing import Any

import msal
import pytest
from aiohttp import web

from workload_identity import ClientAuthenticationError
from workload_identity.msal_applications import discreet, token_event

SCOPE = "https://vault.azure.net/.default"
OPAQUE = "planted-opaque-token"
Family = Any
Pod = Any
Endpoint = Any


def answers(assertion: str) -> list[web.Response]:
    """Return answers of a service that gives away all it has."""
    grant = {"access_token": OPAQUE, "refresh_token": OPAQUE, "id_token": OPAQUE}
    said = f"you sent {assertion}"
    return [
        web.json_response({**grant, "expires_in": "soon"}),
        web.json_response(grant),
        web.json_response({**grant, "error": "odd", "error_description": said, "claims": said}, status=400),
        web.json_response({"error": {"code": said, "message": json.dumps(grant)}}, status=400),
        web.json_response({"error": "odd", "trace_id": assertion, "suberror": assertion}, status=400),
        web.Response(text=json.dumps(grant)[:-10], content_type="application/json"),
        web.Response(text=f"<html><b>{assertion}</b> access_token={OPAQUE}</html>", content_type="text/html"),
        web.Response(status=302, headers={"Location": f"https://elsewhere.example/?token={assertion}"}),
        web.Response(text=f"{assertion[:300]}", status=400, reason=f"Bad {assertion[:60]}"),
        web.Response(status=500, headers={"x-ms-request-id": assertion}, text=said),
    ]


@pytest.mark.parametrize("number", range(10))
def test_nothing_secret_in_errors_and_logs(
    family: Family, pod: Pod, endpoint: Endpoint, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """Whatever a service echoes, no message, field, traceback or log record has it."""
    assertion = pod.token_file.read_text()
    endpoint.answers = [lambda _: answers(assertion)[number]]
    credential = family.credential(retry_total=0)

    with caplog.at_level(logging.DEBUG), pytest.raises(ClientAuthenticationError) as raised:
        family.do(credential.get_token, SCOPE)

    failure = raised.value
    response = failure.response
    shown = [
        str(failure),
        repr(failure),
        repr(vars(failure)),
        response.text(),
        repr(response),
        repr(response.headers),
        str(response.reason),
        "".join(traceback.format_exception(failure)),
        # httpcore's debug records have the server's headers: what a server puts there, it has.
        *(
            f"{record.getMessage()} {record.args!r}"
            for record in caplog.records
            if record.name != "httpcore.http11"
        ),
        repr(credential),
    ]
    parts = assertion.split(".")
    for secret in (assertion, parts[1], parts[2], OPAQUE):
        assert not any(secret in text for text in shown)


def test_nothing_secret_in_logs_of_success(
    family: Family, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    """At any level, of any library, a granted token stays unseen; its owner is named in debug records."""
    with caplog.at_level(logging.DEBUG):
        token = family.do(family.credential().get_token, SCOPE).token

    text = "\n".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records)
    assert token not in text
    assert token.split(".")[2] not in text
    assert pod.token_file.read_text() not in text
    own = [record for record in caplog.records if record.name.startswith("workload_identity")]
    assert [record.levelname for record in own] == ["INFO", "DEBUG"]
    assert "got a token" in own[0].getMessage()
    assert "appid" in own[1].getMessage()


def test_failure_is_logged_once(family: Family, pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    """A caller's failure is a warning with the same words."""
    pod.token_file.unlink()
    with (
        caplog.at_level(logging.DEBUG, "workload_identity"),
        pytest.raises(ClientAuthenticationError) as raised,
    ):
        family.do(family.credential().get_token, SCOPE)

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(raised.value) in record.getMessage()


def test_held_tokens_cost_no_log_record(family: Family, pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    """What is served from memory is not worth one."""
    del pod
    credential = family.credential()
    family.do(credential.get_token, SCOPE)
    with caplog.at_level(logging.DEBUG):
        caplog.clear()
        family.do(credential.get_token, SCOPE)

    assert [record for record in caplog.records if record.name.startswith("workload_identity")] == []


def test_steps_and_caches_show_nothing(family: Family, pod: Pod) -> None:
    """A debugger's or a crash reporter's look at our objects finds no secret."""
    from workload_identity.cache import SHARED
    from workload_identity.steps import Content, Response, Send

    credential = family.credential()
    token = family.do(credential.get_token, SCOPE).token
    assertion = pod.token_file.read_text()
    (slot,) = (slot for slots in SHARED._slots.values() for slot in slots.values())
    instant = credential._clock.now()
    shown = [
        repr(Send("https://x", {"client_assertion": assertion}, {}, 0)),
        repr(Content(assertion.encode(), steady=True)),
        repr(Response(200, "OK", {}, token.encode(), instant)),
        repr(slot.held),
        repr(credential.__dict__),
        repr(SHARED.__dict__),
    ]

    assert not any(token in text or assertion in text for text in shown)


@pytest.mark.parametrize("name", ["access_token", "refresh_token", "dccess_token", "tokens"])
def test_msal_logs_no_token(caplog: pytest.LogCaptureFixture, name: str) -> None:
    """Its caches write to the debug log what they take in, unless they know its name: they get no more."""
    answer = {"token_type": "Bearer", "expires_in": 3600, name: OPAQUE}
    cache = discreet(msal.TokenCache())

    with caplog.at_level(logging.DEBUG):
        cache.add(token_event("https://login.microsoftonline.com", "tenant", "client", (SCOPE,), answer))

    assert '"expires_in": 3600' in caplog.text
    assert OPAQUE not in caplog.text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0", "\N{GREEK SMALL LETTER ALPHA}"])
def test_header_that_cannot_be_sent_is_not_quoted(
    family: Family, pod: Pod, endpoint: Endpoint, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    """A secret with a line end, as read from a file, is refused before any library sees it."""
    del pod
    credential = family.credential(headers={"X-Key": f"planted{end}"})

    with caplog.at_level(logging.DEBUG), pytest.raises(ClientAuthenticationError) as raised:
        family.do(credential.get_token, SCOPE)

    assert "the header X-Key has" in str(raised.value)
    assert "(1 try)" in str(raised.value)
    assert endpoint.forms == []
    shown = ["".join(traceback.format_exception(raised.value)), repr(vars(raised.value))]
    assert "planted" not in "\n".join([*shown, *(record.getMessage() for record in caplog.records)])


def test_secret_of_a_host_with_a_line_end(
    family: Family, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So is the one that a machine of Azure proves itself with; blanks around a value are no part of it."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/token")
    monkeypatch.setenv("IDENTITY_HEADER", "planted\n")
    credential = family.module.ManagedIdentityCredential(headers={"X-Key": " blanks\t"})

    with caplog.at_level(logging.DEBUG), pytest.raises(ClientAuthenticationError) as raised:
        family.do(credential.get_token, SCOPE)

    assert "the header X-IDENTITY-HEADER has a line end" in str(raised.value)
    shown = ["".join(traceback.format_exception(raised.value)), repr(vars(raised.value))]
    assert "planted" not in "\n".join([*shown, *(record.getMessage() for record in caplog.records)])


def test_header_with_blanks_or_an_odd_name(family: Family, endpoint: Endpoint) -> None:
    """Blanks around a value are no part of it; what is no name cannot be sent."""
    family.do(family.credential(headers={"X-Key": " in it\t"}).get_token, SCOPE)
    assert endpoint.headers[0]["X-Key"] == "in it"

    with pytest.raises(ClientAuthenticationError, match="a header is called 'X Key:'"):
        family.do(family.credential(headers={"X Key:": "1"}, shared_cache=False).get_token, SCOPE)
