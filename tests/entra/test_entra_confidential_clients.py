"""Secrets, certificates, users: azure-identity, in both its families, takes the stand-in for Entra."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import azure.identity
import azure.identity.aio
import jwt
import pytest
from azure.core.exceptions import ClientAuthenticationError

from testkit.client_certificates import Issued
from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID, Ask
from testkit.issuer import Issuer

SCOPE = "https://vault.azure.net/.default"
REDIRECT = "https://app.example/back"
Get = Callable[..., str]


@pytest.fixture
def transport(entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What azure-identity needs to find the stand-in."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(entra.ca_file))
    return {
        "authority": entra.authority,
        "connection_verify": str(entra.ca_file),
        "disable_instance_discovery": True,
        "retry_total": 0,
    }


@pytest.fixture(params=[azure.identity, azure.identity.aio])
def get(request: pytest.FixtureRequest, transport: dict[str, Any]) -> Iterator[Get]:
    """Get a token with a class of azure-identity."""
    runner = asyncio.Runner()

    def getting(name: str, *args: Any, **given: Any) -> str:
        async def awaited() -> str:
            async with getattr(request.param, name)(TENANT_ID, CLIENT_ID, *args, **given, **transport) as one:
                text: str = (await one.get_token(SCOPE)).token
                return text

        if request.param is azure.identity.aio:
            return runner.run(awaited())
        with getattr(request.param, name)(TENANT_ID, CLIENT_ID, *args, **given, **transport) as one:
            text: str = one.get_token(SCOPE).token
            return text

    yield getting
    runner.close()


def claims(token: str) -> dict[str, Any]:
    """Return what a token states."""
    stated: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return stated


def test_secret_is_taken(get: Get, entra: EntraStandIn) -> None:
    """The token says that it was proved by a secret."""
    entra.add_secret(CLIENT_ID, "open", tenant_id=TENANT_ID)

    assert claims(get("ClientSecretCredential", "open"))["appidacr"] == "1"
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        get("ClientSecretCredential", "shut")


def test_certificate_is_taken(get: Get, entra: EntraStandIn) -> None:
    """Registered by thumbprint; another is refused."""
    issued, other = Issued.of("client"), Issued.of("other")
    entra.add_certificate(CLIENT_ID, issued.certificate, tenant_id=TENANT_ID)

    assert claims(get("CertificateCredential", certificate_data=issued.pem()))["appidacr"] == "2"
    with pytest.raises(ClientAuthenticationError, match="AADSTS700027"):
        get("CertificateCredential", certificate_data=other.pem())


def test_user_is_acted_for(get: Get, entra: EntraStandIn) -> None:
    """With the token that an API was called with, and nobody else's."""
    entra.add_secret(CLIENT_ID, "open", tenant_id=TENANT_ID)
    token = entra.user_token(CLIENT_ID, tenant_id=TENANT_ID, user="ada")
    foreign = entra.user_token("another", tenant_id=TENANT_ID)

    assert claims(get("OnBehalfOfCredential", client_secret="open", user_assertion=token))["upn"] == "ada"
    with pytest.raises(ClientAuthenticationError, match="AADSTS500131"):
        get("OnBehalfOfCredential", client_secret="open", user_assertion=foreign)


def test_code_is_redeemed(get: Get, entra: EntraStandIn) -> None:
    """Once."""
    entra.add_secret(CLIENT_ID, "open", tenant_id=TENANT_ID)
    code = entra.sign_in(CLIENT_ID, tenant_id=TENANT_ID, redirect_uri=REDIRECT, user="ada")

    assert claims(get("AuthorizationCodeCredential", code, REDIRECT, client_secret="open"))["upn"] == "ada"
    with pytest.raises(ClientAuthenticationError, match="AADSTS54005"):
        get("AuthorizationCodeCredential", code, REDIRECT, client_secret="open")


def signed(issued: Issued, entra: EntraStandIn, algorithm: str = "PS256", **changes: Any) -> str:
    """Return an assertion of a certificate, by hand."""
    import time

    thumbprint = issued.certificate.fingerprint(_sha256())
    stated = {
        "aud": f"{entra.authority}/{TENANT_ID}/oauth2/v2.0/token",
        "iss": CLIENT_ID,
        "sub": CLIENT_ID,
        "jti": "one",
        "nbf": time.time() - 10,
        "exp": time.time() + 60,
        **changes,
    }
    headers = {"x5t#S256": jwt.utils.base64url_encode(thumbprint).decode()}
    return jwt.encode(stated, issued.key, algorithm=algorithm, headers=headers)


