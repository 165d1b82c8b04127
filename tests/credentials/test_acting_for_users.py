"""Applications that act for a user: on behalf of, and with an authorization code."""

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from testkit.client_certificates import Issued
from testkit.entra import EntraStandIn
from testkit.entra.faults import Altered, Failing, Html
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.issuer import Issuer
from workload_identity import ClientAuthenticationError

SCOPE = "https://vault.azure.net/.default"
OTHER = "https://storage.azure.com/.default"
SECRET = "planted-secret"
REDIRECT = "https://app.example/back"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any


def claims(token: str, part: int = 1) -> dict[str, Any]:
    """Return what a token states; part 0 is its header."""
    text = token.split(".")[part]
    stated: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=="))
    return stated


def grants(entra: EntraStandIn) -> list[str]:
    """Return what was asked for so far."""
    return [request.grant for request in entra.requests]


@pytest.fixture(autouse=True)
def secret(entra: EntraStandIn) -> None:
    """The application has a secret."""
    entra.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)


# --- on behalf of


def behalf(family: Family, assertion: str, **given: Any) -> Any:
    """Make a credential of the API that was called with a token."""
    proof = (
        {}
        if given.keys() & {"client_certificate", "client_assertion_func", "certificate_path"}
        else {"client_secret": SECRET}
    )
    return family.module.OnBehalfOfCredential(
        TENANT_ID, CLIENT_ID, user_assertion=assertion, **{**proof, **given}
    )


@pytest.fixture
def ada(entra: EntraStandIn) -> str:
    """A token with which Ada's client calls the API."""
    return entra.user_token(CLIENT_ID, tenant_id=TENANT_ID, user="ada")


@pytest.mark.parametrize("proof", ["secret", "certificate", "file", "function"])
def test_token_is_the_users(
    family: Family, entra: EntraStandIn, issuer: Issuer, ada: str, tmp_path: Path, proof: str
) -> None:
    """However the API proves who it is; a second instance has the token already."""
    issued = Issued.of("client")
    entra.add_certificate(CLIENT_ID, issued.certificate, tenant_id=TENANT_ID)
    (tmp_path / "certificate.pem").write_bytes(issued.pem(b"open"))
    given: dict[str, dict[str, Any]] = {
        "secret": {},
        "certificate": {"client_certificate": issued.pem()},
        "file": {"certificate_path": tmp_path / "certificate.pem", "password": "open"},
        "function": {"client_assertion_func": issuer.mint},
    }
    one, other = behalf(family, ada, **given[proof]), behalf(family, ada, **given[proof])

    token = family.do(one.get_token, SCOPE)

    assert (claims(token.token)["upn"], claims(token.token)["idtyp"]) == ("ada", "user")
    assert family.do(other.get_token, SCOPE) == token
    assert grants(entra) == [JWT_BEARER]


def test_form_is_what_entra_asks_for(family: Family, endpoint: Any, ada: str) -> None:
    """With the scopes that bring a refresh token, in both families."""
    family.do(behalf(family, ada).get_token, SCOPE, enable_cae=True)

    assert endpoint.forms == [
        {
            "grant_type": JWT_BEARER,
            "requested_token_use": "on_behalf_of",
            "assertion": ada,
            "client_id": CLIENT_ID,
            "client_secret": SECRET,
            "client_info": "1",
            "scope": f"{SCOPE} offline_access openid profile",
            "claims": '{"access_token": {"xms_cc": {"values": ["CP1"]}}}',
        }
    ]


def test_certificates_assertion_is_for_the_tenant_of_the_call(
    family: Family, endpoint: Any, ada: str
) -> None:
    """Another tenant than the credential's own has another token endpoint."""
    one = behalf(
        family, ada, client_certificate=Issued.of("client").pem(), additionally_allowed_tenants=["other"]
    )
    family.do(one.get_token, SCOPE, tenant_id="other")

    stated = claims(endpoint.forms[0]["client_assertion"])
    assert stated["aud"] == f"{endpoint.address}/other/oauth2/v2.0/token"


def test_users_and_assertions_never_share(family: Family, entra: EntraStandIn, ada: str) -> None:
    """Not even two assertions of one user: neither tokens nor refresh tokens."""
    again = entra.user_token(CLIENT_ID, tenant_id=TENANT_ID, user="ada")
    bob = entra.user_token(CLIENT_ID, tenant_id=TENANT_ID, user="bob")

    tokens = [family.do(behalf(family, one).get_token, SCOPE).token for one in (ada, again, bob)]

    assert [claims(token)["upn"] for token in tokens] == ["ada", "ada", "bob"]
    assert len(set(tokens)) == 3
    assert grants(entra) == [JWT_BEARER] * 3


