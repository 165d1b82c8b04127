"""How requests are sent: headers, proxies, trust, transports of the caller's."""

import re
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from testkit import loopback
from testkit.entra import EntraStandIn
from workload_identity import ClientAuthenticationError, __version__

SCOPE = "https://vault.azure.net/.default"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any
Pod = Any
Endpoint = Any


def test_headers(family: Family, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks, an id for the service's logs, and what the caller adds."""
    monkeypatch.setenv("AZURE_HTTP_USER_AGENT", "from-the-environment/2")
    credential = family.credential(headers={"x-own": "value"}, user_agent="an-app/1")

    family.do(credential.get_token, SCOPE)

    (headers,) = endpoint.headers
    own = rf"workload-identity/{re.escape(__version__)} Python/3\.\d+\.\d+ \(\w+\)"
    assert re.fullmatch(rf"an-app/1 {own} from-the-environment/2", headers["User-Agent"])
    assert headers["x-own"] == "value"
    assert headers["Accept"] == "application/json"
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert headers["return-client-request-id"] == "true"
    uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(uuid, headers["client-request-id"])
    assert headers["x-ms-client-request-id"] == headers["client-request-id"]


def test_request_id_stays_on_repetitions(family: Family, endpoint: Endpoint) -> None:
    """One logical request is one id; the next has another."""
    from aiohttp import web

    def fail(_: web.Request) -> web.Response:
        return web.Response(status=503)

    endpoint.answers.insert(0, fail)
    credential = family.credential()
    family.do(credential.get_token, SCOPE)
    family.do(credential.get_token, "https://other/.default")

    ids = [headers["client-request-id"] for headers in endpoint.headers]
    assert ids[0] == ids[1]
    assert ids[1] != ids[2]


@dataclass
class Proxy:
    """An HTTP proxy that knows CONNECT.

    Attributes:
        address: Its URL.
        targets: Whom it was asked to connect to so far.
    """

    address: str
    targets: list[str] = field(default_factory=list)

    def serve(self, client: socket.socket) -> None:
        """Serve one connection until either side ends it."""
        with client:
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(65536)
            target = request.split()[1].decode()
            self.targets.append(target)
            host, port = target.rsplit(":", 1)
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=copy, args=(server, client))
                back.start()
                copy(client, server)
                back.join()


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Copy what comes until it ends, then end both."""
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for side in (source, sink):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(kind: type[Proxy] = Proxy) -> Iterator[Proxy]:
    """Run a proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = kind(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=made.serve, args=(client,), daemon=True).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield made
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


class SlowProxy(Proxy):
    """One whose headers come letter by letter, for half a minute."""

    def serve(self, client: socket.socket) -> None:
        """Begin to answer."""
        with client, suppress(OSError):
            client.recv(65536)
            drip(client)


class BeforeSlowService(Proxy):
    """One that leads to a service which answers like that."""

    def serve(self, client: socket.socket) -> None:
        """Be the service too."""
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        tls = loopback.server_tls(trustme.CA(), "127.0.0.1")
        with suppress(OSError), tls.wrap_socket(client, server_side=True) as service:
            service.recv(65536)
            drip(service)


