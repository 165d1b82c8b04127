"""Tokens that are held for later callers, and the one request that is in the air for each.

What there is for a caller, by freshness of the held token:

    fresh     it is served; nobody else is bothered
    due       it is served at once; at most every 30 s one caller also starts a renewal, whose failure nobody
    sees over      one caller asks the token service, all others wait for the same answer, be it a token or
    an error

Threads and event loops are mixed freely: who waits leaves a wake-up call with the flight. A flight whose
leader was cancelled, or whose event loop stopped, is abandoned, and one of those who wait leads the next.

Nothing here reads a clock or does I/O, but for the lock. Reading a slot needs no lock: its token is one
attribute, replaced as a whole, and that is safe with and without the GIL.

Source of the rules: azure-identity 1.27.0 (300 s ahead, half of a life of two hours or more, `refresh_in`,
30 s between attempts), botocore (who renews and who goes on with the old one).
"""

from __future__ import annotations

import os
import weakref
from _thread import RLock
from math import inf

from workload_identity.tokens import AccessToken, AccessTokenInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Hashable
    from typing import Final, TypeAlias, TypeVar

    from workload_identity.clock import Instant

REFRESH_AHEAD = 300
"""Seconds before its end at which a token is due."""
REFRESH_SPACING = 30
"""Seconds between two attempts to renew the same token."""
LONG_LIFE = 7200
"""Seconds a token lives at least to be due at half its life."""
MOST_IDENTITIES = 1000
"""Identities whose tokens are held; the oldest go first."""
MOST_SCOPES = 100
"""Tokens held for each of them."""

_A_NEW_THREAD = 0
"""No thread has this identifier."""
FRESH = "fresh"
DUE = "due"
OVER = "over"


class Held:
    """A token with its dates by both clocks, of which the earlier one counts.

    Attributes:
        token: What `get_token` returns.
        info: What `get_token_info` returns.
        started: When it was asked for, by the monotonic clock; orders tokens that overtake each other.
    """

    __slots__ = ("due_epoch", "due_monotonic", "info", "over_epoch", "over_monotonic", "started", "token")

    def __init__(
        self,
        token: str,
        expires_on: int,
        *,
        started: Instant,
        lifetime: float,
        refresh_in: float | None = None,
        stagger: float = 0,
        token_type: str = "Bearer",  # noqa: S107 - a kind of token, not one
    ) -> None:
        """Date a token.

        Args:
            token: The token.
            expires_on: What callers are told, in seconds since the epoch by the token service's clock.
            started: When the request for it was begun.
            lifetime: Seconds from then to its end; a token of a user's own credential may have none, so inf.
            refresh_in: Seconds from then until another should be asked for, if the token service said so.
            stagger: Seconds by which it is due later than it would be, though never after its end.
            token_type: What the token service called it.
        """
        refresh = refresh_in
        if refresh is None and LONG_LIFE <= lifetime < inf:
            refresh = lifetime / 2
        due = min(lifetime - REFRESH_AHEAD, inf if refresh is None else refresh)
        due = min(due + stagger, lifetime)
        self.token = AccessToken(token, expires_on)
        refresh_on = None if refresh is None else int(started.epoch + refresh)
        self.info = AccessTokenInfo(token, expires_on, token_type=token_type, refresh_on=refresh_on)
        self.started = started.monotonic
        self.due_epoch = started.epoch + due
        self.due_monotonic = started.monotonic + due
        self.over_epoch = started.epoch + lifetime
        self.over_monotonic = started.monotonic + lifetime

    def freshness(self, now: Instant) -> str:
        """Return FRESH, DUE or OVER: one clock suffices to make it older, however the other may jump."""
        if now.epoch >= self.over_epoch or now.monotonic >= self.over_monotonic:
            return OVER
        if now.epoch >= self.due_epoch or now.monotonic >= self.due_monotonic:
            return DUE
        return FRESH

    def __repr__(self) -> str:
        return f"<Held {self.info!r}>"


class Abandoned:
    """The outcome of a flight that ended without an answer."""

    def __repr__(self) -> str:
        return "ABANDONED"


ABANDONED: Final = Abandoned()
if TYPE_CHECKING:
    Outcome: TypeAlias = Held | BaseException | Abandoned
    K = TypeVar("K", bound=Hashable)
    V = TypeVar("V")


