"""Stand-ins for the identity endpoints of Azure's machines: real servers on loopback that check who asks.

Each refuses, in its own words, what the real one refuses: a missing header, another api-version, a parameter
it does not know, an identity or a resource that it does not have. `script` puts answers in front of that.

Sources: learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token;
learn.microsoft.com/azure/app-service/overview-managed-identity;
learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication;
learn.microsoft.com/azure/service-fabric/how-to-managed-identity-service-fabric-app-code.
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from testkit import loopback
from testkit.folders import throwaway_folder

CLIENT_ID = "11111111-aaaa-4aaa-8aaa-000000000001"
OBJECT_ID = "22222222-bbbb-4bbb-8bbb-000000000002"
RESOURCE_ID = (
    "/subscriptions/33333333-cccc-4ccc-8ccc-000000000003/resourceGroups/group/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/name"
)
RESOURCE = "https://vault.azure.net"
ARC_KEYS = Path("/var/opt/azcmagent/tokens")
LIFETIME = 86_400
CORRELATION_ID = "55555555-eeee-4eee-8eee-000000000005"
UNKNOWN_RESOURCE = (
    "AADSTS500011: The resource principal was not found in the tenant. Trace ID:"
    f" 44444444-dddd-4ddd-8ddd-000000000004 Correlation ID: {CORRELATION_ID}"
)

Scripted: TypeAlias = Callable[[web.Request], web.StreamResponse | Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came.

    Attributes:
        headers: Names in lower case.
        given: Parameters of the query and members of the form.
        at: When, by the monotonic clock.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    given: Mapping[str, str]
    at: float


class IdentityHost:
    """What all stand-ins share.

    Attributes:
        environment: The variables by which a program on that host finds it.
        requests: What came so far, oldest first.
        members: Put into each token answer; None leaves a member out.
    """

    version: ClassVar[str] = ""
    method: ClassVar[str] = "GET"
    path: ClassVar[str] = "/token"
    names: ClassVar[Mapping[str, str]] = {
        "client_id": CLIENT_ID,
        "object_id": OBJECT_ID,
        "msi_res_id": RESOURCE_ID,
    }
    scheme: ClassVar[str] = "http"

    def __init__(self, port: int = 0, address: str = "127.0.0.1") -> None:
        self._port = port
        self._address = address
        self._scripted: list[Scripted] = []
        self._running = ExitStack()
        self.requests: list[Asked] = []
        self.members: dict[str, Any] = {}
        self.url = ""
        self.secret = secrets.token_urlsafe(24)
        self.tokens: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            listener = starting.enter_context(loopback.listening(self._address, self._port))
            self.url = loopback.address(listener, self.scheme)
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", self._answer)
            starting.enter_context(loopback.serving(application, listener, self.tls()))
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def environment(self) -> dict[str, str]:
        """The variables."""
        raise NotImplementedError

    def tls(self) -> ssl.SSLContext | None:
        """Return how it proves who it is; None: not at all."""
        return None

    def script(self, *answers: Scripted) -> None:
        """Answer the next requests so, one each."""
        self._scripted += answers

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append(
            Asked(
                request.method,
                request.path,
                {name.lower(): value for name, value in request.headers.items()},
                {**request.query, **form},
                time.monotonic(),
            )
        )
        answered = self._scripted.pop(0)(request) if self._scripted else self.judged(request)
        return answered if isinstance(answered, web.StreamResponse) else await answered

    def judged(self, request: web.Request) -> web.Response:
        """Return what the host itself answers."""
        asked = self.requests[-1]
        if asked.method != self.method or asked.path != self.path:
            return self.refusal(404, "not_found", f"{asked.method} {asked.path} is not there")
        barred = self.barred(request, asked)
        if barred is not None:
            return barred
        named = {name: asked.given[name] for name in asked.given if name not in {"api-version", "resource"}}
        resource = asked.given.get("resource", "")
        if asked.given.get("api-version", "") != self.version:
            error, said = "bad_request_102", "Required api-version is missing or not supported"
        elif named.keys() - self.names.keys() or len(named) > 1:
            error, said = "invalid_request", f"Unknown parameters: {sorted(named)}"
        elif not resource.startswith("https://") or "/.default" in resource:
            error, said = "invalid_resource", UNKNOWN_RESOURCE
        elif any(self.names[name].lower() != value.lower() for name, value in named.items()):
            error, said = "invalid_request", "Identity not found"
        else:
            return self.grant(asked, named)
        return self.refusal(400, error, said)

    def barred(self, request: web.Request, asked: Asked) -> web.Response | None:
        """Return what a request without the host's own proof is answered; None for others."""
        raise NotImplementedError

    def grant(self, asked: Asked, named: Mapping[str, str]) -> web.Response:
        """Return a token."""
        self.tokens.append(f"token-{secrets.token_urlsafe(18)}")
        members = {
            "access_token": self.tokens[-1],
            "resource": asked.given["resource"],
            "token_type": "Bearer",
            **self.dates(),
            **named,
            **self.members,
        }
        return web.json_response({name: value for name, value in members.items() if value is not None})

    def dates(self) -> Mapping[str, object]:
        """Return the members that say how long a token is good for."""
        return {"expires_on": str(int(time.time()) + LIFETIME)}

    def refusal(self, status: int, error: str, description: str) -> web.Response:
        """Return an error in the host's form."""
        return web.json_response({"error": error, "error_description": description}, status=status)


