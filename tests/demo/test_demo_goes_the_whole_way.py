"""`make demo`, as a person runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.binaries import provide
from testkit.processes import Ended, finish
from testkit.spectator import saw_all

DEMO = [sys.executable, "-m", "testkit.demo", "--alone"]
OURS = ("kube-apiserver", "kube-controller-manager", "etcd", "workload_identity_operator")


@pytest.fixture(autouse=True, scope="module")
def _binaries(pytestconfig: pytest.Config) -> None:
    """Have what the demo would build, so that a test's time-out is not spent on it."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()


def demo(folder: Path, *args: str) -> Ended:
    """Run the demo in a folder of its own; what it leaves running is known there."""
    # What is left running keeps no pipe of ours open: otherwise this would not return.
    return finish([*DEMO, *args], env=dict(os.environ), cwd=folder, timeout=180)


def running_from(folder: Path) -> set[str]:
    """Return the names of those of our programs whose command or working directory is of a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            here = (process / "cwd").readlink() == folder
        except OSError:  # it has ended meanwhile
            continue
        found |= {name for name in OURS if name in command and (here or str(folder) in command)}
    return found


def test_demo_ends_well_and_shows_no_token(tmp_path: Path) -> None:
    """Every step is ticked, the pod's additions and the claims are shown, the token is not."""
    ended = demo(tmp_path)

    saw_all(ended)
    assert ended.output.count("✓") == ended.output.count("… ") == 10


def test_failed_demo_gives_its_reason_and_a_status(tmp_path: Path) -> None:
    """Where a step cannot be done the demo says which and why, and its status is not 0."""
    # A folder that is no folder: the control plane cannot have one of its own.
    env = os.environ | {"TMPDIR": str(tmp_path / "missing"), "TEMP": "/dev/null", "TMP": "/dev/null"}
    program = (
        "import tempfile; tempfile.tempdir = '/dev/null/x'; from testkit.demo import main; main(['--alone'])"
    )

    ended = finish([sys.executable, "-c", program], env=dict(env), cwd=tmp_path, timeout=60)

    assert ended.status == 1
    assert "✗ Start etcd" in ended.output
    assert "Not a directory" in ended.output
    assert "Demo failed in" in ended.output


def test_kept_demo_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    """It returns when it has told how to play, what it told works, and `--stop` leaves nothing."""
    kept = demo(tmp_path, "--keep")
    try:
        assert kept.status == 0, kept.output + kept.errors
        kubeconfig = Path(re.findall(r"export KUBECONFIG=(\S+)", kept.output)[0])
        as_pod, curl = (
            re.findall(rf"^  ({start}.*)$", kept.output, re.MULTILINE)[0] for start in (r"\S+python", "curl")
        )
        env = os.environ | {"KUBECONFIG": str(kubeconfig)}
        sample = finish(["bash", "-c", as_pod], env=env, timeout=60)
        assert json.loads(sample.output)["tid"] == "99999999-8888-7777-6666-555555555555"
        register = subprocess.run(
            ["bash", "-c", kept.output[kept.output.index(curl) :].split("\n  curl", 1)[0]],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert "federated_credentials" in register.stdout
        assert running_from(kubeconfig.parent) >= {"kube-apiserver", "etcd", "workload_identity_operator"}
        again = demo(tmp_path, "--keep")
        assert (again.status, "still running" in again.output) == (1, True)
    finally:
        stopped = demo(tmp_path, "--stop")

    assert stopped.status == 0
    assert running_from(kubeconfig.parent) == set()
    assert not kubeconfig.exists()
