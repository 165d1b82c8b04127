"""How a token request is judged: from the directory, the form, the clock and the issuer's keys to an answer.

A grant is a generator: it yields `KeysOf` where it needs an issuer's keys and is sent `Keys`; it returns
`Granted` or raises `RequestRefused`. Nothing here does I/O or reads a clock. A further grant is a further
function in `GRANTS`.
"""

import json
import re
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from testkit.entra.directory import Application, Directory, FederatedCredential, Unknown
from testkit.entra.errors import RequestRefused

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DEFAULT_SCOPE = "/.default"
_BACKDATED_SECONDS = 300  # Entra's tokens are valid from five minutes before they were asked for
_TENANTLESS = frozenset({"common", "organizations", "consumers"})
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]", re.IGNORECASE)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Keys:
    """An issuer's RSA keys by their key id, as they were when fetched."""

    by_id: Mapping[str, RSAPublicKey]


@dataclass(frozen=True, slots=True)
class KeysOf:
    """A wish for an issuer's keys.

    Attributes:
        outdated: Keys that were not enough, None at first: whoever fetches must not answer with these again.
    """

    issuer: str
    outdated: Keys | None = None


Flow: TypeAlias = Generator[KeysOf, Keys, _T]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request to the token endpoint, and all that its answer depends on.

    Attributes:
        authority: The service's own address, which its tokens name as their issuer; without trailing slash.
        tenant: As in the URL.
        now: The service's clock, seconds since the epoch.
        lifetime: What the answer calls `expires_in`, in seconds.
    """

    authority: str
    tenant: str
    form: Mapping[str, str]
    directory: Directory
    now: float
    lifetime: int

    def __getitem__(self, name: str) -> str:
        """Return a member of the form that must be there."""
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
    _check_tenant(request)
    name = request["grant_type"]
    grant = GRANTS.get(name)
    if grant is None:
        raise RequestRefused(70003, grant=name)
    return (yield from grant(request))


def client_credentials(request: TokenRequest) -> Flow[Granted]:
    """Judge an application's request in its own name (RFC 6749, 4.4)."""
    application = _application(request)
    resource = _resource_of(request["scope"])
    capabilities = _capabilities(request.form.get("claims", ""))
    yield from _authenticate(request, application)
    if resource in request.directory.unknown_resources:
        raise RequestRefused(500011, resource=resource, tenant=request.tenant)
    return Granted(_access_claims(request, application, resource, capabilities))


GRANTS: Mapping[str, Callable[[TokenRequest], Flow[Granted]]] = MappingProxyType(
    {"client_credentials": client_credentials}
)


# --- tenant and application


def _check_tenant(request: TokenRequest) -> None:
    tenant = request.tenant.lower()
    if tenant in request.directory.tenants:
        return
    if tenant in _TENANTLESS:
        raise RequestRefused(50059, tenant=request.tenant)
    code = 90002 if _is_guid(tenant) or _DOMAIN.fullmatch(tenant) else 900023
    raise RequestRefused(code, tenant=request.tenant)


def _application(request: TokenRequest) -> Application:
    client_id = request["client_id"]
    try:
        return request.directory.application(request.tenant, client_id)
    except Unknown as unknown:
        raise RequestRefused(700016, client_id=client_id, tenant=request.tenant) from unknown


def _is_guid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


# --- what is asked for


def _resource_of(scope: str) -> str:
    scopes = scope.split()
    if len(scopes) != 1:
        raise RequestRefused(70011, scope=scope)
    resource = scopes[0].removesuffix(_DEFAULT_SCOPE)
    if resource in {"", scopes[0]}:
        raise RequestRefused(1002012, scope=scope)
    return resource


def _capabilities(claims: str) -> list[str]:
    """Return the client capabilities that a claims parameter declares, such as ["CP1"]."""
    if not claims:
        return []
    try:
        wanted = json.loads(claims)["access_token"]["xms_cc"]["values"]
    except (KeyError, TypeError):
        return []
    except ValueError as failure:
        raise RequestRefused(90100, name="claims", reason="no JSON") from failure
    if not (isinstance(wanted, list) and all(isinstance(value, str) for value in wanted)):
        raise RequestRefused(90100, name="claims", reason="xms_cc holds no list of strings")
    return wanted


# --- who asks


def _authenticate(request: TokenRequest, application: Application) -> Flow[None]:
    form = request.form
    if form.get("client_assertion"):
        if request["client_assertion_type"] != JWT_BEARER:
            raise RequestRefused(
                90100, name="client_assertion_type", reason=f"'{JWT_BEARER}' is the one known"
            )
        yield from _check_assertion(form["client_assertion"], application, request)
    elif form.get("client_secret"):
        raise RequestRefused(7000215, client_id=application.client_id)  # no application here has secrets yet
    elif "client_assertion_type" in form or "client_assertion" in form:
        raise RequestRefused(7000218)
    else:
        raise RequestRefused(7000216, grant=form["grant_type"])


