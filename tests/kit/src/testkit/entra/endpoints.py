"""Entra's endpoints: tokens, discovery, keys.

Thin: a request is read, met by faults, judged by `grants` with the keys it asks for, recorded and answered.
"""

import asyncio
import time
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from testkit.entra import answers, assertions, faults
from testkit.entra.answers import Answer
from testkit.entra.assertions import Flow
from testkit.entra.directory import Directory
from testkit.entra.errors import RequestRefused
from testkit.entra.grants import GRANTS, TENANTLESS, Granted, TokenRequest, check_tenant, judge, token_issuer
from testkit.entra.service import RecordedRequest, Service

_FORM = "application/x-www-form-urlencoded"
_SECRET = frozenset(
    {
        "assertion",
        "client_assertion",
        "client_secret",
        "code",
        "code_verifier",
        "device_code",
        "password",
        "refresh_token",
    }
)


def add_endpoints(application: web.Application, service: Service) -> None:
    """Give a web application Entra's endpoints."""
    endpoints = _Endpoints(service)
    application.middlewares.append(endpoints.noted)
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
    """A request, as far as it concerns us; `repeated` is a form member that appears more than once."""

    method: str
    tenant: str
    trace_id: str
    correlation_id: str
    form: Mapping[str, str]
    repeated: str | None = None


class _Endpoints:
    def __init__(self, service: Service) -> None:
        self._service = service

    @web.middleware
    async def noted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note what is asked for beside tokens."""
        if not request.path.startswith("/standin") and not request.path.endswith("/oauth2/v2.0/token"):
            self._service.other_paths.append(f"{request.method} {request.path}")
        return await handler(request)

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Answer a token request, and record what may be known of it."""
        at = time.time()
        call = await _read(request)
        status, outcome = 0, "given up by the client"
        try:
            answer, now = await self._answer(call)
            status, outcome = answer.status, answer.outcome
        finally:
            self._service.requests.append(
                RecordedRequest(
                    at=at,
                    path=request.path,
                    tenant=call.tenant,
                    client_id=call.form.get("client_id", ""),
                    grant=call.form.get("grant_type", ""),
                    scope=call.form.get("scope", ""),
                    outcome=outcome,
                    status=status,
                    correlation_id=call.correlation_id,
                    assertion=assertions.name_of(call.form.get("client_assertion", "")),
                    form={name: "***" if name in _SECRET else value for name, value in call.form.items()},
                )
            )
        return await answers.sent(request, answer, now, _ids(call))

    async def _answer(self, call: _Call) -> tuple[Answer, float]:
        """Return the answer to a call, and what the service's clock showed then."""
        directory = self._service.directory
        met = self._service.faults.met_by(call.tenant, call.form.get("client_id", ""), time.monotonic())
        ahead = 0.0
        for condition in met.conditions:
            match condition:
                case faults.Slow(delay):
                    await asyncio.sleep(delay)
                case faults.ClockSkew(shift):
                    ahead += shift
                case faults.Propagation():
                    directory = directory.before_propagation()
        now = time.time() + ahead
        if isinstance(met.other, faults.Replacement):
            transient, throttled = (self._refused(RequestRefused(code), call, now) for code in (90033, 90055))
            return answers.replaced(met.other, transient, throttled), now
        try:
            answer = await self._judged(call, directory, now)
        except RequestRefused as refusal:
            answer = self._refused(refusal, call, now)
        return answer if met.other is None else answers.damaged(met.other, answer), now

    async def _judged(self, call: _Call, directory: Directory, now: float) -> Answer:
        if call.method != "POST":
            raise RequestRefused(900561, method=call.method)
        if call.repeated is not None:
            raise RequestRefused(9000411, name=call.repeated)
        lifetime, refresh_in = self._service.lifetime, self._service.refresh_in
        request = TokenRequest(
            authority=self._service.authority,
            issuing=self._service.issuing,
            tenant=call.tenant,
            form=call.form,
            directory=directory,
            now=now,
            lifetime=lifetime,
            trace_id=call.trace_id,
            sign_ins=self._service.sign_ins,
            people=self._service.people,
            own_key=self._service.key.private.public_key(),
        )
        granted = await self._driven(judge(request))
        body = {
            "token_type": "Bearer",
            "expires_in": lifetime,
            "ext_expires_in": lifetime,
            "access_token": self._service.key.sign(granted.claims),
            **granted.more,
        }
        if granted.id_claims is not None:
            body["id_token"] = self._service.key.sign(granted.id_claims)
        return answers.in_json(
            200, body if refresh_in is None else {**body, "refresh_in": refresh_in}, "granted"
        )

    async def _driven(self, flow: Flow[Granted]) -> Granted:
        """Drive a judgement, fetching the keys that it asks for."""
        with closing(flow):
            try:
                wish = next(flow)
                while True:
                    wish = flow.send(await self._service.keys.answer(wish))
            except StopIteration as done:
                granted: Granted = done.value
                return granted

    def _refused(self, refusal: RequestRefused, call: _Call, now: float) -> Answer:
        body = refusal.body(
            authority=self._service.authority,
            now=now,
            trace_id=call.trace_id,
            correlation_id=call.correlation_id,
        )
        return answers.in_json(refusal.status, body, f"AADSTS{refusal.code}")

    async def discovery(self, request: web.Request) -> web.Response:
        """Answer a tenant's discovery document of version 2.0."""
        tenant = request.match_info["tenant"]
        return self._discovery(tenant, issuer=f"{self._service.authority}/{tenant.lower()}/v2.0")

    async def discovery_of_version_1(self, request: web.Request) -> web.Response:
        """Answer the document whose issuer is the one that access tokens name."""
        tenant = request.match_info["tenant"]
        return self._discovery(tenant, issuer=token_issuer(self._service.issuing, tenant))

    def _discovery(self, tenant: str, issuer: str) -> web.Response:
        ids = {"trace_id": str(uuid.uuid4()), "correlation_id": str(uuid.uuid4())}
        try:
            if tenant.lower() not in TENANTLESS:
                check_tenant(tenant, self._service.directory)
        except RequestRefused as refusal:
            body = refusal.body(authority=self._service.authority, now=time.time(), **ids)
            return web.json_response(body, status=refusal.status)
        base = f"{self._service.authority}/{tenant.lower()}"
        return web.json_response(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_post"],
                "jwks_uri": f"{base}/discovery/v2.0/keys",
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


async def _read(request: web.Request) -> _Call:
    pairs: list[tuple[str, str]] = []
    if request.content_type == _FORM:
        text = (await request.read()).decode(errors="replace")
        pairs = urllib.parse.parse_qsl(text, keep_blank_values=True)
    counts = Counter(name for name, _ in pairs)
    return _Call(
        method=request.method,
        tenant=request.match_info["tenant"],
        trace_id=str(uuid.uuid4()),
        correlation_id=_guid(request.headers.get("client-request-id", "")) or str(uuid.uuid4()),
        form=dict(pairs),
        repeated=next((name for name, count in counts.items() if count > 1), None),
    )


def _ids(call: _Call) -> dict[str, str]:
    return {"client-request-id": call.correlation_id, "x-ms-request-id": call.trace_id}


def _guid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return ""
