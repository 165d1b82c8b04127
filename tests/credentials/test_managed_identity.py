"""Managed identity against a real server for each host: what is sent, what comes back, what nobody gets."""

import asyncio
import logging
import os
import pickle
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID as POD_CLIENT_ID
from testkit.entra.fixtures import TENANT_ID
from testkit.hosts import (
    ARC_KEYS,
    CLIENT_ID,
    CORRELATION_ID,
    LIFETIME,
    OBJECT_ID,
    RESOURCE,
    RESOURCE_ID,
    AppService,
    Arc,
    AzureMl,
    CloudShell,
    IdentityHost,
    Imds,
    ServiceFabric,
    after,
    arc_keys,
    resetting,
    saying,
)
from workload_identity import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.cache import SHARED
from workload_identity.context import IN_CHAIN, IN_DEFAULT_CHAIN

Family = Any
SCOPE = f"{RESOURCE}/.default"
VARIABLES = (
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "AZURE_TENANT_ID",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
)
FAST: Any = {"retry_backoff_factor": 0}


def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have none of the variables that say where this runs."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def run_on(host: IdentityHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment of a program on that host."""
    clean(monkeypatch)
    for name, value in host.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def keys() -> Iterator[Path]:
    """The folder of Azure Arc's keys."""
    try:
        with arc_keys() as folder:
            yield folder
    except PermissionError as failure:
        pytest.skip(f"{ARC_KEYS} cannot be made, that takes root: {failure}")


@pytest.fixture
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityHost]:
    """The stand-in of the class that a test names, and its environment."""
    if request.param is Arc:
        request.getfixturevalue("keys")
    with request.param() as running:
        run_on(running, monkeypatch)
        yield running


def on(*kinds: type[IdentityHost]) -> pytest.MarkDecorator:
    """Run a test on these hosts."""
    return pytest.mark.parametrize("host", kinds, indirect=True, ids=lambda kind: kind.__name__)


NAMES: dict[type[IdentityHost], str] = {
    Imds: "IMDS",
    AppService: "App Service",
    Arc: "Azure Arc",
    AzureMl: "Azure ML",
    CloudShell: "Cloud Shell",
    ServiceFabric: "Service Fabric",
}
EVERY = tuple(NAMES)


def make(family: Family, **given: Any) -> Any:
    """Make a credential."""
    return family.module.ManagedIdentityCredential(**given)


@on(*EVERY)
def test_token_of_the_machine(family: Family, host: IdentityHost) -> None:
    """Scope and resource are the same thing; a token is held, and info has its dates."""
    credential = make(family)

    token = family.do(credential.get_token, SCOPE)

    assert token.token == host.tokens[-1]
    assert abs(token.expires_on - time.time() - LIFETIME) < 5
    info = family.do(credential.get_token_info, RESOURCE)
    assert (info.token, info.expires_on) == tuple(token)
    assert abs(info.refresh_on - time.time() - LIFETIME / 2) < 5
    assert len(host.tokens) == 1
    sent = host.requests[-1]
    assert sent.given["resource"] == RESOURCE
    assert sent.headers["user-agent"].startswith("workload-identity/")
    assert "x-ms-client-request-id" in sent.headers
    assert "client-request-id" not in sent.headers


@on(*EVERY)
def test_held_token_is_shared_and_bypassed(family: Family, host: IdentityHost) -> None:
    """With another credential of the same identity; tenant and evaluation change nothing, claims ask anew."""
    credential = make(family)
    first = family.do(credential.get_token, SCOPE)

    assert family.do(make(family).get_token, SCOPE, tenant_id="elsewhere", enable_cae=True) == first
    assert family.do(credential.get_token_info, SCOPE, options={"enable_cae": True}).token == first.token
    assert len(host.tokens) == 1

    second = family.do(credential.get_token, SCOPE, claims="anything")
    assert second != first
    assert family.do(credential.get_token, SCOPE) == second
    assert all("claims" not in asked.given for asked in host.requests)
    assert family.do(make(family, shared_cache=False).get_token, SCOPE) != second


