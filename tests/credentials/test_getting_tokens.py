"""A wired pod gets tokens: what callers of both families see."""

import base64
import json
from typing import Any

import pytest

from testkit.entra import EntraStandIn
from testkit.entra.faults import Altered
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from workload_identity import AccessToken, AccessTokenInfo, ClientAuthenticationError

SCOPE = "https://vault.azure.net/.default"
OTHER = "https://storage.azure.com/.default"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any
Pod = Any


def claims(token: str) -> dict[str, Any]:
    """Return what an access token states."""
    part = token.split(".")[1]
    stated: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return stated


def test_token_is_for_the_pods_identity(family: Family) -> None:
    """The environment of a wired pod is all that a credential needs."""
    credential = family.credential()

    token = family.do(credential.get_token, SCOPE)

    assert isinstance(token, AccessToken)
    stated = claims(token.token)
    assert (stated["tid"], stated["appid"]) == (TENANT_ID, CLIENT_ID)
    assert stated["aud"].rstrip("/") == "https://vault.azure.net"
    assert abs(token.expires_on - stated["exp"]) <= 2


def test_info_is_the_same_token(family: Family, entra: EntraStandIn) -> None:
    """Both methods share one request."""
    credential = family.credential()

    token = family.do(credential.get_token, SCOPE)
    info = family.do(credential.get_token_info, SCOPE)

    assert isinstance(info, AccessTokenInfo)
    assert (info.token, info.expires_on, info.token_type) == (*token, "Bearer")
    assert len(entra.requests) == 1


def test_info_says_when_to_ask_again(family: Family, entra: EntraStandIn) -> None:
    """Half of a long life, in seconds since the epoch."""
    entra.lifetime = 86_400
    info = family.do(family.credential().get_token_info, SCOPE)

    assert abs(info.expires_on - info.refresh_on - 43_200) <= 2


@pytest.mark.parametrize("given", [[SCOPE], (SCOPE,)])
def test_scopes_may_be_one_list(family: Family, entra: EntraStandIn, given: object) -> None:
    """A list or a tuple of scopes is what its items are."""
    credential = family.credential()

    assert family.do(credential.get_token, given) == family.do(credential.get_token, SCOPE)
    assert [request.scope for request in entra.requests] == [SCOPE]


@pytest.mark.parametrize("given", [(), ([],), ("",), (" ",), (7,), ("a\nb",), (SCOPE, None), (None,)])
def test_call_without_a_usable_scope_is_misuse(family: Family, given: tuple[Any, ...]) -> None:
    """It is told before anything is sent."""
    credential = family.credential()

    for method in (credential.get_token, credential.get_token_info):
        with pytest.raises(ValueError, match="scope"):
            family.do(method, *given)


def test_each_scope_has_its_token(family: Family, entra: EntraStandIn) -> None:
    """Tokens of one scope do not serve another."""
    credential = family.credential()

    one, two = family.do(credential.get_token, SCOPE), family.do(credential.get_token, OTHER)

    assert one != two
    assert len(entra.requests) == 2


def test_other_tenant_must_be_allowed(family: Family, entra: EntraStandIn) -> None:
    """Another tenant is asked only by a credential that says so, and its tokens are apart."""
    other = "11111111-2222-3333-4444-555555555555"
    with pytest.raises(ClientAuthenticationError, match="additionally_allowed_tenants"):
        family.do(family.credential().get_token, SCOPE, tenant_id=other)
    assert entra.requests == []

    credential = family.credential(additionally_allowed_tenants=["*"])
    family.do(credential.get_token, SCOPE)
    with pytest.raises(ClientAuthenticationError, match="AADSTS"):
        family.do(credential.get_token, SCOPE, tenant_id=other)

    assert [request.tenant for request in entra.requests] == [TENANT_ID, other]


@pytest.mark.parametrize("tenant", ["../x", "a/b", "é"])
def test_malformed_tenant_of_a_call_is_misuse(family: Family, tenant: str) -> None:
    """It never reaches a URL."""
    credential = family.credential(additionally_allowed_tenants=["*"])

    with pytest.raises(ValueError, match="tenant id"):
        family.do(credential.get_token, SCOPE, tenant_id=tenant)
    with pytest.raises(ValueError, match="tenant id"):
        family.do(credential.get_token_info, SCOPE, options={"tenant_id": tenant})


