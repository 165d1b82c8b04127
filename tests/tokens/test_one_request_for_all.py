"""Who leads, who follows, who is served: the cache's decisions, without threads and loops."""

from typing import Any

import pytest

from workload_identity.cache import ABANDONED, MOST_IDENTITIES, MOST_SCOPES, Flight, Held, Slot, TokenCache
from workload_identity.clock import Instant

SCOPES = frozenset({"https://vault.azure.net/.default"})
ME, OTHER = 1, 2


class Loop:
    """As much of an event loop as the cache looks at."""

    def __init__(self, *, running: bool = True) -> None:
        self.running = running

    def is_running(self) -> bool:
        """Tell as an event loop does."""
        return self.running


def at(seconds: float) -> Instant:
    """Return a moment by both clocks."""
    return Instant(1_000_000 + seconds, seconds)


def held(name: str, started: float = 0, lifetime: float = 3600) -> Held:
    """Return a token."""
    return Held(name, 0, started=at(started), lifetime=lifetime)


@pytest.fixture
def cache() -> TokenCache:
    """An empty cache."""
    return TokenCache()


@pytest.fixture
def slot(cache: TokenCache) -> Slot:
    """The place of a token in it."""
    return cache.slot("someone", SCOPES, at(0))


def board(cache: TokenCache, slot: Slot, seconds: float = 0, **given: Any) -> Any:
    """Ask as a thread that blocks, unless told otherwise."""
    wanted = {"thread": ME, "loop": None, "must": False, "way": "a way", **given}
    return cache.board(
        slot,
        wanted["way"],
        at(seconds),
        wanted["thread"],
        wanted["loop"],
        must=wanted["must"],
    )


def test_first_leads_others_follow(cache: TokenCache, slot: Slot) -> None:
    """Without a token one caller asks, and the others wait for the same flight."""
    flight, held_token, leading = board(cache, slot)
    followed = board(cache, slot, thread=OTHER)

    assert (held_token, leading) == (None, True)
    assert followed == (flight, None, False)


def test_landing_wakes_all_who_wait(cache: TokenCache, slot: Slot) -> None:
    """The token is there for them and for all who come later."""
    flight, _, _ = board(cache, slot)
    woken: list[str] = []
    for name in ("one", "two"):
        assert cache.join(flight, lambda name=name: woken.append(name))  # type: ignore[misc]

    token = held("token")
    cache.land(slot, "a way", flight, token)

    assert woken == ["one", "two"]
    assert board(cache, slot) is token
    assert not cache.join(flight, lambda: None)


def test_failure_is_not_remembered(cache: TokenCache, slot: Slot) -> None:
    """The next caller asks again, at once."""
    flight, _, _ = board(cache, slot)
    cache.land(slot, "a way", flight, RuntimeError("no"))

    _, _, leading = board(cache, slot, seconds=0.1)

    assert leading


def test_due_token_is_served_while_one_renews(cache: TokenCache, slot: Slot) -> None:
    """The first caller gets the token and a renewal to begin, the others the token alone."""
    token = slot.held = held("old")

    flight, served, leading = board(cache, slot, seconds=3300)

    assert (served, leading, flight.renewal) == (token, True, True)
    assert board(cache, slot, seconds=3300, thread=OTHER) is token


def test_renewals_have_thirty_seconds_between_them(cache: TokenCache, slot: Slot) -> None:
    """However a renewal ends, the next attempt is spaced from its beginning."""
    token = slot.held = held("old")
    flight, _, _ = board(cache, slot, seconds=3300)
    cache.land(slot, "a way", flight, RuntimeError("down"))

    assert board(cache, slot, seconds=3329.9) is token
    assert board(cache, slot, seconds=3330)[2]


def test_service_that_asks_for_a_pause_gets_it(cache: TokenCache, slot: Slot) -> None:
    """A renewal does not begin before the moment that the service named."""
    token = slot.held = held("old")
    flight, _, _ = board(cache, slot, seconds=3300)
    cache.land(slot, "a way", flight, RuntimeError("down"), rest=3400)

    assert board(cache, slot, seconds=3399) is token
    assert board(cache, slot, seconds=3400)[2]


