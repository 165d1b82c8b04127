"""What people see while the kit works: steps with their time, on a terminal and in a log file alike."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

console = Console(highlight=False, soft_wrap=True)
SILENCE = 30
"""Seconds after which a log file is told that a long step goes on."""


class StepFailed(Exception):  # noqa: N818 - it reads as what happened
    """A step failed and its reason is on the console already: end, with a status other than 0."""


class Step:
    """A step being taken; `detail` is shown behind its time when it is done."""

    def __init__(self) -> None:
        self.detail = ""


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show that something is being done, then that it is done and how long it took.

    Raises:
        StepFailed: Instead of any Exception, whose message has then been shown.
    """
    if not console.is_terminal:
        console.print(f"… {escape(title)}")
    taken, started = Step(), time.monotonic()
    try:
        with console.status(escape(title)) if console.is_terminal else nullcontext():
            yield taken
    except StepFailed:
        _tell("[red]✗[/]", title, started, "")
        raise
    except Exception as failure:
        _tell("[red]✗[/]", title, started, "")
        console.print(escape(_reason(failure)), style="red")
        raise StepFailed(title) from failure
    _tell("[green]✓[/]", title, started, taken.detail)


@contextmanager
def long_step(title: str, expected: float) -> Iterator[Callable[[], None]]:
    """Show how far something is that is expected to take so many seconds.

    What is yielded is to be called now and then, several times a second for people to see it move.
    """
    started = told = time.monotonic()
    if not console.is_terminal:
        console.print(f"… {escape(title)}, about {duration(expected)}")

        def tick() -> None:
            nonlocal told
            if time.monotonic() - told > SILENCE:
                told = time.monotonic()
                console.print(f"… {escape(title)}, {_progress(told - started, expected)}")

        yield tick
        return

    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"),
        console=console, transient=True,
    ) as progress:  # fmt: skip
        bar = progress.add_task(escape(title), total=expected, told="")

        def tick() -> None:
            spent = time.monotonic() - started
            late = spent > expected
            progress.update(
                bar,
                # A bar without a total moves to and fro: it goes on, nobody knows how long.
                total=None if late else expected,
                completed=min(spent, expected),
                told=_progress(spent, expected),
            )

        yield tick


def duration(seconds: float) -> str:
    """Return seconds as people say them: "0.4 s", "48 s", "2 min 48 s"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _progress(spent: float, expected: float) -> str:
    between = "of about" if spent <= expected else "instead of about"
    return f"{duration(spent)} {between} {duration(expected)}"


def _tell(mark: str, title: str, started: float, detail: str) -> None:
    told = f"{mark} {escape(title)}  [dim]{duration(time.monotonic() - started)}[/]"
    console.print(f"{told}  {escape(detail)}" if detail else told)


def _reason(failure: Exception) -> str:
    # Our own errors are RuntimeErrors that speak in sentences; of others the kind says at least as much.
    if isinstance(failure, RuntimeError):
        return str(failure)
    return f"{type(failure).__name__}: {failure}"
