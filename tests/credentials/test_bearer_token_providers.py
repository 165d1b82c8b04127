"""Functions that return a token's text, from credentials of ours and of others."""

import time
from typing import Any

import azure.core.credentials
import pytest

import workload_identity
from testkit.entra import EntraStandIn
from workload_identity import providers
from workload_identity.clock import SYSTEM

SCOPE = "https://cognitiveservices.azure.com/.default"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any
Pod = Any


class Foreign:
    """A credential of somebody else's, blocking."""

    def __init__(self, lifetime: float = 3600, refresh_in: float | None = None) -> None:
        self.lifetime = lifetime
        self.refresh_in = refresh_in
        self.calls: list[tuple[str, ...]] = []
        self.failure: Exception | None = None

    def answer(self, scopes: tuple[str, ...]) -> azure.core.credentials.AccessTokenInfo:
        """Give a token that tells its number."""
        self.calls.append(scopes)
        if self.failure is not None:
            raise self.failure
        now = time.time()
        refresh_on = None if self.refresh_in is None else int(now + self.refresh_in)
        return azure.core.credentials.AccessTokenInfo(
            f"token-{len(self.calls)}", int(now + self.lifetime), refresh_on=refresh_on
        )


class ForeignInfo(Foreign):
    """A newer one."""

    def get_token_info(self, *scopes: str, **_: object) -> Any:
        """As azure-core names it."""
        return self.answer(scopes)


class ForeignToken(Foreign):
    """An older one."""

    def get_token(self, *scopes: str, **_: object) -> Any:
        """As azure-core named it before."""
        info = self.answer(scopes)
        return azure.core.credentials.AccessToken(info.token, info.expires_on)


class ForeignAwaiting(Foreign):
    """A newer one that awaits."""

    async def get_token_info(self, *scopes: str, **_: object) -> Any:
        """As azure-core names it."""
        return self.answer(scopes)


class ForeignAwaitingToken(Foreign):
    """An older one that awaits."""

    async def get_token(self, *scopes: str, **_: object) -> Any:
        """As azure-core named it before."""
        info = self.answer(scopes)
        return azure.core.credentials.AccessToken(info.token, info.expires_on)


@pytest.fixture
def foreign(family: Family) -> type[Foreign]:
    """A foreign credential of the family."""
    return ForeignInfo if family.module is workload_identity else ForeignAwaiting


def test_provider_of_ours_returns_the_token(family: Family, entra: EntraStandIn) -> None:
    """The text alone, without a prefix, from the credential's own memory."""
    credential = family.credential()
    provider = family.module.get_bearer_token_provider(credential, SCOPE)

    assert family.do(provider) == family.do(provider) == family.do(credential.get_token, SCOPE).token
    assert len(entra.requests) == 1


def test_provider_of_another_holds_the_token(family: Family, foreign: type[Foreign]) -> None:
    """It asks once for all callers."""
    credential = foreign()
    provider = family.module.get_bearer_token_provider(credential, SCOPE, "other")

    assert family.together([provider] * 10) == ["token-1"] * 10
    assert credential.calls == [(SCOPE, "other")]


def test_older_credentials_have_get_token_only(family: Family) -> None:
    """It is used where there is no get_token_info."""
    kind = ForeignToken if family.module is workload_identity else ForeignAwaitingToken

    assert family.do(family.module.get_bearer_token_provider(kind(), SCOPE)) == "token-1"


@pytest.mark.parametrize("given", [{"lifetime": 200}, {"refresh_in": -61}])
def test_due_token_is_renewed_in_the_background(
    family: Family, foreign: type[Foreign], given: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than five minutes of life, or past its time to refresh: the held one is served meanwhile."""
    monkeypatch.setattr(providers, "_STAGGER", 0)
    credential = foreign(**given)
    provider = family.module.get_bearer_token_provider(credential, SCOPE)
    family.do(provider)
    monkeypatch.setattr(SYSTEM, "monotonic", lambda: time.monotonic() + 40)

    assert family.do(provider) == "token-1"
    family.until(lambda: len(credential.calls) == 2)
    assert family.do(provider) == "token-2"


def test_failing_renewal_leaves_the_held_token(
    family: Family, foreign: type[Foreign], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the other credential raises, the token is served while it is good."""
    monkeypatch.setattr(providers, "_STAGGER", 0)
    credential = foreign(lifetime=200)
    provider = family.module.get_bearer_token_provider(credential, SCOPE)
    family.do(provider)
    credential.failure = RuntimeError("down")
    monkeypatch.setattr(SYSTEM, "monotonic", lambda: time.monotonic() + 40)

    assert family.do(provider) == "token-1"
    family.until(lambda: len(credential.calls) == 2)
    assert family.do(provider) == "token-1"


def test_error_of_another_comes_out_as_it_is(family: Family, foreign: type[Foreign]) -> None:
    """Without a token the caller sees what the credential raised."""
    credential = foreign()
    credential.failure = KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        family.do(family.module.get_bearer_token_provider(credential, SCOPE))


def test_scope_is_needed(family: Family, foreign: type[Foreign]) -> None:
    """Its lack is told when the provider is made."""
    for credential in (foreign(), family.credential()):
        with pytest.raises(ValueError, match="scope"):
            family.module.get_bearer_token_provider(credential)
