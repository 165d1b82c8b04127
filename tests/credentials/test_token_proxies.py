"""Identity bindings of AKS: the pod's token is traded at a proxy in the cluster."""

import pickle
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from testkit import loopback
from testkit.entra.fixtures import TENANT_ID
from workload_identity import ClientAuthenticationError, WorkloadIdentityCredential
from workload_identity.token_proxy import TokenProxy

SCOPE = "https://vault.azure.net/.default"
SERVER_NAME = "binding.tokens.example"
URL, SNI = "AZURE_KUBERNETES_TOKEN_PROXY", "AZURE_KUBERNETES_SNI_NAME"
CA_FILE, CA_DATA = "AZURE_KUBERNETES_CA_FILE", "AZURE_KUBERNETES_CA_DATA"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any


class Proxy:
    """A token proxy whose certificate has the server name only.

    Attributes:
        address: Its https address.
        pem: Its authority.
        paths: What was asked for so far.
        hosts: The Host headers of these requests.
        names: The server names of the TLS handshakes.
    """

    def __init__(self, address: str, pem: str) -> None:
        self.address = address
        self.pem = pem
        self.paths: list[str] = []
        self.hosts: list[str] = []
        self.names: list[str | None] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Grant a token."""
        self.paths.append(request.path_qs)
        self.hosts.append(request.headers["Host"])
        return web.json_response({"access_token": f"proxied-{len(self.paths)}", "expires_in": 3600})


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A running token proxy."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(SERVER_NAME).configure_cert(tls)
    with loopback.listening("127.0.0.1", 0) as listener:
        made = Proxy(loopback.address(listener), authority.cert_pem.bytes().decode())
        tls.sni_callback = lambda _socket, name, _context: made.names.append(name)
        application = web.Application()
        application.router.add_post("/{path:.*}", made.answer)
        with loopback.serving(application, listener, tls):
            yield made


@pytest.fixture
def bound(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The variables of a pod with an identity binding; the path of its file of authorities."""
    path = tmp_path / "ca.crt"
    path.write_text(proxy.pem)
    monkeypatch.setenv(URL, f"{proxy.address}/some/path/")
    monkeypatch.setenv(SNI, SERVER_NAME)
    monkeypatch.setenv(CA_FILE, str(path))
    return path


@pytest.mark.usefixtures("bound")
def test_proxy_is_asked_where_there_is_one(family: Family, proxy: Proxy) -> None:
    """The request is Entra's own, below the proxy's path, with the server name and the proxy's authority."""
    assert family.do(family.credential().get_token, SCOPE).token == "proxied-1"

    assert proxy.paths == [f"/some/path/{TENANT_ID}/oauth2/v2.0/token"]
    assert proxy.hosts == [proxy.address.partition("://")[2]]
    assert proxy.names == [SERVER_NAME]


@pytest.mark.usefixtures("bound")
def test_proxy_can_be_declined(family: Family, proxy: Proxy) -> None:
    """`enable_azure_proxy=False` asks Entra whatever the environment says."""
    assert family.do(family.credential(enable_azure_proxy=False).get_token, SCOPE).token.startswith("eyJ")
    assert proxy.paths == []


def test_without_one_entra_is_asked(family: Family) -> None:
    """`enable_azure_proxy=True` changes nothing where there is no proxy."""
    assert family.do(family.credential(enable_azure_proxy=True).get_token, SCOPE).token.startswith("eyJ")


