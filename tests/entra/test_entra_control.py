"""The endpoints below /standin/, as another process or a person with curl uses them."""

import json
import time

import httpx
import pytest

from testkit.entra import EntraStandIn, faults
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID, Ask
from testkit.entra.grants import JWT_BEARER
from testkit.issuer import Issuer

OTHER_ID = "99999999-8888-4777-8666-555555555555"
SUBJECT = "system:serviceaccount:shop:cart"


def delete(client: httpx.Client, path: str, body: object) -> httpx.Response:
    """Send a DELETE with a body."""
    return client.request("DELETE", path, json=body)


def test_the_overview_tells_what_is_here(client: httpx.Client, entra: EntraStandIn) -> None:
    """Address, endpoints, and every kind of fault with its settings."""
    for path in ("/standin", "/standin/"):
        overview = client.get(path).json()

        assert overview["authority"] == entra.authority
        assert "POST /standin/faults" in overview["endpoints"]
        assert overview["fault_kinds"].keys() == faults.KINDS.keys()
        assert overview["fault_kinds"]["failing"] == {"status": 503, "retry_after": None}


def test_an_application_is_registered_with_its_credentials(
    client: httpx.Client, ask: Ask, issuer: Issuer
) -> None:
    """After the POST its assertions are let in, in a tenant that came with it."""
    registration = {
        "tenant": OTHER_ID,
        "client_id": CLIENT_ID,
        "federated_credentials": [
            {"name": "cart", "issuer": issuer.url, "subject": SUBJECT, "audience": "api://other"}
        ],
    }

    answer = client.post("/standin/applications", json=registration)

    assert answer.status_code == 201
    assert answer.json() == registration
    assert registration in client.get("/standin/applications").json()
    assertion = issuer.mint(namespace="shop", service_account="cart", audience="api://other")
    assert ask(tenant=OTHER_ID, client_assertion=assertion).status_code == 200


def test_the_same_registration_again_changes_nothing(client: httpx.Client, issuer: Issuer) -> None:
    """200 instead of 201, and still one credential; its name follows from its content."""
    registration = {"tenant": TENANT_ID, "client_id": OTHER_ID, "issuer": issuer.url, "subject": SUBJECT}

    first, second = (client.post("/standin/federated-credentials", json=registration) for _ in range(2))

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    (credential,) = first.json()["federated_credentials"]
    assert credential["audience"] == "api://AzureADTokenExchange"


def test_credentials_are_added_and_removed_by_name(client: httpx.Client, ask: Ask, issuer: Issuer) -> None:
    """Removing one lets the others be."""
    ids = {"tenant": TENANT_ID, "client_id": CLIENT_ID}
    added = {**ids, "name": "cart", "issuer": issuer.url, "subject": SUBJECT}
    assert client.post("/standin/federated-credentials", json=added).status_code == 201
    assertion = issuer.mint(namespace="shop", service_account="cart")
    assert ask(client_assertion=assertion).status_code == 200

    removed = delete(client, "/standin/federated-credentials", {**ids, "name": "cart"})

    assert removed.status_code == 200
    assert len(removed.json()["federated_credentials"]) == 1
    assert ask(client_assertion=assertion).json()["error_codes"] == [700213]
    assert ask().status_code == 200


def test_all_credentials_are_removed_without_a_name(client: httpx.Client, ask: Ask) -> None:
    """What a DELETE is about may stand in the query; the application stays."""
    ids = {"tenant": TENANT_ID, "client_id": CLIENT_ID}

    removed = client.delete("/standin/federated-credentials", params=ids)

    assert removed.json() == {**ids, "federated_credentials": []}
    assert ask().json()["error_codes"] == [70021]


def test_an_application_is_removed(client: httpx.Client, ask: Ask) -> None:
    """Its tenant stays, so that it is the application that is not found."""
    ids = {"tenant": TENANT_ID, "client_id": CLIENT_ID}

    assert delete(client, "/standin/applications", ids).status_code == 200

    assert ask().json()["error_codes"] == [700016]
    assert client.get("/standin/applications").json() == []


def test_a_registration_with_one_bad_credential_registers_nothing(client: httpx.Client) -> None:
    """All of it or nothing."""
    good = {"name": "good", "issuer": "https://a.example", "subject": "a"}
    again = {"name": "again", "issuer": "https://a.example", "subject": "a", "audience": "other"}
    registration = {"tenant": TENANT_ID, "client_id": OTHER_ID, "federated_credentials": [good, again]}

    answer = client.post("/standin/applications", json=registration)

    assert answer.status_code == 400
    assert "'good' has this issuer and subject already" in answer.json()["error"]
    assert OTHER_ID not in client.get("/standin/applications").text