def drip(client: socket.socket) -> None:
    """Send a header, letter by letter, for half a minute."""
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(300):
        client.sendall(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize("kind", [SlowProxy, BeforeSlowService])
def test_proxied_call_has_an_end(family: Family, kind: type[Proxy]) -> None:
    """However slowly headers come, the proxy's or those of who is behind it, `timeout` ends the call."""
    with proxy(kind) as running:
        credential = family.credential(proxies={"https": running.address}, connection_verify=False, timeout=1)

        with pytest.raises(ClientAuthenticationError, match="1 s that a call may take"):
            family.do(credential.get_token, SCOPE)


def test_proxy_of_the_environment(
    family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY is used, and NO_PROXY heeded."""
    place = entra.authority.partition("://")[2]
    with proxy() as running:
        monkeypatch.setenv("HTTPS_PROXY", running.address)
        family.do(family.credential(shared_cache=False).get_token, SCOPE)
        assert running.targets == [place]

        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        family.do(family.credential(shared_cache=False).get_token, SCOPE)
        monkeypatch.delenv("NO_PROXY")
        family.do(
            family.credential(
                shared_cache=False, use_env_settings=False, connection_verify=str(entra.ca_file)
            ).get_token,
            SCOPE,
        )
        assert running.targets == [place]


@pytest.mark.parametrize("entries", ["[::1],127.0.0.1", "fd00::/8, 127.0.0.0/8", "10.0.0.0/8,.svc,*"])
def test_what_a_cluster_has_in_no_proxy(
    family: Family, monkeypatch: pytest.MonkeyPatch, entries: str
) -> None:
    """Addresses and networks of IPv6 there keep nobody from a token."""
    with proxy() as running:
        monkeypatch.setenv("HTTPS_PROXY", running.address)
        monkeypatch.setenv("NO_PROXY", entries)
        assert family.do(family.credential().get_token, SCOPE)

    assert running.targets == []


@pytest.mark.parametrize("given", [{"https": ""}, {"https": None}])
def test_no_proxy_of_the_caller(
    family: Family, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """An empty one means none, whatever the environment says."""
    with proxy() as running:
        monkeypatch.setenv("HTTPS_PROXY", running.address)
        assert family.do(family.credential(proxies=given).get_token, SCOPE)

    assert running.targets == []


def test_proxy_without_a_scheme(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host and a port are enough, as they are for other programs."""
    with proxy() as running:
        bare = running.address.removeprefix("http://")
        family.do(family.credential(proxies={"https": bare}, shared_cache=False).get_token, SCOPE)
        monkeypatch.setenv("HTTPS_PROXY", f" {bare} ")
        family.do(family.credential(shared_cache=False).get_token, SCOPE)

    assert len(running.targets) == 2


@pytest.mark.parametrize("pattern", ["https", "https://127.0.0.1", "all"])
def test_proxy_of_the_caller(
    family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """Proxies can be named by scheme, or by scheme and host; the environment has no say then."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with proxy() as running:
        family.do(family.credential(proxies={pattern: running.address}).get_token, SCOPE)

    assert running.targets == [entra.authority.partition("://")[2]]


def test_proxy_that_is_not_there(family: Family) -> None:
    """Only our own error comes out."""
    credential = family.credential(proxies={"https": "http://127.0.0.1:9"}, retry_total=0)

    with pytest.raises(ClientAuthenticationError, match="HTTPS_PROXY"):
        family.do(credential.get_token, SCOPE)


def test_proxy_that_is_no_url(family: Family) -> None:
    """A fault of the settings is told at the first request, once."""
    credential = family.credential(proxies={"https": "nonsense://x"})

    with pytest.raises(ClientAuthenticationError, match="Correct the options"):
        family.do(credential.get_token, SCOPE)


@pytest.mark.parametrize(
    "url", ["http://me:plan/ted@x:1", "http://me:plan?ted@x:1", "http://me:plan#ted@x:1", "me:plan/ted@x:1"]
)
def test_password_of_a_proxy_is_not_quoted(
    family: Family, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    """One with a letter that ends a host is taken for a port, which a library would quote."""
    monkeypatch.setenv("HTTPS_PROXY", url)
    options: list[dict[str, Any]] = [{"proxies": {"https": url}}]
    if url.startswith("http:"):
        options.append({})
    for given in options:
        with caplog.at_level("DEBUG"), pytest.raises(ClientAuthenticationError, match="is no URL") as raised:
            family.do(family.credential(shared_cache=False, **given).get_token, SCOPE)

        assert "%2F" in str(raised.value)
        seen = "".join(traceback.format_exception(raised.value))
        assert "'plan" not in seen
        assert "planted" not in seen
    assert not any("plan" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_trust_of_the_environment(
    family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Each variable names a file of authorities."""
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv(variable, str(entra.ca_file))

    assert family.do(family.credential().get_token, SCOPE)


def test_all_that_the_environment_names_are_trusted(
    family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An image may name the usual authorities in one variable, and a company its own in another."""
    usual = tmp_path / "usual.pem"
    trustme.CA().cert_pem.write_to_path(usual)
    monkeypatch.setenv("SSL_CERT_FILE", str(usual))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(entra.ca_file))
    monkeypatch.setenv("CURL_CA_BUNDLE", "/no/such/file")

    assert family.do(family.credential().get_token, SCOPE)


def test_trust_in_a_folder(
    family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SSL_CERT_DIR names folders in OpenSSL's own layout."""
    import subprocess

    folder = tmp_path / "certificates"
    folder.mkdir()
    hashed = subprocess.run(
        ["openssl", "x509", "-subject_hash", "-noout", "-in", str(entra.ca_file)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (folder / f"{hashed}.0").write_bytes(entra.ca_file.read_bytes())
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", f"/no/such/folder:{folder}")

    assert family.do(family.credential().get_token, SCOPE)


def test_trust_of_the_caller(family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """connection_verify wins: a file, or nobody to be verified at all."""
    monkeypatch.delenv("SSL_CERT_FILE")

    for verify in (str(entra.ca_file), entra.ca_file, False):
        credential = family.credential(connection_verify=verify, shared_cache=False)
        assert family.do(credential.get_token, SCOPE)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read(
    family: Family, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    """The path is told."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))

    with pytest.raises(ClientAuthenticationError, match=re.escape(str(path))):
        family.do(family.credential().get_token, SCOPE)


def test_authority_that_is_rotated_is_read_anew(
    family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file of authorities may change while a program runs."""
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    credential = family.credential()
    with pytest.raises(ClientAuthenticationError, match="not trusted"):
        family.do(credential.get_token, SCOPE)

    path.write_bytes(entra.ca_file.read_bytes())

    assert family.do(credential.get_token, SCOPE)


def test_client_certificate(family: Family, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """connection_cert is shown to a server that wants one."""
    from aiohttp import web

    authority = trustme.CA()
    ca_file, cert_file = tmp_path / "ca.pem", tmp_path / "client.pem"
    authority.cert_pem.write_to_path(ca_file)
    authority.issue_cert("a-client").private_key_and_cert_chain_pem.write_to_path(cert_file)
    application = web.Application()

    async def grant(_: web.Request) -> web.Response:
        return web.json_response({"access_token": "a-token", "expires_in": 3600})

    application.router.add_post("/{path:.*}", grant)
    with loopback.listening("127.0.0.1", 0) as listener:
        tls = loopback.server_tls(authority, "127.0.0.1")
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_verify_locations(ca_file)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        with loopback.serving(application, listener, tls):
            at = loopback.address(listener)
            assert family.do(family.credential(authority=at, connection_cert=str(cert_file)).get_token, SCOPE)
            without = family.credential(authority=at, retry_total=0, shared_cache=False)
            with pytest.raises(ClientAuthenticationError):
                family.do(without.get_token, SCOPE)


class Counting:
    """What a transport of the caller's sees."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.closed = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Grant a token."""
        self.requests.append(request)
        return httpx.Response(200, json={"access_token": "a-token", "expires_in": 3600})


def test_transport_of_the_caller(family: Family) -> None:
    """An httpx transport gets the requests, and is left open."""
    counting = Counting()

    class Transport(httpx.MockTransport):
        def close(self) -> None:
            """Note that somebody did."""
            counting.closed = True

        async def aclose(self) -> None:
            """Note that somebody did."""
            counting.closed = True

    credential = family.credential(transport=Transport(counting))

    assert family.do(credential.get_token, SCOPE).token == "a-token"
    family.do(credential.close)
    assert len(counting.requests) == 1
    assert not counting.closed


def test_client_of_the_caller(family: Family) -> None:
    """An httpx client too, with its event hooks."""
    seen: list[str] = []
    counting = Counting()
    if family.module.__name__.endswith("aio"):

        async def see_later(request: httpx.Request) -> None:
            seen.append(request.method)

        client: Any = httpx.AsyncClient(
            transport=httpx.MockTransport(counting), event_hooks={"request": [see_later]}
        )
    else:

        def see(request: httpx.Request) -> None:
            seen.append(request.method)

        client = httpx.Client(transport=httpx.MockTransport(counting), event_hooks={"request": [see]})

    credential = family.credential(transport=client, headers={"x-own": "value"})
    family.do(credential.get_token, SCOPE)
    family.do(credential.close)

    assert seen == ["POST"]
    assert counting.requests[0].headers["x-own"] == "value"
    assert counting.requests[0].headers["user-agent"].startswith("workload-identity/")
    assert not client.is_closed


@pytest.mark.parametrize(
    "failure", [RuntimeError("odd"), ValueError("odd"), OSError("odd"), httpx.ReadError("odd")]
)
def test_whatever_a_transport_raises_is_ours(family: Family, failure: Exception) -> None:
    """Callers and chains need to know no others."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    credential = family.credential(transport=httpx.MockTransport(fail), retry_backoff_factor=0)

    with pytest.raises(ClientAuthenticationError, match="odd"):
        family.do(credential.get_token, SCOPE)


def test_transport_of_the_other_family(family: Family) -> None:
    """It is refused when the credential is made."""
    other: Any = httpx.HTTPTransport if family.module.__name__.endswith("aio") else httpx.AsyncHTTPTransport
    client: Any = httpx.Client if family.module.__name__.endswith("aio") else httpx.AsyncClient

    for wrong in (other(), client()):
        with pytest.raises(ValueError, match="transport"):
            family.credential(transport=wrong)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port of this machine that takes no connection and refuses none."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        place = listener.getsockname()
        with suppress(TimeoutError):
            while True:  # until its queue is full
                client = waiting.enter_context(socket.socket())
                client.settimeout(0.3)
                client.connect(place)
        yield place[1]


def resolving(monkeypatch: pytest.MonkeyPatch, name: str, ports: list[int]) -> None:
    """Give a name some addresses, in this order; no resolver here knows one with several."""
    real = socket.getaddrinfo

    def asked(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002 - its names
        if host != name:
            return real(host, port, family, type, proto, flags)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "it is a name")
        kind = socket.SOCK_STREAM
        return [(socket.AF_INET, kind, 0, "", ("127.0.0.1", port)) for port in ports]

    monkeypatch.setattr(socket, "getaddrinfo", asked)


def test_silent_address_does_not_keep_from_the_next(
    family: Family, endpoint: Endpoint, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each address of a name gets its share of the time for a connection."""
    resolving(monkeypatch, "login.example", [silent, 9, int(endpoint.address.rpartition(":")[2])])
    credential = family.credential(
        authority="https://login.example", connection_timeout=3, retry_total=0, connection_verify=False
    )

    assert family.do(credential.get_token, SCOPE).token == "a-token"


def test_address_of_a_family_that_this_machine_has_not(
    family: Family, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver may name IPv6 addresses where the system can make no such socket: the next one is asked."""
    resolving(monkeypatch, "login.example", [int(endpoint.address.rpartition(":")[2])])
    known, unknown = socket.getaddrinfo, (999, socket.SOCK_STREAM, 0, "", ("::1", 443, 0, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **how: [unknown, *known(*asked, **how)])
    credential = family.credential(
        authority="https://login.example", retry_total=0, connection_verify=False, shared_cache=False
    )

    assert family.do(credential.get_token, SCOPE).token == "a-token"


def test_many_silent_addresses_take_no_longer_than_one(
    family: Family, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call has an end, however many addresses a name has."""
    resolving(monkeypatch, "login.example", [silent] * 40)
    credential = family.credential(authority="login.example", timeout=2, connection_timeout=1, retry_total=0)
    began = time.monotonic()

    with pytest.raises(ClientAuthenticationError, match="no connection within 1 s"):
        family.do(credential.get_token, SCOPE)

    assert time.monotonic() - began < 20  # one by one it would be 40


def test_name_with_a_dot_at_its_end(
    family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dot is for the resolver: a certificate's name has none."""
    port = int(entra.authority.rpartition(":")[2])
    resolving(monkeypatch, "localhost.", [port])
    credential = family.credential(authority=f"https://localhost.:{port}")

    assert family.do(credential.get_token, SCOPE)
