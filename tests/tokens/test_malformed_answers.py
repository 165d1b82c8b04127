"""Whatever any endpoint or tool answers, a caller gets a token or one of our errors, and sees no secret.

Each case is made from a seed and its number alone, so any of them can be made again. Credentials are the
users' own, down to the edge, which answers by itself here: requests, files and programs at once, waiting by
moving the clock. Half of the answers are as they should be, so that flows get far.
"""

import copy
import functools
import html
import json
import logging
import os
import random
import re
import traceback
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, quote_plus, unquote_plus

import pytest

import workload_identity
from testkit.client_certificates import Issued
from testkit.tally import Tally
from workload_identity import ClientAuthenticationError, edge_blocking
from workload_identity.cache import SHARED
from workload_identity.clock import Clock, Instant
from workload_identity.endpoints import METADATA_SERVICE
from workload_identity.steps import (
    Block,
    Call,
    Content,
    Find,
    Lend,
    NewId,
    Now,
    Ran,
    Read,
    Response,
    Run,
    Send,
    Step,
    Unreachable,
    Wait,
)

TENANT, CLIENT = "7d2f5d3a-51c3-4d0b-9f3e-1c52c0f1a001", "0b8e9c54-8a0e-4a52-8d5a-6f0f3a6bc002"
SCOPE, OTHER_SCOPE = "https://vault.azure.net/.default", "https://storage.azure.com/.default"
KEYS = "/var/opt/azcmagent/tokens"


def jwt(**claims: object) -> str:
    """Return a text of the form of a JWT."""
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "kid": "a-key"}, claims)]
    texts = [urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, b"planted-signature")]
    return ".".join(texts)


# What is sent, and must not come back in any place.
SECRET = 'planted secret/with+odd%20letters&"<ü>'
HEADER = "planted-header/with+letters="
SENT = {
    "secret": SECRET,
    "header": HEADER,
    "assertion": jwt(sub="planted-assertion", exp=2_000_000),
    "user": jwt(sub="planted-user", exp=2_000_000),
    "code": "planted-code/1+2",
    "password": "planted-password 'n' &co",
    "key": "planted-key+of/arc",
    "pod": jwt(sub="planted-pod", iss="https://issuer.example", aud="api://AzureADTokenExchange"),
}
# What is given, and must not be seen outside of a token.
GIVEN = {
    "access_token": "planted-access-token-without-a-shape-" + "0123456789" * 4,
    "refresh_token": "planted-refresh-token/with+letters",
    "id_token": jwt(
        iss=f"https://login.microsoftonline.com/{TENANT}/v2.0",
        sub="planted-id",
        oid="an-object",
        tid=TENANT,
        preferred_username="someone",
        aud=CLIENT,
    ),
    "oidcToken": jwt(sub="planted-oidc"),
    "device_code": "planted-device-code",
}
JWTS = (GIVEN["id_token"], jwt(planted="access"))
TOOL_TOKEN = "planted-of-a-tool-" + "s3cr3t" * 20
CLIENT_INFO = urlsafe_b64encode(json.dumps({"uid": "u", "utid": TENANT}).encode()).decode()

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, -1e308, 2**70, 10**400, float("nan"), float("inf")),
    *("", " ", "true", "\ud800", "\x00", "\x1b[31m", "\u202e", "é" * 300, "x" * 5000, "9" * 5000, "1e400"),
    *([], {}, [None], [[]], [{}], {"": None}, {"a": {"a": []}}, {"code": {"code": 1}}, ["a", "b"]),
    *("12/31/9999 23:59:59 +00:00", "99/99/9999 99:99:99 +00:00", "-0", "NaN", "2033-05-18T03:33:20Z"),
)
MEMBERS = (
    *("access_token", "expires_in", "expires_on", "refresh_in", "token_type", "refresh_token", "id_token"),
    *("client_info", "error", "error_description", "error_codes", "suberror", "correlation_id", "trace_id"),
    *("claims", "message", "code", "statusCode", "oidcToken", "scope", "foci", "token", "expiresOn", "data"),
    *("accessToken", "interval", "user_code", "device_code", "verification_uri", "msi_res_id", "client_id"),
    *("token_endpoint", "issuer", "authorization_endpoint", "tenant_discovery_endpoint", "metadata"),
)
HEADERS = (
    *("retry-after", "retry-after-ms", "content-type", "location", "x-ms-request-id", "www-authenticate"),
    *("set-cookie", "server", "x-ms-retry-after-ms", "content-encoding"),
)


