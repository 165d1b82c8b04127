"""How a token request is judged: from the directory, the form, the clock and the issuer's keys to an answer.

A grant is a `Flow` that returns `Granted` or raises `RequestRefused`. A further grant is a further function
in `GRANTS`.
"""

import base64
import json
import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from testkit.entra.assertions import Flow, check_assertion
from testkit.entra.certificates import check_certificate_assertion, of_certificate
from testkit.entra.directory import Application, Directory, Unknown
from testkit.entra.errors import RequestRefused
from testkit.entra.people import DEVELOPER_SIGN_ON, FAMILY, People, saml_user
from testkit.entra.users import SignIns, User

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ON_BEHALF_OF = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_IDENTITY_SCOPES = frozenset({"offline_access", "openid", "profile", "email"})
_ASSERTION_MEMBERS = frozenset({"client_assertion", "client_assertion_type"})
_DEFAULT_SCOPE = "/.default"
_BACKDATED_SECONDS = 300  # Entra's tokens are valid from five minutes before they were asked for
TENANTLESS = frozenset({"common", "organizations", "consumers"})
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request to the token endpoint, and all that its answer depends on, keys aside.

    Attributes:
        authority: The service's own address, without trailing slash.
        issuing: Whom its tokens name as their issuer, before the tenant; without trailing slash.
        tenant: As in the URL.
        now: The service's clock, seconds since the epoch.
        lifetime: How long a token granted now lives, in seconds.
        trace_id: A GUID that Entra gives each request, and from which it makes a token's `uti`.
        sign_ins: Codes and refresh tokens; they change with a grant.
        people: Who can sign in; their devices' codes change with a grant.
        own_key: Verifies the service's own tokens.
    """

    authority: str
    issuing: str
    tenant: str
    form: Mapping[str, str]
    directory: Directory
    now: float
    lifetime: int
    trace_id: str
    sign_ins: SignIns
    people: People
    own_key: RSAPublicKey

    def __getitem__(self, name: str) -> str:
        """Return a member of the form that must be there and not empty."""
        value = self.form.get(name, "")
        if not value:
            raise RequestRefused(900144, name=name)
        return value


@dataclass(frozen=True, slots=True)
class Granted:
    """What is granted; whoever holds the key signs the claims.

    Attributes:
        claims: Of the access token.
        id_claims: Of the id token, None: without.
        more: Further members of the answer.
    """

    claims: Mapping[str, Any]
    id_claims: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def judge(request: TokenRequest) -> Flow[Granted]:
    """Judge a token request by its grant type."""
    name = request.form.get("grant_type", "")
    if request.tenant.lower() in TENANTLESS and name in _OF_USERS:
        request = replace(request, tenant=_home(request))
    check_tenant(request.tenant, request.directory)
    grant = GRANTS.get(request["grant_type"])
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


def on_behalf_of(request: TokenRequest) -> Flow[Granted]:
    """Judge an API's request in the name of the user it was called by (RFC 7523, 2.1)."""
    application = _application(request)
    resource = _users_resource(request["scope"])
    if request["requested_token_use"] != "on_behalf_of":
        raise RequestRefused(90100, name="requested_token_use", reason="'on_behalf_of' is wanted")
    yield from _authenticate(request, application)
    return _of_user(request, application, _presented_user(request, application), resource)


def authorization_code(request: TokenRequest) -> Flow[Granted]:
    """Judge a request with what a user's browser brought back (RFC 6749, 4.1.3)."""
    application = _application(request)
    resource = _users_resource(request["scope"])
    yield from _authenticate(request, application)
    user = request.sign_ins.redeem(
        request["code"], application.client_id, request["redirect_uri"], request.now
    )
    claims = request.people.check_redemption(request["code"], request.form.get("code_verifier", ""))
    return _of_user(request, application, user, resource, **claims)


def refresh_token(request: TokenRequest) -> Flow[Granted]:
    """Judge a request with a refresh token, for any resource (RFC 6749, 6)."""
    application = _application(request)
    resource = _users_resource(request["scope"])
    yield from _authenticate(request, application)
    user = request.sign_ins.refreshed(request["refresh_token"], application.client_id)
    return _of_user(request, application, user, resource)


def device_code(request: TokenRequest) -> Flow[Granted]:
    """Judge a device's question whether its user has signed in (RFC 8628, 3.4)."""
    application = _application(request)
    yield from _authenticate(request, application)
    scope, user = request.people.device(request["device_code"], application.client_id, request.now)
    # What for was said when it was begun.
    again = replace(request, form={"scope": scope, **request.form})
    return _of_user(again, application, user, _users_resource(again["scope"]))


def password(request: TokenRequest) -> Flow[Granted]:
    """Judge a request with a user's name and password (RFC 6749, 4.3)."""
    application = _application(request)
    resource = _users_resource(request["scope"])
    yield from _authenticate(request, application)
    user = request.people.signed_in(request["username"], request["password"])
    return _of_user(request, application, user, resource)


def saml(request: TokenRequest) -> Flow[Granted]:
    """Judge a request with a federation's assertion (RFC 7522)."""
    application = _application(request)
    resource = _users_resource(request["scope"])
    yield from _authenticate(request, application)
    account = request.people.account(saml_user(request["assertion"]))
    if account is None or not account.federated:
        raise RequestRefused(50013, reason="It names no user of a federation")
    return _of_user(request, application, account.user, resource)


