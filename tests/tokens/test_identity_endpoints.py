"""Managed identity without a network: which host, which identity, what is repeated, what an answer means."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workload_identity import hosts
from workload_identity.cache import Held
from workload_identity.endpoints import METADATA_SERVICE, Wish, key_path, managed_identity
from workload_identity.entra import moment
from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.hosts import Host, host_of, identity_of
from workload_identity.managed import patient
from workload_identity.options import Options
from workload_identity.steps import Content, Read, Response, Send, Unreachable, Wait

Stage = Any
Answer = Callable[..., Response]
RESOURCE = "https://vault.azure.net"
POD = ("AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE")


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    """Nobody has looked for the metadata service yet."""
    before = dict(vars(METADATA_SERVICE))
    yield
    vars(METADATA_SERVICE).update(before)


def host(kind: str, *names: str, **more: str) -> Host:
    """Return the host of an environment in which these variables are set."""
    environment = {name: f"value of {name}" for name in names} | more
    found = host_of(environment, "linux", workload_identity=True)
    assert found.kind == kind
    return found


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (hosts.SERVICE_FABRIC, "IDENTITY_ENDPOINT IDENTITY_HEADER IDENTITY_SERVER_THUMBPRINT"),
        (hosts.APP_SERVICE, "IDENTITY_ENDPOINT IDENTITY_HEADER"),
        (hosts.APP_SERVICE, "IDENTITY_ENDPOINT IDENTITY_HEADER IMDS_ENDPOINT MSI_ENDPOINT MSI_SECRET"),
        (hosts.ARC, "IDENTITY_ENDPOINT IMDS_ENDPOINT MSI_ENDPOINT"),
        (hosts.UNKNOWN, "IDENTITY_ENDPOINT"),
        (hosts.UNKNOWN, "IDENTITY_ENDPOINT IDENTITY_SERVER_THUMBPRINT MSI_ENDPOINT"),
        (hosts.AZURE_ML, "MSI_ENDPOINT MSI_SECRET"),
        (hosts.CLOUD_SHELL, "MSI_ENDPOINT"),
        (hosts.CLOUD_SHELL, "MSI_ENDPOINT IDENTITY_HEADER IMDS_ENDPOINT " + " ".join(POD)),
        (hosts.WORKLOAD, " ".join(POD)),
        (hosts.IMDS, " ".join(POD[:2])),
        (hosts.IMDS, "IDENTITY_HEADER IMDS_ENDPOINT MSI_SECRET"),
        (hosts.IMDS, ""),
    ],
)
def test_host_is_told_by_the_environment(kind: str, names: str) -> None:
    """The first row of the table that fits."""
    host(kind, *names.split())


@pytest.mark.parametrize("name", ["IDENTITY_ENDPOINT", "MSI_ENDPOINT"])
def test_endpoint_with_blanks_around(name: str) -> None:
    """What comes of a file ends with a line; that is no part of a URL."""
    environment = {name: " http://x/token\n", "IDENTITY_HEADER": "a", "MSI_SECRET": "b"}

    assert host_of(environment, "linux", workload_identity=True).endpoint == "http://x/token"


@pytest.mark.parametrize("endpoint", ["http://x/token?a=b", "http://x/token?a=b#c"])
def test_query_and_fragment_of_an_endpoint(stage: Stage, answer: Answer, endpoint: str) -> None:
    """A request adds to the query; a fragment is for browsers and would swallow what is added."""
    stage.answers = [answer(access_token="secret", expires_in=3600)]
    found = host(hosts.APP_SERVICE, "IDENTITY_HEADER", IDENTITY_ENDPOINT=endpoint)

    stage.play(managed_identity(Wish(found, RESOURCE), Options({})))

    query = "a=b&api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net"
    assert stage.of(Send)[0].url == f"http://x/token?{query}"


def test_empty_variables_are_not_set() -> None:
    """As an operator's template leaves them."""
    host(hosts.IMDS, IDENTITY_ENDPOINT="", MSI_ENDPOINT="", AZURE_POD_IDENTITY_AUTHORITY_HOST="")


