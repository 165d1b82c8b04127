"""Entra's endpoints: tokens, discovery, keys.

Thin: requests are judged in `grants`; what faults make of an answer is told by `_replacing` and `_damaged`.
"""

import asyncio
import json
import socket
import struct
import time
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any

from aiohttp import web

from testkit.entra import faults
from testkit.entra.directory import Directory
from testkit.entra.errors import RequestRefused
from testkit.entra.grants import GRANTS, Granted, TokenRequest, judge, token_issuer
from testkit.entra.service import RecordedRequest, Service

_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json; charset=utf-8"
_PAGE = b"<!DOCTYPE html><html><head><title>Please wait</title></head><body>One moment, please.</body></html>"


def add_endpoints(application: web.Application, service: Service) -> None:
    """Give a web application Entra's endpoints."""
    endpoints = _Endpoints(service)
    application.add_routes(
        [
            web.route("*", "/{tenant}/oauth2/v2.0/token", endpoints.token),
            web.get("/common/discovery/instance", endpoints.instance),
            web.get("/{tenant}/v2.0/.well-known/openid-configuration", endpoints.discovery),
            web.get("/{tenant}/.well-known/openid-configuration", endpoints.discovery_of_version_1),
            web.get("/{tenant}/discovery/v2.0/keys", endpoints.keys),
            web.get("/{tenant}/discovery/keys", endpoints.keys),
        ]
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """A request to the token endpoint, read; the ids are the ones Entra gives each."""

    method: str
    tenant: str
    form: Mapping[str, str]
    repeated: str | None
    trace_id: str
    correlation_id: str

    @property
    def client_id(self) -> str:
        return self.form.get("client_id", "")


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer of the token endpoint, and how much of it is sent.

    Attributes:
        now: The service's clock, seconds since the epoch.
        sent: How many bytes of the body go out before the connection ends; None: all.
        reset: Not a byte goes out.
    """

    status: int
    body: bytes
    outcome: str
    now: float
    content_type: str = _JSON
    retry_after: int | None = None
    sent: int | None = None
    reset: bool = False


class _Endpoints:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Answer a token request, and record what may be known of it."""
        at = time.time()
        call = await _read(request)
        met = self._service.faults.met_by(call.tenant, call.client_id, time.monotonic())
        status, outcome = 0, "given up by the client"
        try:
            answer = await self._answer(call, met)
            status, outcome = (0 if answer.reset else answer.status), answer.outcome
        finally:
            self._service.requests.append(
                RecordedRequest(
                    at=at,
                    path=request.path,
                    tenant=call.tenant,
                    client_id=call.client_id,
                    grant=call.form.get("grant_type", ""),
                    scope=call.form.get("scope", ""),
                    outcome=outcome,
                    status=status,
                    correlation_id=call.correlation_id,
                )
            )
        return await _send(request, answer, call)

    async def _answer(self, call: _Call, met: Sequence[faults.Fault]) -> _Answer:
        """Judge a call under the conditions that it meets, or let a fault answer in place of that."""
        shift = 0.0
        directory = self._service.directory
        other = None
        for fault in met:
            match fault:
                case faults.Slow(delay):
                    await asyncio.sleep(delay)
                case faults.ClockSkew(ahead):
                    shift += ahead
                case faults.Propagation():
                    directory = directory.before_propagation()
                case _:
                    other = fault
        now = time.time() + shift
        match other:
            case None:
                return await self._judged(call, directory, now)
            case faults.Incomplete() | faults.Truncated() | faults.ContentType():
                return _damaged(other, await self._judged(call, directory, now))
            case _:
                return self._replacing(other, call, now)

    async def _judged(self, call: _Call, directory: Directory, now: float) -> _Answer:
        try:
            if call.method != "POST":
                raise RequestRefused(900561, method=call.method)
            if call.repeated is not None:
                raise RequestRefused(9000411, name=call.repeated)
            granted = await self._driven(
                TokenRequest(
                    authority=self._service.authority,
                    tenant=call.tenant,
                    form=call.form,
                    directory=directory,
                    now=now,
                    lifetime=self._service.lifetime,
                )
            )
        except RequestRefused as refusal:
            return self._refused(refusal, call, now)
        body = {
            "token_type": "Bearer",
            "expires_in": self._service.lifetime,
            "ext_expires_in": self._service.lifetime,
            "access_token": self._service.key.sign(granted.claims),
        }
        if self._service.refresh_in is not None:
            body["refresh_in"] = self._service.refresh_in
        return _Answer(200, _encoded(body), "granted", now)

    async def _driven(self, request: TokenRequest) -> Granted:
        """Drive the judgement, fetching the keys that it asks for."""
        flow = judge(request)
        try:
            wish = next(flow)
            while True:
                wish = flow.send(await self._service.keys.answer(wish))
        except StopIteration as done:
            granted: Granted = done.value
            return granted
        finally:
            flow.close()

    def _refused(self, refusal: RequestRefused, call: _Call, now: float) -> _Answer:
        body = refusal.body(
            authority=self._service.authority,
            now=now,
            trace_id=call.trace_id,
            correlation_id=call.correlation_id,
        )
        return _Answer(refusal.status, _encoded(body), f"AADSTS{refusal.code}", now)

    def _replacing(self, fault: faults.Replacement, call: _Call, now: float) -> _Answer:
        """Return what a fault answers in place of the service."""
        name = faults.name_of(fault)
        match fault:
            case faults.Throttled(retry_after):
                busy = self._refused(RequestRefused(90055), call, now)
                return replace(busy, outcome=name, retry_after=retry_after)
            case faults.Failing(status, retry_after):
                failing = self._refused(RequestRefused(90033), call, now)
                return replace(failing, outcome=name, status=status, retry_after=retry_after)
            case faults.Reset():
                return _Answer(0, b"", name, now, reset=True)
            case faults.Html(status):
                return _Answer(status, _PAGE, name, now, content_type="text/html; charset=utf-8")
            case faults.Empty(status):
                return _Answer(status, b"", name, now)
            case faults.NotAnObject(status):
                return _Answer(status, _encoded(["access_token"]), name, now)

    async def discovery(self, request: web.Request) -> web.Response:
        """Answer a tenant's discovery document of version 2.0."""
        return self._discovery(request, issuer=f"{self._tenant_address(request)}/v2.0")

    async def discovery_of_version_1(self, request: web.Request) -> web.Response:
        """Answer the document whose issuer is the one that access tokens name."""
        return self._discovery(
            request, issuer=token_issuer(self._service.authority, request.match_info["tenant"])
        )

    def _discovery(self, request: web.Request, issuer: str) -> web.Response:
        tenant = self._tenant_address(request)
        return web.json_response(
            {
                "issuer": issuer,
                "token_endpoint": f"{tenant}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
                "jwks_uri": f"{tenant}/discovery/v2.0/keys",
                "grant_types_supported": list(GRANTS),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def keys(self, request: web.Request) -> web.Response:
        """Answer the keys that sign access tokens; every tenant has the same."""
        del request
        return web.json_response({"keys": [self._service.key.published()]})

    async def instance(self, request: web.Request) -> web.Response:
        """Answer that this host is an Entra of its own (what MSAL asks before it trusts an authority)."""
        host = urllib.parse.urlsplit(self._service.authority).netloc
        asked = urllib.parse.urlsplit(request.query.get("authorization_endpoint", ""))
        tenant = asked.path.strip("/").split("/")[0] or "common"
        document = f"{self._service.authority}/{tenant}/v2.0/.well-known/openid-configuration"
        return web.json_response(
            {
                "tenant_discovery_endpoint": document,
                "api-version": "1.1",
                "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
            }
        )

    def _tenant_address(self, request: web.Request) -> str:
        return f"{self._service.authority}/{request.match_info['tenant'].lower()}"


def _damaged(fault: faults.Damage, answer: _Answer) -> _Answer:
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


async def _read(request: web.Request) -> _Call:
    pairs = []
    if request.content_type == _FORM:
        text = (await request.read()).decode(errors="replace")
        pairs = urllib.parse.parse_qsl(text, keep_blank_values=True)
    form = dict(pairs)
    names = [name for name, _ in pairs]
    return _Call(
        method=request.method,
        tenant=request.match_info["tenant"],
        form=form,
        repeated=next((name for name in form if names.count(name) > 1), None),
        trace_id=str(uuid.uuid4()),
        correlation_id=_guid(request.headers.get("client-request-id", "")) or str(uuid.uuid4()),
    )


async def _send(request: web.Request, answer: _Answer, call: _Call) -> web.StreamResponse:
    if answer.reset:
        _reset(request)
        return web.Response()  # for nobody: the connection is gone
    headers = {
        "Cache-Control": "no-store, no-cache",
        "Content-Type": answer.content_type,
        "Date": formatdate(answer.now, usegmt=True),
        "client-request-id": call.correlation_id,
        "x-ms-request-id": call.trace_id,
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
    """Have the client told that its connection is reset, by lingering for no time."""
    transport = request.transport
    if transport is not None:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()


def _encoded(body: Any) -> bytes:
    return json.dumps(body).encode()


def _guid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return ""