GRANTS: Mapping[str, Callable[[TokenRequest], Flow[Granted]]] = MappingProxyType(
    {
        "client_credentials": client_credentials,
        "authorization_code": authorization_code,
        "refresh_token": refresh_token,
        ON_BEHALF_OF: on_behalf_of,
        "urn:ietf:params:oauth:grant-type:device_code": device_code,
        "password": password,
        "urn:ietf:params:oauth:grant-type:saml1_1-bearer": saml,
    }
)
_OF_USERS = GRANTS.keys() - {"client_credentials", ON_BEHALF_OF}
"""Who signs in tells the tenant, where the URL names none."""


def _home(request: TokenRequest) -> str:
    """Return the tenant of whoever signed in; RequestRefused tells why nobody did."""
    form, people = request.form, request.people
    user = None
    if form.get("device_code"):
        user = people.waiting(form["device_code"], request["client_id"], request.now)
    elif form.get("assertion") or form.get("username"):
        name = form.get("username") or saml_user(form["assertion"])
        account = people.account(name)
        if account is None:
            raise RequestRefused(50034, username=name)
        user = account.user
    else:
        user = request.sign_ins.whose(form.get("code", "") or form.get("refresh_token", ""))
    return request.tenant if user is None else user.tenant_id


def check_tenant(tenant: str, directory: Directory) -> None:
    """Check that a tenant, as a URL names it, is known; RequestRefused tells what is wrong with it."""
    if tenant.lower() in directory.tenants:
        return
    if tenant.lower() in TENANTLESS:
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


def _users_resource(scope: str) -> str:
    """Return the one resource that a user's scopes are of; permissions and /.default may follow it."""
    resources = {one.rpartition("/")[0] for one in scope.split() if one not in _IDENTITY_SCOPES}
    if len(resources) != 1 or "" in resources:
        raise RequestRefused(70011, scope=scope)
    return resources.pop()


def _presented_user(request: TokenRequest, application: Application) -> User:
    """Return the user whose token an API presents."""
    encoded = request["assertion"]
    try:
        claims = jwt.decode(
            encoded, request.own_key, algorithms=["RS256"], options={"verify_aud": False, "verify_exp": False}
        )
    except jwt.PyJWTError as failure:
        raise RequestRefused(50013, reason=type(failure).__name__) from failure
    if claims["aud"] not in {application.client_id, f"api://{application.client_id}"}:
        raise RequestRefused(500131, audience=claims["aud"], client_id=application.client_id)
    if claims["exp"] <= request.now:
        raise RequestRefused(500133, now=request.now, end=claims["exp"])
    if "scp" not in claims:
        raise RequestRefused(50013, reason="The token is no user's")
    return User(claims["tid"], claims["upn"])


def _of_user(
    request: TokenRequest, application: Application, user: User, resource: str, **id_claims: object
) -> Granted:
    """Return what an application gets for a user; `id_claims` are further ones."""
    scopes = request["scope"].split()
    if resource in request.directory.unknown_resources:
        raise RequestRefused(500011, resource=resource, tenant=request.tenant)
    claims = _access_claims(request, application, resource, _capabilities(request.form.get("claims", "")))
    who = {"oid": user.object_id, "sub": user.object_id, "upn": user.name, "scp": "user_impersonation"}
    more: dict[str, Any] = {"scope": request["scope"]}
    if "offline_access" in scopes or request["grant_type"] == "refresh_token":
        more["refresh_token"] = request.sign_ins.refresh_token(application.client_id, user)
    if request.form.get("client_info") == "1":
        more["client_info"] = user.client_info
    if application.client_id == DEVELOPER_SIGN_ON:
        more["foci"] = FAMILY
    stated = {
        "aud": application.client_id,
        "iss": f"{request.issuing}/{user.tenant_id.lower()}/v2.0",
        "tid": user.tenant_id,
        "preferred_username": user.name,
        **{name: claims[name] for name in ("iat", "nbf", "exp")},
        "oid": user.object_id,
        "sub": user.object_id,
        "ver": "2.0",
        **id_claims,
    }
    return Granted({**claims, **who, "idtyp": "user"}, stated if "openid" in scopes else None, more)


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
    if application.public:
        if form.get("client_assertion") or form.get("client_secret"):
            raise RequestRefused(700025)
    elif form.get("client_assertion"):
        if request["client_assertion_type"] != JWT_BEARER:
            raise RequestRefused(90100, name="client_assertion_type", reason=f"'{JWT_BEARER}' is wanted")
        yield from _check_assertion(request, application, form["client_assertion"])
    elif form.get("client_secret"):
        _check_secret(application, form["client_secret"], request.now)
    elif (
        "client_assertion_type" in form
        or "client_assertion" in form
        or form["grant_type"] != "client_credentials"
    ):
        raise RequestRefused(7000218)
    else:
        raise RequestRefused(7000216, grant=form["grant_type"])


def _check_assertion(request: TokenRequest, application: Application, encoded: str) -> Flow[None]:
    try:
        header = jwt.get_unverified_header(encoded)
    except jwt.PyJWTError:
        header = {}  # `check_assertion` tells what is wrong with it
    if of_certificate(header):
        endpoint = f"{request.authority}/{request.tenant}/oauth2/v2.0/token"
        check_certificate_assertion(encoded, application, endpoint, request.now)
    else:
        yield from check_assertion(encoded, application.credentials, request.now)


def _check_secret(application: Application, presented: str, now: float) -> None:
    for secret in application.secrets:
        if secrets.compare_digest(secret.value.encode(), presented.encode()):
            if secret.until <= now:
                raise RequestRefused(7000222, client_id=application.client_id)
            return
    raise RequestRefused(7000215, client_id=application.client_id)


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
        # how the client proved itself: not at all, by a secret, by an assertion or a certificate
        "appidacr": "0" if application.public else "1" if request.form.get("client_secret") else "2",
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