def test_pods_token_may_be_anothers() -> None:
    """A chain with a workload identity credential of its own asks the next."""
    environment = dict.fromkeys(POD, "value")

    assert host_of(environment, "linux", workload_identity=False).kind == hosts.IMDS


@pytest.mark.parametrize(
    ("named", "url", "certain"),
    [
        ("", "http://169.254.169.254", False),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("/http://127.0.0.1:8080//", "http://127.0.0.1:8080", True),
        (" http://127.0.0.1:8080/\n", "http://127.0.0.1:8080", True),
        (" ", "http://169.254.169.254", False),
    ],
)
def test_metadata_service_may_be_elsewhere(named: str, url: str, certain: bool) -> None:
    """Who names it knows that it is there."""
    found = host(hosts.IMDS, AZURE_POD_IDENTITY_AUTHORITY_HOST=named)

    assert (found.endpoint, found.certain) == (f"{url}/metadata/identity/oauth2/token", certain)


@pytest.mark.parametrize(
    ("client_id", "config", "identity"),
    [
        (None, None, None),
        ("", {}, None),
        ("c", None, ("client_id", "c")),
        ("c", {}, ("client_id", "c")),
        (None, {"client_id": "c"}, ("client_id", "c")),
        (None, {"object_id": "o"}, ("object_id", "o")),
        (None, {"resource_id": "r"}, ("resource_id", "r")),
        (None, {"msi_res_id": "r"}, ("resource_id", "r")),
        (None, {"mi_res_id": "r"}, ("resource_id", "r")),
    ],
)
def test_identity_that_is_meant(
    client_id: str | None, config: Mapping[str, str] | None, identity: tuple[str, str] | None
) -> None:
    """One id or none."""
    assert identity_of(client_id, config, hosts.IMDS, tolerant=False) == (identity, {})


@pytest.mark.parametrize(
    ("client_id", "config", "words"),
    [
        ("c", {"client_id": "c"}, "more than one identity"),
        ("c", {"object_id": "o"}, "more than one identity"),
        (None, {"object_id": "o", "resource_id": "r"}, "more than one identity"),
        (None, {"msi_res_id": "r", "resource_id": "r"}, "more than one identity"),
        (None, {"clientId": "c"}, "did you mean 'client_id'"),
        (None, {"x": "y"}, "'x' is unknown"),
        (None, {"client_id": ""}, "found ''"),
        (None, {"object_id": None}, "found None"),
    ],
)
def test_identity_that_nobody_can_mean(client_id: str | None, config: Any, words: str) -> None:
    """Told at construction."""
    with pytest.raises(ValueError, match=words):
        identity_of(client_id, config, hosts.IMDS, tolerant=False)


def test_cloud_shell_has_one_identity() -> None:
    """It takes no id but in a default chain, and passes on what it does not know."""
    for config in ({"client_id": "c"}, {"object_id": "o"}, {"resource_id": "r"}):
        with pytest.raises(ValueError, match="Cloud Shell"):
            identity_of(None, config, hosts.CLOUD_SHELL, tolerant=False)

    assert identity_of(None, {"a": "b"}, hosts.CLOUD_SHELL, tolerant=False) == (None, {"a": "b"})
    found = identity_of("c", {"a": "b"}, hosts.CLOUD_SHELL, tolerant=True)
    assert found == (("client_id", "c"), {"a": "b"})


IMDS = Host(hosts.IMDS, "http://169.254.169.254/metadata/identity/oauth2/token", certain=False)
GRANT = {"access_token": "a-token", "expires_in": "3600", "expires_on": "1003600"}


@pytest.mark.parametrize("status", [404, 410, 429, 500, 501, 505, 599])
def test_metadata_service_is_asked_up_to_six_times(stage: Stage, answer: Answer, status: int) -> None:
    """After pauses that grow; when it is being updated, for more than 70 seconds."""
    stage.answers = [answer(status, error="busy")]

    with pytest.raises(ClientAuthenticationError) as raised:
        stage.play(managed_identity(Wish(IMDS, RESOURCE), patient(Options({}))))

    assert not isinstance(raised.value, CredentialUnavailableError)
    assert len(stage.of(Send)) == 6
    pauses = [(wait.shortest, wait.longest) for wait in stage.of(Wait)]
    usual = [(0.8, 1.6), (1.6, 3.2), (3.2, 6.4), (6.4, 12.8)]
    assert pauses == ([(5, 5), (10, 10), (20, 20), (40, 40)] if status == 410 else usual)