def test_over_token_is_not_served(cache: TokenCache, slot: Slot) -> None:
    """Whoever comes after the end waits, for a renewal that is under way too."""
    slot.held = held("old")
    renewal, _, _ = board(cache, slot, seconds=3590)

    assert board(cache, slot, seconds=3600) == (renewal, None, False)


def test_spacing_does_not_hold_up_who_must(cache: TokenCache, slot: Slot) -> None:
    """After a failed renewal and the token's end, the next caller asks at once."""
    slot.held = held("old")
    flight, _, _ = board(cache, slot, seconds=3599)
    cache.land(slot, "a way", flight, RuntimeError("down"))

    assert board(cache, slot, seconds=3600)[1:] == (None, True)


def test_challenge_asks_although_a_token_is_held(cache: TokenCache, slot: Slot) -> None:
    """With claims only a new token will do; callers with the same claims share the request."""
    slot.held = held("old")

    flight, served, leading = board(cache, slot, must=True, way="claims")

    assert (served, leading) == (None, True)
    assert board(cache, slot, must=True, way="claims", thread=OTHER) == (flight, None, False)
    assert board(cache, slot, must=True, way="other claims")[2]


def test_later_request_wins(cache: TokenCache, slot: Slot) -> None:
    """A token that was asked for earlier does not replace one asked for later, though it comes last."""
    plain, _, _ = board(cache, slot)
    challenged, _, _ = board(cache, slot, must=True, way="claims")
    newer, older = held("newer", started=2), held("older", started=1)
    cache.land(slot, "claims", challenged, newer)
    cache.land(slot, "a way", plain, older)

    assert board(cache, slot, seconds=3) is newer


def test_abandoned_flight_is_led_anew(cache: TokenCache, slot: Slot) -> None:
    """Who waited leads the next."""
    flight, _, _ = board(cache, slot)
    cache.land(slot, "a way", flight, ABANDONED)

    assert board(cache, slot, thread=OTHER)[1:] == (None, True)


def test_last_to_leave_ends_the_flight(cache: TokenCache, slot: Slot) -> None:
    """As long as anybody waits, others may leave; afterwards the request is cancelled."""
    flight, _, _ = board(cache, slot)
    ended: list[bool] = []
    flight.cancel = lambda: ended.append(True)
    one, two = (lambda: None), (lambda: None)
    cache.join(flight, one)
    cache.join(flight, two)

    cache.leave(slot, "a way", flight, one)
    assert ended == []
    cache.leave(slot, "a way", flight, two)
    assert ended == [True]
    assert board(cache, slot)[2]


def test_leaving_does_not_end_what_cannot_be_ended(cache: TokenCache, slot: Slot) -> None:
    """A thread that asks waits for its own answer: it goes on without followers."""
    flight, _, _ = board(cache, slot)
    cache.join(flight, print)
    cache.leave(slot, "a way", flight, print)

    assert board(cache, slot, thread=OTHER) == (flight, None, False)


def test_nobody_waits_for_himself(cache: TokenCache, slot: Slot) -> None:
    """A thread in whose event loop the request runs, or which runs it, would wait for ever."""
    flight, _, _ = board(cache, slot, loop=Loop())

    again, _, leading = board(cache, slot, thread=ME, loop=None)

    assert leading
    assert again is not flight
    assert board(cache, slot, thread=OTHER, loop=None)[0] is again


def test_flight_of_a_stopped_loop_is_not_waited_for(cache: TokenCache, slot: Slot) -> None:
    """An event loop that does not run any more will never bring an answer."""
    loop = Loop()
    flight, _, _ = board(cache, slot, loop=loop)
    assert board(cache, slot, thread=OTHER) == (flight, None, False)

    loop.running = False
    assert board(cache, slot, thread=OTHER)[2]


def test_wider_token_will_do(cache: TokenCache) -> None:
    """A fresh token for more scopes serves for fewer of them."""
    wide = cache.slot("someone", frozenset({"a", "b"}), at(0))
    wide.held = held("wide")

    assert cache.wider("someone", frozenset({"a"}), at(1)) is wide.held
    assert cache.wider("someone", frozenset({"c"}), at(1)) is None
    assert cache.wider("another", frozenset({"a"}), at(1)) is None
    assert cache.wider("someone", frozenset({"a"}), at(3300)) is None


