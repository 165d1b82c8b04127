"""Tokens that outlive the process: stores that azure-identity writes and we read, and the other way round."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import azure.identity
import jwt
import pytest

from testkit.entra import EntraStandIn
from testkit.entra.faults import Failing
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.entra.people import DEVELOPER_SIGN_ON
from testkit.entra.signing_in import ADA, GRACE, PASSWORD, Device
from workload_identity import (
    AuthenticationRecord,
    AuthenticationRequiredError,
    ClientAuthenticationError,
    CredentialUnavailableError,
    TokenCachePersistenceOptions,
)

SCOPE = "https://vault.azure.net/.default"
OTHER = "https://storage.azure.com/.default"
NAME = "a-program.cache"
PLAIN = TokenCachePersistenceOptions(allow_unencrypted_storage=True, name=NAME)
THEIRS = azure.identity.TokenCachePersistenceOptions(allow_unencrypted_storage=True, name=NAME)
REFRESH = "refresh_token"
Family = Any


def claims(token: Any) -> dict[str, Any]:
    """Return what a token says."""
    said: dict[str, Any] = jwt.decode(token.token, options={"verify_signature": False})
    return said


def grants(people: EntraStandIn) -> list[str]:
    """Return the grants that were asked for."""
    return [request.grant for request in people.requests]


def by_device(family: Family, device: Device, **given: Any) -> Any:
    """Make a credential of ours."""
    return family.module.DeviceCodeCredential(
        prompt_callback=device,
        **{"disable_instance_discovery": True, "cache_persistence_options": PLAIN, **given},
    )


def their_device(device: Device, **given: Any) -> Any:
    """Make a credential of azure-identity's."""
    return azure.identity.DeviceCodeCredential(
        prompt_callback=device,
        **{"disable_instance_discovery": True, "cache_persistence_options": THEIRS, **given},
    )


def store(tmp_path: Path, cae: str = "nocae", name: str = NAME) -> Path:
    """Return where a store is."""
    return tmp_path / ".IdentityService" / f"{name}.{cae}"


def test_azure_identity_reads_what_we_wrote(family: Family, people: EntraStandIn, device: Device) -> None:
    """Silently: the access token, and for other scopes the refresh token."""
    record = family.do(by_device(family, device, tenant_id=TENANT_ID).authenticate, scopes=[SCOPE])
    theirs = azure.identity.AuthenticationRecord.deserialize(record.serialize())

    credential = their_device(device, authentication_record=theirs, disable_automatic_authentication=True)

    assert claims(credential.get_token(SCOPE))["upn"] == ADA
    assert len(people.requests) == 1
    assert claims(credential.get_token(OTHER))["aud"] == "https://storage.azure.com"
    assert grants(people)[1:] == [REFRESH]
    assert len(device.prompts) == 1


def test_we_read_what_azure_identity_wrote(family: Family, people: EntraStandIn, device: Device) -> None:
    """Silently, likewise; with tokens of continuous evaluation in a store of their own."""
    record = their_device(device, tenant_id=TENANT_ID).authenticate(scopes=[SCOPE])
    ours = AuthenticationRecord.deserialize(record.serialize())

    credential = by_device(family, device, authentication_record=ours, disable_automatic_authentication=True)

    assert claims(family.do(credential.get_token, SCOPE))["upn"] == ADA
    assert len(people.requests) == 1
    assert claims(family.do(credential.get_token, OTHER))["upn"] == ADA
    assert grants(people)[1:] == [REFRESH]
    with pytest.raises(AuthenticationRequiredError):
        family.do(credential.get_token, SCOPE, enable_cae=True)
    assert len(device.prompts) == 1


def test_another_process_goes_on(
    family: Family, people: EntraStandIn, device: Device, environment_of_child: dict[str, str], tmp_path: Path
) -> None:
    """A program that is started again asks nobody."""
    record = family.do(by_device(family, device, tenant_id=TENANT_ID).authenticate, scopes=[SCOPE])
    program = (
        "import sys; from workload_identity import *;"
        " record = AuthenticationRecord.deserialize(sys.argv[1]);"
        " credential = DeviceCodeCredential(authentication_record=record,"
        " disable_automatic_authentication=True, disable_instance_discovery=True,"
        f" cache_persistence_options=TokenCachePersistenceOptions(name={NAME!r},"
        " allow_unencrypted_storage=True));"
        f" print(credential.get_token({SCOPE!r}).expires_on)"
    )
    environment = {**environment_of_child, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, record.serialize()],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )

    assert int(done.stdout) > 0
    assert len(people.requests) == 1


