"""Each of Entra's errors, provoked by a real request."""

import base64
import json
import time
from datetime import datetime
from typing import Any

import httpx
import pytest

from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID, Ask
from testkit.issuer import Issuer

OTHER_ID = "99999999-8888-4777-8666-555555555555"


def refused(answer: httpx.Response) -> dict[str, object]:
    """Return code, OAuth error and status of a refusal."""
    body = answer.json()
    (code,) = body["error_codes"]
    assert body["error_description"].startswith(f"AADSTS{code}: ")
    return {"code": code, "error": body["error"], "status": answer.status_code}


def refusal(code: int, error: str, status: int) -> dict[str, object]:
    """Return what `refused` returns."""
    return {"code": code, "error": error, "status": status}


def described(answer: httpx.Response) -> str:
    """Return a refusal's own sentence, without the ids that follow it."""
    description: str = answer.json()["error_description"]
    return description.partition(" Trace ID: ")[0]


# --- the request


@pytest.mark.parametrize(
    ("changes", "code", "error", "status", "quoted"),
    [
        ({"grant_type": None}, 900144, "invalid_request", 400, "'grant_type'"),
        ({"grant_type": "implicit"}, 70003, "unsupported_grant_type", 400, "'implicit'"),
        ({"client_id": None}, 900144, "invalid_request", 400, "'client_id'"),
        ({"client_id": ""}, 900144, "invalid_request", 400, "'client_id'"),
        ({"client_id": OTHER_ID}, 700016, "unauthorized_client", 400, OTHER_ID),
        ({"client_id": "api://no-guid"}, 700016, "unauthorized_client", 400, "'api://no-guid'"),
        ({"tenant": OTHER_ID}, 90002, "invalid_request", 400, OTHER_ID),
        ({"tenant": "nowhere.onmicrosoft.com"}, 90002, "invalid_request", 400, "'nowhere.onmicrosoft.com'"),
        ({"tenant": "not-a-tenant"}, 900023, "invalid_request", 400, "'not-a-tenant'"),
        ({"tenant": f" {TENANT_ID}"}, 900023, "invalid_request", 400, f"' {TENANT_ID}'"),
        ({"tenant": "organizations"}, 50059, "invalid_request", 400, "'organizations'"),
        ({"scope": None}, 900144, "invalid_request", 400, "'scope'"),
        (
            {"scope": "https://a/.default https://b/.default"},
            70011,
            "invalid_scope",
            400,
            "https://b/.default",
        ),
        ({"scope": "https://vault.azure.net"}, 1002012, "invalid_scope", 400, "'https://vault.azure.net'"),
        ({"scope": "/.default"}, 1002012, "invalid_scope", 400, "'/.default'"),
        ({"claims": "{"}, 90100, "invalid_request", 400, "'claims'"),
        (
            {"claims": '{"access_token": {"xms_cc": {"values": "CP1"}}}'},
            90100,
            "invalid_request",
            400,
            "xms_cc",
        ),
        (
            {"client_assertion": None, "client_assertion_type": None},
            7000216,
            "invalid_client",
            401,
            "'client_credentials'",
        ),
        ({"client_assertion": None}, 7000218, "invalid_client", 401, "'client_assertion'"),
        ({"client_assertion": ""}, 7000218, "invalid_client", 401, "'client_assertion'"),
        ({"client_assertion_type": None}, 900144, "invalid_request", 400, "'client_assertion_type'"),
        ({"client_assertion_type": "saml"}, 90100, "invalid_request", 400, "'client_assertion_type'"),
        (
            {"client_assertion": None, "client_assertion_type": None, "client_secret": "guess"},
            7000215,
            "invalid_client",
            401,
            CLIENT_ID,
        ),
    ],
)
def test_a_wrong_request_is_refused(
    ask: Ask, changes: dict[str, str | None], code: int, error: str, status: int, quoted: str
) -> None:
    """Every wrong or missing member has its own code, and the message quotes what it is about."""
    answer = ask(**changes)

    assert refusal(code, error, status) == refused(answer)
    assert quoted in described(answer)


def test_an_unknown_resource_is_refused(ask: Ask, entra: EntraStandIn) -> None:
    """Only resources said to be unknown are: the stand-in has no list of Azure's."""
    entra.name_unknown_resources("https://nothing.example")

    answer = ask(scope="https://nothing.example/.default")

    assert refusal(500011, "invalid_resource", 400) == refused(answer)
    assert "'https://nothing.example'" in described(answer)
    assert ask().status_code == 200


def test_a_member_that_appears_twice_is_refused(client: httpx.Client) -> None:
    """Which of two scopes is meant is not guessed."""
    answer = client.post(
        f"/{TENANT_ID}/oauth2/v2.0/token",
        content="scope=a&scope=b",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )

    assert refusal(9000411, "invalid_request", 400) == refused(answer)
    assert "'scope'" in described(answer)


