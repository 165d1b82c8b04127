"""Users who sign in: by device code or password, silently later, and what keeps them from it."""

import asyncio
import logging
import pickle
import threading
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
import pytest

from testkit.entra import EntraStandIn
from testkit.entra.faults import Altered, Failing, Html, Reset, Throttled, Truncated
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.entra.people import DEVELOPER_SIGN_ON
from testkit.entra.signing_in import ADA, GRACE, PASSWORD, Device
from workload_identity import (
    AuthenticationRecord,
    AuthenticationRequiredError,
    ClientAuthenticationError,
    CredentialUnavailableError,
)
from workload_identity.clock import Clock

SCOPE = "https://vault.azure.net/.default"
OTHER = "https://storage.azure.com/.default"
CHALLENGE = '{"access_token":{"nbf":{"essential":true,"value":"1603742800"}}}'
Family = Any
NEARLY_OVER = Clock(lambda: time.time() + 3400, lambda: time.monotonic() + 3400)
"""When a token that is got now for an hour is due."""
REFRESH, CODE = "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"


def by_device(family: Family, device: Any, **given: Any) -> Any:
    """Make a credential of a user who signs in by device code."""
    return family.module.DeviceCodeCredential(
        prompt_callback=device, **{"disable_instance_discovery": True, **given}
    )


def by_password(family: Family, name: str = ADA, password: str = PASSWORD, **given: Any) -> Any:
    """Make a credential of a user with a password."""
    with pytest.warns(DeprecationWarning, match="multi-factor"):
        return family.module.UsernamePasswordCredential(
            DEVELOPER_SIGN_ON, name, password, **{"disable_instance_discovery": True, **given}
        )


def claims(token: Any) -> dict[str, Any]:
    """Return what a token says."""
    said: dict[str, Any] = jwt.decode(token.token, options={"verify_signature": False})
    return said


def grants(people: EntraStandIn) -> list[str]:
    """Return the grants that were asked for."""
    return [request.grant for request in people.requests]


def settle(family: Family, credential: Any) -> None:
    """Wait until a renewal in the background has ended."""
    family.until(lambda: not credential._plain[(SCOPE,)].flights)


def failure(family: Family, credential: Any, *scopes: str, **given: Any) -> ClientAuthenticationError:
    """Return what asking for a token raises."""
    with pytest.raises(ClientAuthenticationError) as raised:
        family.do(credential.get_token, *(scopes or (SCOPE,)), **given)
    return raised.value


def test_person_enters_a_code(family: Family, people: EntraStandIn, device: Device) -> None:
    """They are told where, what and until when; the token is theirs, and is held."""
    credential = by_device(family, device)

    token = family.do(credential.get_token, SCOPE)

    [(page, code, until)] = device.prompts
    assert page == f"{people.authority}/devicelogin"
    assert len(code) == 9
    assert until.tzinfo is UTC
    assert 0 < (until - datetime.now(UTC)).total_seconds() <= 900
    assert (claims(token)["upn"], claims(token)["aud"]) == (ADA, "https://vault.azure.net")
    assert family.do(credential.get_token_info, SCOPE).token == token.token
    assert grants(people) == [CODE]


def test_id_token_without_signature(family: Family, people: EntraStandIn, device: Device) -> None:
    """It came from the service itself, so it is believed unsigned too, as some services send it."""
    said = {"iss": people.authority, "aud": DEVELOPER_SIGN_ON, "tid": TENANT_ID, "preferred_username": ADA}
    unsigned = jwt.encode(said, "", algorithm="none")
    with people.fault(Altered({"id_token": unsigned})):
        token = family.do(by_device(family, device).get_token, SCOPE)

    assert unsigned.endswith(".")
    assert claims(token)["upn"] == ADA


