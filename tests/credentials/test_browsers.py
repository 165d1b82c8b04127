"""Users who sign in with a browser: what brings the answer, what is none, and where there is no browser."""

import asyncio
import socket
import threading
import webbrowser
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from testkit.entra import EntraStandIn
from testkit.entra.browsing import Person
from testkit.entra.fixtures import TENANT_ID
from testkit.entra.people import DEVELOPER_SIGN_ON
from testkit.entra.signing_in import ADA, GRACE
from workload_identity import (
    AuthenticationRequiredError,
    ClientAuthenticationError,
    CredentialUnavailableError,
)
from workload_identity.context import IN_DEFAULT_CHAIN

SCOPE = "https://vault.azure.net/.default"
OTHER = "https://storage.azure.com/.default"
Family = Any


def by_browser(family: Family, **given: Any) -> Any:
    """Make a credential of a user who signs in with a browser."""
    return family.module.InteractiveBrowserCredential(
        **{"disable_instance_discovery": True, "timeout": 20, **given}
    )


def claims(token: Any) -> dict[str, Any]:
    """Return what a token says."""
    said: dict[str, Any] = jwt.decode(token.token, options={"verify_signature": False})
    return said


def failure(family: Family, credential: Any) -> ClientAuthenticationError:
    """Return what asking for a token raises."""
    with pytest.raises(ClientAuthenticationError) as raised:
        family.do(credential.get_token, SCOPE)
    return raised.value


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("gets", [False, True])
def test_person_signs_in(family: Family, people: EntraStandIn, person: Person, gets: bool) -> None:
    """The page is asked with PKCE, state and nonce; a form or a query brings the answer."""
    person.gets = gets
    credential = by_browser(family, login_hint=ADA)

    token = family.do(credential.get_token, SCOPE)

    assert claims(token)["upn"] == ADA
    [page] = person.pages
    asked = {name: values[0] for name, values in parse_qs(urlsplit(page).query).items()}
    redirect = urlsplit(asked["redirect_uri"])
    assert (redirect.scheme, redirect.hostname, redirect.path) == ("http", "localhost", "")
    assert 8400 <= (redirect.port or 0) <= 8999
    assert asked["client_id"] == DEVELOPER_SIGN_ON
    assert asked["login_hint"] == ADA
    assert (asked["code_challenge_method"], asked["response_mode"]) == ("S256", "form_post")
    assert (asked["prompt"], asked["client_info"]) == ("select_account", "1")
    assert set(asked["scope"].split()) == {SCOPE, "offline_access", "openid", "profile"}
    assert len(asked["nonce"]) > 20
    person.leave()
    [(status, words)] = person.answers
    assert (status, "close this window" in words) == (200, True)
    [request] = people.requests
    assert request.grant == "authorization_code"
    assert request.form["redirect_uri"] == asked["redirect_uri"]
    assert {"code", "code_verifier"} <= request.form.keys()
    family.do(credential.get_token, OTHER)
    assert len(person.pages) == 1


@pytest.mark.usefixtures("person")
def test_redirect_uri(family: Family, people: EntraStandIn) -> None:
    """Host and port of the one given are used, again for the next sign-in."""
    port = free_port()
    credential = by_browser(family, redirect_uri=f"http://localhost:{port}/ignored")

    for _ in range(2):
        family.do(credential.authenticate, scopes=[SCOPE])

    assert {request.form["redirect_uri"] for request in people.requests} == {f"http://localhost:{port}"}


@pytest.mark.parametrize(
    "given", ["http://localhost", "localhost:8400", "http://:8400", "http://localhost:x"]
)
def test_redirect_uri_without_host_or_port(family: Family, given: str) -> None:
    """It is refused at construction."""
    with pytest.raises(ValueError, match=r"localhost:8400"):
        by_browser(family, redirect_uri=given)


