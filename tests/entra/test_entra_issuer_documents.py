"""What the stand-in fetches from an issuer, and what it says when that fails."""

import json

import httpx
import pytest

from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID, Ask
from testkit.issuer import Document, Issuer
from testkit.signing import SigningKey

SUBJECT = "system:serviceaccount:default:default"


def code_of(answer: httpx.Response) -> int:
    """Return Entra's code; 0 when the token was granted."""
    if answer.status_code == 200:
        return 0
    body = answer.json()
    assert {"invalid_request": 400, "invalid_client": 401}[body["error"]] == answer.status_code
    code: int
    (code,) = body["error_codes"]
    return code


def test_keys_are_kept(ask: Ask, issuer: Issuer) -> None:
    """A second assertion by the same key costs no fetch."""
    assert [code_of(ask()), code_of(ask())] == [0, 0]
    assert issuer.fetched == ["discovery", "keys"]


def test_keys_are_fetched_again_for_a_key_id_that_is_new(ask: Ask, issuer: Issuer) -> None:
    """A rotated key is found when it is published, and the old one is still known."""
    old = issuer.mint()
    assert code_of(ask()) == 0
    issuer.rotate()

    assert [code_of(ask()), code_of(ask(client_assertion=old))] == [0, 0]
    assert issuer.fetched == ["discovery", "keys"] * 2


def test_a_key_used_before_it_is_published_is_refused(ask: Ask, issuer: Issuer) -> None:
    """AADSTS700027 until the key set shows it."""
    assert code_of(ask()) == 0
    issuer.rotate(publish=False)

    answer = ask()

    assert code_of(answer) == 700027
    assert f"'{issuer.key.key_id}'" in answer.json()["error_description"]
    assert issuer.fetched == ["discovery", "keys"] * 2  # once more, and no oftener
    issuer.publish()
    assert code_of(ask()) == 0


def test_a_key_that_is_no_longer_published_is_believed_until_a_new_one_is_met(
    ask: Ask, issuer: Issuer
) -> None:
    """Entra keeps keys: dropping one from the key set does not revoke it at once."""
    old = issuer.mint()
    assert code_of(ask()) == 0
    issuer.rotate(keep=False)

    assert code_of(ask(client_assertion=old)) == 0
    assert code_of(ask()) == 0
    assert code_of(ask(client_assertion=old)) == 700027


def test_kept_keys_outlast_the_issuers_documents(ask: Ask, issuer: Issuer) -> None:
    """An issuer that is broken for a while does no harm to keys that are known."""
    assert code_of(ask()) == 0

    with issuer.answering("discovery", "", status=500):
        assert code_of(ask()) == 0


def test_an_issuer_that_cannot_be_reached_is_named(ask: Ask, entra: EntraStandIn) -> None:
    """AADSTS90061 when nobody listens."""
    with Issuer() as gone:
        entra.trust(gone.ca_file)
        entra.register(CLIENT_ID, tenant_id=TENANT_ID, issuer=gone.url, subject=SUBJECT)
        assertion = gone.mint()

    answer = ask(client_assertion=assertion)

    assert code_of(answer) == 90061
    assert f"'{gone.url}/.well-known/openid-configuration'" in answer.json()["error_description"]


def test_an_issuer_whose_authority_is_not_trusted_cannot_be_reached(ask: Ask, entra: EntraStandIn) -> None:
    """TLS is verified against the authorities that were given, and no others."""
    with Issuer() as stranger:
        entra.register(CLIENT_ID, tenant_id=TENANT_ID, issuer=stranger.url, subject=SUBJECT)

        answer = ask(client_assertion=stranger.mint())
        assert code_of(answer) == 90061
        assert "certificate" in answer.json()["error_description"].lower()

        entra.trust(stranger.ca_file)
        assert code_of(ask(client_assertion=stranger.mint())) == 0


def test_an_issuer_without_https_is_not_asked(ask: Ask, entra: EntraStandIn, issuer: Issuer) -> None:
    """Entra fetches over https only."""
    plain = issuer.url.replace("https://", "http://")
    entra.register(CLIENT_ID, tenant_id=TENANT_ID, issuer=plain, subject=SUBJECT)

    assert code_of(ask(client_assertion=issuer.mint(iss=plain))) == 50166
    assert issuer.fetched == []