def test_prompt_is_printed(family: Family, people: EntraStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a callback the service's own words are."""
    credential = by_device(family, None, timeout=0)

    assert "nobody entered the code" in str(failure(family, credential))
    shown = capsys.readouterr().out
    assert shown.startswith(f"Open {people.authority}/devicelogin and enter the code ")


def test_prompt_may_be_awaited(device: Device) -> None:
    """The awaiting family takes a coroutine function; the blocking one says that it cannot."""
    from workload_identity import DeviceCodeCredential, aio

    async def shown(*prompt: Any) -> None:
        await asyncio.sleep(0)
        device(*prompt)

    async def sign_in() -> Any:
        async with aio.DeviceCodeCredential(
            prompt_callback=shown, disable_instance_discovery=True
        ) as credential:
            return await credential.get_token(SCOPE)

    assert claims(asyncio.run(sign_in()))["upn"] == ADA
    blocking = DeviceCodeCredential(prompt_callback=shown, disable_instance_discovery=True)
    with pytest.raises(ClientAuthenticationError, match=r"workload_identity\.aio"):
        blocking.get_token(SCOPE)


def test_person_takes_a_while(family: Family, people: EntraStandIn, device: Device) -> None:
    """It is asked again until they have signed in, more slowly when the service says so."""
    device.enters = None
    credential = by_device(family, device)
    later = threading.Timer(1.5, lambda: people.people.enter(device.prompts[0][1], ADA))
    later.start()
    with people.fault(Altered({"error": "authorization_pending"}, status=400), times=1):
        assert claims(family.do(credential.get_token, SCOPE))["upn"] == ADA
    later.join()

    outcomes = [request.outcome for request in people.requests]
    assert outcomes[-1] == "granted"
    assert set(outcomes[1:-1]) == {"AADSTS70016"}


@pytest.mark.usefixtures("people")
def test_slow_down() -> None:
    """Five seconds more from then on (RFC 8628, 3.5): looked at by driving the flow by hand."""
    from workload_identity.clock import Instant
    from workload_identity.msal_applications import Begun
    from workload_identity.sign_in import by_device_code
    from workload_identity.steps import Lend, Now, Wait

    told = {"expires_in": 900, "interval": 2, "verification_uri": "p", "user_code": "c", "message": "m"}
    flow = by_device_code(Any, lambda *_: None, None)  # type: ignore[arg-type]
    assert isinstance(next(flow), Lend)
    assert flow.send(Begun(told)) == Now()
    flow.send(Instant(0, 0))
    poll = flow.send(None)
    assert isinstance(poll, Lend)
    told["interval"] = 7  # what MSAL does on slow_down
    assert flow.send(None) == Now()
    assert flow.send(Instant(0, 0)) == Wait(7, 7)
    flow.close()


def test_nobody_signs_in(family: Family, people: EntraStandIn, device: Device) -> None:
    """After `timeout`, or at the end of the code, whichever is first."""
    device.enters = None
    raised = failure(family, by_device(family, device, timeout=0.5))
    assert "nobody entered the code" in str(raised)
    assert device.prompts[0][1] in str(raised)
    assert not isinstance(raised, CredentialUnavailableError)

    people.people.device_code_life = 1
    assert "within 1 s" in str(failure(family, by_device(family, device, timeout=60)))


def test_person_declines(family: Family, people: EntraStandIn, device: Device) -> None:
    """That ends it."""
    device.declines = True

    raised = failure(family, by_device(family, device))

    assert raised.error == "authorization_declined"
    assert grants(people) == [CODE]


def test_service_is_down_while_a_person_types(family: Family, people: EntraStandIn, device: Device) -> None:
    """A failure that may pass does not end the sign-in; no request is repeated for it but by asking again."""
    with people.fault(Failing(503), times=1), people.fault(Reset(), times=1):
        assert claims(family.do(by_device(family, device).get_token, SCOPE))["upn"] == ADA

    assert [request.status for request in people.requests] == [503, 0, 200]


def test_unknown_application(family: Family, device: Device) -> None:
    """There is no code for it, and the error says what to correct."""
    raised = failure(family, by_device(family, device, client_id=CLIENT_ID.replace("0", "9")))

    assert raised.error_codes == [700016]
    assert "client_id" in str(raised)
    assert device.prompts == []


def test_later_tokens_come_silently(family: Family, people: EntraStandIn, device: Device) -> None:
    """For other scopes and after a claims challenge the sign-in's refresh token serves."""
    credential = by_device(family, device)
    first = family.do(credential.get_token, SCOPE)
    other = family.do(credential.get_token, OTHER)
    after = family.do(credential.get_token, SCOPE, claims=CHALLENGE)

    assert claims(other)["aud"] == "https://storage.azure.com"
    assert after.token != first.token
    assert grants(people) == [CODE, REFRESH, REFRESH]
    assert [request.form.get("claims") for request in people.requests] == [None, None, CHALLENGE]
    assert len(device.prompts) == 1


def test_sign_in_that_was_revoked(family: Family, people: EntraStandIn, device: Device) -> None:
    """The person is asked again."""
    credential = by_device(family, device)
    family.do(credential.get_token, SCOPE)
    people.revoke_refresh_tokens()

    assert family.do(credential.get_token, OTHER)
    assert len(device.prompts) == 2


def test_person_is_not_asked_unless_wanted(family: Family, people: EntraStandIn, device: Device) -> None:
    """With disable_automatic_authentication the error says so, with what `authenticate` needs."""
    credential = by_device(family, device, disable_automatic_authentication=True)
    first = failure(family, credential, SCOPE, claims=CHALLENGE)

    assert isinstance(first, AuthenticationRequiredError)
    assert (first.scopes, first.claims) == ((SCOPE,), CHALLENGE)
    assert people.requests == []

    family.do(credential.authenticate, scopes=first.scopes, claims=first.claims)
    assert claims(family.do(credential.get_token, SCOPE))["upn"] == ADA
    people.revoke_refresh_tokens()
    second = failure(family, credential, OTHER)
    assert isinstance(second, AuthenticationRequiredError)
    assert (second.error, second.error_codes, second.status_code) == ("invalid_grant", [50173], 400)
    assert len(device.prompts) == 1


def test_nobody_is_asked_in_the_background(family: Family, people: EntraStandIn, device: Device) -> None:
    """A token that is renewed ahead of its end is not worth a prompt: callers go on with the one held."""
    credential = by_device(family, device)
    token = family.do(credential.get_token, SCOPE)
    people.revoke_refresh_tokens()
    credential._clock = NEARLY_OVER

    assert family.do(credential.get_token, SCOPE) == token
    settle(family, credential)
    assert family.do(credential.get_token, SCOPE) == token
    # MSAL tries the one refresh token twice: as its family's, and as this application's.
    assert (grants(people)[0], set(grants(people)[1:])) == (CODE, {REFRESH})
    assert len(device.prompts) == 1


def test_renewed_in_the_background(family: Family, people: EntraStandIn, device: Device) -> None:
    """By the refresh token, though MSAL's own cache still has a token that would do."""
    credential = by_device(family, device)
    token = family.do(credential.get_token, SCOPE)
    credential._clock = NEARLY_OVER
    assert family.do(credential.get_token, SCOPE) == token
    settle(family, credential)

    assert family.do(credential.get_token, SCOPE) != token
    assert grants(people)[:2] == [CODE, REFRESH]


def test_authenticate_returns_the_record(family: Family, people: EntraStandIn, device: Device) -> None:
    """It asks the person even when there are good tokens; another person's tokens take their place."""
    credential = by_device(family, device)
    family.do(credential.get_token, SCOPE)
    device.enters = GRACE

    record = family.do(credential.authenticate, scopes=[SCOPE])

    assert isinstance(record, AuthenticationRecord)
    assert (record.username, record.tenant_id, record.client_id) == (GRACE, TENANT_ID, DEVELOPER_SIGN_ON)
    assert record.authority == people.authority.removeprefix("https://")
    assert len(device.prompts) == 2
    assert claims(family.do(credential.get_token, SCOPE))["upn"] == GRACE
    assert grants(people) == [CODE, CODE]


def test_authenticate_without_scopes(family: Family, device: Device) -> None:
    """For the public clouds there is a usual one; elsewhere they are asked for."""
    with pytest.raises(CredentialUnavailableError, match="scopes"):
        family.do(by_device(family, device).authenticate)


def test_record_is_of_one_person(family: Family, people: EntraStandIn, device: Device) -> None:
    """A credential with a record uses its client, tenant and authority, and asks when nothing is cached."""
    record = AuthenticationRecord(
        TENANT_ID, DEVELOPER_SIGN_ON, people.authority.removeprefix("https://"), "a.b", ADA
    )
    credential = by_device(
        family, device, client_id="ignored", authority="nowhere.example", authentication_record=record
    )

    assert claims(family.do(credential.get_token, SCOPE))["upn"] == ADA
    assert people.requests[0].tenant == TENANT_ID
    assert len(device.prompts) == 1


def test_continuous_evaluation_is_kept_apart(family: Family, people: EntraStandIn, device: Device) -> None:
    """Tokens of both kinds, and refresh tokens with them."""
    credential = by_device(family, device)
    plain = family.do(credential.get_token, SCOPE)
    with_cae = family.do(credential.get_token, SCOPE, enable_cae=True)

    assert "xms_cc" not in claims(plain)
    assert claims(with_cae)["xms_cc"] == ["CP1"]
    assert family.do(credential.get_token, SCOPE, enable_cae=True) == with_cae
    assert grants(people) == [CODE, CODE]


def test_other_tenants(family: Family, people: EntraStandIn, device: Device) -> None:
    """`organizations` takes any that a call names; a tenant of its own takes those allowed."""
    credential = by_device(family, device)
    assert claims(family.do(credential.get_token, SCOPE, tenant_id=TENANT_ID))["tid"] == TENANT_ID
    assert people.requests[-1].tenant == TENANT_ID

    raised = failure(family, by_device(family, device, tenant_id=TENANT_ID), tenant_id="another")
    assert "additionally_allowed_tenants" in str(raised)
    with pytest.raises(ValueError, match="tenant id"):
        by_device(family, device, tenant_id="../x")


def test_one_prompt_for_all(family: Family, device: Device) -> None:
    """Who asks at the same time waits for the same sign-in."""
    credential = by_device(family, device)

    tokens = family.together([lambda: credential.get_token(SCOPE)] * 10)

    assert len({token.token for token in tokens}) == 1
    assert len(device.prompts) == 1


async def test_waiting_can_be_cancelled(people: EntraStandIn) -> None:
    """A task that is cancelled while a person is waited for ends, and nothing is asked any more."""
    from workload_identity.aio import DeviceCodeCredential

    device = Device(people, enters=None)
    credential = DeviceCodeCredential(prompt_callback=device, disable_instance_discovery=True)
    task = asyncio.create_task(credential.get_token(SCOPE))
    async with asyncio.timeout(30):
        while not people.requests:  # noqa: ASYNC110 - the stand-in knows no event of this loop
            await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asked = len(people.requests)
    await asyncio.sleep(1.5)

    assert len(people.requests) == asked
    await credential.close()


async def test_request_can_be_cancelled(endpoint: Any, device: Device) -> None:
    """The thread that MSAL runs on is let go when its request is."""
    from workload_identity.aio import DeviceCodeCredential

    asked = asyncio.Event()
    here = asyncio.get_running_loop()

    async def silent(_: object) -> Any:
        here.call_soon_threadsafe(asked.set)
        await asyncio.sleep(60)

    endpoint.answers = [silent]
    before = threading.active_count()
    credential = DeviceCodeCredential(prompt_callback=device, disable_instance_discovery=True)
    task = asyncio.create_task(credential.get_token(SCOPE))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await here.shutdown_default_executor()

    assert threading.active_count() <= before


def test_password(family: Family, people: EntraStandIn) -> None:
    """It is checked, and not asked for again while its refresh token is good."""
    credential = by_password(family)

    assert claims(family.do(credential.get_token, SCOPE))["upn"] == ADA
    family.do(credential.get_token, OTHER)
    assert grants(people) == ["password", REFRESH]
    assert f"GET /common/userrealm/{ADA}" in people.other_paths
    people.revoke_refresh_tokens()
    family.do(credential.get_token, "https://graph.example/.default")
    assert grants(people)[-1] == "password"
    assert PASSWORD not in repr(credential)


def test_password_of_a_federation(family: Family, people: EntraStandIn) -> None:
    """The federation is asked, and what it states is traded."""
    people.add_user("fred@fed.test", PASSWORD + "<&>", tenant_id=TENANT_ID, federated=True)

    token = family.do(by_password(family, "fred@fed.test", PASSWORD + "<&>").get_token, SCOPE)

    assert claims(token)["upn"] == "fred@fed.test"
    assert grants(people) == ["urn:ietf:params:oauth:grant-type:saml1_1-bearer"]
    raised = failure(family, by_password(family, "fred@fed.test", "a wrong password"))
    assert "MSIS3068" in str(raised)
    assert "a wrong password" not in str(raised)


@pytest.mark.parametrize(
    ("name", "password", "code", "words"),
    [
        (ADA, "a wrong password", 50126, "Correct username and password"),
        ("nobody@contoso.test", PASSWORD, 50034, "Correct username and password"),
        ("mia@contoso.test", PASSWORD, 50076, "DeviceCodeCredential"),
    ],
)
def test_password_that_will_not_do(
    family: Family, people: EntraStandIn, name: str, password: str, code: int, words: str
) -> None:
    """The error says why, with all fields, and not the password."""
    people.add_user("mia@contoso.test", PASSWORD, tenant_id=TENANT_ID, second_factor=True)

    raised = failure(family, by_password(family, name, password, tenant_id=TENANT_ID))

    assert raised.error_codes == [code]
    assert raised.status_code == 400
    assert raised.correlation_id
    assert words in str(raised)
    assert password not in str(raised)


def test_refusal_is_not_replayed(family: Family, people: EntraStandIn) -> None:
    """A password that was corrected in the meantime works at once."""
    credential = by_password(family, "eve@contoso.test")
    people.add_user("eve@contoso.test", "another", tenant_id=TENANT_ID)
    assert failure(family, credential).error_codes == [50126]
    people.add_user("eve@contoso.test", PASSWORD, tenant_id=TENANT_ID)

    assert claims(family.do(credential.get_token, SCOPE))["upn"] == "eve@contoso.test"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Html(200), "JSON object was wanted"),
        (Truncated(), "JSON object was wanted"),
        (Altered({"access_token": None}), "access_token"),
        (Altered({"expires_in": "soon"}), "number of seconds"),
        (Altered({"id_token": None}), "cannot be told whose"),
        (Altered({"id_token": "rubbish"}), "workload|told whose|broke off"),
        (Failing(503, retry_after=0), "AADSTS90033"),
        (Throttled(3600), "3600 s"),
    ],
)
def test_answers_that_are_none(family: Family, people: EntraStandIn, fault: Any, words: str) -> None:
    """Whatever comes in a token's place, our error is raised and quotes no secret."""
    with people.fault(fault):
        raised = failure(family, by_password(family, retry_backoff_factor=0, timeout=20))

    assert raised.message
    import re

    assert re.search(words, str(raised)), str(raised)
    assert PASSWORD not in str(raised)
    assert "eyJ" not in str(raised)