@on(Imds)
@pytest.mark.parametrize("scopes", [(SCOPE, RESOURCE), ()])
def test_one_scope_at_a_time(family: Family, host: IdentityHost, scopes: tuple[str, ...]) -> None:
    """An endpoint gives tokens of one resource."""
    credential = make(family)

    for method in (credential.get_token, credential.get_token_info):
        with pytest.raises(ValueError, match="scope"):
            family.do(method, *scopes)
    assert host.requests == []


@on(Imds, AppService, Arc, AzureMl)
@pytest.mark.parametrize(
    "given",
    [
        {"client_id": CLIENT_ID},
        {"identity_config": {"client_id": CLIENT_ID}},
        {"identity_config": {"object_id": OBJECT_ID}},
        {"identity_config": {"resource_id": RESOURCE_ID}},
        {"identity_config": {"mi_res_id": RESOURCE_ID}},
    ],
)
def test_user_assigned_identities(family: Family, host: IdentityHost, given: Any) -> None:
    """The stand-in knows parameters by its own names only; tokens of two identities never mix."""
    own = family.do(make(family).get_token, SCOPE)

    token = family.do(make(family, **given).get_token, SCOPE)

    assert token.token == host.tokens[-1] != own.token


@on(Imds, AppService, Arc, AzureMl)
def test_identity_that_is_not_there(family: Family, host: IdentityHost) -> None:
    """Only the metadata service's refusal lets a chain go on; the error names the id and what was said."""
    with pytest.raises(ClientAuthenticationError, match="Identity not found") as raised:
        family.do(make(family, client_id="another").get_token, SCOPE)

    assert isinstance(raised.value, CredentialUnavailableError) is isinstance(host, Imds)
    assert "another" in str(raised.value)
    assert raised.value.response.status_code == 400


@on(Imds)
def test_resource_that_nobody_knows(family: Family, host: IdentityHost) -> None:
    """A scope of the caller's that cannot work ends a chain, though its status is 400 too."""
    del host
    with pytest.raises(ClientAuthenticationError, match="'vault' is not known") as raised:
        family.do(make(family).get_token, "vault")

    assert not isinstance(raised.value, CredentialUnavailableError)
    assert (raised.value.error, raised.value.error_codes) == ("invalid_resource", [500011])
    assert raised.value.correlation_id == CORRELATION_ID


@on(AppService, AzureMl, ServiceFabric)
def test_wrong_secret(family: Family, host: IdentityHost) -> None:
    """The host's words are told."""
    credential = make(family)
    host.secret = "another"

    with pytest.raises(ClientAuthenticationError, match=r"secret|Secret|refused") as raised:
        family.do(credential.get_token, SCOPE)

    assert not isinstance(raised.value, CredentialUnavailableError)


