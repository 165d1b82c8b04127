"""Folders that are thrown away, also those of runs that were killed before they could do it."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "workload-identity-testkit-"
SETTLED = 60
"""Seconds after which the maker of a folder has surely locked it."""


@contextmanager
def throwaway_folder() -> Iterator[Path]:
    """Make a folder only we can read, and remove it and all in it afterwards.

    Its lock is the kernel's and ends with us, so that the next caller can tell a folder in use from
    one whose owner was killed, and removes the latter.
    """
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(held)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        # Gone meanwhile, another user's, or in use.
        with suppress(OSError):
            if folder.stat().st_mtime > time.time() - SETTLED:
                continue
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(held)