class Imds(IdentityHost):
    """The instance metadata service of virtual machines."""

    version = "2018-02-01"
    path = "/metadata/identity/oauth2/token"

    @property
    def environment(self) -> dict[str, str]:
        """AKS's own variable for another address: a test cannot have the real one, or has it for itself."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": f"{self.url}/"}

    def barred(self, request: web.Request, asked: Asked) -> web.Response | None:
        """Want the header Metadata and no sign of a proxy."""
        del request
        if asked.headers.get("metadata", "").lower() != "true" or "x-forwarded-for" in asked.headers:
            return self.refusal(400, "invalid_request", "Required metadata header not specified")
        return None

    def dates(self) -> Mapping[str, object]:
        """Say it three times, in text."""
        now = int(time.time())
        lasts = {"expires_in": str(LIFETIME), "ext_expires_in": str(LIFETIME)}
        return {**lasts, "expires_on": str(now + LIFETIME), "not_before": str(now - 300)}


class AppService(IdentityHost):
    """App Service, Functions, Container Apps, Automation (which wants the header Metadata as well)."""

    version = "2019-08-01"
    names: ClassVar[Mapping[str, str]] = {
        "client_id": CLIENT_ID,
        "object_id": OBJECT_ID,
        "mi_res_id": RESOURCE_ID,
    }

    @property
    def environment(self) -> dict[str, str]:
        """Address and secret."""
        return {"IDENTITY_ENDPOINT": f"{self.url}/token", "IDENTITY_HEADER": self.secret}

    def barred(self, request: web.Request, asked: Asked) -> web.Response | None:
        """Want the secret."""
        del request
        if asked.headers.get("x-identity-header") != self.secret:
            return self.refusal(403, "", "The request was refused")
        return None

    def refusal(self, status: int, error: str, description: str) -> web.Response:
        """Return its form of an error."""
        del error
        return web.json_response({"statusCode": status, "message": description}, status=status)


class AzureMl(IdentityHost):
    """Azure ML, and App Service's API of 2017."""

    version = "2017-09-01"
    names: ClassVar[Mapping[str, str]] = {
        "clientid": CLIENT_ID,
        "object_id": OBJECT_ID,
        "msi_res_id": RESOURCE_ID,
    }

    @property
    def environment(self) -> dict[str, str]:
        """Address and secret."""
        return {"MSI_ENDPOINT": f"{self.url}/token", "MSI_SECRET": self.secret}

    def barred(self, request: web.Request, asked: Asked) -> web.Response | None:
        """Want the secret."""
        del request
        if asked.headers.get("secret") != self.secret:
            return self.refusal(401, "unauthorized", "The secret is wrong")
        return None

    def refusal(self, status: int, error: str, description: str) -> web.Response:
        """Return its form of an error."""
        return web.json_response({"error": {"code": error, "message": description}}, status=status)


class CloudShell(IdentityHost):
    """The shell in the portal."""

    method = "POST"
    names: ClassVar[Mapping[str, str]] = {"client_id": CLIENT_ID, "extra": "more"}

    @property
    def environment(self) -> dict[str, str]:
        """Its address."""
        return {"MSI_ENDPOINT": f"{self.url}/token"}

    def barred(self, request: web.Request, asked: Asked) -> web.Response | None:
        """Want the header Metadata and a form."""
        if asked.headers.get("metadata") != "true" or request.query_string:
            return self.refusal(400, "invalid_request", "Required metadata header not specified")
        return None

    def refusal(self, status: int, error: str, description: str) -> web.Response:
        """Return its form of an error."""
        return web.json_response({"error": {"code": error, "message": description}}, status=status)