def test_get_is_refused(client: httpx.Client) -> None:
    """The token endpoint takes POST only."""
    answer = client.get(f"/{TENANT_ID}/oauth2/v2.0/token")

    assert refusal(900561, "invalid_request", 400) == refused(answer)


def test_json_in_place_of_a_form_is_an_empty_form(client: httpx.Client) -> None:
    """What is no form has no members, so that the first one is missed."""
    answer = client.post(f"/{TENANT_ID}/oauth2/v2.0/token", json={"grant_type": "client_credentials"})

    assert refusal(900144, "invalid_request", 400) == refused(answer)
    assert "'grant_type'" in described(answer)


def test_discovery_of_an_unknown_tenant_is_refused(client: httpx.Client) -> None:
    """A wrong tenant shows at discovery already."""
    answer = client.get(f"/{OTHER_ID}/v2.0/.well-known/openid-configuration")

    assert refusal(90002, "invalid_request", 400) == refused(answer)


def test_a_refusal_has_every_member_of_entras(ask: Ask, entra: EntraStandIn) -> None:
    """Ids, time and address are where clients look for them, and the description repeats them."""
    correlation_id = "5a0c8f0e-6a53-4f6e-9a5b-3f7a1b2c3d4e"

    answer = ask(scope=None, headers={"client-request-id": correlation_id})

    body = answer.json()
    assert list(body) == [
        "error",
        "error_description",
        "error_codes",
        "timestamp",
        "trace_id",
        "correlation_id",
        "error_uri",
    ]
    assert correlation_id == body["correlation_id"] == answer.headers["client-request-id"]
    assert body["trace_id"] == answer.headers["x-ms-request-id"]
    assert f"{entra.authority}/error?code=900144" == body["error_uri"]
    assert body["error_description"].endswith(
        f" Trace ID: {body['trace_id']} Correlation ID: {correlation_id} Timestamp: {body['timestamp']}"
    )
    assert abs(datetime.fromisoformat(body["timestamp"]).timestamp() - time.time()) < 60


# --- whose assertion it is


def test_another_issuer_is_named(ask: Ask) -> None:
    """AADSTS700211 tells the issuer presented: the cluster is not the one registered."""
    with Issuer() as other:
        answer = ask(client_assertion=other.mint())

        assert refusal(700211, "invalid_client", 401) == refused(answer)
        assert f"'{other.url}'" in described(answer)
        assert other.fetched == []


@pytest.mark.parametrize("spelling", ["{}/", "{} ", " {}", "{}#"])
def test_issuers_compare_byte_for_byte(ask: Ask, issuer: Issuer, spelling: str) -> None:
    """A trailing slash or blank makes another issuer."""
    presented = spelling.format(issuer.url)

    answer = ask(client_assertion=issuer.mint(iss=presented))

    assert refusal(700211, "invalid_client", 401) == refused(answer)
    assert f"'{presented}'" in described(answer)


@pytest.mark.parametrize(
    "subject", ["system:serviceaccount:Default:default", "system:serviceaccount:other:default"]
)
def test_another_subject_is_named(ask: Ask, issuer: Issuer, subject: str) -> None:
    """AADSTS700213 tells the subject presented: case counts."""
    answer = ask(client_assertion=issuer.mint(sub=subject))

    assert refusal(700213, "invalid_client", 401) == refused(answer)
    assert f"'{subject}'" in described(answer)


def test_another_audience_is_named(ask: Ask, issuer: Issuer) -> None:
    """AADSTS700212 tells the audience presented."""
    answer = ask(client_assertion=issuer.mint(audience="https://kubernetes.default.svc"))

    assert refusal(700212, "invalid_client", 401) == refused(answer)
    assert "'https://kubernetes.default.svc'" in described(answer)


def test_without_any_federated_credential_all_three_are_named(
    ask: Ask, entra: EntraStandIn, issuer: Issuer
) -> None:
    """AADSTS70021 tells issuer, subject and audience of the assertion."""
    entra.unregister(CLIENT_ID, tenant_id=TENANT_ID)

    answer = ask()

    assert refusal(70021, "invalid_request", 400) == refused(answer)
    assert (
        f"Assertion Issuer: '{issuer.url}'. Assertion Subject: 'system:serviceaccount:default:default'."
        " Assertion Audience: 'api://AzureADTokenExchange'."
    ) in described(answer)


def test_issuer_and_subject_of_two_credentials_do_not_mix(
    ask: Ask, entra: EntraStandIn, issuer: Issuer
) -> None:
    """One credential's issuer with another's subject lets nobody in."""
    entra.register(CLIENT_ID, tenant_id=TENANT_ID, issuer="https://other.example", subject="somebody")

    assert refusal(700213, "invalid_client", 401) == refused(
        ask(client_assertion=issuer.mint(sub="somebody"))
    )