class Server:
    """Answers one case's requests, programs and files.

    Attributes:
        seen: Secrets that were sent or given.
        good: The share of answers that are as they should be.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.seen: set[str] = set()
        self.good = 1.0
        self.epoch = 1_000_000.0
        self.monotonic = 50.0

    def clock(self) -> Clock:
        """Return the clocks, which move when somebody waits."""
        return Clock(lambda: self.epoch, lambda: self.monotonic)

    def now(self) -> Instant:
        """Look at them."""
        return Instant(self.epoch, self.monotonic)

    def passes(self, seconds: float) -> None:
        """Move them."""
        self.epoch += seconds
        self.monotonic += seconds

    # What is sent and given.

    def sent(self, request: Send) -> list[str]:
        """Return the secrets of a request."""
        form = request.form if isinstance(request.form, Mapping) else {}
        found = [value for name, value in form.items() if name in _SECRET_MEMBERS]
        for name, value in request.headers.items():
            if name.lower() in {"authorization", "secret", "x-identity-header"}:
                found += [value, value.rpartition(" ")[2]]
        # What a damaged answer had for a secret may be a word of any message.
        found = [secret for secret in found if len(secret) > _WORD]
        self.seen.update(found)
        return found

    def echo(self, secrets: list[str]) -> str:
        """Return a text that repeats something secret, in one of the ways that servers write."""
        rng = self.rng
        secret = rng.choice([*secrets, *JWTS])
        self.seen.add(secret)
        notations: list[Callable[[str], str]] = [
            *(str, str, quote, quote_plus, html.escape),
            lambda text: json.dumps(text)[1:-1],
            lambda text: re.sub(r"[^\w.~ -]", lambda found: f"\\u{ord(found[0]):04X}", text, flags=re.ASCII),
            lambda text: text.replace("/", r"\/"),
        ]
        written = rng.choice(notations)(secret)
        return rng.choice([f"{written}", f"you sent {written}!", f"a={written}&b", f"<b>{written}</b>"])

    def odd(self, secrets: list[str]) -> object:
        """Return a value that nobody wants; some hold secrets."""
        rng = self.rng
        if rng.random() < 0.4:
            echo = self.echo(secrets)
            return rng.choice([echo, [echo], {"message": echo}, {echo: echo}, {"code": echo, "message": "m"}])
        return rng.choice(ODD)

    # Answers.

    def response(self, request: Send) -> Response:
        """Answer a request."""
        rng = self.rng
        self.passes(rng.choice([0, 0, 0.1, 5]))
        secrets = self.sent(request)
        if rng.random() < self.good:
            return self.proper(request)
        if rng.random() < 0.05:
            kind = rng.choice(["connect", "read", "trust", "fault"])
            raise Unreachable(kind, "it broke off")
        headers = {
            name: rng.choice(
                [
                    self.echo(secrets),
                    str(rng.choice(ODD))[:200].encode("ascii", "replace").decode(),
                    rng.choice(
                        ["application/json", "text/html", "1", "1e3", "-5", "Wed, 99 Foo 2026", "gzip"]
                    ),
                    f"https://{self.echo(secrets)}/x?y={self.echo(secrets)}",
                    f"Basic realm={KEYS}/a.key",
                    f'Basic realm="{KEYS}/../x.key"',
                ]
            )
            for name in rng.sample(HEADERS, rng.randint(0, 3))
        }
        status = rng.choice([200, 200, 200, 400, 400, 401, 403, 404, 410, 429, 500, 503, 302, 204, 599])
        reason = rng.choice(["OK", "", self.echo(secrets), "\x1b[31m"])
        return Response(status, reason, headers, self.body(request, secrets), self.now())

    def proper(self, request: Send) -> Response:
        """Answer as one should."""
        status, headers = 200, {"content-type": "application/json"}
        if request.url.startswith("http://arc.example") and "Authorization" not in request.headers:
            status, headers = 401, {"www-authenticate": f"Basic realm={KEYS}/a.key"}
        return Response(status, "OK", headers, json.dumps(self.members(request)).encode(), self.now())

    def members(self, request: Send) -> dict[str, Any]:
        """Return what the endpoint that is asked says."""
        self.seen.update(GIVEN.values())
        place = request.url.partition("?")[0]
        if place.endswith("oidctoken"):
            return {"oidcToken": GIVEN["oidcToken"]}
        if place.endswith("/devicecode"):
            answer = {"user_code": "ABC", "verification_uri": "https://page.example", "expires_in": 900}
            return {**answer, "device_code": GIVEN["device_code"], "interval": 1, "message": "Open it."}
        if place.endswith("openid-configuration"):
            base = place.removesuffix("/v2.0/.well-known/openid-configuration")
            oauth = f"{base}/oauth2/v2.0"
            ends = {"token_endpoint": f"{oauth}/token", "authorization_endpoint": f"{oauth}/authorize"}
            device = {"device_authorization_endpoint": f"{oauth}/devicecode"}
            return {**ends, **device, "issuer": f"{base}/v2.0"}
        if "GetUserRealm" in place or "UserRealm" in place:
            return {"account_type": "Managed", "domain_name": "d"}
        dates = {"expires_in": 3600, "ext_expires_in": 3600, "refresh_in": 1800}
        tokens = {name: GIVEN[name] for name in ("access_token", "refresh_token", "id_token")}
        return {"token_type": "Bearer", "client_info": CLIENT_INFO, "client_id": CLIENT, **dates, **tokens}

    def refusal(self, secrets: list[str]) -> dict[str, Any]:
        """Return an error as some server words it."""
        rng = self.rng
        said = rng.choice(["AADSTS700024: No.", "AADSTS7000215: No. Correlation ID: x", self.echo(secrets)])
        code = rng.choice(
            ["invalid_client", "invalid_grant", "interaction_required", "authorization_pending"]
        )
        return rng.choice(
            [
                {"error": code, "error_description": said, "error_codes": [700024], "trace_id": "t"},
                {"error": code, "error_description": said, "claims": said, "suberror": said},
                {"error": {"code": said, "message": said}},
                {"statusCode": 400, "message": said},
                {"code": said, "message": said},
            ]
        )

    def body(self, request: Send, secrets: list[str]) -> bytes:
        """Return what is no answer, or hardly one."""
        rng = self.rng
        shape = rng.random()
        if shape < 0.15:
            echo = self.echo(secrets)
            return rng.choice(
                [
                    b"",
                    f"<html><script>{echo}</script><b>{echo}</b></html>".encode(),
                    echo.encode(),
                    rng.randbytes(rng.randint(1, 80)),
                    b"[" * 20_000,
                    b'{"a":' * 10_000,
                    b"9" * 5000,
                    b"null",
                    b"NaN",
                    json.dumps(echo).encode(),
                    json.dumps([echo]).encode(),
                    f"access_token={GIVEN['access_token']}&x={echo}".encode(),
                    f"Authorization: Bearer {GIVEN['access_token']}\n{echo}".encode(),
                ]
            )
        members = self.members(request) if shape < 0.6 else self.refusal(secrets)
        return self.written(self.grafted(members, secrets))

    def grafted(self, members: dict[str, Any], secrets: list[str]) -> object:
        """Return the members with others among them."""
        rng = self.rng
        for _ in range(rng.randint(0, 3)):
            name = rng.choice([*members, *MEMBERS] if members else MEMBERS)
            match rng.randrange(4):
                case 0:
                    members.pop(name, None)
                case 1 if name in GIVEN:
                    token = GIVEN[name]
                    members[name] = rng.choice([[token], {"value": token}, f"{token} {token}", [[token, 1]]])
                case _:
                    members[name] = self.odd(secrets)
        others: list[object] = [[members], {"data": members}, {**members, self.echo(secrets): 1}]
        return rng.choice([*[members] * 8, *others])

    def written(self, payload: object) -> bytes:
        """Return it as bytes, now and then damaged."""
        rng = self.rng
        text = json.dumps(payload, ensure_ascii=rng.random() < 0.7, indent=rng.choice([None, None, 2]))
        if rng.random() < 0.05:
            text = "\ufeff" + text
        data = bytearray(text.encode(rng.choice(["utf-8"] * 9 + ["utf-16"]), "surrogatepass"))
        if rng.random() < 0.3:
            # Names that are damaged tell nothing: what is given has a shape then.
            for token in GIVEN.values():
                data = data.replace(json.dumps(token)[1:-1].encode(), JWTS[1].encode())
            self.seen.add(JWTS[1])
            match rng.randrange(3):
                case 0:
                    del data[rng.randrange(len(data)) :]
                case 1:
                    for _ in range(rng.randint(1, 5)):
                        data[rng.randrange(len(data))] = rng.randrange(256)
                case _:
                    at = rng.randrange(len(data))
                    data[at:at] = rng.choice([b'"', b"{", b"}", b",", b"\x00", b"\xff", b"<", b"'"])
        return bytes(data)

    def ran(self, step: Run) -> Ran:
        """Run a program."""
        rng = self.rng
        self.seen.add(TOOL_TOKEN)
        name = os.path.basename(step.argv[0])  # noqa: PTH119 - a text
        az = {"accessToken": TOOL_TOKEN, "expires_on": 2_000_000_000, "expiresOn": "2033-05-18 03:33:20.0"}
        azd = {"token": TOOL_TOKEN, "expiresOn": "2033-05-18T03:33:20Z"}
        odd = [*ODD, TOOL_TOKEN, JWTS[1], "az login", {"message": TOOL_TOKEN}]
        members: dict[str, Any] = dict(az if name == "az" else azd)
        for _ in range(rng.randint(0, 2)):
            members[rng.choice([*members, "error", "data", "expires_on"])] = rng.choice(odd)
        data = self.written(rng.choice([members, members, [members], {"data": members}]))
        if name == "pwsh":
            ends = rng.choice(["2000000000", "x", "", "1e400", "-1", "9" * 400])
            mark = rng.choice(["azsdk%", "azsdk%%", "azsdk", ""])
            data = f"WARNING: {rng.choice(odd)}\n{mark}{TOOL_TOKEN}%{ends}\n".encode("utf-8", "surrogatepass")
        banner = rng.choice([b"", b"", b"{ a banner }\n", b"\xff\xfe", b"ERROR: " + JWTS[1].encode() + b"\n"])
        complaint = rng.choice([b"", b"AADSTS1: " + data, b"az login", data, b"\xff" * 50])
        if rng.random() < 0.03:
            raise rng.choice([TimeoutError(), PermissionError(13, "Permission denied"), OSError("odd")])
        return Ran(rng.choice([0, 0, 0, 1, 127, -9]), banner + data, complaint)

    def content(self, step: Read) -> Content:
        """Read a file."""
        rng = self.rng
        name = "key" if step.path.startswith(KEYS) else "pod"
        self.seen.add(SENT[name])
        if rng.random() < 0.9:
            return Content(SENT[name].encode(), steady=True)
        if rng.random() < 0.3:
            raise rng.choice(
                [FileNotFoundError(2, "No such file"), PermissionError(13, "No"), OSError("odd")]
            )
        data = rng.choice([b"", SENT[name].encode()[:-20], rng.randbytes(40), b"x" * 5000])
        return Content(data, steady=rng.random() < 0.8)


_WORD = 12
"""Letters."""
_SECRET_MEMBERS = frozenset(
    {"client_assertion", "client_secret", "assertion", "refresh_token", "code", "device_code", "password"}
)


def performer_of(server: Server) -> type:  # noqa: C901 - one branch for each kind of step
    """Return what stands in for the edge."""

    class Performer:
        def __init__(self, *_: object) -> None:
            self.ids = 0

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __call__(self, step: Step) -> object:  # noqa: PLR0911 - one for each kind
            match step:
                case Send():
                    return server.response(step)
                case Read():
                    return server.content(step)
                case Run():
                    return server.ran(step)
                case Wait(_, longest):
                    server.passes(longest)
                    return None
                case Now():
                    return server.now()
                case NewId():
                    self.ids += 1
                    return f"id-{self.ids}"
                case Find(names):
                    return f"/bin/{names[0]}"
                case Call(function) | Block(function):
                    return function()
                case Lend(borrower):
                    return borrower(self)
            raise AssertionError(step)

    return Performer


@dataclass(frozen=True)
class Kind:
    """A kind of endpoint, as a credential meets it.

    Attributes:
        make: Makes the credential.
        variables: Its environment.
        before: What is asked first, and answered well: so that a refresh token is held.
    """

    make: Callable[[Mapping[str, Any]], Any]
    variables: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()


PRINCIPAL: dict[str, Any] = {"tenant_id": TENANT, "client_id": CLIENT}


def _principal(name: str, **own: Any) -> Callable[[Mapping[str, Any]], Any]:
    return lambda options: getattr(workload_identity, name)(**PRINCIPAL, **own, **options)


@functools.cache
def _certified(retry_total: int) -> Any:
    # Its key is checked at length when it is read.
    return workload_identity.CertificateCredential(
        **PRINCIPAL, certificate_data=Issued.of("client").pem(), retry_total=retry_total
    )


def _user(name: str, **own: Any) -> Callable[[Mapping[str, Any]], Any]:
    def make(options: Mapping[str, Any]) -> Any:
        given = {**own, **options, "tenant_id": TENANT, "disable_instance_discovery": True}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return getattr(workload_identity, name)(**given)

    return make


def _managed(options: Mapping[str, Any]) -> Any:
    return workload_identity.ManagedIdentityCredential(**options)


def _named(options: Mapping[str, Any]) -> Any:
    return workload_identity.ManagedIdentityCredential(client_id=CLIENT, **options)


def _tool(name: str) -> Kind:
    return Kind(lambda _: getattr(workload_identity, name)())


CODE = {"authorization_code": SENT["code"], "redirect_uri": "https://back.example"}
BEHALF = {"user_assertion": SENT["user"], "client_secret": SECRET}
HTTPS = "https://host.example/token"
KINDS = {
    "secret": Kind(_principal("ClientSecretCredential", client_secret=SECRET)),
    "certificate": Kind(lambda options: copy.copy(_certified(**options))),
    "assertion": Kind(_principal("ClientAssertionCredential", func=lambda: SENT["assertion"])),
    "workload identity": Kind(
        lambda options: workload_identity.WorkloadIdentityCredential(
            **PRINCIPAL, token_file_path="/the/token-file", **options
        )
    ),
    "on behalf of": Kind(_principal("OnBehalfOfCredential", **BEHALF)),
    "on behalf of, refreshed": Kind(_principal("OnBehalfOfCredential", **BEHALF), before=(OTHER_SCOPE,)),
    "authorization code": Kind(_principal("AuthorizationCodeCredential", client_secret=SECRET, **CODE)),
    "refresh token": Kind(_principal("AuthorizationCodeCredential", **CODE), before=(OTHER_SCOPE,)),
    "Azure Pipelines": Kind(
        _principal("AzurePipelinesCredential", service_connection_id="c", system_access_token=HEADER),
        {"SYSTEM_OIDCREQUESTURI": "https://pipelines.example/oidctoken"},
    ),
    "IMDS": Kind(_managed),
    "App Service": Kind(_named, {"IDENTITY_ENDPOINT": HTTPS, "IDENTITY_HEADER": HEADER}),
    "Azure Arc": Kind(
        _managed, {"IDENTITY_ENDPOINT": "http://arc.example/token", "IMDS_ENDPOINT": "http://arc.example"}
    ),
    "Azure Arc, named": Kind(
        _named, {"IDENTITY_ENDPOINT": "http://arc.example/token", "IMDS_ENDPOINT": "http://arc.example"}
    ),
    "Service Fabric": Kind(
        _managed,
        {
            "IDENTITY_ENDPOINT": HTTPS,
            "IDENTITY_HEADER": HEADER,
            "IDENTITY_SERVER_THUMBPRINT": "0123456789" * 4,
        },
    ),
    "Cloud Shell": Kind(_managed, {"MSI_ENDPOINT": "http://host.example/token"}),
    "Azure ML": Kind(_named, {"MSI_ENDPOINT": HTTPS, "MSI_SECRET": HEADER}),
    "az": _tool("AzureCliCredential"),
    "azd": _tool("AzureDeveloperCliCredential"),
    "pwsh": _tool("AzurePowerShellCredential"),
    "device code": Kind(_user("DeviceCodeCredential", prompt_callback=lambda *_: None, timeout=30)),
    "user's refresh token": Kind(
        _user("DeviceCodeCredential", prompt_callback=lambda *_: None, timeout=30), before=(OTHER_SCOPE,)
    ),
    "password": Kind(
        _user(
            "UsernamePasswordCredential",
            client_id=CLIENT,
            username="someone",
            password=SENT["password"],
        )
    ),
}
VARIABLES = ("IDENTITY_", "IMDS_", "MSI_", "AZURE_", "SYSTEM_")


def views(text: str) -> Iterator[str]:
    """Yield a text, and what it is to who undoes one of the usual notations."""
    yield text
    yield unquote_plus(text)
    yield html.unescape(text)
    plain = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    yield re.sub(r"\\+([/\"\\])", r"\1", plain)


def shown(failure: ClientAuthenticationError) -> list[str]:
    """Return all that can be seen of an error."""
    response = failure.response
    texts = [str(failure), repr(failure), repr(vars(failure)), repr(failure.args)]
    link: BaseException | None = failure
    while link is not None:
        texts += traceback.format_exception_only(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    if response is not None:
        texts += [response.text(), repr(response), repr(response.headers), str(response.reason)]
    return texts


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No variable of any host, and nobody has looked for the metadata service."""
    for name in list(os.environ):
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)
    before = dict(vars(METADATA_SERVICE))
    yield monkeypatch
    vars(METADATA_SERVICE).update(before)
    SHARED.clear()


