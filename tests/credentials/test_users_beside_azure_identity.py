"""Users' credentials beside azure-identity's, at one service: what is sent, and what kind of error comes.

Each known difference stands in a table, with the rule that it follows from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import azure.core.exceptions
import azure.identity
import pytest
from azure.core.pipeline.transport import RequestsTransport

import workload_identity
from testkit.entra import EntraStandIn
from testkit.entra.browsing import Person
from testkit.entra.faults import Altered, Html
from testkit.entra.fixtures import TENANT_ID
from testkit.entra.people import DEVELOPER_SIGN_ON
from testkit.entra.signing_in import ADA, GRACE, PASSWORD, Device

SCOPE = "https://vault.azure.net/.default"
OTHER = "https://storage.azure.com/.default"
CHALLENGE = '{"access_token":{"nbf":{"essential":true,"value":"1603742800"}}}'
Make = Callable[..., Any]


class WithPort(RequestsTransport):  # type: ignore[misc]  # azure-core loads it by name
    """Sends what MSAL addresses without the stand-in's port to the stand-in, as our own adapter does."""

    def __init__(self, authority: str) -> None:
        super().__init__()
        self._authority = authority

    def send(self, request: Any, **given: Any) -> Any:
        """Send a request."""
        request.url = request.url.replace("https://127.0.0.1/", f"{self._authority}/")
        return super().send(request, **given)


@dataclass
class Both:
    """Both libraries before one service.

    Attributes:
        theirs: Makes a credential of azure-identity.
        ours: Makes one of ours.
    """

    people: EntraStandIn

    def theirs(self, name: str, *args: Any, **given: Any) -> Any:
        """Make a credential of azure-identity."""
        kind = getattr(azure.identity, name)
        transport = WithPort(self.people.authority)
        return kind(*args, **{"disable_instance_discovery": True, "transport": transport, **given})

    def ours(self, name: str, *args: Any, **given: Any) -> Any:
        """Make one of ours."""
        kind = getattr(workload_identity, name)
        return kind(*args, **{"disable_instance_discovery": True, **given})

    def sent(self, use: Callable[[Any], object], credential: Any) -> tuple[list[Any], list[str]]:
        """Return what the use of a credential sent: forms of token requests, and other paths."""
        forms, paths = len(self.people.requests), len(self.people.other_paths)
        use(credential)
        requests = self.people.requests[forms:]
        said = [
            {
                **request.form,
                "scope": sorted(request.scope.split()),
                "redirect_uri": "redirect_uri" in request.form,
                "tenant": request.tenant,
            }
            for request in requests
        ]
        # Spec 2.14: what MSAL must know of a tenant is read once a credential; there once for each of the two
        # applications that it has, with and without continuous evaluation.
        known: set[str] = set()
        others = [path for path in self.people.other_paths[paths:] if not _seen(path, known)]
        return said, others


def _seen(path: str, known: set[str]) -> bool:
    document = path.startswith("GET") and not path.endswith("/authorize")
    seen = document and path in known
    known.add(path)
    return seen


@pytest.fixture
def both(people: EntraStandIn) -> Both:
    """Both libraries, and two people."""
    return Both(people)


def use(credential: Any) -> None:
    """Sign in; get tokens for other scopes, after a challenge, with continuous evaluation, in a tenant."""
    credential.get_token(SCOPE)
    credential.get_token(SCOPE)
    credential.get_token(OTHER)
    credential.get_token(SCOPE, claims=CHALLENGE)
    credential.get_token(SCOPE, enable_cae=True)
    credential.get_token(SCOPE, claims=CHALLENGE, enable_cae=True)
    credential.get_token(SCOPE, tenant_id=TENANT_ID)


def test_device_code_sends_the_same(both: Both, device: Device) -> None:
    """Every form and every other request."""
    made = [make("DeviceCodeCredential", prompt_callback=device) for make in (both.theirs, both.ours)]

    theirs, ours = (both.sent(use, credential) for credential in made)

    assert len(theirs[0]) >= 6
    assert ours == theirs