def test_subject_and_audience_of_two_credentials_do_not_mix(
    ask: Ask, entra: EntraStandIn, issuer: Issuer
) -> None:
    """One credential's subject with another's audience lets nobody in."""
    entra.register(
        CLIENT_ID, tenant_id=TENANT_ID, issuer=issuer.url, subject="somebody", audience="api://other"
    )

    answer = ask(client_assertion=issuer.mint(audience="api://other"))

    assert refusal(700212, "invalid_client", 401) == refused(answer)


# --- what is no assertion


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "assertion",
    [
        "garbage",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "\u00fc\u00f1\u00ee.c\u00f6d.\u00e9",
        f"{_encoded([])}.{_encoded({})}.c2ln",
        f"{_encoded({'alg': 'RS256'})}.{_encoded([])}.c2ln",
        f"{_encoded({'alg': 'RS256'})}.{_encoded('text')}.c2ln",
        f"{_encoded({'alg': 'RS256', 'kid': 7})}.{_encoded({})}.c2ln",
    ],
)
def test_what_is_no_jwt_is_refused(ask: Ask, assertion: str) -> None:
    """A file with something else in it, or half of a token, is told from a token that does not match."""
    answer = ask(client_assertion=assertion)

    assert refusal(50027, "invalid_request", 400) == refused(answer)
    assert assertion not in described(answer)


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", None),
        ("iss", 7),
        ("sub", None),
        ("aud", None),
        ("aud", []),
        ("aud", ["api://AzureADTokenExchange", 7]),
        ("exp", None),
        ("exp", "tomorrow"),
        ("exp", True),
        ("exp", 10**20),
        ("exp", -1),
        ("nbf", "now"),
    ],
)
def test_a_claim_that_is_missing_or_of_another_type_is_named(
    ask: Ask, issuer: Issuer, claim: str, value: Any
) -> None:
    """The assertion is a JWT, but none that says what it must."""
    answer = ask(client_assertion=issuer.mint(**{claim: value}))

    assert refusal(50027, "invalid_request", 400) == refused(answer)
    assert f"'{claim}'" in described(answer)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", "ES256"])
def test_only_rs256_is_accepted(ask: Ask, issuer: Issuer, algorithm: str) -> None:
    """Whatever else a token is signed with, or not at all, is refused by the algorithm's name."""
    header, claims, signature = issuer.mint().split(".")
    del header
    answer = ask(client_assertion=f"{_encoded({'alg': algorithm, 'kid': 'any'})}.{claims}.{signature}")

    assert refusal(5002738, "invalid_request", 400) == refused(answer)
    assert f"'{algorithm}'" in described(answer)


# --- signature and time


def test_a_signature_by_another_key_is_refused(ask: Ask, issuer: Issuer) -> None:
    """The right key id on another's signature."""
    header, claims, _ = issuer.mint().split(".")
    with Issuer() as other:
        _, _, signature = other.mint().split(".")

    answer = ask(client_assertion=f"{header}.{claims}.{signature}")

    assert refusal(700027, "invalid_client", 401) == refused(answer)
    assert f"'{issuer.key.key_id}'" in described(answer)


def test_claims_changed_after_signing_are_refused(ask: Ask, issuer: Issuer) -> None:
    """A subject that is registered, in a token that was signed for another one."""
    header, _, signature = issuer.mint(namespace="other").split(".")
    _, claims, _ = issuer.mint().split(".")

    assert refusal(700027, "invalid_client", 401) == refused(
        ask(client_assertion=f"{header}.{claims}.{signature}")
    )


def test_an_expired_assertion_is_refused_with_the_times(ask: Ask, issuer: Issuer) -> None:
    """AADSTS700024 tells the service's time and the assertion's two."""
    answer = ask(client_assertion=issuer.mint(nbf=1_600_000_000, exp=1_600_003_600))

    assert refusal(700024, "invalid_client", 401) == refused(answer)
    assert "valid from 2020-09-13T12:26:40.000000Z" in described(answer)
    assert "expiry time of assertion 2020-09-13T13:26:40.000000Z" in described(answer)
    assert f"Current time: {datetime.now().astimezone().year}-" in described(answer)


def test_an_assertion_from_the_future_is_refused(ask: Ask, issuer: Issuer) -> None:
    """A cluster whose clock is ahead."""
    answer = ask(client_assertion=issuer.mint(nbf=int(time.time()) + 120))

    assert refusal(700024, "invalid_client", 401) == refused(answer)


def test_without_nbf_only_the_end_counts(ask: Ask, issuer: Issuer) -> None:
    """`nbf` may be left out (RFC 7519)."""
    assert ask(client_assertion=issuer.mint(nbf=None)).status_code == 200
    assert refusal(700024, "invalid_client", 401) == refused(
        ask(client_assertion=issuer.mint(nbf=None, lifetime=-1))
    )
