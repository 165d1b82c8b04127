"""EnvironmentCredential: what variables make of it."""

import logging
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from testkit.client_certificates import Issued
from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from workload_identity import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.context import IN_DEFAULT_CHAIN
from workload_identity.credentials import Credential

SCOPE = "https://vault.azure.net/.default"
SECRET = "planted-secret"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any
ALL = (
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN",
    "AZURE_USERNAME",
    "AZURE_PASSWORD",
)


class Variables:
    """Sets variables for a test; what is not set is not there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        for name in ALL:
            patch.delenv(name, raising=False)

    def __call__(self, **values: str | None) -> None:
        """Set some, without their common prefix; None takes one away."""
        for name, value in values.items():
            if value is None:
                self._patch.delenv(f"AZURE_{name}", raising=False)
            else:
                self._patch.setenv(f"AZURE_{name}", value)


@pytest.fixture
def variables(pod: Any, monkeypatch: pytest.MonkeyPatch) -> Variables:
    """Those of a wired pod to begin with."""
    del pod
    return Variables(monkeypatch)


def made(family: Family, **given: Any) -> Any:
    """Make a credential."""
    return family.module.EnvironmentCredential(**given)


def test_secret_is_the_first_choice(
    family: Family, variables: Variables, entra: EntraStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """It wins over a certificate and a user, and shares tokens with the credential it stands for."""
    entra.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    variables(CLIENT_SECRET=SECRET, CLIENT_CERTIFICATE_PATH="/nowhere", USERNAME="u", PASSWORD="p")

    with caplog.at_level(logging.INFO):
        one = made(family)
    token = family.do(one.get_token, SCOPE)

    assert family.do(one.get_token, SCOPE) == token
    same = family.module.ClientSecretCredential(TENANT_ID, CLIENT_ID, SECRET)
    assert family.do(same.get_token, SCOPE) == token
    assert len(entra.requests) == 1
    assert "EnvironmentCredential is a ClientSecretCredential" in caplog.text
    assert SECRET not in caplog.text + repr(one)


@pytest.mark.parametrize(
    ("chain", "sent"),
    [(None, False), ("true", True), ("TRUE", True), ("1", True), ("false", False), ("0", False)],
)
def test_certificate_is_the_second(
    family: Family, variables: Variables, entra: EntraStandIn, tmp_path: Path, chain: str | None, sent: bool
) -> None:
    """With its password; the chain goes with it when the variable says true, and "false" is not true."""
    root = Issued.of("root")
    leaf = Issued.of("leaf", issuer=root)
    (tmp_path / "client.pfx").write_bytes(leaf.pkcs12(b"open"))
    variables(
        CLIENT_SECRET="",
        CLIENT_CERTIFICATE_PATH=str(tmp_path / "client.pfx"),
        CLIENT_CERTIFICATE_PASSWORD="open",
        CLIENT_SEND_CERTIFICATE_CHAIN=chain,
    )
    entra.trust_name(CLIENT_ID, "leaf", root.certificate, tenant_id=TENANT_ID)

    one = made(family)

    if sent:
        assert family.do(one.get_token, SCOPE)
    else:
        with pytest.raises(ClientAuthenticationError, match="send_certificate_chain"):
            family.do(one.get_token, SCOPE)


@pytest.mark.parametrize("tenant", [None, TENANT_ID])
def test_user_is_the_third(
    family: Family, variables: Variables, monkeypatch: pytest.MonkeyPatch, tenant: str | None
) -> None:
    """In both families; the class is loaded when it is meant, and gets what is set."""
    given: list[dict[str, Any]] = []

    def noted(**named: Any) -> Credential:
        given.append(named)
        chosen: Credential = family.module.ClientSecretCredential(TENANT_ID, CLIENT_ID, "x")
        return chosen

    users: Any = types.ModuleType("workload_identity.users")
    users.UsernamePasswordCredential = users.AsyncUsernamePasswordCredential = noted
    monkeypatch.setitem(sys.modules, "workload_identity.users", users)
    variables(USERNAME="ada", PASSWORD="planted", TENANT_ID=tenant)

    made(family, timeout=7, disable_instance_discovery=True)

    (named,) = given
    assert (named["client_id"], named["username"], named["password"]) == (CLIENT_ID, "ada", "planted")
    assert named.get("tenant_id") == tenant
    assert (named["timeout"], named["disable_instance_discovery"]) == (7, True)
    assert "shared_cache" not in named


def test_user_without_their_class_is_told(
    family: Family, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plainly, when a token is asked for."""
    monkeypatch.setitem(sys.modules, "workload_identity.users", None)
    variables(USERNAME="ada", PASSWORD="planted")

    with pytest.raises(ClientAuthenticationError, match="has no UsernamePasswordCredential") as raised:
        family.do(made(family).get_token, SCOPE)
    assert "planted" not in str(raised.value)