def test_cache_is_bounded(cache: TokenCache) -> None:
    """Identities and their scopes have a maximum; what was not used for longest goes."""
    for number in range(MOST_IDENTITIES + 10):
        cache.slot(number, SCOPES, at(0))
    for number in range(MOST_SCOPES + 10):
        cache.slot("many", frozenset({str(number)}), at(0))

    assert len(cache._slots) <= MOST_IDENTITIES
    assert len(cache._slots["many"]) <= MOST_SCOPES


def test_what_is_used_stays(cache: TokenCache) -> None:
    """However many others come, an identity and its scopes that are asked for keep their place."""
    slot = cache.slot("busy", SCOPES, at(0))
    slot.held = held("busy")
    for number in range(MOST_IDENTITIES * 2):
        cache.slot(number, SCOPES, at(0)).held = held("x")
        assert cache.slot("busy", SCOPES, at(0)) is slot
    for number in range(MOST_SCOPES * 2):
        cache.slot("busy", frozenset({str(number)}), at(0)).held = held("x")
        assert cache.slot("busy", SCOPES, at(0)) is slot


def test_place_that_somebody_still_knows_comes_back(cache: TokenCache, slot: Slot) -> None:
    """Who was served without a look at the cache for an hour has the token still: so has the cache again."""
    for number in range(MOST_IDENTITIES + 1):
        cache.slot(number, SCOPES, at(0))
    assert "someone" not in cache._slots

    assert cache.slot("someone", SCOPES, at(0), slot) is slot
    assert cache.slot("someone", SCOPES, at(0)) is slot


def test_what_is_over_goes_first(cache: TokenCache) -> None:
    """A good token is kept in place of one that is over."""
    for number in range(MOST_IDENTITIES):
        cache.slot(number, SCOPES, at(0)).held = held("x", lifetime=10 if number == 7 else 3600)

    cache.slot("new", SCOPES, at(100))

    assert 7 not in cache._slots
    assert 0 in cache._slots


def test_place_with_a_flight_stays(cache: TokenCache, slot: Slot) -> None:
    """Nobody's request is forgotten to make room."""
    board(cache, slot)
    for number in range(MOST_IDENTITIES + 10):
        cache.slot(number, SCOPES, at(0))

    assert cache.slot("someone", SCOPES, at(0)) is slot


def test_child_process_forgets_flights(cache: TokenCache, slot: Slot) -> None:
    """After a fork nobody waits for a thread that was left behind; tokens stay."""
    token = slot.held = held("token", lifetime=400)
    board(cache, slot, seconds=200)
    cache.forked()

    assert slot.flights == {}
    assert slot.held is token


def test_names_say_nothing_secret() -> None:
    """Neither a held token nor a flight shows one."""
    assert "secret" not in repr(held("secret"))
    assert "secret" not in repr(Flight(1, None, renewal=False))


def test_refresh_tokens_are_held_by_identity() -> None:
    """The newest stays, whichever answer comes last; only the one that is held can be dropped."""
    cache = TokenCache()
    cache.keep("ada", "one")
    cache.keep("bob", "other")
    cache.keep("ada", "two", instead_of="one")
    cache.keep("ada", "late", instead_of="one")
    cache.keep("ada", None, instead_of="two")
    cache.drop("ada", "one")
    assert (cache.refresh_token("ada"), cache.refresh_token("bob")) == ("two", "other")

    cache.drop("ada", "two")
    assert (cache.refresh_token("ada"), cache.refresh_token("bob")) == (None, "other")


def test_refresh_tokens_are_bounded() -> None:
    """The one that was got first goes first."""
    cache = TokenCache()
    for number in range(MOST_IDENTITIES + 1):
        cache.keep(number, "token")

    assert cache.refresh_token(0) is None
    assert cache.refresh_token(1) == cache.refresh_token(MOST_IDENTITIES) == "token"