@on(AppService, AzureMl, ServiceFabric)
def test_secret_that_a_host_repeats(
    family: Family, host: IdentityHost, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in no error, log or representation."""
    credential = make(family)
    host.script(saying(400, f'{{"error": "odd", "error_description": "you sent {host.secret}"}}'))

    with caplog.at_level(logging.DEBUG), pytest.raises(ClientAuthenticationError) as raised:
        family.do(credential.get_token, SCOPE)

    failure = raised.value
    own = [record.getMessage() for record in caplog.records if record.name.startswith("workload_identity")]
    shown = [str(failure), repr(failure), failure.response.text(), repr(vars(credential)), *own]
    assert not any(host.secret in text for text in shown)


@on(*EVERY)
@pytest.mark.parametrize(
    "fault", [saying(503), saying(429, retry_after="0.01"), resetting], ids=["503", "429", "reset"]
)
def test_faults_of_the_moment_pass(family: Family, host: IdentityHost, fault: Any) -> None:
    """The same request is sent again, with the same id."""
    host.script(fault, fault)

    token = family.do(make(family, **FAST).get_token, SCOPE)

    assert token.token == host.tokens[-1]
    ids = {asked.headers["x-ms-client-request-id"] for asked in host.requests}
    assert len(ids) == 1


@on(*EVERY)
@pytest.mark.parametrize(
    ("fault", "unavailable_of_imds"),
    [
        (saying(302, "<html>moved", "text/html", location="https://elsewhere.example/"), True),
        (saying(200, "<html><b>sign in</b>", "text/html"), True),
        (saying(200, '{"access_token": "planted", "expires_in": []}'), False),
        (saying(200, '{"access_token": "planted"'), False),
        (saying(200, '["planted"]'), False),
        (saying(418, '{"statusCode": 418, "message": "no"}'), False),
    ],
    ids=["redirect", "html", "wrong type", "cut", "list", "message"],
)
def test_faults_that_stay(family: Family, host: IdentityHost, fault: Any, unavailable_of_imds: bool) -> None:
    """One error of ours, with the answer; a page is not the metadata service's."""
    host.script(fault)

    with pytest.raises(ClientAuthenticationError) as raised:
        family.do(make(family).get_token, SCOPE)

    expected = unavailable_of_imds and isinstance(host, Imds)
    assert isinstance(raised.value, CredentialUnavailableError) is expected
    assert "planted" not in f"{raised.value}{raised.value.response}"
    assert len(host.requests) == 1


@on(*EVERY)
def test_host_that_is_gone(family: Family, host: IdentityHost) -> None:
    """An environment may lie; only the metadata service needs not be there."""
    host.__exit__()

    with pytest.raises(ClientAuthenticationError, match="no answer from") as raised:
        family.do(make(family, **FAST).get_token, SCOPE)

    assert isinstance(raised.value, CredentialUnavailableError) is isinstance(host, Imds)
    assert raised.value.retryable


@on(AppService)
def test_host_that_is_silent(family: Family, host: IdentityHost) -> None:
    """A call has an end."""
    host.script(after(30, saying(200)))

    with pytest.raises(ClientAuthenticationError, match="a call may take"):
        family.do(make(family, timeout=0.3).get_token, SCOPE)


@on(*EVERY)
def test_proxies_of_the_environment_are_not_for_this_machine(
    family: Family, host: IdentityHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret for a host of this machine is no proxy's business; nothing listens at the one named here."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert family.do(make(family).get_token, SCOPE).token == host.tokens[-1]


@on(*EVERY)
def test_environment_is_read_at_construction(
    family: Family, host: IdentityHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes afterwards does not count."""
    credential = make(family)
    with Imds() as other:
        run_on(other, monkeypatch)
        monkeypatch.setenv("IDENTITY_HEADER", "another")
        family.do(credential.get_token, SCOPE)

        assert (len(host.tokens), len(other.tokens)) == (1, 0)


@on(*EVERY)
def test_construction_is_logged(family: Family, host: IdentityHost, caplog: pytest.LogCaptureFixture) -> None:
    """One line: which host, whose identity. Nothing is sent."""
    given = {} if isinstance(host, CloudShell) else {"client_id": CLIENT_ID}
    with caplog.at_level(logging.INFO, "workload_identity"):
        credential = make(family, **given)

    (record,) = caplog.records
    name = NAMES[type(host)]
    assert record.levelname == "INFO"
    assert name in record.getMessage()
    assert not given or CLIENT_ID in record.getMessage()
    assert name in repr(credential)
    assert host.secret not in f"{record.getMessage()}{credential!r}"
    assert host.requests == []


@on(*EVERY)
def test_pickle_has_no_token(family: Family, host: IdentityHost) -> None:
    """A credential can be sent to another process of this machine, and asks there."""
    credential = make(family, shared_cache=False)
    token = family.do(credential.get_token, SCOPE)

    sent = pickle.dumps(credential)

    assert token.token.encode() not in sent
    received = pickle.loads(sent)  # noqa: S301 - our own
    assert repr(received) == repr(credential)
    assert family.do(received.get_token, SCOPE).token == host.tokens[-1] != token.token


@on(Imds)
def test_many_callers_are_one_request(family: Family, host: IdentityHost) -> None:
    """The metadata service throttles who asks often."""
    credentials = [make(family) for _ in range(20)]
    host.script(after(0.2, saying(200, '{"access_token": "x", "expires_in": "9999"}')))

    tokens = family.together([lambda each=each: each.get_token(SCOPE) for each in credentials])

    assert {token.token for token in tokens} == {"x"}
    assert len(host.requests) == 1


@pytest.mark.usefixtures("entra")
def test_environment_without_a_host_we_know(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails at construction; a chain goes on."""
    clean(monkeypatch)
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/")

    with pytest.raises(CredentialUnavailableError, match="IDENTITY_HEADER"):
        family.do(make(family).get_token, SCOPE)


# App Service, Azure ML, Cloud Shell


@on(AppService, AzureMl)
@pytest.mark.parametrize("form", ["%m/%d/%Y %H:%M:%S +00:00", "%m/%d/%Y %I:%M:%S %p +00:00"])
def test_dates_in_words(family: Family, host: IdentityHost, form: str) -> None:
    """As the API of 2017 has them, on Linux and on Windows."""
    end = int(time.time()) + 3600
    host.members = {"expires_on": time.strftime(form, time.gmtime(end)), "resource": None}

    assert family.do(make(family).get_token, SCOPE).expires_on == end


@on(*EVERY)
@pytest.mark.parametrize("lasts", [{"expires_in": 3599.5}, {"expires_in": "3599", "refresh_in": "1800"}])
def test_either_date_will_do(family: Family, host: IdentityHost, lasts: dict[str, object]) -> None:
    """On any host, a number or a text."""
    host.members = {"expires_on": None, "resource": None, "token_type": None, **lasts}

    info = family.do(make(family).get_token_info, SCOPE)

    assert abs(info.expires_on - time.time() - 3599) < 5
    assert (info.refresh_on is not None) is ("refresh_in" in lasts)


@on(CloudShell)
def test_cloud_shell_gets_what_it_is_given(family: Family, host: IdentityHost) -> None:
    """A form, with parameters of the caller's; an id only from a default chain."""
    family.do(make(family, identity_config={"extra": "more"}).get_token, SCOPE)
    assert host.requests[-1].given == {"resource": RESOURCE, "extra": "more"}

    for given in ({"client_id": CLIENT_ID}, {"identity_config": {"object_id": OBJECT_ID}}):
        with pytest.raises(ValueError, match="Cloud Shell"):
            make(family, **given)

    token = IN_DEFAULT_CHAIN.set(True)
    try:
        tolerant = make(family, client_id=CLIENT_ID)
    finally:
        IN_DEFAULT_CHAIN.reset(token)
    family.do(tolerant.get_token, SCOPE)
    assert host.requests[-1].given == {"resource": RESOURCE, "client_id": CLIENT_ID}
    assert {asked.method for asked in host.requests} == {"POST"}


@on(Imds, AppService, Arc, AzureMl, ServiceFabric)
def test_unknown_parameters_are_refused(family: Family, host: IdentityHost) -> None:
    """A misspelt id would be another identity's token."""
    del host
    with pytest.raises(ValueError, match="did you mean 'object_id'"):
        make(family, identity_config={"objectId": OBJECT_ID})


def test_unknown_options_warn(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code written for newer libraries runs on."""
    clean(monkeypatch)

    with pytest.warns(UserWarning, match="'client_id'"):
        make(family, client_ids="x")


# Azure Arc


@on(Arc)
def test_arcs_key_is_another_each_time(family: Family, host: Arc) -> None:
    """Each request is challenged, and answered with the file of its own challenge."""
    family.do(make(family).get_token, SCOPE)
    family.do(make(family).get_token, "https://storage.azure.com")

    proofs = [asked.headers.get("authorization") for asked in host.requests]
    assert proofs[0] is None
    assert proofs[2] is None
    assert proofs[1] != proofs[3]


@on(Arc)
@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Basic realm=/etc/passwd",
        "Basic realm=/var/opt/azcmagent/tokens/../../../../etc/x.key",
        "Bearer {path}",
    ],
)
def test_arcs_challenge_cannot_choose_what_we_read(family: Family, host: Arc, challenge: str) -> None:
    """Nothing but a key of the agent's is sent."""
    host.challenges = [challenge]

    with pytest.raises(ClientAuthenticationError, match="wanted") as raised:
        family.do(make(family).get_token, SCOPE)

    assert not isinstance(raised.value, CredentialUnavailableError)
    assert len(host.requests) == 1


@on(Arc)
@pytest.mark.parametrize("made", ["link", "missing", "long", "empty", "folder"])
def test_arcs_key_is_a_file_of_its_folder(
    family: Family, host: Arc, keys: Path, tmp_path: Path, made: str
) -> None:
    """Not a link out of it, nothing longer than a key can be."""
    odd = keys / f"{tmp_path.name}.key"
    outside = tmp_path / "outside.key"
    outside.write_text("planted")
    match made:
        case "link":
            odd.symlink_to(outside)
        case "long":
            odd.write_bytes(b"x" * 4097)
        case "empty":
            odd.touch()
        case "folder":
            odd.mkdir()
    host.challenges = [f"Basic realm={odd}"]
    try:
        with pytest.raises(ClientAuthenticationError) as raised:
            family.do(make(family).get_token, SCOPE)
    finally:
        if made == "folder":
            odd.rmdir()
        odd.unlink(missing_ok=True)

    assert "planted" not in str(raised.value)
    assert len(host.requests) == 1


@on(Arc)
def test_arc_of_an_older_version(family: Family, host: Arc) -> None:
    """It ignores the id and gives the machine's own token, which nobody gets and nothing holds."""
    host.members = {"client_id": None}

    with pytest.raises(ClientAuthenticationError, match="not confirmed"):
        family.do(make(family, client_id=CLIENT_ID).get_token, SCOPE)

    assert not any(slot.held for slots in SHARED._slots.values() for slot in slots.values())


@on(Arc)
def test_arc_that_does_not_ask(family: Family, host: Arc) -> None:
    """Its token is not taken."""
    host.script(saying(200, '{"access_token": "planted", "expires_in": "3600"}'))

    with pytest.raises(ClientAuthenticationError, match="always asks") as raised:
        family.do(make(family).get_token, SCOPE)
    assert "planted" not in f"{raised.value}{raised.value.response}"


# Service Fabric


class Listener(threading.Thread):
    """A TLS server that notes what comes after the handshake."""

    def __init__(self, node: ServiceFabric) -> None:
        super().__init__(daemon=True)
        import socket

        self.tls = node.tls()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.came: list[bytes] = []
        self.done = threading.Event()

    def run(self) -> None:
        """Serve one connection."""
        connection, _ = self.socket.accept()
        connection.settimeout(10)
        try:
            with self.tls.wrap_socket(connection, server_side=True) as secure:
                self.came.append(secure.recv(65536))
        except (ssl.SSLError, OSError):
            self.came.append(b"")
        finally:
            self.socket.close()
            self.done.set()


@on(ServiceFabric)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_other_server_gets_nothing(
    family: Family, host: ServiceFabric, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    """The handshake with an impostor ends it: not one byte of the request is sent."""
    thumbprint = host.thumbprint
    impostor = Listener(host)  # makes another certificate
    impostor.tls.minimum_version = impostor.tls.maximum_version = version
    port = impostor.socket.getsockname()[1]
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"https://127.0.0.1:{port}/token")
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", thumbprint)
    impostor.start()

    with pytest.raises(ClientAuthenticationError, match="another server than IDENTITY_SERVER_THUMBPRINT"):
        family.do(make(family).get_token, SCOPE)

    assert impostor.done.wait(10)
    assert impostor.came == [b""]


@on(ServiceFabric)
def test_trust_is_not_the_environments(
    family: Family, host: ServiceFabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom the environment or an option trusts does not matter; only the thumbprint does."""
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", "ab" * 20)

    with pytest.raises(ClientAuthenticationError, match="THUMBPRINT"):
        family.do(make(family, connection_verify=False).get_token, SCOPE)
    assert host.requests == []


@on(ServiceFabric)
def test_pinned_through_httpx(family: Family, host: ServiceFabric) -> None:
    """A proxy that the caller names for others brings httpx in, which makes the same handshake."""
    proxies = {"https://elsewhere.example": "http://127.0.0.1:9"}
    assert family.do(make(family, proxies=proxies).get_token, SCOPE).token == host.tokens[-1]

    credential = make(family, proxies=proxies, shared_cache=False)
    credential._host.thumbprint = "ab" * 20
    with pytest.raises(ClientAuthenticationError, match="THUMBPRINT"):
        family.do(credential.get_token, SCOPE)
    assert len(host.requests) == 1


@on(ServiceFabric)
def test_transport_of_the_caller_cannot_be_pinned(family: Family, host: ServiceFabric) -> None:
    """It is refused rather than trusted."""
    del host
    blocking = family.module.__name__ == "workload_identity"
    transport = httpx.HTTPTransport() if blocking else httpx.AsyncHTTPTransport()

    with pytest.raises(ValueError, match="transport"):
        make(family, transport=transport)


@on(ServiceFabric)
def test_identity_is_the_clusters_choice(family: Family, host: ServiceFabric) -> None:
    """Told when a token is asked for, as a chain's keywords are for all its members."""
    for given in ({"client_id": CLIENT_ID}, {"identity_config": {"object_id": OBJECT_ID}}):
        with pytest.raises(ClientAuthenticationError, match="set in the cluster") as raised:
            family.do(make(family, **given).get_token, SCOPE)
        assert not isinstance(raised.value, CredentialUnavailableError)
    assert host.requests == []


# Workload identity


def test_pods_token_is_traded(family: Family, pod: Any, entra: EntraStandIn) -> None:
    """In a wired pod this is its workload identity, tokens included."""
    token = family.do(make(family).get_token, SCOPE)

    assert token == family.do(family.credential().get_token, SCOPE)
    (request,) = entra.requests
    assert (request.tenant, request.scope) == (TENANT_ID, SCOPE)
    assert "workload identity" in repr(make(family))
    pod.token_file.unlink()
    with pytest.raises(CredentialUnavailableError, match=str(pod.token_file)):
        family.do(make(family).get_token, "https://storage.azure.com/.default")


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize(
    "given", [{"client_id": POD_CLIENT_ID}, {"identity_config": {"client_id": POD_CLIENT_ID}}]
)
def test_pods_token_for_a_client_that_is_named(
    family: Family, monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    """It wins over AZURE_CLIENT_ID."""
    monkeypatch.setenv("AZURE_CLIENT_ID", "another")

    assert family.do(make(family, **given).get_token, SCOPE)


@pytest.mark.usefixtures("pod")
def test_pods_token_without_a_client(
    family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It breaks nobody's construction, and a chain goes on."""
    monkeypatch.delenv("AZURE_CLIENT_ID")
    credential = make(family)

    with pytest.raises(CredentialUnavailableError, match="AZURE_CLIENT_ID"):
        family.do(credential.get_token, SCOPE)
    assert entra.requests == []


@pytest.mark.usefixtures("pod")
def test_pods_token_goes_through_the_token_proxy(
    family: Family, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Identity bindings are honoured here too, and can be switched off."""
    monkeypatch.setenv("AZURE_KUBERNETES_TOKEN_PROXY", entra.authority)
    monkeypatch.setenv("AZURE_KUBERNETES_CA_FILE", os.environ["SSL_CERT_FILE"])
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:9")

    assert family.do(make(family).get_token, SCOPE)
    with pytest.raises(ClientAuthenticationError, match="no answer"):
        family.do(make(family, enable_azure_proxy=False, shared_cache=False, **FAST).get_token, SCOPE)


@pytest.mark.usefixtures("pod")
def test_pods_token_may_be_left_to_another(family: Family) -> None:
    """A chain with a workload identity credential of its own asks the metadata service here."""
    assert "IMDS" in repr(make(family, _exclude_workload_identity=True))


# Chains


@on(Imds)
def test_metadata_service_that_is_named_is_not_probed(family: Family, host: IdentityHost) -> None:
    """Not even in a chain."""
    token = IN_CHAIN.set(True)
    try:
        family.do(make(family).get_token, SCOPE)
    finally:
        IN_CHAIN.reset(token)

    assert [asked.headers.get("metadata") for asked in host.requests] == ["true"]


@on(Imds)
def test_chains_do_not_wait_long(family: Family, host: IdentityHost) -> None:
    """A throttled metadata service that asks for minutes is given up at once: the chain has others."""
    host.script(saying(429, '{"error": "throttled"}', retry_after="100"))
    token = IN_CHAIN.set(True)
    try:
        with pytest.raises(ClientAuthenticationError, match="100 s"):
            family.do(make(family).get_token, SCOPE)
    finally:
        IN_CHAIN.reset(token)
    assert len(host.requests) == 1


def test_chains_request_is_not_a_lone_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who expects the metadata service does not get the failure of who looked for it first."""
    clean(monkeypatch)
    from workload_identity.aio import ManagedIdentityCredential

    def way() -> object:
        return ManagedIdentityCredential()._order((SCOPE,), None, None, False).way

    async def in_chain() -> object:
        IN_CHAIN.set(True)
        return way()

    assert asyncio.run(in_chain()) != way()
