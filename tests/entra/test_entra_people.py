"""People at the stand-in: sign-in pages with PKCE, devices' codes, passwords, user realms."""

import base64
import hashlib
import re
from typing import Any

import httpx
import jwt
import pytest

from testkit.entra import EntraStandIn
from testkit.entra.fixtures import TENANT_ID
from testkit.entra.people import DEVELOPER_SIGN_ON

ADA, PASSWORD = "ada@contoso.test", "a planted password"
SCOPE = "https://vault.azure.net/.default openid offline_access"
REDIRECT = "http://localhost:8400"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture(autouse=True)
def ada(entra: EntraStandIn) -> None:
    """A user, and the application that users sign in to."""
    entra.make_public(DEVELOPER_SIGN_ON, tenant_id=TENANT_ID)
    entra.add_user(ADA, PASSWORD, tenant_id=TENANT_ID)
    entra.people.present = ADA


def asked(client: httpx.Client, **form: str) -> Any:
    """Ask for a token and return the answer."""
    members = {"client_id": DEVELOPER_SIGN_ON, "scope": SCOPE, "client_info": "1", **form}
    return client.post("/organizations/oauth2/v2.0/token", data=members).json()


def code_of_page(client: httpx.Client) -> str:
    """Show the sign-in page and return the code that it sends back."""
    page = client.get(
        "/organizations/oauth2/v2.0/authorize",
        params={
            "client_id": DEVELOPER_SIGN_ON,
            "redirect_uri": REDIRECT,
            "response_type": "code",
            "response_mode": "form_post",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "state": "s",
            "nonce": "n",
        },
    )
    found = re.search(r'name="code" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


def test_code_is_for_who_asked(client: httpx.Client) -> None:
    """It takes the verifier of the challenge, once; the id token has the page's nonce."""
    form = {"grant_type": "authorization_code", "redirect_uri": REDIRECT}
    code = code_of_page(client)
    granted = asked(client, **form, code=code, code_verifier=VERIFIER)

    said = jwt.decode(granted["id_token"], options={"verify_signature": False})
    assert (said["nonce"], said["preferred_username"]) == ("n", ADA)
    assert granted["foci"] == "1"
    assert asked(client, **form, code=code, code_verifier=VERIFIER)["error_codes"] == [54005]
    for wrong in ("", "w" * 43):
        answer = asked(client, **form, code=code_of_page(client), code_verifier=wrong)
        assert answer["error_codes"] == [501481]


def test_devices_code(client: httpx.Client, entra: EntraStandIn) -> None:
    """Pending, then granted once; another expires; another is declined."""

    def begin() -> Any:
        members = {"client_id": DEVELOPER_SIGN_ON, "scope": SCOPE}
        return client.post("/organizations/oauth2/v2.0/devicecode", data=members).json()

    def poll(begun: Any) -> Any:
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code"}
        return asked(client, **form, device_code=begun["device_code"])

    first = begin()
    assert poll(first)["error"] == "authorization_pending"
    entra.people.enter(first["user_code"], ADA)
    assert poll(first)["token_type"] == "Bearer"
    assert poll(first)["error_codes"] == [70000]
    second = begin()
    entra.people.enter(second["user_code"], ADA, decline=True)
    assert poll(second)["error"] == "authorization_declined"
    entra.people.device_code_life = 0
    assert poll(begin())["error"] == "expired_token"


@pytest.mark.parametrize(
    ("name", "password", "code"), [(ADA, "wrong", 50126), ("eve@contoso.test", PASSWORD, 50034)]
)
def test_password_that_is_wrong(client: httpx.Client, name: str, password: str, code: int) -> None:
    """Entra's own codes."""
    assert asked(client, grant_type="password", username=name, password=password)["error_codes"] == [code]


def test_user_realm(client: httpx.Client, entra: EntraStandIn) -> None:
    """Who checks a password: Entra, a federation, nobody known."""
    entra.add_user("fred@fed.test", PASSWORD, tenant_id=TENANT_ID, federated=True)
    kinds = [
        client.get(f"/common/userrealm/{name}", params={"api-version": "1.0"}).json()["account_type"]
        for name in (ADA, "fred@fed.test", "eve@contoso.test")
    ]

    assert kinds == ["Managed", "Federated", "Unknown"]
