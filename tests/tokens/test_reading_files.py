"""How a step that reads a file is performed."""

import sys
from pathlib import Path

import pytest

from workload_identity.clock import SYSTEM
from workload_identity.edge import between, perform_at_once
from workload_identity.steps import Content, NewId, Read, Wait


def read(path: str | Path) -> Content:
    """Read a file as a flow has it read."""
    content = perform_at_once(Read(str(path)), SYSTEM)
    assert isinstance(content, Content)
    return content


def test_file_at_rest(tmp_path: Path) -> None:
    """All of it is read, and that it did not change is told."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)

    assert read(path) == Content(b"x" * 100_000, steady=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file whose size is not what can be read")
def test_file_that_is_not_what_its_size_says() -> None:
    """What grew or shrank while it was read is not steady."""
    content = read("/sys/devices/system/cpu/online")

    assert content.data
    assert not content.steady


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that knows no sizes")
def test_file_of_unknown_size() -> None:
    """Some file systems, as of FUSE, say 0 for every file: what is in one counts."""
    content = read("/proc/version")

    assert content == Content(Path("/proc/version").read_bytes(), steady=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file without an end")
def test_file_without_end() -> None:
    """Reading stops where no token can be that long."""
    content = read("/dev/zero")

    assert len(content.data) == 1 << 20
    assert not content.steady


def test_ids_are_random_uuids() -> None:
    """No two are the same."""
    import uuid

    made = [uuid.UUID(str(perform_at_once(NewId(), SYSTEM))) for _ in range(100)]

    assert {(one.version, one.variant) for one in made} == {(4, uuid.RFC_4122)}
    assert len(set(made)) == 100


def test_chance_stays_between() -> None:
    """A pause is neither shorter nor longer than asked for, and not always the same."""
    pauses = [between(0.5, 1.0) for _ in range(1000)]

    assert 0.5 <= min(pauses) < 0.6
    assert 0.9 < max(pauses) <= 1.0
    assert between(2, 2) == 2


def test_what_takes_time_is_no_business_of_this() -> None:
    """Waiting differs between the families."""
    with pytest.raises(TypeError, match="Wait"):
        perform_at_once(Wait(1, 2), SYSTEM)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a list of what is open")
def test_nothing_stays_open(tmp_path: Path) -> None:
    """Not even a folder in place of the file."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(IsADirectoryError):
            read(tmp_path)

    assert len(list(Path("/proc/self/fd").iterdir())) < before + 20
