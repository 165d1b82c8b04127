"""The Grafana dashboard, each of whose expressions is asked of what a running operator shows."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from testkit.day import Day
from testkit.manifests import CHART, RELEASE
from testkit.promtool import without_results

DASHBOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
TARGET = {"job": RELEASE, "instance": "10.0.0.1:8095", "pod": "operator-1"}
"""What Prometheus adds to the series of a target."""


def panels() -> Iterator[dict[str, Any]]:
    """Yield all panels that show something."""
    for panel in DASHBOARD["panels"]:
        yield from panel.get("panels", ())
        if panel["type"] != "row":
            yield panel


def expressions() -> list[str]:
    """Return the expressions of all panels, as Grafana sends them for scrapes a minute apart."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [one.replace("$job", RELEASE).replace("$__rate_interval", "4m") for one in found]


def test_every_expression_finds_something(day: Day) -> None:
    """Each is valid, and names only series and labels that a real scrape has."""
    asked = expressions()

    assert len(asked) > 30
    assert without_results(asked, day.scrapes, TARGET) == ""


@pytest.mark.parametrize("expression", ["workload_identity_redy", 'workload_identity_ready{job="a"}', "sum("])
def test_an_expression_that_finds_nothing_is_told(day: Day, expression: str) -> None:
    """The test above does judge: a misspelt series, a label that is not there, what is no PromQL."""
    assert without_results([expression], day.scrapes, TARGET) != ""


def test_every_panel_belongs_to_the_chosen_job() -> None:
    """Two clusters in one Prometheus are told apart; no expression forgets to select."""
    for panel in panels():
        for target in panel["targets"]:
            grouped = re.sub(r"by \([^)]*\)", "", target["expr"])
            series = re.findall(r"\b(?!histogram_)[a-z]+_\w+(?=[{ )\[]|$)(.{0,12})", grouped)

            assert set(series) == {'{job=~"$job"'}, panel["title"]


def test_panels_have_their_own_place() -> None:
    """None covers another; ids and titles are there once, and units where there are numbers with one."""
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert (x, y) not in taken, f"{panel['title']} covers {taken[x, y]}"
                taken[x, y] = panel["title"]

    for name in ("id", "title"):
        found = [panel[name] for panel in DASHBOARD["panels"]]
        assert len(found) == len(set(found))
    assert all(
        "unit" in panel["fieldConfig"]["defaults"] for panel in panels() if panel["type"] == "timeseries"
    )
