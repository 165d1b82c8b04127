"""The clocks, in one place, so that a test can bring its own."""

from __future__ import annotations

import time
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NamedTuple

    class Instant(NamedTuple):
        """A moment by both clocks.

        Attributes:
            epoch: Seconds since the epoch; may jump.
            monotonic: Seconds since some start; never goes back, may stand still while the machine sleeps.
        """

        epoch: float
        monotonic: float
else:
    Instant = namedtuple("Instant", ("epoch", "monotonic"))  # noqa: PYI024 - importing typing costs more than the rest


class Clock:
    """Reads seconds since the epoch, and seconds that never go back."""

    __slots__ = ("epoch", "monotonic")

    def __init__(
        self, epoch: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.epoch = epoch
        self.monotonic = monotonic

    def now(self) -> Instant:
        """Return the moment by both."""
        return Instant(self.epoch(), self.monotonic())


SYSTEM = Clock()
