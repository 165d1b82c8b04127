"""The figures drawn: an SVG for each part, a panel for each figure, the same colour for the same party."""

from math import ceil
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from testkit.bench.measuring import Figure, Part
from testkit.bench.report import number

COLUMNS: Final = 3
COLOURS: Final = (
    "#0a6ebd",
    "#48aff0",
    "#d9822b",
    "#8a9ba8",
    "#30404d",
)  # told apart without seeing red from green
SETTINGS: Final[dict[Any, Any]] = {
    "svg.hashsalt": "workload-identity",  # the same numbers make the same file
    "svg.fonttype": "none",  # text stays text: small, and in the reader's font
    "font.size": 9,
    "axes.titlesize": 9,
}


def drawn(part: Part, folder: Path) -> str:
    """Draw a part, and return the name of the file in the folder."""
    name = f"{part.name}.svg"
    colours = dict(zip(part.who, COLOURS, strict=False))
    with mpl.rc_context(SETTINGS):
        count = ceil(len(part.figures) / COLUMNS)
        canvas = Canvas(figsize=(COLUMNS * 3.6, count * 1.2 + 0.9), layout="constrained")
        panels = list(canvas.subplots(count, COLUMNS, squeeze=False).flat)
        for panel in panels:
            panel.set_axis_off()
        for panel, figure in zip(panels, part.figures, strict=False):
            _draw(panel, figure, {who: colour for who, colour in colours.items() if figure.rounds.get(who)})
        canvas.suptitle(f"{part.title} (less is better; lines: least and most of one round)")
        shown = [Patch(color=colour, label=who) for who, colour in colours.items() if who not in part.missing]
        canvas.legend(handles=shown, loc="outside lower center", ncols=COLUMNS, frameon=False)
        canvas.savefig(folder / name, metadata={"Date": None})
    return name


def _draw(panel: Axes, figure: Figure, colours: dict[str, str]) -> None:
    most = max(max(figure.rounds[who]) for who in colours)
    for place, (who, colour) in enumerate(colours.items()):
        values, median = figure.rounds[who], figure.median(who) or 0.0
        panel.barh(place, median, color=colour)
        panel.plot([min(values), max(values)], [place, place], color="black", linewidth=0.8)
        told = f" {number(median, figure.unit)}"
        panel.annotate(told, (max(*values, 0.0), place), verticalalignment="center")
    panel.set_title(f"{figure.name}, {figure.unit}" if figure.unit else figure.name, loc="left")
    panel.set_xlim(min(0.0, *(min(figure.rounds[who]) for who in colours)), most * 1.25 or 1.0)
    panel.invert_yaxis()