def test_port_that_is_taken(family: Family, person: Person) -> None:
    """A chain goes on; without a port of one's own the next one is taken."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        raised = failure(family, by_browser(family, redirect_uri=f"http://localhost:{port}"))
    assert isinstance(raised, CredentialUnavailableError)
    assert str(port) in str(raised)
    assert person.pages == []


@pytest.mark.usefixtures("people")
def test_only_this_machine_is_listened_to() -> None:
    """Nobody in the network can bring an answer."""
    from workload_identity.browser import Redirects

    redirects = Redirects(None)
    redirects.open()
    try:
        assert redirects._server is not None
        assert redirects._server.server_address[0] == "127.0.0.1"
    finally:
        redirects.close()


def test_what_is_no_answer(family: Family, people: EntraStandIn, person: Person) -> None:
    """Whoever comes with another state, or without one, is told so; the person is still waited for."""
    port = free_port()
    place = f"http://localhost:{port}"
    people.people.present = None
    credential = by_browser(family, redirect_uri=place)
    said: list[int] = []

    def disturb() -> None:
        wait_for(person)
        with httpx.Client(trust_env=False) as client, socket.create_connection(("127.0.0.1", port)):
            said.append(client.get(f"{place}/favicon.ico").status_code)
            said.append(client.get(place).status_code)
            said.append(client.get(f"{place}/?code=stolen&state=another").status_code)
            said.append(client.post(place, data={"code": "stolen", "state": ""}).status_code)
            said.append(client.post(place, content=b"x" * 100_000).status_code)
            said.append(client.post(place, content=b"\xff%%%", headers={"Content-Length": "4"}).status_code)
        people.people.present = ADA
        person.open(person.pages[0])

    thread = threading.Thread(target=disturb)
    thread.start()
    token = family.do(credential.get_token, SCOPE)
    thread.join()

    assert said == [204, 400, 400, 400, 400, 400]
    assert claims(token)["upn"] == ADA
    assert len(people.requests) == 1


def wait_for(person: Person) -> None:
    """Wait until the page is shown and was seen."""
    import time

    end = time.monotonic() + 30
    while not person.pages and time.monotonic() < end:
        time.sleep(0.01)
    person.leave()


@pytest.mark.usefixtures("person")
def test_person_refuses(family: Family, people: EntraStandIn) -> None:
    """What the page said is the error; nothing is redeemed."""
    people.people.refuses = True

    raised = failure(family, by_browser(family))

    assert (raised.error, raised.error_codes, raised.response) == ("access_denied", [65004], None)
    assert not isinstance(raised, CredentialUnavailableError)
    assert people.requests == []


@pytest.mark.usefixtures("person")
def test_nobody_signs_in(family: Family, people: EntraStandIn) -> None:
    """They are waited for as long as `timeout` says."""
    people.people.present = None

    raised = failure(family, by_browser(family, timeout=0.2))

    assert "within 0.2 s" in str(raised)
    assert not isinstance(raised, CredentialUnavailableError)


@pytest.mark.usefixtures("person")
def test_nobody_signs_in_within_a_chain(family: Family, people: EntraStandIn) -> None:
    """DefaultAzureCredential goes on to the next."""
    people.people.present = None
    inside = IN_DEFAULT_CHAIN.set(True)
    try:
        assert isinstance(failure(family, by_browser(family, timeout=0.2)), CredentialUnavailableError)
    finally:
        IN_DEFAULT_CHAIN.reset(inside)


@pytest.mark.usefixtures("person")
def test_answer_that_was_tampered_with(family: Family, people: EntraStandIn) -> None:
    """The nonce of the id token must be that of the page; the token is not used."""
    people.people.forgets = True

    raised = failure(family, by_browser(family))

    assert "nonce" in str(raised)


def test_pod_has_no_browser(
    family: Family, people: EntraStandIn, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said at once, with what to use instead."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)

    raised = failure(family, by_browser(family))

    assert isinstance(raised, CredentialUnavailableError)
    assert "DeviceCodeCredential" in str(raised)
    assert (person.pages, people.other_paths) == ([], [])
    monkeypatch.setenv("BROWSER", "one of its own")
    assert family.do(by_browser(family).get_token, SCOPE)


@pytest.mark.usefixtures("people")
def test_no_browser_opens(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain goes on."""
    monkeypatch.setattr(webbrowser, "_tryorder", [])

    raised = failure(family, by_browser(family))

    assert isinstance(raised, CredentialUnavailableError)
    assert "DeviceCodeCredential" in str(raised)


@pytest.mark.usefixtures("person")
def test_another_person(family: Family, people: EntraStandIn) -> None:
    """Who signs in later has their own tokens."""
    credential = by_browser(family)
    assert claims(family.do(credential.get_token, SCOPE))["upn"] == ADA
    people.people.present = GRACE

    record = family.do(credential.authenticate, scopes=[SCOPE])

    assert (record.username, record.tenant_id) == (GRACE, TENANT_ID)
    assert claims(family.do(credential.get_token, SCOPE))["upn"] == GRACE


def test_not_unless_wanted(family: Family, person: Person) -> None:
    """No page is shown with disable_automatic_authentication."""
    raised = failure(family, by_browser(family, disable_automatic_authentication=True))

    assert isinstance(raised, AuthenticationRequiredError)
    assert person.pages == []


async def test_waiting_can_be_cancelled(people: EntraStandIn, person: Person) -> None:
    """The task ends, the port is free again, and no thread is left behind."""
    from workload_identity.aio import InteractiveBrowserCredential

    port = free_port()
    people.people.present = None
    credential = InteractiveBrowserCredential(
        redirect_uri=f"http://localhost:{port}", disable_instance_discovery=True
    )
    before = threading.active_count()
    task = asyncio.create_task(credential.get_token(SCOPE))
    await asyncio.to_thread(wait_for, person)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await asyncio.get_running_loop().shutdown_default_executor()

    assert threading.active_count() <= before
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