def test_empty_claims_and_tenant_count_as_absent(family: Family, entra: EntraStandIn) -> None:
    """As with azure-identity, in both methods."""
    credential = family.credential()

    family.do(credential.get_token, SCOPE, claims="", tenant_id="")
    family.do(credential.get_token_info, SCOPE, options={"claims": "", "tenant_id": "", "other": 1})

    assert len(entra.requests) == 1


def test_own_tenant_may_be_named(family: Family, entra: EntraStandIn) -> None:
    """Whatever its letter case."""
    credential = family.credential()

    family.do(credential.get_token, SCOPE)
    family.do(credential.get_token, SCOPE, tenant_id=TENANT_ID.upper())

    assert len(entra.requests) == 1


def test_continuous_access_evaluation_is_a_token_of_its_own(family: Family, entra: EntraStandIn) -> None:
    """With enable_cae the token has the capability, and does not mix with others."""
    credential = family.credential()

    plain = family.do(credential.get_token, SCOPE)
    evaluated = family.do(credential.get_token, SCOPE, enable_cae=True)

    assert "xms_cc" not in claims(plain.token)
    assert "CP1" in claims(evaluated.token)["xms_cc"]
    assert family.do(credential.get_token, SCOPE) == plain
    assert family.do(credential.get_token, SCOPE, enable_cae=True) == evaluated
    assert family.do(credential.get_token_info, SCOPE, options={"enable_cae": True}).token == evaluated.token
    assert len(entra.requests) == 2


def test_claims_ask_anew_and_replace_the_held_token(family: Family, entra: EntraStandIn) -> None:
    """A challenge is answered with a new token, which the next plain call gets too."""
    credential = family.credential()
    first = family.do(credential.get_token, SCOPE)
    entra.lifetime = 3000

    challenged = family.do(credential.get_token, SCOPE, claims='{"access_token": {"nbf": {"value": "1"}}}')

    assert challenged != first
    assert family.do(credential.get_token, SCOPE) == challenged
    assert len(entra.requests) == 2


def test_challenge_is_joined_with_the_capability(family: Family, endpoint: Any) -> None:
    """With enable_cae both go into one JSON object; without it a challenge is not even parsed."""
    credential = family.credential()

    family.do(
        credential.get_token, SCOPE, claims='{"access_token": {"a": 1, "xms_cc": 0}, "x": 2}', enable_cae=True
    )
    family.do(credential.get_token, SCOPE, claims="anything")

    joined = {"access_token": {"a": 1, "xms_cc": {"values": ["CP1"]}}, "x": 2}
    assert json.loads(endpoint.forms[0]["claims"]) == joined
    assert endpoint.forms[1]["claims"] == "anything"


@pytest.mark.parametrize(
    "challenge", ["no json", "[]", '"text"', '{"access_token": "x"}', '{"access_token": []}']
)
def test_challenge_that_is_no_object_is_misuse(family: Family, challenge: str) -> None:
    """Where it has to be joined, it has to be understood."""
    with pytest.raises(ValueError, match="claims"):
        family.do(family.credential().get_token, SCOPE, claims=challenge, enable_cae=True)


def test_unknown_keywords_of_a_call_are_ignored(family: Family) -> None:
    """Newer callers may pass what is not known yet."""
    assert family.do(family.credential().get_token, SCOPE, something_new=1)


def test_life_that_is_over_is_given_once(family: Family, entra: EntraStandIn) -> None:
    """A pod with a fast clock gets its token, and asks again next time."""
    credential = family.credential()
    with entra.fault(Altered({"expires_in": 0, "ext_expires_in": 0})):
        family.do(credential.get_token, SCOPE)
        family.do(credential.get_token, SCOPE)

    assert len(entra.requests) == 2


def test_closed_credential_says_so(family: Family) -> None:
    """Closing twice does no harm; tokens are not to be had afterwards, held or not."""
    credential = family.credential()
    family.do(credential.get_token, SCOPE)
    family.do(credential.close)
    family.do(credential.close)

    with pytest.raises(ValueError, match="closed"):
        family.do(credential.get_token, SCOPE)


def test_context_closes(family: Family) -> None:
    """A credential is its own context."""
    credential = family.credential()

    assert family.enter(credential) is credential
    with pytest.raises(ValueError, match="closed"):
        family.do(credential.get_token, SCOPE)


def test_closing_one_leaves_others(family: Family, entra: EntraStandIn) -> None:
    """Tokens that are shared stay for the others."""
    one, other = family.credential(), family.credential()
    family.do(one.get_token, SCOPE)
    family.do(one.close)

    assert family.do(other.get_token, SCOPE)
    assert len(entra.requests) == 1