def test_twenty_credentials_are_the_most(client: httpx.Client) -> None:
    """Entra's own bound."""
    many = [{"issuer": "https://a.example", "subject": f"subject-{number}"} for number in range(21)]
    ids = {"tenant": TENANT_ID, "client_id": OTHER_ID}

    refused = client.post("/standin/applications", json={**ids, "federated_credentials": many})
    accepted = client.post("/standin/applications", json={**ids, "federated_credentials": many[:20]})

    assert refused.status_code == 400
    assert "20 federated credentials" in refused.json()["error"]
    assert accepted.status_code == 201


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("applications", "text", "the body: a JSON object wanted"),
        ("applications", "[]", "the body: an object wanted, list found"),
        ("applications", "", "tenant: missing"),
        ("applications", {"tenant": "t"}, "client_id: missing"),
        ("applications", {"tenant": "", "client_id": "c"}, "tenant: missing"),
        ("applications", {"tenant": 7, "client_id": "c"}, "tenant: str wanted, 7 found"),
        ("applications", {"tenant": "t", "clientId": "c"}, "unknown: clientId; known are: tenant, client_id"),
        (
            "applications",
            {"tenant": "t", "client_id": "c", "federated_credentials": {}},
            "federated_credentials: a list wanted, dict found",
        ),
        (
            "applications",
            {"tenant": "t", "client_id": "c", "federated_credentials": ["x"]},
            "a member of federated_credentials: an object wanted, str found",
        ),
        (
            "applications",
            {"tenant": "t", "client_id": "c", "federated_credentials": [{"audiences": []}]},
            "unknown: audiences; known are: name, issuer, subject, audience",
        ),
        ("federated-credentials", {"tenant": "t", "client_id": "c"}, "issuer: missing"),
        ("federated-credentials", {"tenant": "t", "client_id": "c", "issuer": "i"}, "subject: missing"),
        (
            "federated-credentials",
            {"tenant": "t", "client_id": "c", "issuer": "i", "subject": "s", "audience": ""},
            "audience: 1 to 600 characters wanted, 0 found",
        ),
        (
            "federated-credentials",
            {"tenant": "t", "client_id": "c", "issuer": "i" * 601, "subject": "s"},
            "issuer: 1 to 600 characters wanted, 601 found",
        ),
        (
            "federated-credentials",
            {"tenant": "t", "client_id": "c", "issuer": "i", "subject": "s", "name": "-x-"},
            "name '-x-': 3 to 120 letters",
        ),
        ("faults", {}, "kind: missing"),
        ("faults", {"kind": "flood"}, "kind: one of slow, clock-skew"),
        ("faults", {"kind": "slow", "retry_after": 1}, "unknown: retry_after; known are: delay"),
        ("faults", {"kind": "reset", "delay": 1}, "unknown: delay; known are: none"),
        ("faults", {"kind": "slow", "delay": "1"}, "delay: int | float wanted, '1' found"),
        ("faults", {"kind": "slow", "delay": True}, "delay: int | float wanted, True found"),
        ("faults", '{"kind": "slow", "delay": Infinity}', "Infinity is no number"),
        (
            "faults",
            {"kind": "failing", "status": 99},
            "status: an HTTP status from 200 to 599 wanted, 99 found",
        ),
        ("faults", {"kind": "throttled", "retry_after": 1.5}, "retry_after: int | None wanted, 1.5 found"),
        ("faults", {"kind": "altered", "members": []}, "members: dict wanted, [] found"),
        ("faults", {"kind": "reset", "times": 0}, "times: 1 or more wanted, 0 found"),
        ("faults", {"kind": "reset", "seconds": "soon"}, "seconds: int | float wanted, 'soon' found"),
        ("faults", {"kind": "reset", "tenant": 7}, "tenant: str wanted, 7 found"),
    ],
)
def test_a_bad_body_is_told_what_is_wrong(
    client: httpx.Client, path: str, body: object, message: str
) -> None:
    """The message names the member, what was wanted and what was found."""
    content = body if isinstance(body, str) else json.dumps(body)

    answer = client.post(f"/standin/{path}", content=content)

    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("applications", {"tenant": OTHER_ID, "client_id": CLIENT_ID}, f"no tenant {OTHER_ID}"),
        ("applications", {"tenant": TENANT_ID, "client_id": OTHER_ID}, f"no application {OTHER_ID}"),
        (
            "federated-credentials",
            {"tenant": TENANT_ID, "client_id": CLIENT_ID, "name": "none"},
            "no federated credential named 'none'",
        ),
        ("faults", {"number": 7}, "no fault has the number 7"),
    ],
)
def test_what_is_not_there_cannot_be_removed(
    client: httpx.Client, path: str, body: object, message: str
) -> None:
    """404, with what was looked for."""
    answer = delete(client, f"/standin/{path}", body)

    assert answer.status_code == 404
    assert message in answer.json()["error"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "nothing", 404), ("PUT", "faults", 405)])
