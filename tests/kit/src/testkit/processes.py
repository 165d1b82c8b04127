"""Child processes that cannot outlive us.

A child ends when its context is left, by whatever way. Where that cannot happen because we were
killed, the kernel ends it: every child is started through `tether`. Children have their own process
group, so that Ctrl-C reaches only us and we end them in order.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TETHER = Path(__file__).with_name("tether.py")
SHOWN_LINES = 20


class ProcessFailed(RuntimeError):  # noqa: N818 - it reads as what happened
    """A program failed, or did not get ready, or ended on its own; the message shows its last words."""


class Child:
    """A running program whose output goes to a file."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str, log: Path) -> None:
        self._popen = popen
        self.name = name
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id, and that of its process group."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def check(self) -> None:
        """Raise ProcessFailed if it has ended."""
        if self.status is not None:
            raise ProcessFailed(f"{self.name} {_ending(self.status)}. {self.last_words()}")

    def wait_until(self, ready: Callable[[], bool], *, within: float, every: float = 0.05) -> None:
        """Ask `ready` every so many seconds until it says yes.

        Raises:
            ProcessFailed: The program ended meanwhile, or was not ready `within` so many seconds.
        """
        deadline = time.monotonic() + within
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} was not ready within {within:g} s. {self.last_words()}")
            time.sleep(every)

    def last_words(self) -> str:
        """Return the end of its output as a sentence for people."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
        if not lines:
            return f"It wrote nothing to {self.log}."
        return "\n".join([f"The end of {self.log}:", *(f"  {line}" for line in lines)])

    def end(self, grace: float) -> None:
        """End it and its children: politely, and after `grace` seconds by force; at once when 0."""
        if grace and self.status is None:
            _signal_group(self.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace)
        if self.status is None:
            _signal_group(self.pid, signal.SIGKILL)
            self._popen.wait()


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace: float = 10,
    name: str | None = None,
) -> Iterator[Child]:
    """Run a program until the context is left.

    Args:
        command: The program and its arguments.
        log: The file its output is appended to.
        env: Its whole environment; ours when None.
        cwd: Its working directory; ours when None.
        grace: Seconds between the polite end and the forced one; 0 for programs with nothing to save.
        name: What people call it, where that is not the command's first word.
    """
    with log.open("ab") as output:
        popen = _spawn(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=cwd)
    child = Child(popen, name or Path(command[0]).name, log)
    try:
        yield child
    finally:
        child.end(grace)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit status (negative for a signal), stdout and stderr."""

    status: int
    output: str
    errors: str


def finish(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    given: str | None = None,
    timeout: float | None = None,
) -> Ended:
    """Run a program to its end, whatever that is; `given` is its stdin, `timeout` in seconds.

    Raises:
        ProcessFailed: It did not end in time, and was killed.
    """
    popen = _spawn(
        command,
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=cwd,
    )
    with popen:
        try:
            written, errors = popen.communicate(None if given is None else given.encode(), timeout)
        except BaseException as failure:
            _signal_group(popen.pid, signal.SIGKILL)
            if isinstance(failure, subprocess.TimeoutExpired):
                raise ProcessFailed(f"{_words(command)} did not end within {timeout:g} s.") from failure
            raise
    return Ended(popen.returncode, written.decode(errors="replace"), errors.decode(errors="replace"))


def output_of(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    given: str | None = None,
) -> str:
    """Run a program that is to succeed and return what it wrote to stdout; `given` is its stdin.

    Raises:
        ProcessFailed: It ended with another status than 0; the message has command and stderr.
    """
    ended = finish(command, env=env, cwd=cwd, given=given)
    if ended.status:
        raise ProcessFailed(f"{_words(command)} {_ending(ended.status)}:\n{ended.errors.strip()}")
    return ended.output


def leave_on_signals() -> None:
    """Have the first SIGINT, SIGTERM or SIGHUP leave all contexts by SystemExit(0), and ignore later ones.

    For programs that run until they are told to end; call it in the main thread.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def leave(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        sys.exit(0)

    for number in numbers:
        signal.signal(number, leave)


# The kernel ends a child when the thread that made it ends, so one thread that lives as long as we do
# makes them all, whoever asks for them.
_spawner = ThreadPoolExecutor(1, "spawner")


def _renew_spawner() -> None:
    global _spawner  # noqa: PLW0603 - a forked copy of us has none of our threads
    _spawner = ThreadPoolExecutor(1, "spawner")


os.register_at_fork(after_in_child=_renew_spawner)


def _spawn(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    tethered = [sys.executable, "-I", "-S", TETHER, str(os.getpid()), *command]

    def spawn() -> subprocess.Popen[bytes]:
        return subprocess.Popen(tethered, process_group=0, **options)

    # Interrupted while waiting here, nobody knows the child; it ends with us all the same.
    return _spawner.submit(spawn).result()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def _words(command: Sequence[str | Path]) -> str:
    return f"`{' '.join([Path(command[0]).name, *map(str, command[1:])])}`"


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