def test_next_token_comes_with_the_refresh_token(family: Family, entra: EntraStandIn, ada: str) -> None:
    """For another scope, for a challenge, in another instance; it outlives the user's token."""
    family.do(behalf(family, ada).get_token, SCOPE)
    other = behalf(family, ada)

    family.do(other.get_token, OTHER)
    family.do(other.get_token, SCOPE, claims="{}")

    assert grants(entra) == [JWT_BEARER, "refresh_token", "refresh_token"]
    assert entra.requests[1].scope == f"{OTHER} offline_access openid profile"


def test_refresh_tokens_rotate(family: Family, endpoint: Any, ada: str) -> None:
    """The one that came last is sent next; an answer without one leaves the one that is held."""
    from aiohttp import web

    def giving(**more: str) -> Any:
        return lambda _: web.json_response({"access_token": "t", "expires_in": 3600, **more})

    endpoint.answers = [giving(refresh_token="one"), giving(refresh_token="two"), giving(), giving()]
    one = behalf(family, ada)
    for _ in range(4):
        family.do(one.get_token, SCOPE, claims="{}")

    sent = [form.get("refresh_token") for form in endpoint.forms]
    assert sent == [None, "one", "two", "two"]


def test_evaluated_refresh_tokens_are_apart(family: Family, entra: EntraStandIn, ada: str) -> None:
    """With and without continuous access evaluation nothing is shared."""
    one = behalf(family, ada)

    family.do(one.get_token, SCOPE)
    family.do(one.get_token, SCOPE, enable_cae=True)
    family.do(one.get_token, OTHER, enable_cae=True)

    assert grants(entra) == [JWT_BEARER, JWT_BEARER, "refresh_token"]


@pytest.mark.parametrize(
    "fault", [None, Failing(503), Html(400), Altered({"error": "interaction_required"}, status=400)]
)
def test_refresh_that_fails_falls_back_once(
    family: Family, entra: EntraStandIn, ada: str, fault: Any
) -> None:
    """The user's token is exchanged again, whatever the refusal."""
    one = behalf(family, ada, retry_total=0)
    family.do(one.get_token, SCOPE)
    if fault is None:
        entra.revoke_refresh_tokens()
    else:
        entra.fault(fault, times=1)

    assert family.do(one.get_token, OTHER)
    assert grants(entra) == [JWT_BEARER, "refresh_token", JWT_BEARER]
    family.do(one.get_token, OTHER, claims="{}")
    assert grants(entra)[3:] == ["refresh_token"]


def test_unanswered_refresh_does_not_fall_back(family: Family, entra: EntraStandIn, ada: str) -> None:
    """Who does not answer one request does not answer another."""
    from testkit.entra.faults import Reset

    one = behalf(family, ada, retry_total=0)
    family.do(one.get_token, SCOPE)

    with entra.fault(Reset()), pytest.raises(ClientAuthenticationError, match="no answer"):
        family.do(one.get_token, OTHER)
    assert grants(entra) == [JWT_BEARER, "refresh_token"]


@pytest.mark.parametrize(
    ("change", "code"),
    [({"lifetime": -5}, 500133), ({"aud": "https://graph.microsoft.com"}, 500131), ({}, 50013)],
)
def test_users_token_that_will_not_do_is_told(
    family: Family, entra: EntraStandIn, change: dict[str, Any], code: int
) -> None:
    """With its audience and end, and never itself."""
    token = entra.user_token(CLIENT_ID, tenant_id=TENANT_ID, **change)
    if not change:
        token = token[:-8] + "AAAAAAAA"

    with pytest.raises(ClientAuthenticationError, match="The user's token has audience") as raised:
        family.do(behalf(family, token).get_token, SCOPE)

    assert raised.value.error_codes == [code]
    assert raised.value.error == "invalid_grant"
    assert "eyJ" not in repr(vars(raised.value)) + raised.value.response.text()