def test_options_that_are_given_win_over_the_metadata_services_own() -> None:
    """And statuses that are named are added to its own."""
    options = patient(Options({"retry_total": 1, "connection_timeout": 9, "retry_on_status_codes": [418]}))

    assert (options.retry_total, options.retry_status, options.connection_timeout) == (1, 5, 9)
    assert {404, 410, 418, 501, 505} == set(options.retry_on_status_codes)
    assert patient(Options({})).connection_timeout == 2


def test_other_hosts_are_asked_as_often_as_anyone(stage: Stage, answer: Answer) -> None:
    """Four times, and not again for what is no fault of the moment."""
    stage.answers = [answer(503, error="busy")]
    wish = Wish(Host(hosts.APP_SERVICE, "http://127.0.0.1/t", secret="s"), RESOURCE)
    with pytest.raises(ClientAuthenticationError):
        stage.play(managed_identity(wish, Options({})))
    assert len(stage.of(Send)) == 4

    stage.answers = [answer(404, error="nothing")]
    with pytest.raises(ClientAuthenticationError):
        stage.play(managed_identity(wish, Options({})))
    assert len(stage.of(Send)) == 5


def test_hurried_callers_do_not_wait_long(stage: Stage, answer: Answer) -> None:
    """In a chain or in the background, nobody waits for a minute and more."""
    stage.answers = [answer(429, headers={"retry-after": "61"}, error="busy")]

    with pytest.raises(ClientAuthenticationError, match="61 s"):
        stage.play(managed_identity(Wish(IMDS, RESOURCE, hurried=True), patient(Options({}))))
    assert len(stage.of(Send)) == 1

    with pytest.raises(ClientAuthenticationError):
        stage.play(managed_identity(Wish(IMDS, RESOURCE), patient(Options({}))))
    assert len(stage.of(Send)) > 2


def probing(stage: Stage) -> Held:
    """Ask as a chain does."""
    held: Held = stage.play(managed_identity(Wish(IMDS, RESOURCE, probing=True), patient(Options({}))))
    return held


def test_probe_is_the_request_without_its_proof(stage: Stage, answer: Answer) -> None:
    """Within a second; after an answer, of whatever kind, the request itself follows."""
    stage.answers = [answer(400, error="invalid_request"), answer(200, **GRANT)]

    assert probing(stage).token.token == "a-token"

    probe, request = stage.of(Send)
    assert (probe.url, probe.method, probe.form, probe.direct) == (request.url, "GET", None, True)
    assert "Metadata" not in probe.headers
    assert request.headers["Metadata"] == "true"
    assert (probe.deadline, probe.connection_timeout) == (51, 1)
    assert request.deadline == 170


@pytest.mark.parametrize("status", [200, 302, 403, 404, 429, 500])
def test_any_answer_is_a_sign_of_life(stage: Stage, answer: Answer, status: int) -> None:
    """It is not asked twice then."""
    stage.answers = [answer(status, error="anything"), answer(200, **GRANT)]

    probing(stage)
    stage.answers = [answer(200, **GRANT)]
    probing(stage)

    assert len(stage.of(Send)) == 3


@pytest.mark.parametrize("kind", ["connect", "read"])
def test_silence_is_remembered_for_half_a_minute(stage: Stage, answer: Answer, kind: str) -> None:
    """A chain that has learned that there is no metadata service does not look again at once."""
    stage.answers = [Unreachable(kind, "nobody there")]
    for _ in range(3):
        with pytest.raises(CredentialUnavailableError, match="instance metadata service"):
            probing(stage)
    assert len(stage.of(Send)) == 1

    stage.monotonic += 31
    stage.answers = [answer(400), answer(400), answer(200, **GRANT)]
    assert probing(stage).token.token == "a-token"


