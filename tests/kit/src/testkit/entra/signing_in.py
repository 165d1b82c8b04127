"""People for the tests of user credentials: an account, and fixtures that put somebody before a screen."""

import webbrowser
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from testkit.entra import EntraStandIn
from testkit.entra.browsing import Person
from testkit.entra.fixtures import TENANT_ID
from testkit.entra.people import DEVELOPER_SIGN_ON

ADA, GRACE = "ada@contoso.test", "grace@contoso.test"
PASSWORD = "a planted password"


@pytest.fixture
def people(entra: EntraStandIn, pod: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> EntraStandIn:
    """The stand-in with two users, on a machine that is no pod."""
    del pod
    entra.make_public(DEVELOPER_SIGN_ON, tenant_id=TENANT_ID)
    for name in (ADA, GRACE):
        entra.add_user(name, PASSWORD, tenant_id=TENANT_ID)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(entra.ca_file))  # for azure-identity
    monkeypatch.setenv("HOME", str(tmp_path))
    return entra


@pytest.fixture
def person(people: EntraStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    """Ada before a browser, which is this machine's only one."""
    made = Person(people.ca_file)
    monkeypatch.setattr(webbrowser, "_tryorder", [], raising=True)
    webbrowser.register("person", None, made, preferred=True)
    people.people.present = ADA
    yield made
    made.leave()


class Device:
    """A prompt that is answered by whoever is set to.

    Attributes:
        enters: Who enters the code; None: nobody.
        prompts: What was shown: page, code, end.
    """

    def __init__(self, people: EntraStandIn, enters: str | None = ADA) -> None:
        self._people = people
        self.enters = enters
        self.declines = False
        self.prompts: list[tuple[str, str, datetime]] = []

    def __call__(self, page: str, code: str, until: datetime) -> None:
        """Show a prompt."""
        self.prompts.append((page, code, until))
        if self.enters is not None:
            self._people.people.enter(code, self.enters, decline=self.declines)


@pytest.fixture
def device(people: EntraStandIn) -> Device:
    """A device whose codes Ada enters."""
    return Device(people)