@dataclass(frozen=True, slots=True)
class _Assertion:
    """A client assertion, taken apart and not yet believed."""

    issuer: str
    subject: str
    audiences: tuple[str, ...]
    starts: float | None
    ends: float
    algorithm: str
    key_id: str


def _check_assertion(encoded: str, application: Application, request: TokenRequest) -> Flow[None]:
    """Check an assertion as far as its registration, then its signature, then its time."""
    assertion = _taken_apart(encoded)
    if assertion.issuer.startswith(f"{request.authority}/"):
        raise RequestRefused(700222, issuer=assertion.issuer)
    _check_registration(assertion, application.credentials)
    if assertion.algorithm != "RS256":
        raise RequestRefused(5002738, algorithm=assertion.algorithm)

    keys = yield KeysOf(assertion.issuer)
    if assertion.key_id not in keys.by_id:
        keys = yield KeysOf(assertion.issuer, outdated=keys)
    key = keys.by_id.get(assertion.key_id)
    if key is None:
        _refuse_signature(assertion, "The key was not found")
    try:
        jwt.api_jws.decode(encoded, key, algorithms=["RS256"])
    except jwt.InvalidTokenError:
        _refuse_signature(assertion, "The key was found, but verifying the signature with it failed")

    if not (assertion.starts or 0) <= request.now < assertion.ends:
        raise RequestRefused(
            700024, now=_iso(request.now), start=_iso(assertion.starts or 0), end=_iso(assertion.ends)
        )


def _check_registration(assertion: _Assertion, credentials: tuple[FederatedCredential, ...]) -> None:
    """Find the credential that the assertion matches; otherwise tell the first member that none has."""
    presented: dict[str, object] = {
        "issuer": assertion.issuer,
        "subject": assertion.subject,
        "audience": ",".join(assertion.audiences),
    }
    if not credentials:
        raise RequestRefused(70021, **presented)
    same_issuer = [one for one in credentials if one.issuer == assertion.issuer]
    if not same_issuer:
        raise RequestRefused(700211, **presented)
    same_subject = [one for one in same_issuer if one.subject == assertion.subject]
    if not same_subject:
        raise RequestRefused(700213, **presented)
    if not any(one.audience in assertion.audiences for one in same_subject):
        raise RequestRefused(700212, **presented)


def _refuse_signature(assertion: _Assertion, reason: str) -> NoReturn:
    raise RequestRefused(700027, key_id=assertion.key_id, issuer=assertion.issuer, reason=reason)


def _taken_apart(encoded: str) -> _Assertion:
    try:
        token = jwt.decode_complete(encoded, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError) as failure:
        # The library's words only: they never quote the token.
        raise RequestRefused(50027, reason=str(failure).rstrip(".") or "no JWT") from failure
    header, claims = token["header"], token["payload"]
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not (audiences and all(isinstance(one, str) for one in audiences)):
        raise RequestRefused(50027, reason="claim 'aud' is no string and no list of strings")
    return _Assertion(
        issuer=_string(claims, "iss"),
        subject=_string(claims, "sub"),
        audiences=tuple(audiences),
        starts=_seconds(claims, "nbf") if "nbf" in claims else None,
        ends=_seconds(claims, "exp"),
        algorithm=str(header.get("alg")),
        key_id=str(header.get("kid", "")),
    )


def _string(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise RequestRefused(50027, reason=f"claim '{name}' is no string")
    return value


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _END_OF_TIME:
        raise RequestRefused(50027, reason=f"claim '{name}' is no time in seconds since the epoch")
    return value


_END_OF_TIME = datetime.max.replace(tzinfo=UTC).timestamp()


def _iso(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


# --- the token


def _access_claims(
    request: TokenRequest, application: Application, resource: str, capabilities: list[str]
) -> dict[str, Any]:
    """Return the claims of a version 1.0 access token in an application's own name, as Azure's APIs take.

    Source: learn.microsoft.com/entra/identity-platform/access-token-claims-reference.
    """
    issuer = token_issuer(request.authority, request.tenant)
    object_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{issuer}{application.client_id.lower()}"))
    now = int(request.now)
    claims = {
        "aud": resource,
        "iss": issuer,
        "iat": now - _BACKDATED_SECONDS,
        "nbf": now - _BACKDATED_SECONDS,
        "exp": now + request.lifetime,
        "appid": application.client_id,
        "appidacr": "2",  # proved by an assertion or certificate, not by a secret
        "idp": issuer,
        "idtyp": "app",
        "oid": object_id,
        "sub": object_id,
        "tid": application.tenant_id,
        "uti": uuid.uuid4().hex[:22],
        "ver": "1.0",
    }
    return {**claims, "xms_cc": capabilities} if capabilities else claims


def token_issuer(authority: str, tenant: str) -> str:
    """Return the issuer that a tenant's version 1.0 tokens name, with its trailing slash."""
    return f"{authority}/{tenant.lower()}/"