def test_claims_of_a_refusal_are_for_the_calling_client(
    family: Family, entra: EntraStandIn, ada: str
) -> None:
    """A user who has to prove more can only do so where they sit."""
    challenge = '{"access_token":{"polids":{"essential":true,"values":["x"]}}}'
    refusal = {"error": "interaction_required", "error_codes": [50079], "claims": challenge}

    with entra.fault(Altered(refusal, status=400)), pytest.raises(ClientAuthenticationError) as raised:
        family.do(behalf(family, ada).get_token, SCOPE)

    assert raised.value.claims == challenge
    assert "as a claims challenge" in str(raised.value)


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"user_assertion": ""}, TypeError, "user_assertion"),
        ({"client_secret": None}, TypeError, "one of client_secret"),
        ({"client_assertion_func": str}, ValueError, "client_secret and client_assertion_func"),
        ({"client_certificate": b"x"}, ValueError, "client_secret and client_certificate"),
        ({"certificate_path": "x", "client_secret": ""}, ValueError, "certificate_path 'x'"),
        ({"client_certificate": b"x", "client_secret": ""}, ValueError, "client_certificate: wanted an RSA"),
        ({"client_assertion_func": "x", "client_secret": ""}, ValueError, "a function was wanted"),
        ({"client_secret": 7}, ValueError, "client_secret"),
    ],
)
def test_misuse_is_told(family: Family, given: dict[str, Any], kind: type[Exception], words: str) -> None:
    """At construction."""
    with pytest.raises(kind, match=words):
        family.module.OnBehalfOfCredential(
            TENANT_ID, CLIENT_ID, **{"user_assertion": "x", "client_secret": "y", **given}
        )


def test_pickle_has_no_token_that_was_got(family: Family, ada: str) -> None:
    """What the constructor was given is kept, refresh tokens are not."""
    one = behalf(family, ada, shared_cache=False)
    token = family.do(one.get_token, SCOPE)

    sent = pickle.dumps(one)

    assert token.token.encode() not in sent
    assert family.do(pickle.loads(sent).get_token, SCOPE) != token  # noqa: S301 - our own
    assert SECRET not in repr(one)
    assert "eyJ" not in repr(one)


# --- authorization codes


def signed_in(family: Family, entra: EntraStandIn, **given: Any) -> Any:
    """Make a credential of the code that a sign-in left."""
    code = entra.sign_in(CLIENT_ID, tenant_id=TENANT_ID, redirect_uri=REDIRECT)
    values = {"authorization_code": code, "redirect_uri": REDIRECT, "client_secret": SECRET, **given}
    return family.module.AuthorizationCodeCredential(TENANT_ID, CLIENT_ID, **values)


def test_code_is_redeemed_once(family: Family, entra: EntraStandIn) -> None:
    """Then tokens come from memory, or with the refresh token, for any scope."""
    one = signed_in(family, entra)

    token = family.do(one.get_token, SCOPE, "offline_access")
    assert claims(token.token)["upn"] == "ada"
    assert family.do(one.get_token, SCOPE, "offline_access") == token
    family.do(one.get_token, OTHER)
    family.do(one.get_token, SCOPE, claims="{}")

    assert grants(entra) == ["authorization_code", "refresh_token", "refresh_token"]


def test_forms_are_what_entra_asks_for(family: Family, endpoint: Any) -> None:
    """Scopes are sent as they are given."""
    from aiohttp import web

    body = {"access_token": "t", "expires_in": 3600, "refresh_token": "refreshing"}
    endpoint.answers = [lambda _: web.json_response(body)]
    one = family.module.AuthorizationCodeCredential(TENANT_ID, CLIENT_ID, "a-code", REDIRECT)
    family.do(one.get_token, SCOPE)
    family.do(one.get_token, OTHER, enable_cae=False)

    common = {"client_id": CLIENT_ID, "client_info": "1"}
    assert endpoint.forms == [
        {
            **common,
            "grant_type": "authorization_code",
            "code": "a-code",
            "redirect_uri": REDIRECT,
            "scope": SCOPE,
        },
        {**common, "grant_type": "refresh_token", "refresh_token": "refreshing", "scope": OTHER},
    ]


def test_public_client_sends_no_secret(family: Family, entra: EntraStandIn) -> None:
    """It has none."""
    entra.make_public(CLIENT_ID, tenant_id=TENANT_ID)

    assert family.do(signed_in(family, entra, client_secret=None).get_token, SCOPE)


def test_missing_secret_is_told(family: Family, entra: EntraStandIn) -> None:
    """By Entra, and what to give."""
    with pytest.raises(ClientAuthenticationError, match="give its client_secret"):
        family.do(signed_in(family, entra, client_secret=None).get_token, SCOPE)