def test_failure_that_passes_is_repeated(family: Family, people: EntraStandIn) -> None:
    """As any other token request's is."""
    with people.fault(Failing(503), times=2):
        assert family.do(by_password(family, retry_backoff_factor=0.01).get_token, SCOPE)

    assert [request.status for request in people.requests] == [503, 503, 200]


def test_tenant_that_is_unknown(family: Family, device: Device) -> None:
    """The discovery document's refusal is told as a token's would be."""
    raised = failure(family, by_device(family, device, tenant_id="99999999-9999-9999-9999-999999999999"))

    assert raised.error_codes == [90002]
    assert "Correct tenant_id" in str(raised)


def test_documents_are_read_once(family: Family, people: EntraStandIn, device: Device) -> None:
    """One a credential and tenant, and with disable_instance_discovery nobody else is asked."""
    credential = by_device(family, device)
    family.do(credential.get_token, SCOPE)
    family.do(credential.get_token, OTHER)

    documents = [path for path in people.other_paths if path.startswith("GET")]
    assert documents == ["GET /organizations/v2.0/.well-known/openid-configuration"]


def test_unknown_host_is_asked_about(family: Family, device: Device) -> None:
    """At Entra's public address; the error names the option for private clouds."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(
            400, json={"error": "invalid_instance", "error_description": "AADSTS50049: no."}
        )

    credential = by_device(
        family, device, disable_instance_discovery=False, transport=httpx.MockTransport(answer)
    )
    raised = failure(family, credential)

    assert set(asked) == {"login.microsoftonline.com"}
    assert "disable_instance_discovery" in str(raised)


def test_nothing_secret_is_logged(
    family: Family, people: EntraStandIn, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by MSAL either, with all that it would log."""
    with caplog.at_level(logging.DEBUG):
        by = [by_device(family, device), by_password(family)]
        tokens = [family.do(one.get_token, SCOPE) for one in by]
        tokens += [family.do(one.get_token, OTHER) for one in by]

    secrets = [token.token for token in tokens] + [PASSWORD]
    issued = people._service
    secrets += [*issued.sign_ins._refresh_tokens, *issued.sign_ins._codes, *issued.people._every_device_code]
    assert len(secrets) >= 8
    assert [secret for secret in secrets if secret in caplog.text] == []
    assert "eyJ" not in caplog.text.replace("eyJ1aWQi", "")  # client_info: who, not a secret