def test_store_is_for_its_owner_alone(family: Family, device: Device, tmp_path: Path) -> None:
    """The folder and both files, which are made when they are needed."""
    credential = by_device(family, device)
    assert not store(tmp_path).parent.exists()
    family.do(credential.get_token, SCOPE)
    family.do(credential.get_token, SCOPE, enable_cae=True)

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (store(tmp_path), store(tmp_path, "cae"))]
    assert modes == [0o600, 0o600]
    assert stat.S_IMODE(store(tmp_path).parent.stat().st_mode) == 0o700


def test_store_that_cannot_be_encrypted(family: Family, device: Device, tmp_path: Path) -> None:
    """A plain file is a decision: it is asked for, and nothing is written without."""
    credential = by_device(family, device, cache_persistence_options=TokenCachePersistenceOptions(name=NAME))
    with pytest.raises(ClientAuthenticationError, match="allow_unencrypted_storage=True") as raised:
        family.do(credential.get_token, SCOPE)

    assert not isinstance(raised.value, CredentialUnavailableError)
    assert raised.value.__cause__ is not None or raised.value.__suppress_context__
    assert not store(tmp_path).exists()


@pytest.mark.parametrize(
    "content",
    [
        b'{"AccessToken": {"a-key": {"secr',
        b'{"AccessToken": []}',
        b"\xff\xfe{}\x00",
        b"",
    ],
)
def test_store_that_is_damaged(
    family: Family, people: EntraStandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """A disk that was full once keeps nobody from tokens for ever: the store is begun anew, as is said."""
    people.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    store(tmp_path).parent.mkdir()
    store(tmp_path).write_bytes(content)

    first = family.do(of_application(family).get_token, SCOPE)
    second = family.do(of_application(family).get_token, SCOPE)

    assert first.token == second.token
    assert ("begun anew" in caplog.text) is bool(content)
    assert first.token in store(tmp_path).read_text()


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        "[" * 100_000,
        '{"AccessToken": []}',
        '{"AccessToken": {"a-key": "a-token"}}',
        '{"AccessToken": {"a-key": {"secret": "a-token"}}}',
        '{"AppMetadata": null}',
    ],
)
def test_content_that_is_damaged(content: str) -> None:
    """What MSAL would fail at is known before."""
    from workload_identity.persistence import check

    with pytest.raises((ValueError, RecursionError)):
        check(content)


def test_content_with_what_nobody_knows() -> None:
    """Other programs may store other things there too."""
    from workload_identity.persistence import check

    check('{"AccessToken": {"a-key": {"expires_on": "1", "new": []}}, "Novelty": [], "Account": {}}')