def test_code_that_is_refused_is_kept(family: Family, entra: EntraStandIn) -> None:
    """Whoever corrects what was wrong can go on."""
    one = signed_in(family, entra, retry_total=0)
    with entra.fault(Failing(503)), pytest.raises(ClientAuthenticationError):
        family.do(one.get_token, SCOPE)

    assert family.do(one.get_token, SCOPE)


def test_redirect_must_be_the_same(family: Family, entra: EntraStandIn) -> None:
    """Letter by letter; the code is not quoted."""
    one = signed_in(family, entra, redirect_uri=f"{REDIRECT}/")

    with pytest.raises(ClientAuthenticationError, match="redirect_uri must be") as raised:
        family.do(one.get_token, SCOPE)
    assert raised.value.error_codes == [500112]


def test_used_code_is_told(family: Family, entra: EntraStandIn) -> None:
    """Where it was redeemed elsewhere."""
    code = entra.sign_in(CLIENT_ID, tenant_id=TENANT_ID, redirect_uri=REDIRECT)
    first, second = (signed_in(family, entra, authorization_code=code) for _ in range(2))
    family.do(first.get_token, SCOPE)

    with pytest.raises(ClientAuthenticationError, match="works once") as raised:
        family.do(second.get_token, SCOPE)
    assert raised.value.error_codes == [54005]
    assert code not in str(raised.value) + repr(second)


def test_without_a_refresh_token_another_scope_is_not_to_be_had(family: Family, entra: EntraStandIn) -> None:
    """The error says how to get one; what is held is served on."""
    one = signed_in(family, entra)
    token = family.do(one.get_token, SCOPE)

    with pytest.raises(
        ClientAuthenticationError, match="no authorization code, cached token or refresh token"
    ):
        family.do(one.get_token, OTHER)
    assert family.do(one.get_token, SCOPE) == token
    assert grants(entra) == ["authorization_code"]


def test_revoked_refresh_token_is_forgotten(family: Family, entra: EntraStandIn) -> None:
    """It is tried once; then there is nothing left to ask with."""
    one = signed_in(family, entra)
    family.do(one.get_token, SCOPE, "offline_access")
    entra.revoke_refresh_tokens()

    with pytest.raises(ClientAuthenticationError, match="sign in again") as raised:
        family.do(one.get_token, OTHER)
    assert raised.value.error_codes == [50173]
    with pytest.raises(ClientAuthenticationError, match="no authorization code"):
        family.do(one.get_token, OTHER)
    assert grants(entra) == ["authorization_code", "refresh_token"]


def test_two_scopes_at_once_redeem_the_code_once(family: Family, entra: EntraStandIn) -> None:
    """The second waits for what the first one leaves."""
    one = signed_in(family, entra)

    tokens = family.together(
        [lambda: one.get_token(SCOPE, "offline_access"), lambda: one.get_token(OTHER, "offline_access")]
    )

    assert [claims(token.token)["aud"] for token in tokens] == [
        "https://vault.azure.net",
        "https://storage.azure.com",
    ]
    assert sorted(grants(entra)) == ["authorization_code", "refresh_token"]


def test_credentials_of_users_share_nothing(family: Family, entra: EntraStandIn) -> None:
    """Two sign-ins, two users, one application."""
    code = entra.sign_in(CLIENT_ID, tenant_id=TENANT_ID, redirect_uri=REDIRECT, user="bob")
    one, other = signed_in(family, entra), signed_in(family, entra, authorization_code=code)

    users = [claims(family.do(each.get_token, SCOPE).token)["upn"] for each in (one, other)]

    assert users == ["ada", "bob"]


@pytest.mark.parametrize("name", ["authorization_code", "redirect_uri"])
def test_empty_values_are_misuse(family: Family, entra: EntraStandIn, name: str) -> None:
    """At construction, by name."""
    with pytest.raises(ValueError, match=name):
        signed_in(family, entra, **{name: ""})


def test_pickled_code_works_elsewhere(family: Family, entra: EntraStandIn) -> None:
    """As long as it is not used; what it brought does not travel."""
    one = signed_in(family, entra)
    received = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own
    token = family.do(received.get_token, SCOPE)

    sent = pickle.dumps(received)

    assert token.token.encode() not in sent
    with pytest.raises(ClientAuthenticationError, match="no authorization code"):
        family.do(pickle.loads(sent).get_token, SCOPE)  # noqa: S301 - our own
