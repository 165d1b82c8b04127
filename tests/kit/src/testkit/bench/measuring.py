"""How things are measured: what a process used, percentiles, turns, and the figures that come of it.

Of the machine nothing is known and other work may run on it, so nothing here is an absolute: whoever is
compared takes turns, and a ratio is taken within one round, never between times that lie apart.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
"""Of a processor's time, in a second: the unit and the precision of /proc/PID/stat."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured; more makes the noise smaller.

    Attributes:
        rounds: In how many rounds load is put on webhooks and API server.
        seconds: That each turn of it lasts.
        connections: With how many connections, one after the other.
        identities: How many identities a namespace has, ascending.
        annotations: How often it is timed how long an annotation takes to its PodWiring.
        accounts: With how many ServiceAccounts the operator is started, one after the other, ascending.
        starts: How often, for each number of them.
        settled: Seconds after being ready at which a started operator's memory is read.
        processes: How often each of the helper's programs is run.
        calls: Of get_token, when a token is held.
        refreshes: Of a token, in one process.
        credentials: Of different clients, whose memory is measured.
    """

    rounds: int = 16
    seconds: float = 1.5
    connections: tuple[int, ...] = (1, 8)
    identities: tuple[int, ...] = (1, 10, 100, 1_000, 5_000)
    annotations: int = 20
    accounts: tuple[int, ...] = (1_000, 10_000, 50_000)
    starts: int = 3
    settled: float = 6.0
    processes: int = 15
    calls: int = 20_000
    refreshes: int = 10_000
    credentials: int = 1_000


@dataclass(frozen=True, slots=True)
class Ratio:
    """What one value is of another: the median over the rounds, and the least and most of one round."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured.

    Attributes:
        name: "CPU per review".
        unit: "ms"; "" for counts.
        rounds: For whoever was measured a value for each round.
    """

    name: str
    unit: str
    rounds: Mapping[str, Sequence[float]]

    def median(self, who: str) -> float | None:
        """Return the median over the rounds; None: not measured."""
        return median(self.rounds[who]) if self.rounds.get(who) else None

    def ratio(self, who: str, of: str) -> Ratio | None:
        """Return what `who` is of `of`; None when either was not measured or is not above 0 in some round."""
        pairs = list(zip(self.rounds.get(who, ()), self.rounds.get(of, ()), strict=False))
        # What is added can come out below 0 where it is smaller than the noise: no ratio then.
        if not pairs or min(map(min, pairs)) <= 0:
            return None
        ratios = [one / other for one, other in pairs]
        return Ratio(median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True, slots=True)
class Part:
    """Figures that belong together: a table and a picture.

    Attributes:
        name: Of its picture's file.
        title: For people.
        who: Who was measured, ours first.
        compared: Pairs of them whose ratio is told.
        figures: What was measured.
        notes: What one must know to read them; sentences.
        missing: Who could not be measured, and why.
    """

    name: str
    title: str
    who: Sequence[str]
    compared: Sequence[tuple[str, str]]
    figures: Sequence[Figure]
    notes: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


class Figures:
    """Figures coming to be, value by value, in the order in which they were first heard of."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, str], dict[str, list[float]]] = {}

    def add(self, name: str, unit: str, who: str, value: float) -> None:
        """Note a round's value."""
        self._rounds.setdefault((name, unit), {}).setdefault(who, []).append(value)

    def all(self) -> list[Figure]:
        """Return what there is by now."""
        return [Figure(name, unit, rounds) for (name, unit), rounds in self._rounds.items()]


def in_turns(who: Sequence[str], rounds: int) -> Iterator[str]:
    """Return who is next, each once in a round, with another one first in each round."""
    for number in range(rounds):
        first = number % len(who)
        yield from (*who[first:], *who[:first])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values (0 < share <= 1) do not exceed: the nearest rank.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("a percentile needs values, none found")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used so far, all threads, its own and the kernel's for it.

    Source: proc_pid_stat(5), utime and stime.
    """
    # The name of the program, in brackets, may hold anything; what follows the last one are numbers.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int, what: str = "VmRSS") -> float:
    """Return a process's resident memory in MiB, now (VmRSS) or the most it ever was (VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) / 1024
