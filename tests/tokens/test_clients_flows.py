"""The flows of confidential clients, played by hand."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from workload_identity.cache import TokenCache
from workload_identity.clients import (
    Client,
    Proof,
    SignIn,
    authorization_code,
    client_credentials,
    nothing,
    secret,
)
from workload_identity.context import IN_CHAIN
from workload_identity.errors import ClientAuthenticationError
from workload_identity.options import Options
from workload_identity.steps import Response, Send, Wait

Stage = Any
Answer = Callable[..., Response]


def client(proof: Proof, *, background: bool = False, region: str = "") -> Client:
    """Return a client that asks for a token of the vault."""
    return Client(
        authority="https://login.microsoftonline.com",
        tenant_id="a-tenant",
        client_id="a-client",
        scopes=("https://vault.azure.net/.default",),
        claims=None,
        proof=proof,
        options=Options({}),
        background=background,
        region=region,
    )


def test_region_has_its_own_endpoint(stage: Stage, answer: Answer) -> None:
    """Tenant and path are as ever."""
    stage.answers = [answer(access_token="t", expires_in=3600)]

    stage.play(client_credentials(client(secret("s"), region="westeurope")))

    assert stage.of(Send)[0].url == "https://westeurope.login.microsoft.com/a-tenant/oauth2/v2.0/token"


@pytest.mark.parametrize(("chain", "waits"), [(False, [100]), (True, [])])
def test_chain_does_not_wait_long(stage: Stage, answer: Answer, chain: bool, waits: list[int]) -> None:
    """It has others to ask; who is asked alone waits for what the service wants."""
    busy = answer(429, headers={"retry-after": "100"}, error="temporarily_unavailable")
    stage.answers = [busy, answer(access_token="t", expires_in=3600)]
    token = IN_CHAIN.set(chain)
    try:
        if chain:
            with pytest.raises(ClientAuthenticationError, match="asks to wait 100 s") as raised:
                stage.play(client_credentials(client(secret("s"))))
            assert raised.value.retry_after == 100
        else:
            stage.play(client_credentials(client(secret("s"))))
    finally:
        IN_CHAIN.reset(token)

    assert [wait.longest for wait in stage.of(Wait)] == waits


def test_code_of_a_cancelled_request_is_free_again() -> None:
    """Whoever asks next redeems it."""
    sign_in = SignIn("a-code", "https://back.example")
    flow = authorization_code(client(nothing), sign_in, TokenCache(), "place")
    next(flow)
    while not sign_in.taken:
        flow.send(_instant())
    assert sign_in.take() is None

    flow.close()

    assert sign_in.take() == "a-code"


def _instant() -> Any:
    from workload_identity.clock import Instant

    return Instant(0, 0)


def test_child_process_does_not_wait_for_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parent has in the air never lands in the child."""
    sign_in = SignIn("a-code", "https://back.example")
    assert sign_in.take() == "a-code"

    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert sign_in.take() == "a-code"


def test_second_request_waits_for_the_first_ones_refresh_token(stage: Stage, answer: Answer) -> None:
    """And gives up with the rest of its time."""
    sign_in = SignIn("a-code", "https://back.example")
    sign_in.take()

    with pytest.raises(ClientAuthenticationError, match="no authorization code"):
        stage.play(authorization_code(client(nothing), sign_in, TokenCache(), "place"))
    assert stage.monotonic >= 50 + Options({}).timeout
    assert stage.of(Send) == []

    cache = TokenCache()
    cache.keep("place", "refreshing")
    stage.answers = [answer(access_token="t", expires_in=3600)]
    stage.play(authorization_code(client(nothing), sign_in, cache, "place"))
    assert stage.of(Send)[0].form["refresh_token"] == "refreshing"