def test_process_that_slept_says_nothing_of_the_metadata_service(stage: Stage, answer: Answer) -> None:
    """Where an event loop was blocked for longer than that second, it is looked for once more."""
    stage.answers = [Unreachable("read", "too late"), answer(400), answer(200, **GRANT)]
    stage.seconds_per_request = 3
    assert probing(stage).token.token == "a-token"


def test_process_that_always_sleeps_has_an_end(stage: Stage) -> None:
    """It is looked for twice, and that is remembered."""
    stage.answers = [Unreachable("read", "too late")]
    stage.seconds_per_request = 3
    for _ in range(2):
        with pytest.raises(CredentialUnavailableError, match="instance metadata service"):
            probing(stage)
    assert len(stage.of(Send)) == 2


def test_call_that_was_slept_through_says_nothing(stage: Stage, answer: Answer) -> None:
    """Its own time is over, so it is not looked for again; the next call does."""
    stage.answers = [Unreachable("read", "too late"), answer(400), answer(200, **GRANT)]
    stage.seconds_per_request = 1000
    with pytest.raises(CredentialUnavailableError, match="instance metadata service"):
        probing(stage)
    assert len(stage.of(Send)) == 1

    stage.steps.clear()
    stage.seconds_per_request, stage.answers = 0, stage.answers[1:]
    assert probing(stage).token.token == "a-token"


def test_our_own_fault_says_nothing_of_the_metadata_service(stage: Stage, answer: Answer) -> None:
    """Options of one credential that cannot work do not keep others from looking."""
    stage.answers = [Unreachable("fault", "no such proxy")]
    with pytest.raises(CredentialUnavailableError, match="no such proxy"):
        probing(stage)

    stage.answers = [answer(400), answer(400), answer(200, **GRANT)]
    assert probing(stage).token.token == "a-token"


def test_metadata_service_elsewhere_says_nothing_of_the_real_one(stage: Stage, answer: Answer) -> None:
    """A variable names it; without that variable it is still looked for."""
    stage.answers = [answer(200, **GRANT)]
    elsewhere = Host(hosts.IMDS, "http://127.0.0.1/metadata/identity/oauth2/token")
    stage.play(managed_identity(Wish(elsewhere, RESOURCE), Options({})))

    probing(stage)
    assert [request.headers.get("Metadata") for request in stage.of(Send)] == ["true", None, "true"]


def test_who_does_not_probe_does_not_heed_it(stage: Stage, answer: Answer) -> None:
    """A credential on its own expects the metadata service to be there, and what it gets is a sign too."""
    stage.answers = [Unreachable("connect", "nobody there")]
    with pytest.raises(CredentialUnavailableError):
        probing(stage)

    stage.answers = [answer(200, **GRANT)]
    stage.play(managed_identity(Wish(IMDS, RESOURCE), patient(Options({}))))
    probing(stage)


def test_proxy_that_cannot_reach_it_is_no_metadata_service(stage: Stage, answer: Answer) -> None:
    """Docker Desktop answers for what is not there, in words."""
    stage.answers = [answer(403, body=b"connecting to 169.254.169.254:80: network is unreachable")]

    for _ in range(2):
        with pytest.raises(CredentialUnavailableError):
            probing(stage)
    assert len(stage.of(Send)) == 1
    with pytest.raises(CredentialUnavailableError, match="network is unreachable"):
        stage.play(managed_identity(Wish(IMDS, RESOURCE), patient(Options({}))))


HTML = {"content-type": "text/html"}