def _sha256() -> Any:
    from cryptography.hazmat.primitives.hashes import SHA256

    return SHA256()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"algorithm": "RS256"}, None),
        ({"algorithm": "RS512"}, 5002738),
        ({"aud": "https://login.microsoftonline.com/x/oauth2/v2.0/token"}, 700023),
        ({"iss": "another"}, 700021),
        ({"sub": "another"}, 700021),
        ({"jti": ""}, 50027),
        ({"exp": 1}, 700024),
        ({"nbf": 9_999_999_999}, 700024),
    ],
)
def test_everything_in_an_assertion_is_checked(
    ask: Ask, entra: EntraStandIn, changes: dict[str, Any], code: int | None
) -> None:
    """Each with Entra's own code."""
    issued = Issued.of("client")
    entra.add_certificate(CLIENT_ID, issued.certificate, tenant_id=TENANT_ID)

    answer = ask(client_assertion=signed(issued, entra, **changes)).json()

    assert answer.get("error_codes") == (None if code is None else [code])


def test_signature_is_checked(ask: Ask, entra: EntraStandIn) -> None:
    """The thumbprint alone proves nothing."""
    issued, thief = Issued.of("client"), Issued.of("thief")
    entra.add_certificate(CLIENT_ID, issued.certificate, tenant_id=TENANT_ID)
    forged = signed(Issued(issued.certificate, thief.key), entra)

    assert ask(client_assertion=forged).json()["error_codes"] == [700027]


def test_chain_must_lead_to_the_authority(ask: Ask, entra: EntraStandIn, issuer: Issuer) -> None:
    """A certificate of the right name from anybody else is refused."""
    import base64

    del issuer
    root, other = Issued.of("root"), Issued.of("root", key=Issued.of("other root").key)
    entra.trust_name(CLIENT_ID, "client.example", root.certificate, tenant_id=TENANT_ID)
    outcomes = []
    for authority in (root, other):
        leaf = Issued.of("client.example", issuer=authority)
        text = signed(leaf, entra)
        chain = [base64.b64encode(one).decode() for one in _ders(leaf)]
        stated = jwt.decode(text, options={"verify_signature": False})
        text = jwt.encode(stated, leaf.key, algorithm="PS256", headers={"x5t": "x", "x5c": chain})
        outcomes.append(ask(client_assertion=text).json().get("error_codes"))

    assert outcomes == [None, [700027]]


def _ders(issued: Issued) -> list[bytes]:
    from cryptography.hazmat.primitives.serialization import Encoding

    return [one.public_bytes(Encoding.DER) for one in (issued.certificate, *issued.chain)]


def test_refresh_tokens_are_their_clients(ask: Ask, entra: EntraStandIn) -> None:
    """Another application cannot use one; a revoked one is of no use to anybody."""
    other = "99999999-8888-4777-8666-555555555555"
    for client in (CLIENT_ID, other):
        entra.add_secret(client, "open", tenant_id=TENANT_ID)
    code = entra.sign_in(CLIENT_ID, tenant_id=TENANT_ID, redirect_uri=REDIRECT)
    common: dict[str, str | None] = {
        "client_assertion": None,
        "client_assertion_type": None,
        "client_secret": "open",
    }
    first = ask(
        **common,
        grant_type="authorization_code",
        code=code,
        redirect_uri=REDIRECT,
        scope=f"{SCOPE} offline_access openid",
        client_info="1",
    ).json()
    assert {"id_token", "client_info", "refresh_token"} <= first.keys()
    refreshing = {**common, "grant_type": "refresh_token", "refresh_token": first["refresh_token"]}

    assert ask(**refreshing).json()["refresh_token"] != first["refresh_token"]
    assert ask(**refreshing, client_id=other).json()["error_codes"] == [70000]
    entra.revoke_refresh_tokens()
    assert ask(**refreshing).json()["error_codes"] == [50173]


def test_public_client_proves_nothing(ask: Ask, entra: EntraStandIn) -> None:
    """Whoever sends a secret for one is told."""
    entra.make_public(CLIENT_ID, tenant_id=TENANT_ID)

    assert ask(client_secret="x", client_assertion=None).json()["error_codes"] == [700025]
