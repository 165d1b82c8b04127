"""What the figures are made of: percentiles, turns, ratios, and what the kernel tells of a process."""

import os
import time

import pytest

from testkit.bench.measuring import Figure, Figures, Ratio, cpu_seconds, in_turns, memory, percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.5, 7.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 0.51, 3.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
    ],
)
def test_percentile_is_a_value_that_was_measured(values: list[float], share: float, expected: float) -> None:
    """The least value that the share does not exceed, whatever the order."""
    assert percentile(values, share) == expected


def test_percentile_of_nothing_is_refused() -> None:
    """It says what was wanted."""
    with pytest.raises(ValueError, match="needs values"):
        percentile([], 0.5)


def test_turns_begin_with_another_one_in_each_round() -> None:
    """Each once in a round; nobody is always first."""
    assert list(in_turns(["a", "b", "c"], 4)) == [*"abc", *"bca", *"cab", *"abc"]


def test_ratio_is_taken_within_a_round() -> None:
    """A round in which everything was twice as slow does not show in it."""
    figure = Figure("x", "ms", {"ours": [1.0, 2.0, 4.0], "peer": [2.0, 4.0, 4.0]})

    assert figure.ratio("ours", "peer") == Ratio(0.5, 0.5, 1.0)
    assert figure.median("ours") == 2.0


@pytest.mark.parametrize("theirs", [[], [0.0, 1.0], [-0.5, 1.0]])
def test_no_ratio_of_what_is_not_above_zero(theirs: list[float]) -> None:
    """Not measured, or smaller than the noise."""
    assert Figure("x", "ms", {"ours": [1.0, 1.0], "peer": theirs}).ratio("ours", "peer") is None


def test_figures_keep_their_order_and_rounds() -> None:
    """The first figure heard of is the first shown."""
    figures = Figures()
    for name, who, value in [("b", "ours", 1.0), ("a", "ours", 2.0), ("b", "peer", 3.0), ("b", "ours", 4.0)]:
        figures.add(name, "ms", who, value)

    assert figures.all() == [
        Figure("b", "ms", {"ours": [1.0, 4.0], "peer": [3.0]}),
        Figure("a", "ms", {"ours": [2.0]}),
    ]


def test_kernel_tells_what_a_process_used() -> None:
    """As Python counts it for itself, within two of the kernel's ticks."""
    begin = time.process_time()
    while time.process_time() - begin < 0.1:
        pass

    assert cpu_seconds(os.getpid()) == pytest.approx(sum(os.times()[:2]), abs=0.02)
    assert 1 < memory(os.getpid()) <= memory(os.getpid(), "VmHWM")
