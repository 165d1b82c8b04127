"""What long tests count: how far they are, told while they last, and one line each when all is done."""

import time
from collections import Counter
from collections.abc import Callable

TELL_EVERY = 10.0
"""Seconds."""


class Tally:
    """One for a session.

    Attributes:
        lines: What is to be read when all is done.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        """Take what shows a line at once."""
        self.lines: list[str] = []
        self._show = show
        self._counts: Counter[str] = Counter()
        self._told = time.monotonic()

    def one(self, what: str) -> None:
        """Count one more of them; now and then it is shown how many there are."""
        self._counts[what] += 1
        if time.monotonic() - self._told > TELL_EVERY:
            self._told = time.monotonic()
            self._show(f"… {what}: {self._counts[what]:,}")

    def tell(self, line: str) -> None:
        """Have a line read when all is done."""
        self.lines.append(line)