@pytest.mark.parametrize(
    ("status", "body", "headers", "unavailable"),
    [
        (400, b'{"error": "invalid_request", "error_description": "Identity not found"}', None, True),
        (400, b"", None, True),
        (400, b"<html>", HTML, True),
        (400, b'{"error": "invalid_resource", "error_description": "AADSTS500011"}', None, False),
        (401, b'{"error": "unauthorized"}', None, False),
        (403, b'{"error": "forbidden"}', None, False),
        (403, b'{"error": "host unreachable"}', None, True),
        (200, b'{"error": "odd"}', None, False),
        (200, b"<html>sign in</html>", HTML, True),
        (200, b"plain words", {}, True),
        (302, b"<html>moved</html>", HTML, True),
        (418, b"<html>no</html>", HTML, True),
        (200, b'{"access_token": "x"', None, False),
        (200, b"{}", None, False),
        (200, b"null", None, False),
        (200, b"", None, False),
        (418, b"", HTML, False),
        (200, b'{"expires_in": "3600"}', None, False),
        (200, b'{"access_token": "x"}', None, False),
        (200, b'{"access_token": "x", "expires_in": "soon"}', None, False),
    ],
)
def test_what_an_answer_of_the_metadata_service_means(
    stage: Stage, answer: Answer, status: int, body: bytes, headers: dict[str, str] | None, unavailable: bool
) -> None:
    """Not there, or no identity there, lets a chain go on; there without a token ends it."""
    stage.answers = [answer(status, body=body, headers=headers)]

    with pytest.raises(ClientAuthenticationError) as raised:
        stage.play(managed_identity(Wish(IMDS, RESOURCE), patient(Options({}))))

    assert isinstance(raised.value, CredentialUnavailableError) is unavailable
    assert raised.value.status_code == status


@pytest.mark.parametrize("kind", [hosts.APP_SERVICE, hosts.AZURE_ML, hosts.CLOUD_SHELL])
@pytest.mark.parametrize(
    "said",
    [
        Unreachable("connect", "refused"),
        (400, b'{"statusCode": 400, "message": "no such identity"}'),
        (400, b'{"error": {"code": "a", "message": "no such identity"}}'),
        (403, b"unreachable"),
        (200, b"<html>"),
        (200, b""),
    ],
)
def test_other_hosts_are_said_to_be_there(stage: Stage, answer: Answer, kind: str, said: Any) -> None:
    """The environment names them: whatever keeps from a token ends a chain."""
    stage.answers = [said if isinstance(said, Unreachable) else answer(said[0], body=said[1], headers=HTML)]

    with pytest.raises(ClientAuthenticationError) as raised:
        stage.play(managed_identity(Wish(Host(kind, "http://127.0.0.1/t"), RESOURCE), Options({})))

    assert not isinstance(raised.value, CredentialUnavailableError)
    assert kind in str(raised.value)
    if isinstance(said, tuple) and b"identity" in said[1]:
        assert "no such identity" in str(raised.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_767_225_600, 1_767_225_600),
        ("1767225600", 1_767_225_600),
        ("01/01/2026 00:00:00 +00:00", 1_767_225_600),
        ("1/1/2026 12:00:00 AM +00:00", 1_767_225_600),
        ("01/01/2026 01:30:00 PM +00:00", 1_767_274_200),
    ],
)
def test_dates_of_the_api_of_2017(value: object, seconds: int) -> None:
    """Numbers, or dates as Linux and Windows write them."""
    assert moment(value) == seconds


@pytest.mark.parametrize(
    "value", ["1/1/2026", "13/13/2026 00:00:00 +00:00", "01/01/2026 00:00:00 +01:00", []]
)
def test_other_dates_are_none(value: object) -> None:
    """No zone but UTC is ever sent."""
    with pytest.raises(ValueError, match="wanted"):
        moment(value)


LINUX = "/var/opt/azcmagent/tokens"
WINDOWS = r"C:\ProgramData\AzureConnectedMachineAgent\Tokens"


