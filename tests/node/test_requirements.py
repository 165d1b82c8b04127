"""What people are told whose machine has no node, and what is installed for them."""

import os
import sys
from pathlib import Path

import pytest

from testkit.folders import PREFIX
from testkit.node import cgroups, requirements
from testkit.processes import finish

EVERYTHING = [
    *("containerd", "containernetworking-plugins", "hostname", "iproute2", "mount", "nftables", "runc"),
    "util-linux",
]
FAKE_APT_GET = """#!/bin/sh
echo "$1" >> "$CALLS"
[ "$1" = update ] && touch "$CALLS.updated"
[ -e "$CALLS.updated" ]
"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on the PATH but what is put into this folder; we are root there."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "environment", lambda: {"PATH": "/nowhere"})
    monkeypatch.setattr(requirements, "PLUGIN_FOLDERS", (tmp_path / "plugins",))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    return tmp_path


def test_nobody_but_root_has_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said in one line, before anything is looked for."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert requirements.lacking() == "A node needs root: namespaces, mounts and cgroups are its work."


def test_packages_to_install_are_named(bare: Path) -> None:
    """All at once, each by Debian's name, in one line."""
    assert requirements.missing() == EVERYTHING
    assert bare.exists()
    assert " ".join(EVERYTHING) in (requirements.lacking() or "")


def test_root_gets_them_installed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By apt-get, whose lists are fetched where it has none."""
    program = bare / "bin" / "apt-get"
    program.write_text(FAKE_APT_GET)
    program.chmod(0o755)
    calls = bare / "calls"
    path = f"{bare}/bin:/usr/bin:/bin"
    monkeypatch.setattr(requirements, "environment", lambda: {"PATH": path, "CALLS": str(calls)})
    monkeypatch.setattr(requirements, "missing", lambda: ["runc"])

    requirements.install()

    assert calls.read_text().split() == ["install", "update", "install"]


@pytest.mark.parametrize("who", [0, 1000], ids=["no apt-get", "not root"])
def test_nothing_is_installed_elsewhere(bare: Path, monkeypatch: pytest.MonkeyPatch, who: int) -> None:
    """Without apt-get, or as anybody else, the machine is left alone and no error made of it."""
    monkeypatch.setattr(os, "geteuid", lambda: who)
    if who:
        (bare / "bin" / "apt-get").symlink_to("/bin/false")

    requirements.install()

    assert requirements.lacking()


def test_tests_are_skipped_with_the_reason() -> None:
    """Where there can be no node, the folder's tests say why in a line, and nothing fails."""
    tests = Path(__file__).with_name("test_nodes.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    ended = finish(command, env=os.environ | {"PATH": "/nowhere"}, cwd=tests.parents[2])

    lines = [line for line in ended.output.splitlines() if line.startswith("SKIPPED")]
    assert (ended.status, "passed" in ended.output) == (0, False)
    assert lines
    assert all(": A node needs " in line for line in lines)


@pytest.mark.usefixtures("node")
def test_cgroups_of_those_who_were_killed_are_removed(tmp_path: Path) -> None:
    """Where nobody was left to sweep, the next node does: a name of ours without a folder is nobody's."""
    folder = tmp_path / f"{PREFIX}gone"
    left = [root / folder.name / "pods" for root in cgroups.hierarchies()]
    for path in left:
        path.mkdir(parents=True)

    with cgroups.swept(tmp_path / f"{PREFIX}next"):
        still = [path.parent for path in left if path.parent.exists()]

    assert still == []