def test_other_paths_and_methods_are_pointed_to_the_overview(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    """A typo gets an answer that helps."""
    answer = client.request(method, f"/standin/{path}")

    assert answer.status_code == status
    assert "GET /standin/" in answer.json()["error"]


def test_faults_are_placed_shown_met_and_removed(client: httpx.Client, ask: Ask) -> None:
    """The whole life of two faults."""
    first = client.post("/standin/faults", json={"kind": "failing", "status": 502, "times": 2})
    second = client.post(
        "/standin/faults", json={"kind": "slow", "delay": 0, "tenant": TENANT_ID, "seconds": 60}
    )

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == {
        "number": 1,
        "kind": "failing",
        "status": 502,
        "retry_after": None,
        "tenant": None,
        "client_id": None,
        "times": 2,
        "seconds": None,
    }
    assert ask().status_code == 502
    shown = client.get("/standin/faults").json()
    assert [(one["number"], one["times"]) for one in shown] == [(1, 1), (2, None)]
    assert 0 < shown[1]["seconds"] <= 60
    assert delete(client, "/standin/faults", {"number": 1}).status_code == 200
    assert ask().status_code == 200
    assert client.delete("/standin/faults?number=2").status_code == 200
    assert client.get("/standin/faults").json() == []


def test_all_faults_are_removed_at_once(client: httpx.Client, ask: Ask) -> None:
    """DELETE without a number."""
    for _ in range(3):
        client.post("/standin/faults", json={"kind": "reset"})

    assert client.delete("/standin/faults").status_code == 200

    assert ask().status_code == 200


@pytest.mark.parametrize("kind", faults.KINDS)
def test_every_kind_of_fault_can_be_placed_with_nothing_but_its_name(client: httpx.Client, kind: str) -> None:
    """All settings have defaults."""
    answer = client.post("/standin/faults", json={"kind": kind})

    assert answer.status_code == 201
    assert answer.json()["kind"] == kind


def test_requests_are_recorded_without_any_secret(
    client: httpx.Client, ask: Ask, entra: EntraStandIn, issuer: Issuer
) -> None:
    """Who asked when for what with which outcome; no assertion, no secret, no token, in no part of it."""
    assertion = issuer.mint(jti="its name")
    started = time.time()
    token = ask(client_assertion=assertion, headers={"client-request-id": OTHER_ID}).json()["access_token"]
    ask(client_assertion=None, client_assertion_type=None, client_secret="hunter2", scope=None)
    ask(tenant="no-tenant", client_assertion=f"{assertion}x", grant_type=None)

    recorded = client.get("/standin/requests")

    first, second, third = recorded.json()
    assert started <= first.pop("at") <= time.time()
    assert first == {
        "path": f"/{TENANT_ID}/oauth2/v2.0/token",
        "tenant": TENANT_ID,
        "client_id": CLIENT_ID,
        "grant": "client_credentials",
        "scope": "https://vault.azure.net/.default",
        "outcome": "granted",
        "status": 200,
        "correlation_id": OTHER_ID,
        "assertion": "its name",
        "form": {
            "grant_type": "client_credentials",
            "client_id": CLIENT_ID,
            "scope": "https://vault.azure.net/.default",
            "client_assertion_type": JWT_BEARER,
            "client_assertion": "***",
        },
    }
    assert (second["outcome"], second["status"]) == ("AADSTS900144", 400)
    assert second["assertion"] == ""
    assert (third["outcome"], third["grant"]) == ("AADSTS900023", "")
    for secret in ("hunter2", *token.split("."), *assertion.split(".")):
        assert secret not in recorded.text
        assert secret not in repr(entra.requests)


def test_recorded_requests_can_be_forgotten(client: httpx.Client, ask: Ask, entra: EntraStandIn) -> None:
    """To count what comes next."""
    ask()

    assert client.delete("/standin/requests").status_code == 200

    assert client.get("/standin/requests").json() == []
    assert entra.requests == []
