"""Renewal ahead of the end: callers never wait, and never fail while their token is good."""

import asyncio
import gc
import logging
import threading
import time
from typing import Any

import pytest

from testkit.entra import EntraStandIn
from testkit.entra.faults import Failing, Reset, Slow, Throttled
from workload_identity import ClientAuthenticationError
from workload_identity.cache import SHARED
from workload_identity.clock import Clock

SCOPE = "https://vault.azure.net/.default"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any
Pod = Any


class Watch(Clock):
    """Clocks that a test sets forward, each by itself."""

    __slots__ = ("ahead", "wall_ahead")

    def __init__(self) -> None:
        self.ahead = 0.0
        self.wall_ahead = 0.0
        super().__init__(
            lambda: time.time() + self.ahead + self.wall_ahead, lambda: time.monotonic() + self.ahead
        )


@pytest.fixture
def watch() -> Watch:
    """The clocks of a credential under test."""
    return Watch()


def timed(family: Family, watch: Watch, **given: Any) -> Any:
    """Make a credential that looks at these clocks."""
    credential = family.credential(**given)
    credential._clock = watch
    return credential


def test_due_token_is_served_while_it_is_renewed(family: Family, entra: EntraStandIn, watch: Watch) -> None:
    """Callers get the old token at once, then the new one; one request serves all."""
    credential = timed(family, watch)
    old = family.do(credential.get_token, SCOPE)
    watch.ahead = 3400

    with entra.fault(Slow(0.5)):
        begin = time.monotonic()
        assert family.together([lambda: credential.get_token(SCOPE)] * 10) == [old] * 10
        assert time.monotonic() - begin < 0.4
        family.until(lambda: len(entra.requests) == 2 and credential._at_hand((SCOPE,), False).token != old)

    assert family.do(credential.get_token, SCOPE) != old
    assert len(entra.requests) == 2


def test_service_says_when_to_renew(family: Family, entra: EntraStandIn, watch: Watch) -> None:
    """`refresh_in` is heeded, long before the end."""
    entra.refresh_in = 1000
    credential = timed(family, watch)
    old = family.do(credential.get_token, SCOPE)
    watch.ahead = 999
    family.do(credential.get_token, SCOPE)
    assert len(entra.requests) == 1

    watch.ahead = 1001
    assert family.do(credential.get_token, SCOPE) == old
    family.until(lambda: len(entra.requests) == 2)
    assert len(entra.requests) == 2


@pytest.mark.parametrize("fault", [Failing(503), Reset(), Throttled(retry_after=300)])
def test_callers_do_not_notice_an_outage(
    family: Family, entra: EntraStandIn, watch: Watch, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Failed renewals are logged and spaced; the token is served until its end, then the outage is told."""
    credential = timed(family, watch, retry_total=0)
    old = family.do(credential.get_token, SCOPE)

    def attempts() -> int:
        return sum("not renewed yet" in record.message for record in caplog.records)

    with entra.fault(fault), caplog.at_level(logging.WARNING, "workload_identity"):
        for number, ahead in enumerate((3300, 3329, 3331, 3590), start=1):
            watch.ahead = ahead
            assert family.do(credential.get_token, SCOPE) == old
            expected = 1 if isinstance(fault, Throttled) else {1: 1, 2: 1, 3: 2, 4: 3}[number]
            family.until(lambda expected=expected: attempts() >= expected)
            family.until(lambda expected=expected: attempts() > expected, seconds=0.2)
            assert attempts() == expected
        watch.ahead = 3600
        with pytest.raises(ClientAuthenticationError):
            family.do(credential.get_token, SCOPE)

    assert family.do(credential.get_token, SCOPE) != old


def test_clock_that_jumps_back_does_not_keep_a_token(family: Family, watch: Watch) -> None:
    """By the wall clock the token would be good for another day."""
    credential = timed(family, watch)
    old = family.do(credential.get_token, SCOPE)
    watch.ahead = 3600
    watch.wall_ahead = -86_400

    assert family.do(credential.get_token, SCOPE) != old


def test_clock_that_jumps_forward_asks_anew(family: Family, watch: Watch) -> None:
    """A machine that slept does not serve what has ended meanwhile."""
    credential = timed(family, watch)
    old = family.do(credential.get_token, SCOPE)
    watch.wall_ahead = 3600

    assert family.do(credential.get_token, SCOPE) != old


def test_who_comes_after_the_end_waits_for_the_renewal(
    family: Family, entra: EntraStandIn, watch: Watch
) -> None:
    """A renewal under way is as good as a request of one's own."""
    credential = timed(family, watch)
    old = family.do(credential.get_token, SCOPE)
    with entra.fault(Slow(0.6)):
        watch.ahead = 3590
        assert family.do(credential.get_token, SCOPE) == old
        watch.ahead = 3601
        assert family.do(credential.get_token, SCOPE) != old

    assert len(entra.requests) == 2


async def test_closing_ends_a_renewal(entra: EntraStandIn, watch: Watch) -> None:
    """No task is left when an awaiting credential has been closed."""
    from workload_identity.aio import WorkloadIdentityCredential

    credential = WorkloadIdentityCredential()
    credential._clock = watch
    await credential.get_token(SCOPE)
    watch.ahead = 3400
    with entra.fault(Slow(5)):
        await credential.get_token(SCOPE)
        await asyncio.sleep(0.1)
        assert len(credential._renewals) == 1
        await credential.close()

    assert [task for task in asyncio.all_tasks() if task.get_name() == "workload-identity"] == []


def test_loop_that_ends_during_a_renewal(entra: EntraStandIn, watch: Watch) -> None:
    """The renewal ends with its loop, quietly, and the next caller begins another."""
    from workload_identity.aio import WorkloadIdentityCredential

    credential = WorkloadIdentityCredential()
    credential._clock = watch

    async def ask() -> Any:
        return await credential.get_token(SCOPE)

    old = asyncio.run(ask())
    watch.ahead = 3400
    with entra.fault(Slow(5), times=1):
        assert asyncio.run(ask()) == old
    watch.ahead = 3431
    assert asyncio.run(ask()) == old
    gc.collect()
    watch.ahead = 3600
    assert asyncio.run(ask()) != old


def test_no_thread_to_be_had(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started the token is served all the same."""
    from workload_identity import WorkloadIdentityCredential

    credential = WorkloadIdentityCredential()
    credential._clock = watch
    old = credential.get_token(SCOPE)
    watch.ahead = 3400

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert credential.get_token(SCOPE) == old
    assert not any(slot.flights for slots in SHARED._slots.values() for slot in slots.values())
