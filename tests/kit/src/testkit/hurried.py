"""Runs the operator with faster time, a wrong clock or a full disk, and otherwise as it is.

`python -m testkit.hurried CONSTANTS [ARGUMENT ...]`: constants of its modules as JSON, seconds by their names
such as "certificates.LEAF_LIFE", then the operator's own arguments. SIGUSR1 has the clock that Python
programs read jump ahead by the seconds named "jump"; the kernel's, which timers go by, goes on. SIGUSR2 has
the disk that its output goes to be full.
"""

import datetime as dt
import importlib
import json
import os
import signal
import sys
import time
from typing import Any, Final

_PACKAGE: Final = "workload_identity_operator"
_ahead = 0.0
_now, _time = dt.datetime.now, time.time


class _Clock(dt.datetime):
    """Tells the time that the process takes it to be."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return _now(tz) + dt.timedelta(seconds=_ahead)


def _run(constants: dict[str, float]) -> None:
    jump = constants.pop("jump", 0.0)

    def ahead(*_: object) -> None:
        global _ahead  # noqa: PLW0603 - the process has one clock
        _ahead = jump
        print(f"the clock has jumped by {jump:g} s", file=sys.stderr, flush=True)

    def fill(*_: object) -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        for output in (1, 2):
            os.dup2(full, output)

    time.time = lambda: _time() + _ahead
    dt.datetime = _Clock  # type: ignore[misc]
    signal.signal(signal.SIGUSR1, ahead)
    signal.signal(signal.SIGUSR2, fill)
    for name, seconds in constants.items():
        module, _, constant = name.rpartition(".")
        found = importlib.import_module(f"{_PACKAGE}.{module}")
        former = getattr(found, constant)
        in_days = isinstance(former, dt.timedelta)
        setattr(found, constant, dt.timedelta(seconds=seconds) if in_days else type(former)(seconds))
    importlib.import_module(f"{_PACKAGE}.__main__").main()


if __name__ == "__main__":
    given = json.loads(sys.argv.pop(1))
    _run(given)
