"""A service that is down for an hour: callers do not notice before their token ends, and soon not at all."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from testkit.entra.faults import Failing, Fault, Reset
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.hosts import AppService, IdentityHost, Imds, resetting, saying
from workload_identity import ClientAuthenticationError
from workload_identity.cache import REFRESH_SPACING, SHARED
from workload_identity.clock import Clock

Family = Any
SCOPE = "https://vault.azure.net/.default"
HOUR = 3600
DUE = 60
"""Seconds after which the services here want a token renewed."""


class Watch(Clock):
    """Clocks that a test sets forward."""

    __slots__ = ("ahead",)

    def __init__(self) -> None:
        self.ahead = 0.0
        super().__init__(lambda: time.time() + self.ahead, lambda: time.monotonic() + self.ahead)


@dataclass
class Scene:
    """A credential and its service.

    Attributes:
        make: Makes the credential.
        asked: How many requests came.
        down: While it is entered the service does not answer as it should.
        spacing: Seconds between two attempts then.
    """

    make: Callable[[], Any]
    asked: Callable[[], int]
    down: Callable[[], AbstractContextManager[Any]]
    spacing: int = REFRESH_SPACING


@contextmanager
def out(host: IdentityHost, answer: Any) -> Iterator[None]:
    """Have a host answer all requests so."""
    up = host.judged

    def judged(request: web.Request) -> Any:
        return answer(request)

    host.judged = judged  # type: ignore[method-assign]
    try:
        yield
    finally:
        host.judged = up  # type: ignore[method-assign]


@pytest.fixture(params=["secret", "workload identity", "IMDS", "App Service"])
def scene(request: pytest.FixtureRequest, family: Family, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The credentials that programs in clusters and on machines use; each service fails in its way."""
    module = family.module
    if request.param in {"secret", "workload identity"}:
        request.getfixturevalue("pod")
        entra = request.getfixturevalue("entra")
        entra.lifetime, entra.refresh_in = 2 * HOUR, DUE
        entra.add_secret(CLIENT_ID, "a-secret", tenant_id=TENANT_ID)
        kinds = {
            "secret": lambda: module.ClientSecretCredential(TENANT_ID, CLIENT_ID, "a-secret", retry_total=0),
            "workload identity": lambda: family.credential(retry_total=0),
        }
        fault: Fault = Failing(503) if request.param == "secret" else Reset()
        yield Scene(kinds[request.param], lambda: len(entra.requests), lambda: entra.fault(fault))
        return
    for name in list(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "MSI_", "IMDS_")):
            monkeypatch.delenv(name)
    kind, answer, spacing = {
        "IMDS": (Imds, saying(503, Retry_After="120"), 120),
        "App Service": (AppService, resetting, REFRESH_SPACING),
    }[request.param]
    with kind() as host:
        for name, value in host.environment.items():
            monkeypatch.setenv(name, value)
        host.members = {"expires_in": 2 * HOUR, "expires_on": None, "refresh_in": DUE}
        yield Scene(
            lambda: module.ManagedIdentityCredential(retry_total=0),
            lambda: len(host.requests),
            lambda: out(host, answer),
            spacing,
        )


def settled() -> bool:
    """Tell whether no request is in the air."""
    return not any(slot.flights for slots in SHARED._slots.values() for slot in slots.values())


def test_an_hour_without_the_service(family: Family, scene: Scene) -> None:
    """The token is served all the hour, few requests are made, and soon after it the token is a new one."""
    watch = Watch()
    credential = scene.make()
    credential._clock = watch
    old = family.do(credential.get_token, SCOPE)
    before = scene.asked()

    watch.ahead = DUE
    with scene.down():
        while watch.ahead < DUE + HOUR:
            assert family.do(credential.get_token, SCOPE) == old
            family.until(settled)
            watch.ahead += 10
        asked = scene.asked() - before
        assert HOUR // scene.spacing // 2 <= asked <= HOUR // scene.spacing + 2

    back = watch.ahead
    while family.do(credential.get_token, SCOPE) == old:
        family.until(settled)
        watch.ahead += 5
        assert watch.ahead < back + scene.spacing + 10
    assert scene.asked() - before == asked + 1


def test_outage_that_lasts_beyond_the_end(family: Family, scene: Scene) -> None:
    """Nobody fails a second before the token is over; who asks when the service is back gets one at once."""
    watch = Watch()
    credential = scene.make()
    credential._clock = watch
    old = family.do(credential.get_token, SCOPE)

    with scene.down():
        for ahead in (DUE + 1, HOUR, 2 * HOUR - 30):
            watch.ahead = ahead
            assert family.do(credential.get_token, SCOPE) == old
            family.until(settled)
        watch.ahead = 2 * HOUR
        with pytest.raises(ClientAuthenticationError):
            family.do(credential.get_token, SCOPE)

    assert family.do(credential.get_token, SCOPE) != old
