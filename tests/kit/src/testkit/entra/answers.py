"""Answers of the token endpoint: what the service says, what a fault makes of it, and how it is sent."""

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any

from aiohttp import web

from testkit.entra import faults

_JSON = "application/json; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_PAGE = b"<!DOCTYPE html><html><head><title>Please wait</title></head><body>One moment, please.</body></html>"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and how much of it goes out.

    Attributes:
        outcome: What the record says of it.
        retry_after: Seconds for the header of that name; None: without it.
        sent: How many bytes of the body go out before the connection ends; None: all.
        reset: Nothing goes out; the connection is reset.
    """

    status: int
    body: bytes
    outcome: str
    content_type: str = _JSON
    retry_after: int | None = None
    sent: int | None = None
    reset: bool = False


def in_json(status: int, members: Mapping[str, Any], outcome: str) -> Answer:
    """Return an answer whose body is a JSON object."""
    return Answer(status, _encoded(members), outcome)


def replaced(fault: faults.Replacement, transient: Answer, throttled: Answer) -> Answer:
    """Return what a fault answers in place of the service; it takes two of Entra's own errors for that."""
    name = faults.name_of(fault)
    match fault:
        case faults.Throttled(retry_after):
            return replace(throttled, outcome=name, retry_after=retry_after)
        case faults.Failing(status, retry_after):
            return replace(transient, outcome=name, status=status, retry_after=retry_after)
        case faults.Reset():
            return Answer(0, b"", name, reset=True)
        case faults.Html(status):
            return Answer(status, _PAGE, name, content_type=_HTML)
        case faults.Empty(status):
            return Answer(status, b"", name)
        case faults.NotAnObject(status):
            return Answer(status, _encoded(["access_token"]), name)


def damaged(fault: faults.Damage, answer: Answer) -> Answer:
    """Return what a fault makes of the service's answer."""
    outcome = f"{answer.outcome}, {faults.name_of(fault)}"
    half = len(answer.body) // 2
    match fault:
        case faults.Incomplete():
            return replace(answer, outcome=outcome, sent=half)
        case faults.Truncated():
            return replace(answer, outcome=outcome, body=answer.body[:half])
        case faults.ContentType(content_type):
            return replace(answer, outcome=outcome, content_type=content_type)
        case faults.Altered(members, status):
            altered = {**json.loads(answer.body), **members}
            body = _encoded({name: value for name, value in altered.items() if value is not None})
            return replace(answer, outcome=outcome, body=body, status=status or answer.status)


async def sent(
    request: web.Request, answer: Answer, now: float, ids: Mapping[str, str]
) -> web.StreamResponse:
    """Send an answer, as far as it goes.

    The header Date tells `now`, the service's clock in seconds since the epoch; `ids` are further headers.
    """
    if answer.reset:
        _reset(request)
        return web.Response()  # for nobody: the connection is gone
    headers = {
        "Cache-Control": "no-store, no-cache",
        "Content-Type": answer.content_type,
        "Date": formatdate(now, usegmt=True),
        **ids,
    }
    if answer.retry_after is not None:
        headers["Retry-After"] = str(answer.retry_after)
    if answer.sent is None:
        return web.Response(status=answer.status, body=answer.body, headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: answer.sent])
    if request.transport is not None:
        request.transport.close()
    return response


def _reset(request: web.Request) -> None:
    """Have the kernel send a reset: that is what closing without lingering does."""
    transport = request.transport
    if transport is not None:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()
