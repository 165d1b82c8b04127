"""`make bench`: measure the parts beside what they replace; print tables, write a page with pictures.

PEER_WEBHOOK names the binary of the peer's webhook; without it, its columns stay empty.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from testkit.bench import peer, report
from testkit.bench.growth import identities, starts
from testkit.bench.measuring import Effort, Part
from testkit.bench.stage import install, staged
from testkit.bench.tokens import AT_ONCE, CALLS, MODULES, REQUESTS, WHOLE, tokens
from testkit.bench.wiring import creations, reviews
from testkit.binaries import provide
from testkit.console import StepFailed, console, long_step, step
from testkit.control_plane import ControlPlane
from testkit.installation import free_port

ROOT: Final = Path(__file__).parents[5]
KEPT: Final = ROOT / "docs" / "benchmarks"
QUICK: Final = ROOT / ".run" / "benchmarks"
"""Where a quick run writes: what the repository keeps comes from a whole one."""
FULL_EFFORT: Final = Effort()
LARGE_EFFORT: Final = replace(FULL_EFFORT, accounts=(*FULL_EFFORT.accounts, 100_000))
QUICK_EFFORT: Final = Effort(
    rounds=2,
    seconds=0.6,
    identities=(1, 100),
    annotations=5,
    accounts=(1_000,),
    starts=1,
    settled=2.0,
    processes=3,
    calls=5_000,
    refreshes=100,
    credentials=50,
)
WIDTH: Final = 120
"""Columns of the tables where they go to a file."""
PROGRAM: Final = 0.45
"""Seconds that a program of `tokens` takes, about."""
REQUEST: Final = 0.006
"""Seconds that a request for a token takes, about, where the token service answers at once."""
START: Final = 2.5
"""Seconds that an operator takes to start and end, about."""
COMPILED: Final = 0.35
"""Seconds that timing an annotation takes, about."""
CREATED: Final = 600
"""ServiceAccounts that are created in a second, about."""


@click.command()
@click.option("--quick", is_flag=True, help="A minute instead of a quarter of an hour; noisier.")
@click.option(
    "--large", is_flag=True, help="A cluster of 100,000 ServiceAccounts too; takes ten minutes more."
)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where page, pictures and raw numbers are written; by default {KEPT.relative_to(ROOT)}, and "
    f"{QUICK.relative_to(ROOT)} when quick.",
)
def main(*, quick: bool, large: bool, into: Path | None) -> None:
    """Measure side by side, in turns, on this machine."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if find_spec("matplotlib") is None:
        sys.exit("matplotlib draws the pictures: run `make bench`, or `uv sync --group bench` first.")
    folder = into or (QUICK if quick else KEPT)
    machine = report.this_machine()
    console.print(f"On {machine.sentence()}.")
    if peer.named() is None:
        console.print(f"The peer's webhook: not measured, {peer.VARIABLE} is not set.")
    try:
        provide()
        parts = measured(QUICK_EFFORT if quick else LARGE_EFFORT if large else FULL_EFFORT, peer.named())
    except StepFailed:
        sys.exit(1)
    except RuntimeError as failure:  # what ours are: they speak in sentences
        sys.exit(str(failure))
    with step("Write page, pictures and raw numbers") as taken:
        kept(parts, machine, folder)
        taken.detail = str(folder)
    if not console.is_terminal:
        console.width = WIDTH
    for part in parts:
        console.print()
        console.print(report.terminal(part))
        for note in part.notes:
            console.print(note, style="dim")
    console.print()
    console.print(f"{report.NOISE} {report.PEER}", style="dim")


def measured(effort: Effort, binary: Path | None) -> list[Part]:
    """Measure everything, and show how far it is.

    Args:
        effort: How much.
        binary: The peer's webhook; None: without it.

    Raises:
        StepFailed: Something did not work; its reason was shown.
    """
    webhooks = 1 if binary is None else 2
    turns = effort.rounds * len(effort.connections)
    turn = effort.seconds + 0.2
    sizes, inside = len(effort.identities), sum(effort.identities)
    timing = effort.annotations * COMPILED
    grown = (2 * sizes + 1) * effort.rounds * turn + 2 * inside / CREATED + sizes * (timing + 2)
    started = len(effort.accounts) * effort.starts * (webhooks * (effort.settled + START + 1) + timing)
    programs = len(MODULES) * (
        len(WHOLE) * (effort.processes + 1) * 1.1
        + len(CALLS) * min(effort.processes, 3) * 2
        + len(REQUESTS) * 4
        + len(AT_ONCE)
    )
    many = len(MODULES) * (2 * effort.refreshes + effort.credentials) * REQUEST
    parts = []
    with _cluster() as (plane, port), ExitStack() as engines:
        with step("Start the operator" + (" and the peer" if binary else "")):
            stage = engines.enter_context(staged(plane, port, binary))
        for title, expected, measure in (
            ("Reviews", turns * webhooks * turn, reviews),
            ("Pods", turns * (webhooks + 3) * turn, creations),
            ("Identities", grown, identities),
        ):
            parts.append(_shown(title, expected, partial(measure, stage, effort)))
    with _cluster() as (plane, port):  # another: how many ServiceAccounts it has is what is measured
        expected = started + effort.accounts[-1] / CREATED
        parts.append(_shown("Starts", expected, partial(starts, plane, port, binary, effort)))
    return [*parts, _shown("Tokens", programs * PROGRAM + many, partial(tokens, effort))]


@contextmanager
def _cluster() -> Iterator[tuple[ControlPlane, int]]:
    """Yield a new cluster with the chart, and the port where that has the webhook called."""
    with ExitStack() as planes:
        with step("Start etcd and kube-apiserver, install the chart"):
            plane = planes.enter_context(ControlPlane())
            port = free_port()
            install(plane, port)
        yield plane, port


def _shown(title: str, expected: float, measure: Callable[[Callable[[], None]], Part]) -> Part:
    # Both show something that lives on a terminal, where there is room for one at a time.
    with long_step(f"Measure: {title.lower()}", expected) as tick:
        part = measure(tick)
    console.print(f"[green]✓[/] {part.title}")
    return part


def kept(parts: list[Part], machine: report.Machine, folder: Path) -> None:
    """Write everything into a folder."""
    from testkit.bench.pictures import drawn  # matplotlib is not everyone's

    folder.mkdir(parents=True, exist_ok=True)
    report.written(folder, parts, machine, {part.name: drawn(part, folder) for part in parts})


if __name__ == "__main__":
    main()