@pytest.mark.usefixtures("people")
def test_pickle_has_no_token(family: Family) -> None:
    """A credential can be sent to another process; its tokens stay here, its password goes along."""
    credential = by_password(family)
    token = family.do(credential.get_token, SCOPE)
    sent = pickle.dumps(credential)

    assert token.token.encode() not in sent
    assert b"eyJ" not in sent
    received = pickle.loads(sent)  # noqa: S301 - our own
    assert claims(family.do(received.get_token, SCOPE))["upn"] == ADA


def test_construction_loads_nothing() -> None:
    """No MSAL, no HTTP and no TLS before the first token."""
    import subprocess
    import sys

    program = (
        "import sys, warnings; warnings.simplefilter('ignore'); from workload_identity import *;"
        " DeviceCodeCredential(); InteractiveBrowserCredential(); SharedTokenCacheCredential();"
        " UsernamePasswordCredential('a', 'b', 'c'); InteractiveBrowserBrokerCredential();"
        " print([name for name in ('msal', 'httpx', 'ssl', 'asyncio', 'json', 'http.server', 'requests')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_broker_is_a_placeholder(family: Family) -> None:
    """It takes what programs give it, and lets a chain go on."""
    credential = family.module.InteractiveBrowserBrokerCredential(parent_window_handle=1)

    raised = failure(family, credential)
    assert isinstance(raised, CredentialUnavailableError)
    assert "InteractiveBrowserCredential" in str(raised)


def test_unknown_option_warns(family: Family) -> None:
    """With the nearest one that there is."""
    with pytest.warns(UserWarning, match="prompt_callback"):
        family.module.DeviceCodeCredential(promt_callback=print)