@pytest.mark.parametrize(
    ("challenge", "folder", "path"),
    [
        (f"Basic realm={LINUX}/a.key", LINUX, f"{LINUX}/a.key"),
        (f'basic REALM="{LINUX}/a.key"', LINUX, f"{LINUX}/a.key"),
        (f"Basic realm={LINUX}/a.key, charset=x", LINUX, f"{LINUX}/a.key"),
        ("Basic realm=//var/opt//azcmagent/tokens///a.key", LINUX, f"{LINUX}/a.key"),
        (rf"Basic realm={WINDOWS}\a.key", WINDOWS, rf"{WINDOWS}\a.key"),
        (
            "Basic realm=c:/programdata/azureConnectedMachineAgent/tokens/a.key",
            WINDOWS,
            rf"{WINDOWS}\a.key",
        ),
    ],
)
def test_key_of_a_challenge(challenge: str, folder: str, path: str) -> None:
    """In the folder of Azure Arc's agent and nowhere else."""
    assert key_path(challenge, folder) == path


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Basic",
        "Basic realm=",
        f"Bearer realm={LINUX}/a.key",
        f"{LINUX}/a.key",
        f"Basic realm={LINUX}/a.txt",
        f"Basic realm={LINUX}/.key",
        f"Basic realm={LINUX}/../a.key",
        f"Basic realm={LINUX}/./a.key",
        f"Basic realm={LINUX}/deeper/a.key",
        f"Basic realm=./{LINUX}/a.key",
        "Basic realm=var/opt/azcmagent/tokens/a.key",
        "Basic realm=/etc/a.key",
        "Basic realm=/VAR/opt/azcmagent/tokens/a.key",
        "Basic realm=/var/opt/azcmagent/tokens/a\0.key",
    ],
)
def test_no_key_of_a_challenge(challenge: str) -> None:
    """Who answers must not choose what we read."""
    with pytest.raises(ValueError, match="wanted"):
        key_path(challenge, LINUX)


@pytest.mark.parametrize("name", [r"Tokens\..\a.key", "Tokens\\a.key:b.key", r"Tokens\a.txt"])
def test_no_key_of_a_challenge_on_windows(name: str) -> None:
    """Nor there."""
    with pytest.raises(ValueError, match="wanted"):
        key_path(rf"Basic realm=C:\ProgramData\AzureConnectedMachineAgent\{name}", WINDOWS)


ARC = Host(hosts.ARC, "http://127.0.0.1:40342/metadata/identity/oauth2/token", key_folder=LINUX)
CHALLENGE = {"www-authenticate": f"Basic realm={LINUX}/a.key"}


def test_challenge_is_answered_with_the_file(stage: Stage, answer: Answer) -> None:
    """Word by word, and no more of it is read than a key can have."""
    stage.answers = [answer(401, headers=CHALLENGE), answer(200, **GRANT)]
    stage.files = [Content(b"a key", steady=True)]

    stage.play(managed_identity(Wish(ARC, RESOURCE), Options({})))

    first, second = stage.of(Send)
    assert "Authorization" not in first.headers
    assert second.headers == {**first.headers, "Authorization": "Basic a key"}
    assert stage.of(Read) == [Read(f"{LINUX}/a.key", most=4097, folder=LINUX)]


@pytest.mark.parametrize("size", [0, 4097])
def test_file_of_another_size_is_no_key(stage: Stage, answer: Answer, size: int) -> None:
    """It is not sent."""
    stage.answers = [answer(401, headers=CHALLENGE)]
    stage.files = [Content(b"x" * size, steady=True)]

    with pytest.raises(ClientAuthenticationError, match="1 to 4096 bytes"):
        stage.play(managed_identity(Wish(ARC, RESOURCE), Options({})))
    assert len(stage.of(Send)) == 1


@pytest.mark.parametrize("failure", [FileNotFoundError(2, "No such file"), PermissionError("a link")])
def test_file_that_cannot_be_read(stage: Stage, answer: Answer, failure: OSError) -> None:
    """The error says whose group may."""
    stage.answers = [answer(401, headers=CHALLENGE)]
    stage.files = [failure]

    with pytest.raises(ClientAuthenticationError, match="himds") as raised:
        stage.play(managed_identity(Wish(ARC, RESOURCE), Options({})))
    assert not isinstance(raised.value, CredentialUnavailableError)


def test_token_without_a_challenge_is_refused_unseen(stage: Stage, answer: Answer) -> None:
    """A real agent always asks for a proof; what the other one says stays out of the error."""
    stage.answers = [answer(200, access_token="planted", expires_in=3600)]

    with pytest.raises(ClientAuthenticationError, match="always asks") as raised:
        stage.play(managed_identity(Wish(ARC, RESOURCE), Options({})))
    assert "planted" not in f"{raised.value}{raised.value.response}{vars(raised.value)}"


