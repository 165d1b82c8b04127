"""Failures: what is raised, what it says, and that a service which recovers is asked again."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from testkit import loopback
from testkit.entra import EntraStandIn
from testkit.entra.faults import (
    Altered,
    ClockSkew,
    ContentType,
    Empty,
    Failing,
    Fault,
    Html,
    Incomplete,
    NotAnObject,
    Propagation,
    Reset,
    Slow,
    Throttled,
    Truncated,
)
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.issuer import Issuer
from workload_identity import ClientAuthenticationError, CredentialUnavailableError

SCOPE = "https://vault.azure.net/.default"
SUBJECT = "system:serviceaccount:default:default"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any
Pod = Any


def failure(family: Family, scope: str = SCOPE, **given: Any) -> ClientAuthenticationError:
    """Return what a new credential raises."""
    with pytest.raises(ClientAuthenticationError) as raised:
        family.do(family.credential(**given).get_token, scope)
    return raised.value


@pytest.mark.parametrize(
    ("registered", "member", "code"),
    [
        ({"subject": "system:serviceaccount:default:Default"}, "subject", 700213),
        ({"issuer": "https://other.example/"}, "issuer", 700211),
        ({"audience": "api://Other"}, "audience", 700212),
    ],
)
def test_registration_that_differs_is_explained(
    family: Family,
    entra: EntraStandIn,
    issuer: Issuer,
    registered: dict[str, str],
    member: str,
    code: int,
) -> None:
    """The error names which member differs, both values where they are told, and the command to register."""
    entra.unregister(CLIENT_ID, tenant_id=TENANT_ID)
    wanted = {"issuer": issuer.url, "subject": SUBJECT, **registered}
    entra.register(CLIENT_ID, tenant_id=TENANT_ID, **wanted)

    raised = failure(family)

    assert raised.error_codes == [code]
    assert f"The {member} differs" in str(raised)
    assert f"registered is {registered[member]!r}" in str(raised)
    assert f"--issuer {issuer.url} --subject {SUBJECT} --audiences api://AzureADTokenExchange" in str(raised)
    assert not raised.retryable


def test_no_registration_at_all(family: Family, entra: EntraStandIn, issuer: Issuer) -> None:
    """AADSTS70021 comes with the token's issuer, subject and audience and what to do."""
    entra.unregister(CLIENT_ID, tenant_id=TENANT_ID)

    raised = failure(family)

    for text in (
        "AADSTS70021",
        issuer.url,
        SUBJECT,
        "api://AzureADTokenExchange",
        "federated-credential create",
    ):
        assert text in str(raised)
    assert (raised.error_codes, raised.status_code, raised.response.status_code) == ([70021], 400, 400)
    assert raised.correlation_id
    assert raised.trace_id
    assert raised.error_description is not None
    assert raised.retryable


def test_unknown_client_and_tenant(family: Family) -> None:
    """The annotation to correct is named with its present value."""
    unknown = "99999999-9999-9999-9999-999999999999"

    raised = failure(family, client_id=unknown)
    assert raised.error_codes == [700016]
    assert f"does not know client {unknown}" in str(raised)
    assert "azure.workload.identity/client-id" in str(raised)

    raised = failure(family, tenant_id=unknown)
    assert raised.error_codes == [90002]
    assert "azure.workload.identity/tenant-id" in str(raised)


def test_unknown_resource(family: Family, entra: EntraStandIn) -> None:
    """The scope is quoted."""
    entra.name_unknown_resources("https://nobody.example")

    raised = failure(family, "https://nobody.example/.default")

    assert raised.error_codes == [500011]
    assert "'https://nobody.example/.default'" in str(raised)


def test_expired_token_file(family: Family, pod: Pod, issuer: Issuer) -> None:
    """The times of the token and of this machine are told."""
    pod.write(issuer.mint(lifetime=-60))

    raised = failure(family)

    assert raised.error_codes == [700024]
    assert "The kubelet did not renew the file" in str(raised)


def test_clock_of_entra_differs(family: Family, entra: EntraStandIn) -> None:
    """A token that is good by our clock and not by Entra's points to the clocks."""
    with entra.fault(ClockSkew(-7200)):
        assert "clocks of this machine, the cluster and Entra differ" in str(failure(family))


def test_keys_that_are_not_published(family: Family, pod: Pod, issuer: Issuer) -> None:
    """After a rotation without publishing, the issuer is named."""
    issuer.rotate(publish=False)
    pod.write(issuer.mint())

    raised = failure(family)

    assert raised.error_codes == [700027]
    assert issuer.url in str(raised)


def test_issuer_that_entra_cannot_read(family: Family, issuer: Issuer) -> None:
    """The address of the discovery document is told."""
    with issuer.answering("discovery", "no", status=403):
        raised = failure(family)

    assert f"{issuer.url}/.well-known/openid-configuration" in str(raised)


def test_missing_file_lets_a_chain_go_on(family: Family, pod: Pod, entra: EntraStandIn) -> None:
    """Nothing is asked; the path and the system's words are told."""
    pod.token_file.unlink()

    raised = failure(family)

    assert isinstance(raised, CredentialUnavailableError)
    assert f"{str(pod.token_file)!r} cannot be read: No such file or directory" in str(raised)
    assert entra.requests == []


