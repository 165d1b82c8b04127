"""The one thing of a node that no namespace covers: the tree of cgroups that its pods are in."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from testkit.folders import PREFIX

ROOT: Final = Path("/sys/fs/cgroup")
BROOM: Final = Path(__file__).with_name("broom.py")
CONTROLLERS: Final = ("cpu", "cpuset", "memory", "pids")
"""What a kubelet wants of version 2."""


def hierarchies() -> list[Path]:
    """Return the roots of all hierarchies: one in version 2, one for each set of controllers in version 1."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    # `unified` is version 2 beside version 1: without controllers.
    return [path for path in sorted(ROOT.iterdir()) if (path / "tasks").exists() and not path.is_symlink()]


def own_memory(name: str, pod: str) -> int:
    """Return the bytes of memory of a pod's processes, files' caches aside; `name` is the node's cgroup."""
    second = (ROOT / "cgroup.controllers").exists()
    (found,) = (ROOT if second else ROOT / "memory").glob(f"{name}/kubepods/**/pod{pod}/memory.stat")
    figures = dict(line.split() for line in found.read_text(encoding="ascii").splitlines())
    return int(figures["anon" if second else "total_rss"])


@contextmanager
def swept(folder: Path) -> Iterator[str]:
    """Yield the name of a new cgroup that is gone afterwards, with the folder too if we are killed.

    Args:
        folder: The node's own, whose name the cgroup has.
    """
    _sweep()
    tops = [root / folder.name for root in hierarchies()]
    # There runc makes one by itself.
    everywhere = [*tops, ROOT / "unified" / folder.name]
    command = [sys.executable, "-I", "-S", *map(str, (BROOM, folder, *everywhere))]
    # In a session of its own: Ctrl-C is for us, who then close the pipe. It is not tethered, on purpose.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        for top in tops:
            _make(top)
        yield folder.name


def _make(top: Path) -> None:
    if top.parent == ROOT:
        control = ROOT / "cgroup.subtree_control"
        for controller in CONTROLLERS:
            if controller not in control.read_text(encoding="ascii").split():
                control.write_text(f"+{controller}", encoding="ascii")
    top.mkdir()
    # A new cpuset of version 1 has neither processors nor memory, and takes no process until it has.
    for file in ("cpuset.cpus", "cpuset.mems"):
        if top.parent != ROOT and (top / file).exists():
            (top / file).write_text((top.parent / file).read_text(encoding="ascii"), encoding="ascii")


def _sweep() -> None:
    """Remove the cgroups of runs whose broom was killed too: their folder is gone, nothing is in them."""
    for root in (*hierarchies(), ROOT / "unified"):
        for top in root.glob(f"{PREFIX}*"):
            if not Path(tempfile.gettempdir(), top.name).exists():
                for path in sorted(top.rglob("*/"), reverse=True):
                    with suppress(OSError):
                        path.rmdir()
                with suppress(OSError):
                    top.rmdir()


def filesystem(path: Path) -> str:
    """Return the kind of file system a path is on, such as "ext4"."""
    found = shutil.which("stat") or "stat"
    return subprocess.run(
        [found, "--file-system", "--format=%T", path], check=True, capture_output=True, text=True
    ).stdout.strip()