def test_error_in_place_of_a_challenge(stage: Stage, answer: Answer) -> None:
    """What the agent says is told."""
    stage.answers = [answer(400, error="bad_request", error_description="missing resource")]

    with pytest.raises(ClientAuthenticationError, match="missing resource"):
        stage.play(managed_identity(Wish(ARC, RESOURCE), Options({})))


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_arc_is_of_linux_and_windows(stage: Stage, answer: Answer, platform: str) -> None:
    """Elsewhere, or on Windows without PROGRAMDATA, no file is read."""
    found = host_of(
        {"IDENTITY_ENDPOINT": "http://x/t", "IMDS_ENDPOINT": "y"}, platform, workload_identity=True
    )
    stage.answers = [answer(401, headers=CHALLENGE)]

    with pytest.raises(ClientAuthenticationError, match="PROGRAMDATA"):
        stage.play(managed_identity(Wish(found, RESOURCE), Options({})))
    assert stage.of(Read) == []


def test_keys_on_windows() -> None:
    """Where the agent writes them there."""
    environment = {"IDENTITY_ENDPOINT": "x", "IMDS_ENDPOINT": "y", "PROGRAMDATA": r"C:\ProgramData"}

    assert host_of(environment, "win32", workload_identity=True).key_folder == WINDOWS


@pytest.mark.parametrize(
    ("identity", "echoed", "good"),
    [
        (("client_id", "An-Id"), {"client_id": "an-id"}, True),
        (("object_id", "an-id"), {"object_id": "AN-ID"}, True),
        (("resource_id", "an-id"), {"msi_res_id": "an-id"}, True),
        (("resource_id", "an-id"), {"mi_res_id": "an-id"}, True),
        (("client_id", "an-id"), {}, False),
        (("client_id", "an-id"), {"client_id": "another"}, False),
        (("client_id", "an-id"), {"object_id": "an-id"}, False),
        (("client_id", "an-id"), {"client_id": ["an-id"]}, False),
    ],
)
def test_arc_says_whose_token_it_gives(
    stage: Stage, answer: Answer, identity: tuple[str, str], echoed: dict[str, Any], good: bool
) -> None:
    """Older agents give the machine's own, whatever is asked for."""
    stage.answers = [answer(401, headers=CHALLENGE), answer(200, **GRANT, **echoed)]
    stage.files = [Content(b"a key", steady=True)]
    flow = managed_identity(Wish(ARC, RESOURCE, identity), Options({}))

    if good:
        assert isinstance(stage.play(flow), Held)
    else:
        with pytest.raises(ClientAuthenticationError, match="not confirmed") as raised:
            stage.play(flow)
        assert "a-token" not in str(raised.value)


THUMBPRINT = "AB" * 20


def fabric(thumbprint: str = THUMBPRINT, endpoint: str = "https://127.0.0.1/t") -> Host:
    """Return a Service Fabric node."""
    return Host(hosts.SERVICE_FABRIC, endpoint, secret="planted-secret", thumbprint=thumbprint)


@pytest.mark.parametrize(
    "written", [THUMBPRINT, "ab:" * 19 + "ab", f" {THUMBPRINT[:20]}\t{THUMBPRINT[20:]}\r\n"]
)
def test_thumbprints_may_be_written_in_any_way(stage: Stage, answer: Answer, written: str) -> None:
    """As certificate managers copy them."""
    stage.answers = [answer(200, **GRANT)]

    stage.play(managed_identity(Wish(fabric(written), RESOURCE), Options({})))

    (request,) = stage.of(Send)
    assert (request.thumbprint, request.headers["Secret"]) == ("ab" * 20, "planted-secret")