@pytest.mark.parametrize("document", ["discovery", "keys"])
@pytest.mark.parametrize("status", [403, 404, 500])
def test_documents_that_are_not_public_are_told_by_their_status(
    ask: Ask, issuer: Issuer, document: Document, status: int
) -> None:
    """AADSTS501661: an API server that wants to know who asks, a wrong path, an address that moved."""
    with issuer.answering(document, "", status=status):
        answer = ask()

    assert code_of(answer) == 501661
    assert f"Status: {status}" in answer.json()["error_description"]


def test_redirects_are_not_followed(ask: Ask, entra: EntraStandIn, issuer: Issuer) -> None:
    """The documents must be where the issuer's name says, even if they could be had elsewhere."""
    with Issuer(key=issuer.key) as elsewhere:
        entra.trust(elsewhere.ca_file)
        location = f"{elsewhere.url}/openid/v1/jwks"
        with issuer.answering("keys", "", status=301, location=location):
            answer = ask()

        assert code_of(answer) == 501661
        assert elsewhere.fetched == []


@pytest.mark.parametrize(
    "body",
    [
        "<html>not found</html>",
        "",
        "[]",
        "{}",
        '{"issuer": "https://another.example", "jwks_uri": "https://another.example/keys"}',
    ],
)
def test_a_discovery_document_that_is_none_of_this_issuer_is_refused(
    ask: Ask, issuer: Issuer, body: str
) -> None:
    """AADSTS50166, and nothing is fetched by such a document's word."""
    with issuer.answering("discovery", body):
        answer = ask()

    assert code_of(answer) == 50166
    assert issuer.fetched == ["discovery"]


def test_the_documents_issuer_is_compared_byte_for_byte(ask: Ask, issuer: Issuer) -> None:
    """A slash more makes it another issuer's document; the message names both."""
    with issuer.answering("discovery", json.dumps({**issuer.discovery(), "issuer": f"{issuer.url}/"})):
        answer = ask()

    assert code_of(answer) == 50166
    assert f"'{issuer.url}/', '{issuer.url}' was expected" in answer.json()["error_description"]


def test_a_discovery_document_without_key_set_is_refused(ask: Ask, issuer: Issuer) -> None:
    """Where the keys are is not guessed."""
    with issuer.answering("discovery", json.dumps({**issuer.discovery(), "jwks_uri": None})):
        assert code_of(ask()) == 50166


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "[]",
        "{}",
        '{"keys": {}}',
        '{"keys": ["key"]}',
        '{"keys": [{"kty": "RSA", "kid": "broken"}]}',
        '{"keys": [{"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}]}',
    ],
)
def test_a_key_set_that_cannot_be_parsed_is_refused(ask: Ask, issuer: Issuer, body: str) -> None:
    """AADSTS900612."""
    with issuer.answering("keys", body):
        answer = ask()

    assert code_of(answer) == 900612
    assert f"'{issuer.url}/openid/v1/jwks'" in answer.json()["error_description"]


def test_an_empty_key_set_has_no_key(ask: Ask, issuer: Issuer) -> None:
    """Nothing wrong with the document, but the key is not in it."""
    with issuer.answering("keys", '{"keys": []}'):
        assert code_of(ask()) == 700027


def test_keys_of_other_kinds_are_left_out(ask: Ask, issuer: Issuer) -> None:
    """An elliptic key beside ours does no harm."""
    ours = issuer.key.published()
    other = {"kty": "EC", "kid": "other", "crv": "P-256", "x": "x", "y": "y"}
    with issuer.answering("keys", json.dumps({"keys": [other, ours]})):
        assert code_of(ask()) == 0


def test_a_key_for_encryption_verifies_nothing(ask: Ask, issuer: Issuer) -> None:
    """The right key under another use is not found."""
    with issuer.answering("keys", json.dumps({"keys": [{**issuer.key.published(), "use": "enc"}]})):
        assert code_of(ask()) == 700027


def test_documents_are_fetched_again_after_a_failure(ask: Ask, issuer: Issuer) -> None:
    """A failure is not kept."""
    with issuer.answering("keys", "", status=503):
        assert code_of(ask()) == 501661

    assert code_of(ask()) == 0


def test_key_ids_are_kube_apiservers() -> None:
    """base64url of the SHA-256 of the key's DER form: 43 characters, no padding."""
    key = SigningKey.generate()

    assert len(key.key_id) == 43
    assert key.key_id == key.published()["kid"]
    assert "RSAPrivateKey" not in repr(key)