def test_lock_of_a_killed_process(
    family: Family, people: EntraStandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is nobody's after a minute: without that everybody would wait for seconds, and store nothing."""
    people.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    lock = store(tmp_path).with_name(f"{NAME}.nocae.lockfile")
    lock.parent.mkdir()
    lock.touch()
    os.utime(lock, (time.time() - 70, time.time() - 70))

    token = family.do(of_application(family).get_token, SCOPE)

    assert token.token in store(tmp_path).read_text()
    assert "not stored" not in caplog.text
    assert not lock.exists()


@pytest.mark.parametrize("odd", [{"cached_at": str(int(time.time()) + 86_400)}, {"secret": 7}])
def test_stored_token_that_cannot_be_judged(
    family: Family, people: EntraStandIn, tmp_path: Path, odd: dict[str, Any]
) -> None:
    """One of a time when the clock was wrong, or that is none, is asked anew."""
    people.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    first = family.do(of_application(family).get_token, SCOPE)
    stored = json.loads(store(tmp_path).read_text())
    (entry,) = stored["AccessToken"].values()
    entry |= {"expires_on": str(int(time.time()) + 90_000), **odd}
    store(tmp_path).write_text(json.dumps(stored))

    assert family.do(of_application(family).get_token, SCOPE).token != first.token
    assert len(people.requests) == 2


def test_store_that_cannot_be_read(
    family: Family, people: EntraStandIn, device: Device, tmp_path: Path
) -> None:
    """The error says which store."""
    store(tmp_path).mkdir(parents=True)
    record = AuthenticationRecord(
        TENANT_ID, DEVELOPER_SIGN_ON, people.authority.removeprefix("https://"), "a.b", ADA
    )

    with pytest.raises(ClientAuthenticationError) as raised:
        family.do(by_device(family, device, authentication_record=record).get_token, SCOPE)

    assert NAME in str(raised.value)


def test_store_that_cannot_be_written(
    family: Family,
    device: Device,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who signed in has their token all the same; the log says that it is not stored."""
    store(tmp_path).mkdir(parents=True)

    assert claims(family.do(by_device(family, device).get_token, SCOPE))["upn"] == ADA
    assert "not stored" in caplog.text
    assert NAME in caplog.text


def test_store_whose_place_is_taken(family: Family, device: Device, tmp_path: Path) -> None:
    """A file in place of the folder is told."""
    store(tmp_path).parent.touch()

    with pytest.raises(ClientAuthenticationError, match=r"\.IdentityService"):
        family.do(by_device(family, device).get_token, SCOPE)


def test_without_msal_extensions(family: Family, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "msal_extensions", None)

    with pytest.raises(
        ClientAuthenticationError, match=r"pip install 'workload-identity\[persistent-cache\]'"
    ):
        family.do(by_device(family, device).get_token, SCOPE)


def test_options() -> None:
    """Those of azure-identity are taken; what cannot work is refused."""
    from workload_identity import DeviceCodeCredential
    from workload_identity.persistence import persistence_options

    assert persistence_options(THEIRS) == PLAIN
    assert TokenCachePersistenceOptions().name == azure.identity.TokenCachePersistenceOptions().name
    assert TokenCachePersistenceOptions().allow_unencrypted_storage is False
    for name in ("", "../x", "a/b", "a\\b", "a\0b"):
        with pytest.raises(ValueError, match="name"):
            TokenCachePersistenceOptions(name=name)
    with pytest.raises(ValueError, match="cache_persistence_options"):
        DeviceCodeCredential(cache_persistence_options="msal.cache")  # type: ignore[arg-type]


def shared(family: Family, **given: Any) -> Any:
    """Make a credential of the shared store."""
    return family.module.SharedTokenCacheCredential(
        **{"cache_persistence_options": PLAIN, "disable_instance_discovery": True, **given}
    )


def unavailable(family: Family, credential: Any) -> str:
    """Return why there is no token here."""
    with pytest.raises(CredentialUnavailableError) as raised:
        family.do(credential.get_token, SCOPE)
    return str(raised.value)


def test_shared_sign_in(family: Family, people: EntraStandIn, device: Device) -> None:
    """What a tool's sign-in left serves: its access token, else its refresh token, whose answer is stored."""
    their_device(device).get_token(SCOPE)

    credential = shared(family)
    assert claims(family.do(credential.get_token, SCOPE))["upn"] == ADA
    assert len(people.requests) == 1
    token = family.do(credential.get_token, OTHER)
    assert claims(token)["aud"] == "https://storage.azure.com"
    [_, request] = people.requests
    assert (request.grant, request.tenant, request.scope) == (REFRESH, "organizations", OTHER)
    assert request.form["client_info"] == "1"

    # The next one, also azure-identity's, finds it.
    assert family.do(shared(family).get_token, OTHER).token == token.token
    # MSAL leaves the port out of what it stores, azure-identity compares it.
    theirs = azure.identity.SharedTokenCacheCredential(
        authority="127.0.0.1", cache_persistence_options=THEIRS
    )
    assert theirs.get_token(OTHER).token == token.token
    assert len(people.requests) == 2


def test_shared_sign_in_of_a_record(family: Family, device: Device) -> None:
    """A record says whose, and to which application."""
    record = AuthenticationRecord.deserialize(their_device(device).authenticate(scopes=[SCOPE]).serialize())
    device.enters = GRACE
    their_device(device).get_token(SCOPE)

    credential = shared(family, authentication_record=record)

    assert claims(family.do(credential.get_token, SCOPE))["upn"] == ADA
    assert claims(family.do(credential.get_token, OTHER))["upn"] == ADA
    unknown = AuthenticationRecord(TENANT_ID, DEVELOPER_SIGN_ON, record.authority, "a.b", "eve@contoso.test")
    assert "eve@contoso.test" in unavailable(family, shared(family, authentication_record=unknown))


def test_shared_sign_ins_that_do_not_fit(family: Family, device: Device) -> None:
    """None, none that fits, several, several that fit: each is told by itself, with who is there."""
    assert "no sign-in of anybody" in unavailable(family, shared(family))
    their_device(device).get_token(SCOPE)
    none = unavailable(family, shared(family, username="eve@contoso.test"))
    assert "'eve@contoso.test'" in none
    assert ADA in none
    device.enters = GRACE
    their_device(device).get_token(SCOPE)
    several = unavailable(family, shared(family))
    assert ADA in several
    assert GRACE in several
    assert "username and tenant_id" in unavailable(family, shared(family, tenant_id=TENANT_ID))
    assert claims(family.do(shared(family, username=GRACE.upper()).get_token, SCOPE))["upn"] == GRACE


def test_shared_sign_in_that_was_revoked(family: Family, people: EntraStandIn, device: Device) -> None:
    """The service's refusal is told, and what it refused is not kept."""
    their_device(device).get_token(SCOPE)
    people.revoke_refresh_tokens()

    with pytest.raises(ClientAuthenticationError) as raised:
        family.do(shared(family).get_token, OTHER)

    assert not isinstance(raised.value, CredentialUnavailableError)
    assert raised.value.error_codes == [50173]
    assert "no sign-in of anybody" in unavailable(family, shared(family))


@pytest.mark.usefixtures("people")
def test_shared_store_that_cannot_be_read(family: Family, tmp_path: Path) -> None:
    """A chain goes on."""
    store(tmp_path).mkdir(parents=True)

    assert "cannot be used" in unavailable(family, shared(family))


def test_other_cloud_is_not_looked_at(family: Family, device: Device) -> None:
    """A sign-in is of one cloud."""
    their_device(device).get_token(SCOPE)

    assert "nobody" in unavailable(family, shared(family, authority="login.microsoftonline.us")).replace(
        "anybody", "nobody"
    )


@pytest.mark.usefixtures("people")
def test_password_is_stored_nowhere(family: Family, tmp_path: Path) -> None:
    """Only what it was traded for."""
    with pytest.warns(DeprecationWarning, match="multi-factor"):
        credential = family.module.UsernamePasswordCredential(
            DEVELOPER_SIGN_ON,
            ADA,
            PASSWORD,
            disable_instance_discovery=True,
            cache_persistence_options=PLAIN,
        )
    family.do(credential.get_token, SCOPE)

    assert PASSWORD not in store(tmp_path).read_text()


SECRET = "a planted secret"


def of_application(family: Family, **given: Any) -> Any:
    """Make a credential of an application."""
    return family.module.ClientSecretCredential(
        TENANT_ID, CLIENT_ID, SECRET, **{"cache_persistence_options": PLAIN, "shared_cache": False, **given}
    )


def test_application_goes_on_with_azure_identitys_token(family: Family, people: EntraStandIn) -> None:
    """And the other way round: either finds what the other stored, and nothing is asked."""
    people.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    theirs: dict[str, Any] = {"disable_instance_discovery": True, "cache_persistence_options": THEIRS}
    token = azure.identity.ClientSecretCredential(TENANT_ID, CLIENT_ID, SECRET, **theirs).get_token(SCOPE)

    found = family.do(of_application(family).get_token, SCOPE)
    other = family.do(of_application(family).get_token, OTHER)
    back = azure.identity.ClientSecretCredential(TENANT_ID, CLIENT_ID, SECRET, **theirs).get_token(OTHER)

    assert (found.token, back.token) == (token.token, other.token)
    assert abs(found.expires_on - token.expires_on) <= 1
    assert len(people.requests) == 2


def test_stored_token_is_not_for_everything(family: Family, people: EntraStandIn) -> None:
    """Not after a claims challenge, nor with continuous evaluation, nor in another tenant or for others."""
    people.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    first = family.do(of_application(family).get_token, SCOPE)
    challenged = family.do(of_application(family).get_token, SCOPE, claims='{"access_token":{}}')
    with_cae = family.do(of_application(family).get_token, SCOPE, enable_cae=True)

    assert len({first.token, challenged.token, with_cae.token}) == 3
    assert family.do(of_application(family).get_token, SCOPE).token == challenged.token
    assert family.do(of_application(family).get_token, SCOPE, enable_cae=True).token == with_cae.token
    assert len(people.requests) == 3


def test_stored_token_that_is_due(family: Family, people: EntraStandIn) -> None:
    """A new one is asked for; while the service is down the old one serves."""
    people.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    people.lifetime = 250
    first = family.do(of_application(family).get_token, SCOPE)
    with people.fault(Failing(503)):
        credential = of_application(family, retry_total=0)
        assert family.do(credential.get_token, SCOPE).token == first.token
    assert family.do(of_application(family).get_token, SCOPE).token != first.token


def test_users_token_is_not_an_applications(family: Family, people: EntraStandIn, tmp_path: Path) -> None:
    """What a code was redeemed for is stored with whose it is, and never found by the application itself."""
    people.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    redirect = "https://program.example/signed-in"
    code = people.sign_in(CLIENT_ID, tenant_id=TENANT_ID, redirect_uri=redirect, user=ADA)
    of_user = family.module.AuthorizationCodeCredential(
        TENANT_ID, CLIENT_ID, code, redirect, client_secret=SECRET, cache_persistence_options=PLAIN
    )
    token = family.do(of_user.get_token, SCOPE)

    assert token.token in store(tmp_path).read_text()
    assert claims(family.do(of_application(family).get_token, SCOPE))["idtyp"] == "app"
    assert len(people.requests) == 2


async def test_exchange_for_a_user_is_azure_identitys(people: EntraStandIn) -> None:
    """Its awaiting family finds what ours stored for this user's token, and ours what it did."""
    import azure.identity.aio

    from workload_identity.aio import OnBehalfOfCredential

    people.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    user = people.user_token(CLIENT_ID, tenant_id=TENANT_ID, user=ADA)
    other = people.user_token(CLIENT_ID, tenant_id=TENANT_ID, user=GRACE)
    given: dict[str, Any] = {"client_secret": SECRET, "user_assertion": user}
    ours = OnBehalfOfCredential(TENANT_ID, CLIENT_ID, **given, cache_persistence_options=PLAIN)
    token = await ours.get_token(SCOPE)
    async with azure.identity.aio.OnBehalfOfCredential(
        TENANT_ID,
        CLIENT_ID,
        **given,
        cache_persistence_options=THEIRS,
        connection_verify=str(people.ca_file),
    ) as theirs:
        assert (await theirs.get_token(SCOPE)).token == token.token
        stored = await theirs.get_token(OTHER)
    again = OnBehalfOfCredential(
        TENANT_ID, CLIENT_ID, **given, cache_persistence_options=PLAIN, shared_cache=False
    )
    assert (await again.get_token(OTHER)).token == stored.token
    assert len(people.requests) == 2
    graces = OnBehalfOfCredential(
        TENANT_ID,
        CLIENT_ID,
        client_secret=SECRET,
        user_assertion=other,
        cache_persistence_options=PLAIN,
    )
    assert claims(await graces.get_token(SCOPE))["upn"] == GRACE


def test_application_without_a_store(family: Family, people: EntraStandIn, tmp_path: Path) -> None:
    """One that cannot be opened is told before anything is asked; without options nothing is stored."""
    people.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    encrypted = of_application(family, cache_persistence_options=TokenCachePersistenceOptions(name=NAME))
    with pytest.raises(ClientAuthenticationError, match="allow_unencrypted_storage"):
        family.do(encrypted.get_token, SCOPE)
    assert people.requests == []

    family.do(of_application(family, cache_persistence_options=None).get_token, SCOPE)
    assert not store(tmp_path).exists()
