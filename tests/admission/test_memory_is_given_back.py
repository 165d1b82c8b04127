"""A process that held large buffers is small again, also where smaller ones were made meanwhile and stay."""

import sys

import pytest

from testkit.processes import output_of

PROGRAM = """
import os, sys
from pathlib import Path
from workload_identity_operator import allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024**2

if sys.argv[1] == "kept":
    allocator.keep_bounds()
bytearray(16 * 1024**2)  # a large review: where nothing is kept, the bound rises with it
before = resident()
large, small = [], []
for _ in range(64):
    large.append(bytearray(b"x" * 1024**2))
    small.append(bytearray(60_000))
large.clear()
print(resident() - before)
"""


@pytest.mark.parametrize(("bounds", "least", "most"), [("kept", -1, 8), ("raised", 32, 100)])
def test_memory_after_large_buffers(bounds: str, least: int, most: int) -> None:
    """MiB more than before, of the 64 that were held; without the bounds that would be nearly all of them."""
    grown = int(output_of([sys.executable, "-c", PROGRAM, bounds]))

    assert least <= grown <= most