class Arc(IdentityHost):
    """Azure Arc's agent: it wants the content of a file that it has just written.

    Attributes:
        keys: Where it writes.
        challenges: Said in place of its own challenge, one each; {path} becomes the path of the key.
        key: What it writes; None: something new each time.
    """

    version = "2020-06-01"
    path = "/metadata/identity/oauth2/token"

    def __init__(self, keys: Path = ARC_KEYS) -> None:
        super().__init__()
        self.keys = keys
        self.challenges: list[str] = []
        self.key: bytes | None = None
        self._expected = b""
        self._written: list[Path] = []

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for path in self._written:
            path.unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """Its addresses."""
        return {"IDENTITY_ENDPOINT": f"{self.url}{self.path}", "IMDS_ENDPOINT": self.url}

    def barred(self, request: web.Request, asked: Asked) -> web.Response | None:
        """Want the content of the file, once."""
        del request
        if asked.headers.get("metadata") != "true":
            return self.refusal(400, "invalid_request", "Required metadata header not specified")
        proof = asked.headers.get("authorization", "")
        if self._expected and proof == f"Basic {self._expected.decode('ascii', 'replace')}":
            self._expected = b""
            return None
        self._expected = secrets.token_urlsafe(32).encode() if self.key is None else self.key
        path = self.keys / f"{secrets.token_hex(8)}.key"
        path.write_bytes(self._expected)
        self._written.append(path)
        said = self.challenges.pop(0) if self.challenges else "Basic realm={path}"
        headers = {"WWW-Authenticate": said.format(path=path)} if said else {}
        return web.Response(status=401, headers=headers)

    def dates(self) -> Mapping[str, object]:
        """Say how long."""
        return {"expires_in": str(LIFETIME), "expires_on": str(int(time.time()) + LIFETIME)}


@contextmanager
def arc_keys() -> Iterator[Path]:
    """Have the folder of Azure Arc's keys, made and removed again where there is none.

    Raises:
        OSError: It cannot be had: only root can make it.
    """
    made = [folder for folder in (*reversed(ARC_KEYS.parents), ARC_KEYS) if not folder.exists()]
    for folder in made:
        folder.mkdir()
    try:
        yield ARC_KEYS
    finally:
        for folder in reversed(made):
            folder.rmdir()


class ServiceFabric(IdentityHost):
    """A Service Fabric node: https, with a certificate that nobody has signed.

    Attributes:
        thumbprint: Its SHA-1, in upper case as the node tells it.
    """

    version = "2019-07-01-preview"
    names: ClassVar[Mapping[str, str]] = {}
    scheme = "https"

    def __init__(self) -> None:
        super().__init__()
        self.thumbprint = ""

    @property
    def environment(self) -> dict[str, str]:
        """Address, secret and thumbprint."""
        return {
            "IDENTITY_ENDPOINT": f"{self.url}/token",
            "IDENTITY_HEADER": self.secret,
            "IDENTITY_SERVER_THUMBPRINT": self.thumbprint,
        }

    def tls(self) -> ssl.SSLContext:
        """Return a new certificate of its own for a name that is not the address's."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a node")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        self.thumbprint = certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - Service Fabric's
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with throwaway_folder() as folder:
            chain = folder / "node.pem"
            chain.write_bytes(
                certificate.public_bytes(serialization.Encoding.PEM)
                + key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            context.load_cert_chain(chain)
        return context

    def barred(self, request: web.Request, asked: Asked) -> web.Response | None:
        """Want the secret."""
        del request
        if asked.headers.get("secret") != self.secret:
            return self.refusal(401, "SecretHeaderNotFound", "Secret is not found in the request headers.")
        return None

    def refusal(self, status: int, error: str, description: str) -> web.Response:
        """Return its form of an error."""
        return web.json_response({"error": {"code": error, "message": description}}, status=status)


def saying(status: int, body: str = "", kind: str = "application/json", **headers: str) -> Scripted:
    """Return a script: answer so; underscores of header names are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.Response(status=status, text=body, content_type=kind, headers=named)


def resetting(request: web.Request) -> web.StreamResponse:
    """Break the connection off."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def after(seconds: float, script: Scripted) -> Scripted:
    """Return a script: wait first."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        answered = script(request)
        return answered if isinstance(answered, web.StreamResponse) else await answered

    return answer
