"""What people read of the figures: tables on a terminal and in Markdown, the raw numbers as JSON."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.table import Table

from testkit.bench.measuring import Figure, Part, Ratio
from testkit.binaries import KUBERNETES

NOISE: Final = (
    "Whoever is compared takes turns, in one run. A value is the median over the rounds, a ratio the median "
    "of the rounds' own ratios; behind it stand the least and the most of one round: how noisy it was. CPU "
    "is what the kernel counted for a process and depends little on what else the machine did meanwhile. "
    "Latencies do, p99 most of all: read them side by side only. All traffic is on loopback."
)

PEER: Final = "The peer is the webhook of Azure/azure-workload-identity."


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what was measured.

    Attributes:
        load: Processes that wanted to run in the minute before, on average: above 0 we had company.
    """

    processor: str
    cores: int
    memory: float
    kernel: str
    python: str
    kubernetes: str
    azure_identity: str
    load: float

    def sentence(self) -> str:
        """Return it in one line."""
        return (
            f"{self.processor}, {self.cores} cores, {self.memory:.1f} GiB, Linux {self.kernel}; "
            f"Python {self.python}, Kubernetes {self.kubernetes}, azure-identity {self.azure_identity}; "
            f"load average before the run {self.load:.1f}"
        )


def this_machine() -> Machine:
    """Return the machine that this runs on."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 0,
        memory=round(pages / 2**30, 1),
        kernel=platform.release(),
        python=platform.python_version(),
        kubernetes=KUBERNETES.version,
        azure_identity=version("azure-identity"),
        load=round(os.getloadavg()[0], 2),
    )


def _processor() -> str:
    """Return the processor's name; machines other than x86 may not tell."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def heads(part: Part) -> list[str]:
    """Return the heads of a part's columns."""
    who = [f"{who} ({part.missing[who]})" if who in part.missing else who for who in part.who]
    return ["", *who, *(f"{one} / {other}" for one, other in part.compared)]


def rows(part: Part) -> Iterator[Sequence[str]]:
    """Return a part's rows, a figure each."""
    for figure in part.figures:
        values = [_value(figure, who) for who in part.who]
        yield figure.name, *values, *(_ratio(figure.ratio(*pair)) for pair in part.compared)


def _value(figure: Figure, who: str) -> str:
    value = figure.median(who)
    return "-" if value is None else f"{number(value, figure.unit)} {figure.unit}".strip()


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    if ratio.least == ratio.most:
        return f"{ratio.median:.2f}"
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"


def number(value: float, unit: str) -> str:
    """Return a number with three digits that matter, "0.0123", "10500"; a count (no unit) as it is."""
    if not unit:
        return f"{value:g}"
    for bound, digits in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if abs(value) >= bound:
            return f"{value:.{digits}f}"
    return f"{value:.4f}"


def terminal(part: Part) -> Table:
    """Return a part as a table for a terminal."""
    table = Table(*heads(part), title=part.title, title_justify="left", box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows(part):
        table.add_row(*row)
    return table


def markdown(parts: Sequence[Part], machine: Machine, pictures: Mapping[str, str]) -> str:
    """Return the page: `pictures` are the files of pictures, by the names of their parts."""
    lines = ["# What it costs", "", "Made by `make bench`; raw numbers in [results.json](results.json).", ""]
    lines += [f"Measured on {machine.sentence()}.", "", f"{NOISE} {PEER}", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        if part.name in pictures:
            lines += [f"![{part.title}]({pictures[part.name]})", ""]
        lines += [_row(heads(part)), _row(["---", *["---:"] * (len(part.who) + len(part.compared))])]
        lines += [_row(row) for row in rows(part)]
        lines += ["", *part.notes, ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def raw(parts: Sequence[Part], machine: Machine) -> dict[str, Any]:
    """Return everything that was measured, each round by itself."""
    return {"machine": asdict(machine), "parts": [asdict(part) for part in parts]}


def written(folder: Path, parts: Sequence[Part], machine: Machine, pictures: Mapping[str, str]) -> None:
    """Write the page and the raw numbers into a folder."""
    page, numbers = markdown(parts, machine, pictures), json.dumps(raw(parts, machine), indent=1)
    (folder / "README.md").write_text(page, encoding="utf-8")
    (folder / "results.json").write_text(f"{numbers}\n", encoding="utf-8")