@pytest.mark.usefixtures("person")
def test_browser_sends_the_same(both: Both, person: Person) -> None:
    """And asks for the same page, but for what is made anew each time."""
    from urllib.parse import parse_qs, urlsplit

    made = [
        make("InteractiveBrowserCredential", login_hint=ADA, timeout=20) for make in (both.theirs, both.ours)
    ]
    pages = []
    sent = []
    for credential in made:
        begin = len(person.pages)
        sent.append(both.sent(use, credential))
        person.leave()
        pages.append(
            [
                {
                    name: value
                    for name, value in parse_qs(urlsplit(page).query).items()
                    if name not in {"state", "nonce", "code_challenge", "redirect_uri"}
                }
                for page in person.pages[begin:]
            ]
        )

    assert len(pages[0]) == 2
    assert [{**page, "scope": sorted(page["scope"][0].split())} for page in pages[1]] == [
        {**page, "scope": sorted(page["scope"][0].split())} for page in pages[0]
    ]
    assert sent[1] == sent[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_password_sends_the_same(both: Both) -> None:
    """Realm, password, refresh tokens."""
    made = [
        make("UsernamePasswordCredential", DEVELOPER_SIGN_ON, ADA, PASSWORD)
        for make in (both.theirs, both.ours)
    ]

    theirs, ours = (both.sent(use, credential) for credential in made)

    assert len(theirs[0]) >= 6
    assert ours == theirs


def kind_of(call: Callable[[], object]) -> str:
    """Return the kind of error that a call ends in: required, unavailable, failed, or another's name."""
    try:
        call()
    except azure.core.exceptions.ClientAuthenticationError as failure:
        names = [kind.__name__ for kind in type(failure).__mro__]
        for name in ("AuthenticationRequiredError", "CredentialUnavailableError"):
            if name in names:
                return name
        return "ClientAuthenticationError"
    except Exception as failure:  # noqa: BLE001 - which one, is the question
        return type(failure).__name__
    return "a token"


Case = Callable[[Make, EntraStandIn, Device], str]


def a_device(make: Make, device: Device, **given: Any) -> Any:
    """Make a credential with a device."""
    return make("DeviceCodeCredential", **{"prompt_callback": device, **given})


def signing_in(*scopes: str, **given: Any) -> Case:
    """Return a case of a sign-in by device code, with these options."""
    return lambda make, _people, device: kind_of(
        lambda: a_device(make, device, **given).get_token(*(scopes or (SCOPE,)))
    )


def with_fault(fault: Any) -> Case:
    """Return a case in which the token endpoint has a fault."""

    def case(make: Make, people: EntraStandIn, device: Device) -> str:
        with people.fault(fault):
            return signing_in(timeout=1)(make, people, device)

    return case


def nobody_enters(make: Make, people: EntraStandIn, device: Device) -> str:
    """Nobody enters the code."""
    device.enters = None
    return signing_in(timeout=0)(make, people, device)


def person_declines(make: Make, people: EntraStandIn, device: Device) -> str:
    """The person says no."""
    device.declines = True
    return signing_in()(make, people, device)


def wrong_password(make: Make, people: EntraStandIn, _device: Device) -> str:
    """The password is wrong."""
    del people
    credential = make("UsernamePasswordCredential", DEVELOPER_SIGN_ON, ADA, "a wrong password")
    return kind_of(lambda: credential.get_token(SCOPE))


def corrected_password(make: Make, people: EntraStandIn, _device: Device) -> str:
    """The password is corrected after it was refused."""
    people.add_user("eve@contoso.test", "another", tenant_id=TENANT_ID)
    credential = make("UsernamePasswordCredential", DEVELOPER_SIGN_ON, "eve@contoso.test", PASSWORD)
    kind_of(lambda: credential.get_token(SCOPE))
    people.add_user("eve@contoso.test", PASSWORD, tenant_id=TENANT_ID)
    return kind_of(lambda: credential.get_token(SCOPE))


def another_person(make: Make, _people: EntraStandIn, device: Device) -> str:
    """Somebody else is to sign in."""
    credential = a_device(make, device)
    credential.authenticate(scopes=[SCOPE])
    device.enters = GRACE
    return str(credential.authenticate(scopes=[SCOPE]).username)


def call(method: str, *args: Any, **given: Any) -> Case:
    """Return a case of another call."""
    return lambda make, _people, device: kind_of(
        lambda: getattr(a_device(make, device), method)(*args, **given)
    )


def redirect_without_port(make: Make, _people: EntraStandIn, _device: Device) -> str:
    """The redirect URI lacks a port."""
    return kind_of(lambda: make("InteractiveBrowserCredential", redirect_uri="http://localhost"))


def tenant_not_allowed(make: Make, _people: EntraStandIn, device: Device) -> str:
    """A call names a tenant that is not allowed."""
    credential = a_device(make, device, tenant_id=TENANT_ID)
    return kind_of(lambda: credential.get_token(SCOPE, tenant_id="another"))


FAILED, SAME = "ClientAuthenticationError", ""


@pytest.mark.parametrize(
    ("case", "theirs", "ours"),
    [
        (signing_in(disable_automatic_authentication=True), "AuthenticationRequiredError", SAME),
        (person_declines, FAILED, SAME),
        (nobody_enters, FAILED, SAME),
        (signing_in(client_id=TENANT_ID), FAILED, SAME),
        (signing_in(tenant_id="unknown.example"), FAILED, SAME),
        (tenant_not_allowed, FAILED, SAME),
        (with_fault(Html(200)), FAILED, SAME),
        (with_fault(Altered({"id_token": None})), FAILED, SAME),
        (with_fault(Altered({"expires_in": "soon"})), FAILED, SAME),
        (wrong_password, FAILED, SAME),
        (call("get_token"), "ValueError", SAME),
        (call("authenticate"), "CredentialUnavailableError", SAME),
        (redirect_without_port, "ValueError", SAME),
        # Spec 6.1: `authenticate` always asks the person; there only when nothing is cached, though its
        # documentation says otherwise.
        (another_person, ADA, GRACE),
        # Spec 2.11: a refusal is not replayed from memory; there for 60 s.
        (corrected_password, FAILED, "a token"),
        # Spec 2.4: claims that are no JSON, with continuous evaluation, are misuse, told before any request.
        (call("get_token", SCOPE, claims="rubbish", enable_cae=True), FAILED, "ValueError"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_kinds_of_errors(both: Both, case: Case, theirs: str, ours: str) -> None:
    """The same, but where a rule says why not."""
    found = [case(make, both.people, Device(both.people)) for make in (both.theirs, both.ours)]

    assert found == [theirs, ours or theirs]


@pytest.mark.parametrize(
    "name",
    [
        "DeviceCodeCredential",
        "InteractiveBrowserCredential",
        "SharedTokenCacheCredential",
        "UsernamePasswordCredential",
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keywords_are_azure_identitys(name: str, recwarn: pytest.WarningsRecorder) -> None:
    """Moving over is changing an import: all that theirs document, ours take without a word."""
    args = ("a", "b", "c") if name == "UsernamePasswordCredential" else ()
    given: dict[str, Any] = {
        "authority": "login.microsoftonline.com",
        "tenant_id": "a-tenant",
        "cache_persistence_options": azure.identity.TokenCachePersistenceOptions(),
        "additionally_allowed_tenants": ["*"],
        "enable_support_logging": True,
        "disable_instance_discovery": True,
    }
    if name in {"DeviceCodeCredential", "InteractiveBrowserCredential"}:
        given |= {"disable_automatic_authentication": True, "authentication_record": None, "timeout": 3}

    for module in (azure.identity, workload_identity):
        assert getattr(module, name)(*args, **given)
    assert [str(one.message) for one in recwarn if one.category is UserWarning] == []
