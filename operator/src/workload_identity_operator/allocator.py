"""Has the C library give memory back: large reviews must not make the operator large for good.

glibc asks the system for a buffer of 128 KiB or more, and gives it back when it is free. But each time it
does, it raises that bound, up to 32 MiB; large buffers then lie on the heap, which ends where the last small
one lies. Under 100,000 hostile reviews (tests/admission) the operator grew from 135 to 170 MiB. With bounds
that stay it has 79 to 91 MiB, and answers no later.
"""

import ctypes
from contextlib import suppress
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_BOUNDS: Final = {
    _M_MMAP_THRESHOLD: 128 * 1024,
    # What may be free at the heap's end: without some of it, the heap would shrink and grow with each review.
    _M_TRIM_THRESHOLD: 2 * 1024 * 1024,
}
"""Bytes; the names are those of mallopt(3)."""


def keep_bounds() -> None:
    """Have buffers of 128 KiB or more given back, always; a C library without mallopt is left as it is."""
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for name, size in _BOUNDS.items():
            mallopt(name, size)