class Flight:
    """One request in the air.

    Attributes:
        outcome: None until it lands.
        renewal: Whether it was begun ahead of need: nobody has to wait, so nobody's leaving ends it.
        thread: Which thread carries it out.
        loop: Which event loop does; None when the thread is busy with it.
        cancel: Ends it early, from any thread; None when nothing can.
        waiting: Wake-up calls of those who wait.
    """

    __slots__ = ("cancel", "loop", "outcome", "renewal", "thread", "waiting")

    def __init__(self, thread: int, loop: AbstractEventLoop | None, *, renewal: bool) -> None:
        self.thread = thread
        self.loop = loop
        self.renewal = renewal
        self.outcome: Outcome | None = None
        self.cancel: Callable[[], object] | None = None
        self.waiting: list[Callable[[], object]] = []

    def stalled(self) -> bool:
        """Tell whether it cannot land, as its event loop does not run."""
        return self.loop is not None and not self.loop.is_running()

    def blocked_by(self, thread: int, loop: AbstractEventLoop | None) -> bool:
        """Tell whether it can never land while a caller of this thread and event loop waits for it."""
        return self.thread == thread and (self.loop is None or self.loop is not loop)


class Slot:
    """The place of one token.

    Attributes:
        held: The token, or None. Read without a lock.
        rest: No renewal is begun before this moment of the monotonic clock.
        flights: Requests in the air, by what tells them apart: claims, and how they are sent.
    """

    __slots__ = ("flights", "held", "rest")

    def __init__(self) -> None:
        self.held: Held | None = None
        self.rest = -inf
        self.flights: dict[Hashable, Flight] = {}