def empty(path: Path) -> None:
    """Make a link to an empty file."""
    path.with_suffix(".empty").touch()
    path.symlink_to(path.with_suffix(".empty"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (empty, "it is empty"),
    ],
)
def test_path_that_is_no_file(family: Family, pod: Pod, make: Callable[[Path], object], words: str) -> None:
    """Whatever is there, the error says what was found."""
    pod.token_file.unlink()
    make(pod.token_file)

    assert words in str(failure(family))


def test_pipe_in_place_of_the_file_keeps_nobody(family: Family, pod: Pod) -> None:
    """Reading it would wait for a writer for ever."""
    import os

    pod.token_file.unlink()
    os.mkfifo(pod.token_file)

    assert "empty" in str(failure(family))


def test_path_with_nul(family: Family) -> None:
    """What no system can open is unavailable."""
    assert isinstance(failure(family, token_file_path="a\0b"), CredentialUnavailableError)


def test_file_that_comes_later_is_waited_for(family: Family, pod: Pod, issuer: Issuer) -> None:
    """With token_file_timeout a container may start before its token is there."""
    pod.token_file.unlink()
    writer = threading.Timer(0.3, lambda: pod.write(issuer.mint()))
    writer.start()

    assert family.do(family.credential(token_file_timeout=10).get_token, SCOPE)
    writer.join()


def test_rotated_file_is_used(family: Family, pod: Pod, issuer: Issuer, endpoint: Any) -> None:
    """Each exchange reads the file anew, through whatever links there are."""
    credential = family.credential()
    first, second = issuer.mint(), issuer.mint()
    folder = pod.token_file.parent
    for name, token in (("one", first), ("two", second)):
        (folder / name).mkdir()
        (folder / name / "token").write_text(token + "\n")
    pod.token_file.unlink()
    (folder / "..data").symlink_to("one")
    pod.token_file.symlink_to("..data/token")
    family.do(credential.get_token, SCOPE)
    (folder / "..new").symlink_to("two")
    (folder / "..new").rename(folder / "..data")
    family.do(credential.get_token, SCOPE, claims="{}")

    assert [form["client_assertion"] for form in endpoint.forms] == [first, second]


@pytest.mark.parametrize("damage", ["expired", "torn"])
def test_token_is_replaced_while_it_is_judged(
    family: Family, pod: Pod, entra: EntraStandIn, issuer: Issuer, damage: str
) -> None:
    """A file that is renewed, or written to its end, after it was read costs a request, no failure."""
    whole = issuer.mint()
    pod.write(issuer.mint(lifetime=-60) if damage == "expired" else whole[:-20])
    credential = family.credential()
    renewal = threading.Timer(0.3, lambda: pod.write(whole))
    renewal.start()
    with entra.fault(Slow(0.8), times=1):
        assert family.do(credential.get_token, SCOPE)
    renewal.join()

    assert [request.outcome == "granted" for request in entra.requests] == [False, True]


def test_file_that_is_written_in_place(family: Family, pod: Pod, issuer: Issuer, endpoint: Any) -> None:
    """Whoever writes piece by piece while it is read: what is sent is always a whole token."""
    tokens = [issuer.mint(), issuer.mint()]
    pod.write(tokens[0])
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            for token in tokens:
                with pod.token_file.open("w", encoding="utf-8") as file:
                    file.write(token[:200])
                    file.flush()
                    time.sleep(0.002)
                    file.write(token[200:])
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    # A busy machine may stop the writer where the file is empty: that is waited for.
    credential = family.credential(token_file_timeout=20)
    writer.start()
    try:
        for _ in range(20):
            family.do(credential.get_token, SCOPE, claims="{}")
    finally:
        ended.set()
        writer.join()

    assert {form["client_assertion"] for form in endpoint.forms} <= set(tokens)
    assert len(endpoint.forms) == 20


def test_propagation_is_waited_for(family: Family, entra: EntraStandIn) -> None:
    """With retry_on_propagation a fresh registration is found."""
    with entra.fault(Propagation(), times=1):
        assert family.do(family.credential(retry_on_propagation=20).get_token, SCOPE)

    assert len(entra.requests) == 2


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (Throttled(retry_after=1), 2),
        (Throttled(retry_after=None), 2),
        (Failing(503), 2),
        (Failing(500), 2),
        (Reset(), 2),
        (Incomplete(), 2),
    ],
)
def test_passing_fault_is_not_noticed(
    family: Family, entra: EntraStandIn, fault: Fault, requests: int
) -> None:
    """What another try heals, another try heals."""
    with entra.fault(fault, times=1):
        assert family.do(family.credential().get_token, SCOPE)

    assert len(entra.requests) == requests


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Html(), "content type 'text/html"),
        (Html(502), "status 502"),
        (Empty(), "without content"),
        (NotAnObject(), "a JSON object was wanted"),
        (Truncated(), "a JSON object was wanted"),
        (Altered({"access_token": None}), "found none that is usable"),
        (Altered({"expires_in": "soon", "expires_on": None}), "a number of seconds was wanted"),
        (Altered({"expires_in": None, "expires_on": None, "ext_expires_in": None}), "found neither"),
        (Throttled(retry_after=500), "asks to wait 500 s"),
        (Reset(), "Check that this pod may reach it"),
    ],
)
def test_lasting_fault_is_explained(family: Family, entra: EntraStandIn, fault: Fault, words: str) -> None:
    """Each has its words, and only our own errors come out."""
    with entra.fault(fault):
        raised = failure(family, retry_backoff_factor=0)

    assert words in str(raised)
    assert entra.authority.partition("://")[2] in str(raised)
    assert "eyJ" not in str(raised)


