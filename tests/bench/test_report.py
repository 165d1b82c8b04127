"""What people read: tables, the page with its pictures, the raw numbers."""

import json
from pathlib import Path

import pytest

from testkit.bench.measuring import Figure, Part
from testkit.bench.report import Machine, heads, number, rows, this_machine, written

MACHINE = Machine("A processor", 2, 4.0, "6.1", "3.11.7", "v1.36.3", "1.27.0", 0.5)
PART = Part(
    name="reviews",
    title="A review",
    who=("ours", "peer", "bare"),
    compared=(("ours", "peer"), ("bare", "peer")),
    figures=[
        Figure("p50", "ms", {"ours": [1.0, 3.0, 2.0], "peer": [4.0, 4.0, 4.0], "bare": [2.0, 2.0]}),
        Figure("requests", "", {"ours": [1], "peer": [100]}),
    ],
    notes=["Mind this."],
)
ALONE = Part(
    name="alone",
    title="Without the peer",
    who=("ours", "peer"),
    compared=(("ours", "peer"),),
    figures=[Figure("p50", "ms", {"ours": [1.0]})],
    missing={"peer": "not measured, PEER_WEBHOOK is not set"},
)


def test_rows_have_medians_and_the_ratio_with_its_spread() -> None:
    """Each pair's least and most of one round stand behind its ratio; counts are whole."""
    assert list(rows(PART)) == [
        ("p50", "2.00 ms", "4.00 ms", "2.00 ms", "0.50 (0.25 to 0.75)", "0.50"),
        ("requests", "1", "100", "-", "0.01", "-"),
    ]


def test_heads_name_whose_ratio_it_is() -> None:
    """Behind those who were measured."""
    assert heads(PART) == ["", "ours", "peer", "bare", "ours / peer", "bare / peer"]


def test_column_of_a_peer_that_is_not_there_says_so() -> None:
    """With what to set."""
    assert heads(ALONE)[2] == "peer (not measured, PEER_WEBHOOK is not set)"
    assert list(rows(ALONE)) == [("p50", "1.00 ms", "-", "-")]


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.01234, "0.0123"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (10_500.4, "10500")],
)
def test_numbers_show_three_digits(value: float, told: str) -> None:
    """Never a power of ten."""
    assert number(value, "ms") == told


def test_page_names_the_machine_and_shows_table_and_picture(tmp_path: Path) -> None:
    """In Markdown, with the raw numbers beside it."""
    written(tmp_path, [PART, ALONE], MACHINE, {"reviews": "reviews.svg"})

    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "A processor, 2 cores, 4.0 GiB, Linux 6.1; Python 3.11.7, Kubernetes v1.36.3" in page
    assert "![A review](reviews.svg)" in page
    assert "| p50 | 2.00 ms | 4.00 ms | 2.00 ms | 0.50 (0.25 to 0.75) | 0.50 |" in page
    assert "Mind this." in page
    raw = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert raw["machine"]["cores"] == 2
    assert raw["parts"][0]["figures"][0]["rounds"]["ours"] == [1.0, 3.0, 2.0]


def test_this_machine_is_described() -> None:
    """Whatever it is, it has a processor, cores and memory."""
    machine = this_machine()

    assert machine.processor
    assert machine.cores >= 1
    assert machine.memory > 0


def test_pictures_are_the_same_for_the_same_numbers(tmp_path: Path) -> None:
    """With the titles as text, and nobody drawn who was not measured."""
    pytest.importorskip("matplotlib", reason="matplotlib is in the group `bench`")
    from testkit.bench.pictures import drawn

    first = (tmp_path / drawn(PART, tmp_path)).read_bytes()
    second = (tmp_path / drawn(PART, tmp_path)).read_bytes()
    alone = (tmp_path / drawn(ALONE, tmp_path)).read_text(encoding="utf-8")

    assert first == second
    assert b"A review" in first
    assert ">ours<" in alone
    assert ">peer<" not in alone