@pytest.mark.parametrize(
    ("node", "identity"),
    [
        (fabric("AB" * 19), None),
        (fabric("AB" * 21), None),
        (fabric("XY" * 20), None),
        (fabric(endpoint="http://127.0.0.1/t"), None),
        (fabric(), ("client_id", "c")),
    ],
)
def test_secret_goes_to_nobody_unknown(stage: Stage, node: Host, identity: tuple[str, str] | None) -> None:
    """Nothing is sent where the node could not be told from another."""
    with pytest.raises(ClientAuthenticationError) as raised:
        stage.play(managed_identity(Wish(node, RESOURCE, identity), Options({})))

    assert not isinstance(raised.value, CredentialUnavailableError)
    assert "planted-secret" not in str(raised.value)
    assert stage.of(Send) == []


def test_unknown_host_is_none(stage: Stage) -> None:
    """A chain goes on."""
    with pytest.raises(CredentialUnavailableError, match="IDENTITY_HEADER"):
        stage.play(managed_identity(Wish(host(hosts.UNKNOWN, "IDENTITY_ENDPOINT"), RESOURCE), Options({})))


def test_secrets_are_masked_where_an_answer_has_them(stage: Stage, answer: Answer) -> None:
    """Of a header that was sent, too."""
    body = json.dumps({"error": "odd", "error_description": "you sent planted-secret"}).encode()
    stage.answers = [answer(400, body=body)]

    with pytest.raises(ClientAuthenticationError) as raised:
        stage.play(managed_identity(Wish(fabric(), RESOURCE), Options({})))
    assert "planted-secret" not in f"{raised.value}{raised.value.response.text()}"


def test_query_of_an_endpoint_is_kept(stage: Stage, answer: Answer) -> None:
    """Ours is added to it."""
    stage.answers = [answer(200, **GRANT)]
    node = Host(hosts.AZURE_ML, "http://127.0.0.1/t?a=b", secret="s")

    stage.play(managed_identity(Wish(node, RESOURCE, ("client_id", "c d")), Options({})))

    (request,) = stage.of(Send)
    asked = "api-version=2017-09-01&resource=https%3A%2F%2Fvault.azure.net&clientid=c+d"
    assert request.url == f"http://127.0.0.1/t?a=b&{asked}"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = (
    "access_token expires_in expires_on refresh_in token_type error error_description message code statusCode"
    " client_id msi_res_id correlation_id"
)
names = st.sampled_from(MEMBERS.split())
objects = st.dictionaries(names, values, max_size=7).map(lambda members: json.dumps(members).encode())
bodies = st.binary(max_size=60) | objects | values.map(lambda value: json.dumps(value).encode())
headers = st.dictionaries(
    st.sampled_from(["retry-after", "content-type", "www-authenticate", "location"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
    | st.just(f"Basic realm={LINUX}/a.key"),
    max_size=3,
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([hosts.IMDS, hosts.APP_SERVICE, hosts.ARC, hosts.AZURE_ML, hosts.CLOUD_SHELL]),
    answers=st.lists(
        st.tuples(st.sampled_from([200, 302, 400, 401, 403, 410, 500]), bodies, headers), min_size=1
    ),
    key=st.binary(max_size=20),
    probing=st.booleans(),
    identity=st.none() | st.just(("client_id", "an-id")),
)
def test_token_or_error_of_ours(
    stage: Stage,
    answer: Answer,
    kind: str,
    answers: list[tuple[int, bytes, dict[str, str]]],
    key: bytes,
    probing: bool,
    identity: tuple[str, str] | None,
) -> None:
    """Whatever is answered, nothing else comes out, and the secret that was sent is not in it."""
    stage.answers = [answer(status, body=body + b"planted", headers=sent) for status, body, sent in answers]
    stage.answers += [answer(status, body=body, headers=sent) for status, body, sent in answers]
    stage.files = [Content(key, steady=True)]
    stage.steps.clear()
    METADATA_SERVICE.present, METADATA_SERVICE.absent_until = False, 0
    found = Host(kind, "http://127.0.0.1/t", secret="planted", key_folder=LINUX, certain=False)
    wish = Wish(found, RESOURCE, identity, probing=probing and kind == hosts.IMDS)

    shown = ""
    try:
        assert isinstance(stage.play(managed_identity(wish, Options({"retry_total": 1}))), Held)
    except ClientAuthenticationError as failure:
        shown = f"{failure}{failure.response and failure.response.text()}"
    assert "planted" not in shown