@pytest.mark.usefixtures("bound")
def test_authorities_in_a_variable(family: Family, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PEM text itself will do as well."""
    monkeypatch.delenv(CA_FILE)
    monkeypatch.setenv(CA_DATA, proxy.pem)

    assert family.do(family.credential().get_token, SCOPE).token == "proxied-1"


def test_file_of_authorities_is_rotated(family: Family, proxy: Proxy, bound: Path) -> None:
    """What is new counts at the next request; a file that is just replaced leaves what was there."""
    credential = family.credential()
    for content in (b"", proxy.pem[: len(proxy.pem) // 2].encode(), b"\xff", None):
        if content is None:
            bound.unlink()
        else:
            bound.write_bytes(content)
        family.do(credential.get_token, SCOPE, claims="{}")
    bound.write_text(trustme.CA().cert_pem.bytes().decode())
    with pytest.raises(ClientAuthenticationError, match="not trusted"):
        family.do(credential.get_token, SCOPE, claims="{}")
    bound.write_text(proxy.pem)
    family.do(credential.get_token, SCOPE, claims="{}")

    assert len(proxy.paths) == 5


def test_letters_of_no_certificate_are_not_the_systems_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is none in ASCII is refused, as everything else that has no certificate in it."""
    monkeypatch.setenv(URL, "https://proxy.example")
    monkeypatch.setenv(CA_DATA, "é")

    with pytest.raises(ValueError, match="no certificates in PEM"):
        WorkloadIdentityCredential()


def test_remarks_between_authorities(family: Family, proxy: Proxy, bound: Path) -> None:
    """A file of authorities may name them, in any letters and encoding."""
    for remark in ("Autorité de Genève".encode(), "Autorité".encode("latin-1")):
        bound.write_bytes(remark + b"\n" + proxy.pem.encode())
        family.do(family.credential(shared_cache=False).get_token, SCOPE)

    assert len(proxy.paths) == 2


@pytest.mark.usefixtures("bound")
def test_proxies_of_the_environment_are_not_used(
    family: Family, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token proxy is in the cluster; who wants another proxy before it says so."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    family.do(family.credential().get_token, SCOPE)
    insisting = family.credential(use_env_settings=True, shared_cache=False, retry_total=0)

    with pytest.raises(ClientAuthenticationError):
        family.do(insisting.get_token, SCOPE)
    assert len(proxy.paths) == 1


@pytest.mark.usefixtures("bound")
def test_failure_names_the_proxy(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host, server name and variable are told; Entra is not asked instead."""
    with loopback.listening("127.0.0.1", 0) as listener:
        address = loopback.address(listener)
    monkeypatch.setenv(URL, address)

    with pytest.raises(ClientAuthenticationError) as raised:
        family.do(family.credential(retry_total=0).get_token, SCOPE)

    for text in (address.partition("://")[2], SERVER_NAME, URL):
        assert text in str(raised.value)


@pytest.mark.usefixtures("bound")
def test_wrong_server_name_is_not_trusted(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate must have the name that was sent."""
    monkeypatch.setenv(SNI, "another.example")

    with pytest.raises(ClientAuthenticationError, match="not trusted"):
        family.do(family.credential().get_token, SCOPE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({URL: "http://x"}, "https"),
        ({URL: "https://"}, "https"),
        ({URL: "https://user@x"}, "user"),
        ({URL: "https://x/?q"}, "query"),
        ({URL: "https://x/#f"}, "fragment"),
        ({URL: "https://x", CA_FILE: "/no/such/file"}, "found nothing"),
        ({URL: "https://x", CA_FILE: "/dev/null"}, "found nothing"),
        ({URL: "https://x", CA_DATA: "no PEM"}, "no certificates in PEM"),
        ({URL: "https://x", CA_DATA: "a", CA_FILE: "b"}, "both set"),
        ({SNI: "x"}, "other settings"),
        ({CA_DATA: "x"}, "other settings"),
    ],
)
def test_settings_that_cannot_work(
    family: Family, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], words: str
) -> None:
    """They are told when the credential is made, by the variable's name."""
    for name, value in changes.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match=words) as raised:
        family.credential(enable_azure_proxy=True)

    assert "AZURE_KUBERNETES_" in str(raised.value)


def test_half_of_the_settings_alone_are_left_alone(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's webhook sets them without an address, too: who did not ask for the proxy gets Entra."""
    monkeypatch.setenv(CA_FILE, "/no/such/file")

    assert family.do(family.credential().get_token, SCOPE)


@pytest.mark.usefixtures("bound")
def test_transport_of_the_callers_has_no_place(family: Family) -> None:
    """The proxy needs trust and a server name of its own."""
    import httpx

    with pytest.raises(ValueError, match="transport"):
        family.credential(transport=httpx.MockTransport(lambda _: httpx.Response(200)))


@pytest.mark.usefixtures("bound")
def test_credential_with_a_proxy_can_be_sent(family: Family, proxy: Proxy) -> None:
    """In another process it asks the same proxy."""
    received = pickle.loads(pickle.dumps(family.credential()))  # noqa: S301 - our own

    assert family.do(received.get_token, SCOPE).token.startswith("proxied-")
    assert proxy.names == [SERVER_NAME]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://x", "https://x/a-tenant/token"),
        ("https://x/", "https://x/a-tenant/token"),
        ("HTTPS://x:8443/deep//", "https://x:8443/deep/a-tenant/token"),
    ],
)
def test_address_behind_the_proxy(url: str, address: str) -> None:
    """Host and port are the proxy's, the path follows its own."""
    proxy = TokenProxy(url, "", ca_file="", ca_data="")

    assert proxy.address("https://login.microsoftonline.com/a-tenant/token") == address
