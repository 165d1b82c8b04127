"""How a token request is judged: from the directory, the form, the clock and the issuer's keys to an answer.

A grant is a `Flow` that returns `Granted` or raises `RequestRefused`. A further grant is a further function
in `GRANTS`.
"""

import base64
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from testkit.entra.assertions import Flow, check_assertion
from testkit.entra.directory import Application, Directory, Unknown
from testkit.entra.errors import RequestRefused

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DEFAULT_SCOPE = "/.default"
_BACKDATED_SECONDS = 300  # Entra's tokens are valid from five minutes before they were asked for
_TENANTLESS = frozenset({"common", "organizations", "consumers"})
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request to the token endpoint, and all that its answer depends on, keys aside.

    Attributes:
        issuing: Whom its tokens name as their issuer, before the tenant; without trailing slash.
        tenant: As in the URL.
        now: The service's clock, seconds since the epoch.
        lifetime: How long a token granted now lives, in seconds.
        trace_id: A GUID that Entra gives each request, and from which it makes a token's `uti`.
    """

    issuing: str
    tenant: str
    form: Mapping[str, str]
    directory: Directory
    now: float
    lifetime: int
    trace_id: str

    def __getitem__(self, name: str) -> str:
        """Return a member of the form that must be there and not empty."""
        value = self.form.get(name, "")
        if not value:
            raise RequestRefused(900144, name=name)
        return value


@dataclass(frozen=True, slots=True)
class Granted:
    """An access token's claims; whoever holds the key signs them."""

    claims: Mapping[str, Any]


def judge(request: TokenRequest) -> Flow[Granted]:
    """Judge a token request by its grant type."""
    check_tenant(request.tenant, request.directory)
    name = request["grant_type"]
    grant = GRANTS.get(name)
    if grant is None:
        raise RequestRefused(70003, grant=name)
    return (yield from grant(request))


def client_credentials(request: TokenRequest) -> Flow[Granted]:
    """Judge an application's request in its own name (RFC 6749, 4.4)."""
    application = _application(request)
    resource = _resource(request["scope"])
    capabilities = _capabilities(request.form.get("claims", ""))
    yield from _authenticate(request, application)
    if resource in request.directory.unknown_resources:
        raise RequestRefused(500011, resource=resource, tenant=request.tenant)
    return Granted(_access_claims(request, application, resource, capabilities))


GRANTS: Mapping[str, Callable[[TokenRequest], Flow[Granted]]] = MappingProxyType(
    {"client_credentials": client_credentials}
)


def check_tenant(tenant: str, directory: Directory) -> None:
    """Check that a tenant, as a URL names it, is known; RequestRefused tells what is wrong with it."""
    if tenant.lower() in directory.tenants:
        return
    if tenant.lower() in _TENANTLESS:
        raise RequestRefused(50059, tenant=tenant)
    raise RequestRefused(90002 if _is_guid(tenant) or _DOMAIN.fullmatch(tenant) else 900023, tenant=tenant)


def token_issuer(issuing: str, tenant: str) -> str:
    """Return the issuer that a tenant's tokens of version 1.0 name, with its trailing slash."""
    return f"{issuing}/{tenant.lower()}/"


def _application(request: TokenRequest) -> Application:
    client_id = request["client_id"]
    try:
        return request.directory.application(request.tenant, client_id)
    except Unknown as unknown:
        raise RequestRefused(700016, client_id=client_id, tenant=request.tenant) from unknown


def _resource(scope: str) -> str:
    scopes = scope.split()
    if len(scopes) != 1:
        raise RequestRefused(70011, scope=scope)
    resource = scopes[0].removesuffix(_DEFAULT_SCOPE)
    if resource in {"", scopes[0]}:
        raise RequestRefused(1002012, scope=scope)
    return resource


def _capabilities(claims: str) -> list[str]:
    """Return the client capabilities that a claims parameter declares, such as ["CP1"]."""
    try:
        wanted = json.loads(claims or "{}")["access_token"]["xms_cc"]["values"]
    except (KeyError, TypeError):
        return []
    except ValueError as failure:
        raise RequestRefused(90100, name="claims", reason="It is no JSON") from failure
    if not (isinstance(wanted, list) and all(isinstance(value, str) for value in wanted)):
        raise RequestRefused(90100, name="claims", reason="The values of xms_cc are no list of strings")
    return wanted


def _authenticate(request: TokenRequest, application: Application) -> Flow[None]:
    """Check that the client is who it says it is; every grant of a confidential client begins so."""
    form = request.form
    if form.get("client_assertion"):
        if request["client_assertion_type"] != JWT_BEARER:
            raise RequestRefused(90100, name="client_assertion_type", reason=f"'{JWT_BEARER}' is wanted")
        yield from check_assertion(form["client_assertion"], application.credentials, request.now)
    elif form.get("client_secret"):
        raise RequestRefused(7000215, client_id=application.client_id)  # no application here has one
    elif "client_assertion_type" in form or "client_assertion" in form:
        raise RequestRefused(7000218)
    else:
        raise RequestRefused(7000216, grant=form["grant_type"])


def _access_claims(
    request: TokenRequest, application: Application, resource: str, capabilities: list[str]
) -> dict[str, Any]:
    """Return the claims of a version 1.0 access token in an application's own name, as Azure's APIs take.

    Source: learn.microsoft.com/entra/identity-platform/access-token-claims-reference.
    """
    issuer = token_issuer(request.issuing, request.tenant)
    object_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{issuer}{application.client_id.lower()}"))
    now = int(request.now)
    claims = {
        "aud": resource,
        "iss": issuer,
        "iat": now - _BACKDATED_SECONDS,
        "nbf": now - _BACKDATED_SECONDS,
        "exp": now + request.lifetime,
        "appid": application.client_id,
        "appidacr": "2",  # proved by an assertion or a certificate, not by a secret
        "idp": issuer,
        "idtyp": "app",
        "oid": object_id,
        "sub": object_id,
        "tid": application.tenant_id,
        "uti": base64.urlsafe_b64encode(uuid.UUID(request.trace_id).bytes_le).rstrip(b"=").decode(),
        "ver": "1.0",
    }
    return {**claims, "xms_cc": capabilities} if capabilities else claims


def _is_guid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
