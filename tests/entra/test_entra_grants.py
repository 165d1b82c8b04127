"""What the stand-in grants, and how resource servers verify it."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jwt

from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID, Ask
from testkit.issuer import Issuer

CAE = '{"access_token": {"xms_cc": {"values": ["CP1"]}}}'


def verified(client: httpx.Client, token: str, audience: str) -> dict[str, Any]:
    """Verify an access token as a resource server does: by discovery, keys, issuer and audience."""
    discovery = client.get(f"/{TENANT_ID}/.well-known/openid-configuration").json()
    keys = jwt.PyJWKSet.from_dict(client.get(discovery["jwks_uri"]).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(
        token, key, algorithms=["RS256"], audience=audience, issuer=discovery["issuer"]
    )
    return claims


def test_an_assertion_that_matches_is_traded_for_a_token_that_the_published_keys_verify(
    ask: Ask, client: httpx.Client, entra: EntraStandIn
) -> None:
    """Issuer, subject, audience, signature and time are right: the token is Entra's, for the resource."""
    answer = ask()

    assert answer.status_code == 200
    body = answer.json()
    assert {"token_type", "expires_in", "ext_expires_in", "access_token"} == body.keys()
    assert (body["token_type"], body["expires_in"], body["ext_expires_in"]) == ("Bearer", 3599, 3599)
    claims = verified(client, body["access_token"], "https://vault.azure.net")
    told = {name: claims[name] for name in ("iss", "tid", "appid", "appidacr", "idp", "ver")}
    assert {
        "iss": f"{entra.authority}/{TENANT_ID}/",
        "tid": TENANT_ID,
        "appid": CLIENT_ID,
        "appidacr": "2",
        "idp": f"{entra.authority}/{TENANT_ID}/",
        "ver": "1.0",
    } == told
    assert claims["oid"] == claims["sub"] != CLIENT_ID
    assert claims["iat"] == claims["nbf"] <= time.time() < claims["exp"]
    assert "xms_cc" not in claims


def test_the_object_id_stays_and_the_token_id_changes(ask: Ask, client: httpx.Client) -> None:
    """Two tokens of one application name one principal and are two tokens."""
    first, second = (
        verified(client, ask().json()["access_token"], "https://vault.azure.net") for _ in range(2)
    )

    assert first["oid"] == second["oid"]
    assert first["uti"] != second["uti"]


def test_only_one_default_suffix_is_taken_from_the_scope(ask: Ask, client: httpx.Client) -> None:
    """A resource that ends in a slash keeps it: the double slash is how clients ask for such a one."""
    token = ask(scope="https://management.azure.com//.default").json()["access_token"]

    assert verified(client, token, "https://management.azure.com/")["aud"] == "https://management.azure.com/"


def test_a_declared_capability_is_in_the_token(ask: Ask, client: httpx.Client) -> None:
    """A client that declares CP1 gets a token that says so."""
    token = ask(claims=CAE).json()["access_token"]

    assert verified(client, token, "https://vault.azure.net")["xms_cc"] == ["CP1"]


def test_claims_without_capability_are_no_fault(ask: Ask, client: httpx.Client) -> None:
    """A claims challenge alone is accepted and declares nothing."""
    token = ask(claims='{"access_token": {"nbf": {"essential": true}}}').json()["access_token"]

    assert "xms_cc" not in verified(client, token, "https://vault.azure.net")


def test_lifetime_and_refresh_time_are_as_set(ask: Ask, client: httpx.Client, entra: EntraStandIn) -> None:
    """Tests of renewal choose how long a token lives, and when to refresh it."""
    entra.lifetime, entra.refresh_in = 60, 30

    body = ask().json()

    assert (body["expires_in"], body["refresh_in"]) == (60, 30)
    claims = verified(client, body["access_token"], "https://vault.azure.net")
    assert claims["exp"] - claims["iat"] == 360  # from five minutes before now to one minute after


def test_ids_compare_without_regard_to_case(ask: Ask) -> None:
    """Tenant and client id are GUIDs, in whatever case they are written."""
    assert ask(tenant=TENANT_ID.upper(), client_id=CLIENT_ID.upper()).status_code == 200


def test_one_of_several_audiences_is_enough(ask: Ask, issuer: Issuer) -> None:
    """The credential's audience is looked for among the assertion's."""
    assertion = issuer.mint(aud=["https://kubernetes.default.svc", "api://AzureADTokenExchange"])

    assert ask(client_assertion=assertion).status_code == 200


def test_an_issuer_with_path_and_trailing_slash_is_found(ask: Ask, entra: EntraStandIn) -> None:
    """The issuer's form on AKS: documents below it without a double slash, the slash part of its name."""
    with Issuer(path="/tenant/cluster/") as issuer:
        entra.trust(issuer.ca_file)
        entra.register(
            CLIENT_ID, tenant_id=TENANT_ID, issuer=issuer.url, subject="system:serviceaccount:default:default"
        )

        assert ask(client_assertion=issuer.mint()).status_code == 200
        assert issuer.url.endswith("/tenant/cluster/")


def test_version_2_discovery_names_its_own_issuer_and_the_same_keys(
    client: httpx.Client, entra: EntraStandIn
) -> None:
    """Both documents are those that Entra serves, for tokens of either version."""
    first = client.get(f"/{TENANT_ID}/.well-known/openid-configuration").json()
    second = client.get(f"/{TENANT_ID}/v2.0/.well-known/openid-configuration").json()

    assert f"{entra.authority}/{TENANT_ID}/v2.0" == second.pop("issuer")
    assert f"{entra.authority}/{TENANT_ID}/" == first.pop("issuer")
    assert first == second
    assert f"{entra.authority}/{TENANT_ID}/oauth2/v2.0/token" == second["token_endpoint"]


def test_instance_discovery_knows_this_host_only(client: httpx.Client, entra: EntraStandIn) -> None:
    """MSAL asks whether an authority is an Entra: this one is, under its own name."""
    asked = {
        "api-version": "1.1",
        "authorization_endpoint": f"{entra.authority}/{TENANT_ID}/oauth2/v2.0/authorize",
    }

    body = client.get("/common/discovery/instance", params=asked).json()

    assert (
        f"{entra.authority}/{TENANT_ID}/v2.0/.well-known/openid-configuration"
        == body["tenant_discovery_endpoint"]
    )
    assert [[entra.authority.removeprefix("https://")]] == [one["aliases"] for one in body["metadata"]]


def test_the_request_id_is_the_correlation_id(ask: Ask, entra: EntraStandIn) -> None:
    """A client's own id comes back and is what the record shows; Entra adds a trace id."""
    correlation_id = "5a0c8f0e-6a53-4f6e-9a5b-3f7a1b2c3d4e"

    answer = ask(headers={"client-request-id": correlation_id})

    assert correlation_id == answer.headers["client-request-id"]
    assert len(answer.headers["x-ms-request-id"]) == 36
    assert [correlation_id] == [request.correlation_id for request in entra.requests]


def test_fifty_at_once_are_all_granted_and_the_keys_fetched_once(
    ask: Ask, entra: EntraStandIn, issuer: Issuer
) -> None:
    """However many ask, the issuer's documents are fetched by one of them."""
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda _: ask(), range(50)))

    assert {200} == {answer.status_code for answer in answers}
    assert len({answer.json()["access_token"] for answer in answers}) == 50
    assert issuer.fetched == ["discovery", "keys"]
    assert [request.outcome for request in entra.requests] == ["granted"] * 50
