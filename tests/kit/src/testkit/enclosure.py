"""Becomes a command that finds folders at paths where this machine has none.

Run as a script in a mount namespace of its own, never imported:
`python -I -S enclosure.py [FOLDER PATH]... -- COMMAND [ARGUMENT ...]`. All that is mounted is gone with the
command, however it ends, because its namespace is.
"""

import ctypes
import os
import sys
from pathlib import Path

# Source: mount(2).
MS_BIND, MS_REC = 0x1000, 0x4000
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str = "", flags: int = 0) -> None:
    """Mount, as the system call of that name does; its errors are OSErrors."""
    if libc.mount(source.encode(), bytes(target), kind.encode(), flags, None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def make_room(path: Path) -> None:
    """Have a folder at the path, not on this machine's disk but in our namespace only.

    Its nearest parent becomes one in memory, in which everything that was there is found again.
    """
    parent = next(folder for folder in path.parents if folder.is_dir())
    before = os.open(parent, os.O_PATH | os.O_DIRECTORY)
    mount("tmpfs", parent, "tmpfs")
    for old in Path(f"/proc/self/fd/{before}").iterdir():
        new = parent / old.name
        if old.is_symlink():
            new.symlink_to(old.readlink())
            continue
        new.mkdir() if old.is_dir() else new.touch()
        mount(str(old), new, flags=MS_BIND | MS_REC)
    os.close(before)
    path.mkdir(parents=True)


divider = sys.argv.index("--")
pairs, command = sys.argv[1:divider], sys.argv[divider + 1 :]
for folder, wanted in zip(pairs[::2], pairs[1::2], strict=True):
    path = Path(wanted).resolve()
    if not path.is_dir():
        make_room(path)
    mount(folder, path, flags=MS_BIND)
# Python adds LC_CTYPE to its environment where no locale is set (PEP 538): hand on what was given.
variables = Path("/proc/self/environ").read_bytes().split(b"\0")[:-1]
given = dict(variable.split(b"=", 1) for variable in variables)
os.execve(command[0], command, given)  # noqa: S606 - no shell is wanted