def test_wrong_content_type_is_no_fault(family: Family, entra: EntraStandIn) -> None:
    """The body decides."""
    with entra.fault(ContentType("text/plain")):
        assert family.do(family.credential().get_token, SCOPE)


def test_failure_is_not_remembered(family: Family, entra: EntraStandIn) -> None:
    """As soon as the service can, the next call gets a token."""
    credential = family.credential()
    with entra.fault(Failing(503)), pytest.raises(ClientAuthenticationError) as raised:
        family.do(credential.get_token, SCOPE)

    assert raised.value.retryable
    assert family.do(credential.get_token, SCOPE)


def test_nobody_listens(family: Family) -> None:
    """Host, number of tries and cause are told."""
    with loopback.listening("127.0.0.1", 0) as listener:
        address = loopback.address(listener)

    raised = failure(family, authority=address, retry_backoff_factor=0)

    assert f"{address.partition('://')[2]} (4 tries)" in str(raised)
    assert raised.retryable
    assert raised.response is None


def test_name_that_nobody_has(family: Family) -> None:
    """A host that cannot be resolved is named."""
    raised = failure(family, authority="nobody.invalid", retry_total=0)

    assert "nobody.invalid (1 try)" in str(raised)


def test_certificate_that_is_not_trusted(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told at once, with the setting that names an authority."""
    monkeypatch.delenv("SSL_CERT_FILE")
    begin = time.monotonic()

    raised = failure(family)

    assert "certificate is not trusted" in str(raised)
    assert "SSL_CERT_FILE" in str(raised)
    assert time.monotonic() - begin < 10


def test_service_that_is_silent(family: Family, entra: EntraStandIn) -> None:
    """read_timeout ends the silence."""
    with entra.fault(Slow(30)):
        raised = failure(family, read_timeout=0.2, retry_total=0)

    assert "it was silent for 0.2 s" in str(raised)


def test_call_has_an_end(family: Family, endpoint: Any) -> None:
    """However slowly an answer drips, `timeout` ends the call."""
    import asyncio

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(300):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        return response

    endpoint.answers = [drip]
    begin = time.monotonic()

    raised = failure(family, timeout=1)

    assert "1 s that a call may take" in str(raised)
    assert time.monotonic() - begin < 5


def test_answer_that_does_not_end(family: Family, endpoint: Any) -> None:
    """More than a token could be is not read."""

    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" " * 100_000)
        return response

    endpoint.answers = [flood]

    assert "longer than 1048576 bytes" in str(failure(family))


def test_redirection_is_not_followed(family: Family, endpoint: Any) -> None:
    """An assertion goes nowhere but to the authority."""

    def turn(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    endpoint.answers = [turn]

    assert "status 307" in str(failure(family))
    assert len(endpoint.forms) == 1


def test_challenge_of_the_token_service(family: Family, endpoint: Any) -> None:
    """Claims that Entra wants are a field, exactly as sent."""
    challenge = '{"access_token":{"capolids":{"essential":true,"values":["x"]}}}'
    body = {"error": "interaction_required", "error_description": "AADSTS50076", "claims": challenge}
    endpoint.answers = [lambda _: web.json_response(body, status=400)]

    raised = failure(family)

    assert (raised.claims, raised.error, raised.error_codes) == (challenge, "interaction_required", [50076])


def test_compressed_answer(family: Family, endpoint: Any) -> None:
    """What is compressed is understood, what is damaged explained."""
    import gzip

    good = gzip.compress(json.dumps({"access_token": "a-token", "expires_in": 60}).encode())
    bodies = [good, b"no gzip"]
    headers = {"Content-Encoding": "gzip"}
    endpoint.answers = [lambda _: web.Response(body=bodies[min(len(endpoint.forms), 2) - 1], headers=headers)]

    assert family.do(family.credential().get_token, SCOPE).token == "a-token"
    assert "the exchange broke off" in str(failure(family, "another", retry_backoff_factor=0))


def test_error_that_a_caller_was_handling_is_no_cause(family: Family) -> None:
    """A call in an `except` clause is not explained by what was caught there."""
    with loopback.listening("127.0.0.1", 0) as listener:
        address = loopback.address(listener)
    credential = family.credential(authority=address, retry_total=0)

    try:
        raise OSError("something else")
    except OSError:
        with pytest.raises(ClientAuthenticationError) as raised:
            family.do(credential.get_token, SCOPE)

    assert "something else" not in str(raised.value)
