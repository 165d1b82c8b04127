"""Edge: what both families do alike to perform a step: files, clocks, chance."""

from __future__ import annotations

import os

from workload_identity.steps import Content, Find, NewId, Now, Read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from workload_identity.clock import Clock
    from workload_identity.steps import Ask, Step


def perform_at_once(step: Step, clock: Clock) -> object:
    """Perform a step that takes no time worth awaiting: a token file is small and in memory.

    Raises:
        OSError: A file cannot be read.
        ValueError: Its path has a NUL in it.
    """
    match step:
        case Read(path, most, folder):
            return _read(_real(path, folder) if folder else path, most)
        case Now():
            return clock.now()
        case NewId():
            return _uuid()
        case Find(names):
            return _found(names)
    raise TypeError(f"nobody here knows how to perform {step!r}")


def question(step: Ask) -> Callable[[], object]:
    """Return the call that asks a credential: by the method that is named, else by its other one."""
    other = "get_token" if step.method == "get_token_info" else "get_token_info"
    name = step.method if hasattr(step.credential, step.method) else other
    ask = getattr(step.credential, name)
    if name == "get_token":
        return lambda: ask(*step.scopes, **step.options)
    return lambda: ask(*step.scopes, **({"options": dict(step.options)} if step.options else {}))


def between(shortest: float, longest: float) -> float:
    """Return a number between the two, by chance."""
    # The system's chance: `random` would be a costly import, and its state would be the same after a fork.
    return shortest + (longest - shortest) * int.from_bytes(os.urandom(4)) / 0xFFFFFFFF


def _real(path: str, folder: str) -> str:
    real = os.path.realpath(path)
    found, wanted = (os.path.normcase(name) for name in (os.path.dirname(real), os.path.realpath(folder)))  # noqa: PTH120 - pathlib is no light import
    if found != wanted:
        raise PermissionError(f"it is a link to a file that is not in {folder}")
    return real


def _read(path: str, most: int) -> Content:
    # Without O_NONBLOCK a pipe in place of the file would keep us for ever.
    flags = (
        os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    # With an opener a descriptor is closed also where it is a folder's.
    with open(path, "rb", buffering=0, opener=lambda name, _: os.open(name, flags)) as file:
        before = os.fstat(file.fileno())
        data = b""
        while len(data) < most and (piece := file.read(most - len(data))):
            data += piece
        after = os.fstat(file.fileno())
    same = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    # Some file systems do not know sizes beforehand, and say 0.
    return Content(data, steady=same and after.st_size in {len(data), 0} and len(data) < most)


def _found(names: tuple[str, ...]) -> str | None:
    import shutil  # noqa: PLC0415 - for credentials that run a tool

    paths = (shutil.which(name) for name in names)
    # One that is relative lies in a folder that anyone may have filled.
    return next((path for path in paths if path and os.path.isabs(path)), None)  # noqa: PTH117 - see `open`


def _uuid() -> str:
    # RFC 9562, version 4. Importing `uuid` costs more than this.
    number = int.from_bytes(os.urandom(16))
    number = number & ~(0xF000 << 64) | 0x4000 << 64
    number = number & ~(0xC000 << 48) | 0x8000 << 48
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