class TokenCache:
    """Tokens by identity and scopes.

    Bounded: when it is full, what is over goes first, then what was not used for longest.
    """

    def __init__(self) -> None:
        # Re-entrant: a signal handler or a finalizer may come here while its own thread is inside.
        self._lock = RLock()
        self._slots: dict[Hashable, dict[frozenset[str], Slot]] = {}
        self._refresh_tokens: dict[Hashable, str] = {}
        _caches.add(self)

    def slot(
        self, identity: Hashable, scopes: frozenset[str], now: Instant, known: Slot | None = None
    ) -> Slot:
        """Return the place of an identity's token for these scopes.

        Args:
            identity: Whose.
            scopes: What for.
            now: The moment.
            known: What was returned for the same before, if the caller has it still: it gets its place back
                if it had to make room, and the token in it is not lost. Else there is a new one.
        """
        with self._lock:
            # What was used last is put last.
            slots = self._slots.pop(identity, None)
            if slots is None:
                _make_room(self._slots, MOST_IDENTITIES, now, _all_idle)
                slots = {}
            self._slots[identity] = slots
            slot = slots.pop(scopes, None)
            if slot is None:
                _make_room(slots, MOST_SCOPES, now, _slot_idle)
                slot = known or Slot()
            slots[scopes] = slot
            return slot

    def wider(self, identity: Hashable, scopes: frozenset[str], now: Instant) -> Held | None:
        """Return a fresh token that is good for these scopes and for more, if there is one."""
        with self._lock:
            for wide, slot in self._slots.get(identity, {}).items():
                if scopes < wide and slot.held is not None and slot.held.freshness(now) is FRESH:
                    return slot.held
        return None

    def board(
        self,
        slot: Slot,
        way: Hashable,
        now: Instant,
        thread: int,
        loop: AbstractEventLoop | None,
        *,
        must: bool,
    ) -> Held | tuple[Flight, Held | None, bool]:
        """Decide what a caller does.

        Args:
            slot: The place of the token.
            way: What tells one request for it from another.
            now: The moment.
            thread: The caller's thread.
            loop: The caller's event loop; None for a caller who blocks.
            must: Only a new token will do.

        Returns:
            A token, and that is all; or a flight to lead or to wait for, a token to return at once, which
            makes the flight a renewal, and whether the caller leads.
        """
        with self._lock:
            held = None if must else slot.held
            freshness = OVER if held is None else held.freshness(now)
            flight = slot.flights.get(way)
            if flight is not None and (flight.stalled() or flight.blocked_by(thread, loop)):
                flight = None
            if held is None or freshness is OVER:
                if flight is not None:
                    return flight, None, False
                held = None
            elif freshness is FRESH or flight is not None or now.monotonic < slot.rest:
                return held
            slot.rest = now.monotonic + REFRESH_SPACING
            # A renewal that no event loop carries out gets a thread of its own.
            carrier = _A_NEW_THREAD if held is not None and loop is None else thread
            flight = slot.flights[way] = Flight(carrier, loop, renewal=held is not None)
            return flight, held, True

    def land(
        self, slot: Slot, way: Hashable, flight: Flight, outcome: Outcome, *, rest: float = -inf
    ) -> None:
        """End a flight and wake who waits for it; the first call counts.

        Args:
            slot: The place of the token.
            way: The flight's name there.
            flight: The flight.
            outcome: A token, what was raised instead, or ABANDONED.
            rest: No renewal before this moment of the monotonic clock.
        """
        with self._lock:
            if flight.outcome is not None:
                return
            flight.outcome = outcome
            if slot.flights.get(way) is flight:
                del slot.flights[way]
            slot.rest = max(slot.rest, rest)
            if isinstance(outcome, Held) and (slot.held is None or slot.held.started <= outcome.started):
                slot.held = outcome
            waiting, flight.waiting = flight.waiting, []
        for wake in waiting:
            wake()

    def join(self, flight: Flight, wake: Callable[[], object]) -> bool:
        """Leave a wake-up call, which any thread may make; False when the flight has landed already."""
        with self._lock:
            if flight.outcome is not None:
                return False
            flight.waiting.append(wake)
            return True

    def leave(self, slot: Slot, way: Hashable, flight: Flight, wake: Callable[[], object]) -> None:
        """Stop waiting; the last one to leave before the landing ends the flight, if anything can."""
        with self._lock:
            if wake in flight.waiting:
                flight.waiting.remove(wake)
            cancel = flight.cancel
            if flight.outcome is not None or flight.waiting or flight.renewal or cancel is None:
                return
        self.land(slot, way, flight, ABANDONED)
        cancel()

    def refresh_token(self, identity: Hashable) -> str | None:
        """Return an identity's refresh token, if one is held."""
        with self._lock:
            return self._refresh_tokens.get(identity)

    def keep(self, identity: Hashable, token: str | None, *, instead_of: str | None = None) -> None:
        """Hold a refresh token.

        Args:
            identity: Whose.
            token: The token; None: an answer had none, which changes nothing.
            instead_of: The one that it was got with: if there is another by now, that stays. None: whatever
                there is.
        """
        with self._lock:
            known = self._refresh_tokens.get(identity)
            if token is None or (instead_of is not None and known != instead_of):
                return
            # The newest last: the oldest goes first.
            self._refresh_tokens.pop(identity, None)
            while len(self._refresh_tokens) >= MOST_IDENTITIES:
                del self._refresh_tokens[next(iter(self._refresh_tokens))]
            self._refresh_tokens[identity] = token

    def drop(self, identity: Hashable, token: str) -> None:
        """Forget a refresh token that is of no use any more, unless there is another by now."""
        with self._lock:
            if self._refresh_tokens.get(identity) == token:
                del self._refresh_tokens[identity]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._slots.clear()
            self._refresh_tokens.clear()

    def forked(self) -> None:
        """Forget, in a child process, what threads and event loops of its parent had in the air."""
        self._lock = RLock()
        for slots in self._slots.values():
            for slot in slots.values():
                slot.flights.clear()


def _make_room(
    places: dict[K, V], most: int, now: Instant, idle: Callable[[V, Instant | None], bool]
) -> None:
    """Make room for one more: drop what is over, or else what comes first, but nothing with a flight."""
    if len(places) < most:
        return
    dropped = [key for key, place in places.items() if idle(place, now)]
    dropped = dropped or [key for key, place in places.items() if idle(place, None)][:1]
    for key in dropped:
        del places[key]


def _slot_idle(slot: Slot, now: Instant | None) -> bool:
    """Tell whether a slot has no flight and, given a moment, no token that is good then."""
    if slot.flights:
        return False
    return now is None or slot.held is None or slot.held.freshness(now) is OVER


def _all_idle(slots: dict[frozenset[str], Slot], now: Instant | None) -> bool:
    return all(_slot_idle(slot, now) for slot in slots.values())


_caches: weakref.WeakSet[TokenCache] = weakref.WeakSet()
SHARED = TokenCache()
"""The process-wide cache."""


def _forked() -> None:
    for cache in _caches:
        cache.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