@pytest.mark.soak(150, 10_000)
@pytest.mark.parametrize("name", KINDS)
def test_token_or_error_of_ours(
    name: str,
    size: int,
    outside: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tally: Tally,
    pytestconfig: pytest.Config,
) -> None:
    """Nothing else comes out; no message, field, log record or repr has a secret."""
    kind = KINDS[name]
    for variable, value in kind.variables.items():
        outside.setenv(variable, value)
    seed = pytestconfig.getoption("seed")
    base = seed if seed is not None else (random.SystemRandom().getrandbits(32) if size > 1000 else 1)
    caplog.set_level(logging.DEBUG)
    ends: dict[str, int] = {"token": 0, "error": 0}
    for number in range(size):
        where = f"{name}, --seed {base}, case {number}"
        rng = random.Random(f"{base}/{name}/{number}")  # noqa: S311 - to be repeated, not to be secret
        ends[one_case(kind, rng, outside, caplog, where)] += 1
        tally.one("malformed answers")

    tally.tell(f"malformed answers, {name}, seed {base}: {ends['token']:,} tokens, {ends['error']:,} errors")
    assert all(ends.values()), "cases of one kind only"


def one_case(
    kind: Kind,
    rng: random.Random,
    patch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> str:
    """Ask once, judge what comes out, and return which of the two it was."""
    server = Server(rng)
    patch.setattr(edge_blocking, "Performer", performer_of(server))
    SHARED.clear()
    METADATA_SERVICE.present = rng.random() < 0.5
    METADATA_SERVICE.absent_until = 0.0
    credential = kind.make({"retry_total": rng.choice([0, 1, 4])})
    credential._clock = server.clock()
    caplog.clear()
    for scope in kind.before:
        credential.get_token(scope)
    server.good = rng.choice([0, 0.5])
    end = "token"
    try:
        token = credential.get_token(SCOPE)
        assert token.token.isascii(), where
        assert type(token.expires_on) is int, where
        texts = [repr(token)]
    except ClientAuthenticationError as failure:
        end = "error"
        texts = shown(failure)
    texts += [f"{record.getMessage()} {record.args!r}" for record in caplog.records]
    texts += [record.exc_text or "" for record in caplog.records]
    texts += [repr(credential), repr(SHARED)]
    # What a flow does not expect is one of our errors too, and a fault of the flow's.
    assert not any("broke off unexpectedly" in text for text in texts), f"{where}: {texts[0]}"
    for text in texts:
        text.encode()
        for view in views(text):
            found = [secret for secret in server.seen if secret in view]
            assert not found, f"{where}: {found} in {text[:2000]}"
    return end