def test_wired_pod_is_not_configured_and_not_warned(
    family: Family, variables: Variables, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client and tenant are there for workload identity; a chain goes on."""
    del variables
    one = made(family)
    assert caplog.text == ""

    with pytest.raises(CredentialUnavailableError, match="not fully configured") as raised:
        family.do(one.get_token, SCOPE)
    assert "found AZURE_CLIENT_ID, AZURE_TENANT_ID" in str(raised.value)
    with pytest.raises(CredentialUnavailableError):
        family.do(one.get_token_info, SCOPE)


@pytest.mark.parametrize(("in_chain", "level"), [(False, logging.WARNING), (True, logging.INFO)])
def test_incomplete_set_is_logged(
    family: Family,
    variables: Variables,
    caplog: pytest.LogCaptureFixture,
    in_chain: bool,
    level: int,
) -> None:
    """With the names that are set, never their values; more quietly where the default chain makes it."""
    variables(CLIENT_ID=None, CLIENT_SECRET=SECRET)
    token = IN_DEFAULT_CHAIN.set(in_chain)
    try:
        with caplog.at_level(logging.INFO):
            made(family)
    finally:
        IN_DEFAULT_CHAIN.reset(token)

    (record,) = caplog.records
    assert record.levelno == level
    assert "AZURE_CLIENT_SECRET" in record.getMessage()
    assert SECRET not in record.getMessage()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"CLIENT_CERTIFICATE_PATH": "/nowhere/x.pem"}, "/nowhere/x.pem"),
        ({"CLIENT_SECRET": SECRET, "TENANT_ID": "../x"}, "tenant id"),
    ],
)
def test_broken_values_stop_a_chain(
    family: Family, variables: Variables, broken: dict[str, str], words: str
) -> None:
    """Somebody meant them: calls for tokens fail, construction does not."""
    variables(**broken)
    one = made(family)

    with pytest.raises(ClientAuthenticationError, match=words) as raised:
        family.do(one.get_token, SCOPE)
    assert not isinstance(raised.value, CredentialUnavailableError)
    assert SECRET not in str(raised.value)


def test_keywords_reach_the_client(family: Family, variables: Variables, entra: EntraStandIn) -> None:
    """Tenants, authority and options; misspelt ones warn here, once."""
    other = "11111111-2222-4333-8444-555555555555"
    entra.add_secret(CLIENT_ID, SECRET, tenant_id=other)
    variables(CLIENT_SECRET=SECRET, AUTHORITY_HOST="https://nowhere.example")

    with pytest.warns(UserWarning, match="'timeout'") as caught:
        one = made(
            family, authority=entra.authority, additionally_allowed_tenants=["*"], user_agent="me", timout=1
        )

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert family.do(one.get_token, SCOPE, tenant_id=other)


def test_malformed_authority_is_misuse(family: Family, variables: Variables) -> None:
    """Of a keyword or the variable, at construction."""
    with pytest.raises(ValueError, match="https"):
        made(family, authority="http://x")
    variables(AUTHORITY_HOST="http://y")
    with pytest.raises(ValueError, match="https"):
        made(family)


def test_environment_is_read_once(family: Family, variables: Variables, entra: EntraStandIn) -> None:
    """What changes afterwards does not count, and a copy in another process does not look again."""
    entra.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    variables(CLIENT_SECRET=SECRET)
    one = made(family)
    variables(CLIENT_SECRET=None)

    copy = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own

    assert family.do(one.get_token, SCOPE)
    assert family.do(copy.get_token, SCOPE)


def test_closed_credential_says_so(family: Family, variables: Variables, entra: EntraStandIn) -> None:
    """By its own name, whatever it is a client of, and although a token is held."""
    entra.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    variables(CLIENT_SECRET=SECRET)
    one = made(family)
    family.do(one.get_token, SCOPE)
    family.do(one.close)

    with pytest.raises(ValueError, match="EnvironmentCredential is closed"):
        family.do(one.get_token, SCOPE)
