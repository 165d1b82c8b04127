"""Faults on demand: what goes wrong between a client and Entra, one dataclass for each.

Conditions (`Slow`, `ClockSkew`, `Propagation`) change how a request is judged; all that match apply. Of the
other faults, which change the answer, a request meets one: the oldest that matches.
"""

import itertools
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer comes `delay` seconds late."""

    delay: float = 5.0


@dataclass(frozen=True, slots=True)
class ClockSkew:
    """The service's own clock is `shift` seconds ahead; negative: behind."""

    shift: float = 3600.0


@dataclass(frozen=True, slots=True)
class Propagation:
    """No federated credential has reached this part of Entra yet: AADSTS70021."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """429; `retry_after` seconds as Retry-After, None: without that header."""

    retry_after: int | None = 1


@dataclass(frozen=True, slots=True)
class Failing:
    """AADSTS90033 with a status of the 5xx; `retry_after` as above."""

    status: int = 503
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset before a byte of the answer."""


@dataclass(frozen=True, slots=True)
class Incomplete:
    """The connection ends in the middle of the answer, which had announced its whole length."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """The answer is well-formed HTTP, its JSON is cut in the middle."""


@dataclass(frozen=True, slots=True)
class Html:
    """A page instead of JSON, as from a proxy or a captive portal."""

    status: int = 200


@dataclass(frozen=True, slots=True)
class Empty:
    """No body at all."""

    status: int = 200


@dataclass(frozen=True, slots=True)
class NotAnObject:
    """Valid JSON, but not an object."""

    status: int = 200


@dataclass(frozen=True, slots=True)
class ContentType:
    """The right answer under the wrong content type."""

    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class Altered:
    """The answer's JSON with other members; None takes one out. `status` None: the answer's own."""

    members: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = None


Condition: TypeAlias = Slow | ClockSkew | Propagation
Replacement: TypeAlias = Throttled | Failing | Reset | Html | Empty | NotAnObject
Damage: TypeAlias = Incomplete | Truncated | ContentType | Altered
Fault: TypeAlias = Condition | Replacement | Damage

# By the names that people with curl use.
KINDS: Mapping[str, type[Fault]] = MappingProxyType(
    {
        "slow": Slow,
        "clock-skew": ClockSkew,
        "propagation": Propagation,
        "throttled": Throttled,
        "failing": Failing,
        "reset": Reset,
        "incomplete": Incomplete,
        "truncated": Truncated,
        "html": Html,
        "empty": Empty,
        "not-an-object": NotAnObject,
        "content-type": ContentType,
        "altered": Altered,
    }
)
_NAMES = {kind: name for name, kind in KINDS.items()}


def name_of(fault: Fault) -> str:
    """Return the fault's name in `KINDS`."""
    return _NAMES[type(fault)]


@dataclass(frozen=True, slots=True)
class Placed:
    """A fault in its place in the queue.

    Attributes:
        number: By which it is removed.
        tenant_id: Whom it meets; None: every tenant.
        client_id: Likewise; None: every client.
        times: How many requests it still meets; None: all until it is removed.
        until: When it ends by itself, on the clock that `Faults` is asked with, in seconds.
    """

    number: int
    fault: Fault
    tenant_id: str | None = None
    client_id: str | None = None
    times: int | None = None
    until: float = math.inf

    def meets(self, tenant_id: str, client_id: str) -> bool:
        """Tell whether a request of this tenant and client meets the fault."""
        pairs = ((self.tenant_id, tenant_id), (self.client_id, client_id))
        return all(wanted is None or wanted.lower() == found.lower() for wanted, found in pairs)


@dataclass(frozen=True, slots=True)
class Met:
    """What one request meets."""

    conditions: tuple[Condition, ...]
    other: Replacement | Damage | None


class Faults:
    """The faults in place, oldest first; threads may share it."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._placed: dict[int, Placed] = {}
        self._lock = threading.Lock()

    def place(
        self, fault: Fault, *, tenant_id: str | None, client_id: str | None, times: int | None, until: float
    ) -> Placed:
        """Put a fault at the end of the queue; the arguments are those of `Placed`."""
        with self._lock:
            placed = Placed(next(self._numbers), fault, tenant_id, client_id, times, until)
            self._placed[placed.number] = placed
            return placed

    def remove(self, number: int) -> bool:
        """Remove one fault; False when it is gone already."""
        with self._lock:
            return self._placed.pop(number, None) is not None

    def clear(self) -> None:
        """Remove every fault."""
        with self._lock:
            self._placed.clear()

    def placed(self, now: float) -> tuple[Placed, ...]:
        """Return the faults in place, oldest first."""
        with self._lock:
            return tuple(placed for placed in self._placed.values() if now < placed.until)

    def met_by(self, tenant_id: str, client_id: str, now: float) -> Met:
        """Return what a request meets, and count it there."""
        conditions: list[Condition] = []
        other: Replacement | Damage | None = None
        with self._lock:
            for placed in tuple(self._placed.values()):
                fault = placed.fault
                if now >= placed.until:
                    del self._placed[placed.number]
                elif not placed.meets(tenant_id, client_id):
                    continue
                elif isinstance(fault, Condition):
                    conditions.append(fault)
                    self._count(placed)
                elif other is None:
                    other = fault
                    self._count(placed)
        return Met(tuple(conditions), other)

    def _count(self, placed: Placed) -> None:
        if placed.times is None:
            return
        if placed.times > 1:
            self._placed[placed.number] = replace(placed, times=placed.times - 1)
        else:
            del self._placed[placed.number]
