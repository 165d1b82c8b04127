"""When a token is fresh, due or over: edges of the clocks."""

import math

import pytest

from workload_identity.cache import DUE, FRESH, OVER, Held
from workload_identity.clock import Instant
from workload_identity.providers import dated
from workload_identity.tokens import AccessToken

START = Instant(1_000_000.0, 50.0)


def held(lifetime: float, refresh_in: float | None = None, stagger: float = 0) -> Held:
    """Return a token that was asked for at START."""
    end = int(START.epoch + lifetime)
    return Held("secret", end, started=START, lifetime=lifetime, refresh_in=refresh_in, stagger=stagger)


def after(epoch: float, monotonic: float | None = None) -> Instant:
    """Return a moment so many seconds after START by either clock."""
    return Instant(START.epoch + epoch, START.monotonic + (epoch if monotonic is None else monotonic))


@pytest.mark.parametrize(
    ("token", "seconds", "freshness"),
    [
        (held(3600), 0, FRESH),
        (held(3600), 3299.9, FRESH),
        (held(3600), 3300, DUE),
        (held(3600), 3599.9, DUE),
        (held(3600), 3600, OVER),
        (held(7199), 6898.9, FRESH),
        (held(7199), 6899, DUE),
        (held(7200), 3599.9, FRESH),
        (held(7200), 3600, DUE),
        (held(7200), 7200, OVER),
        (held(86_400, refresh_in=100), 99.9, FRESH),
        (held(86_400, refresh_in=100), 100, DUE),
        (held(3600, refresh_in=3500), 3300, DUE),
        (held(299), 0, DUE),
        (held(0), 0, OVER),
        (held(-5), 0, OVER),
        (held(3600, stagger=60), 3359.9, FRESH),
        (held(3600, stagger=60), 3360, DUE),
        (held(3600, stagger=9999), 3600, OVER),
    ],
)
def test_freshness_by_age(token: Held, seconds: float, freshness: str) -> None:
    """Due is 300 s before the end, at half of a long life, or when the service said so."""
    assert token.freshness(after(seconds)) == freshness


def test_clock_that_jumps_back_keeps_nothing_fresh() -> None:
    """The monotonic clock knows how old a token is."""
    token = held(3600)

    assert token.freshness(after(-86_400, monotonic=3299)) == FRESH
    assert token.freshness(after(-86_400, monotonic=3300)) == DUE
    assert token.freshness(after(-86_400, monotonic=3600)) == OVER


def test_machine_that_slept_keeps_nothing_fresh() -> None:
    """The monotonic clock may stand still meanwhile; the other one does not."""
    token = held(3600)

    assert token.freshness(after(3600, monotonic=1)) == OVER
    assert token.freshness(after(3300, monotonic=1)) == DUE


def test_token_without_an_end() -> None:
    """A credential of somebody's own may give one that never ends: it is not asked again."""
    token = dated(AccessToken("secret", math.inf), START)  # type: ignore[arg-type]  # as it is written by some

    assert token.freshness(after(1e9)) == FRESH
    assert token.token.token == "secret"
