"""What the kit starts ends with it, however that happens."""

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from testkit.control_plane import _reserved_port
from testkit.folders import PREFIX, SETTLED, throwaway_folder
from testkit.processes import TETHER, Child, ProcessFailed, finish, output_of, running

HOLDS_A_PLANE = """
import time
from testkit.control_plane import ControlPlane
with ControlPlane(controllers=True) as plane:
    print(plane.folder, *[child.pid for child in plane._children], flush=True)
    time.sleep(600)
"""
HOLDS_A_CONTAINER = """
import sys, time
from pathlib import Path
from testkit.kubelet import _enclosed
from testkit.processes import running
folder = sys.argv[1]
sleeper = [sys.executable, "-c", "print('there', flush=True); import time; time.sleep(600)"]
command = [*_enclosed(), folder, "/var/run/secrets/testkit/lifetimes", "--", *sleeper]
with running(command, log=Path(folder, "log")) as child:
    child.wait_until(lambda: "there" in child.log.read_text(), within=30)
    print(folder, child.pid, flush=True)
    time.sleep(600)
"""

LEAVES_SLOWLY = """
import time
from testkit.processes import leave_on_signals
leave_on_signals()
try:
    print("/", flush=True)
    time.sleep(600)
finally:
    print("leaving", flush=True)
    time.sleep(0.3)
    print("left", flush=True)
"""


def is_running(pid: int) -> bool:
    """Tell whether it runs; one that ended and that nobody has asked about (a zombie) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def await_true(condition: Callable[[], bool]) -> bool:
    """Return what the condition says within 10 seconds."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@contextmanager
def holder(script: str, *args: str) -> Iterator[tuple[subprocess.Popen[str], Path, list[int]]]:
    """Run a script that prints a folder and process ids, and have it killed in any case."""
    command = [sys.executable, "-c", script, *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            folder, *pids = process.stdout.readline().split()
            yield process, Path(folder), [int(pid) for pid in pids]
        finally:
            process.kill()


@pytest.mark.cluster
def test_killed_holder_leaves_no_programs_behind() -> None:
    """SIGKILL leaves no time to tidy up: the kernel ends the programs, the next plane removes the folder."""
    with holder(HOLDS_A_PLANE) as (process, folder, pids):
        assert [is_running(pid) for pid in pids] == [True] * 3

        process.kill()

        assert await_true(lambda: not any(map(is_running, pids)))
    old = time.time() - SETTLED - 1
    os.utime(folder, (old, old))
    with throwaway_folder():
        assert not folder.exists()


def test_killed_holder_leaves_nothing_mounted(tmp_path: Path) -> None:
    """What a container sees is mounted for it alone and gone with it, also after SIGKILL."""
    with holder(HOLDS_A_CONTAINER, str(tmp_path)) as (process, _, pids):
        inside = Path(f"/proc/{pids[0]}/mountinfo").read_text()
        outside = Path("/proc/self/mountinfo").read_text()

        process.kill()

        assert await_true(lambda: not any(map(is_running, pids)))
    assert ("testkit/lifetimes" in inside, "testkit/lifetimes" in outside) == (True, False)
    assert not Path("/var/run/secrets/testkit").exists()


@pytest.mark.cluster
def test_cluster_ends_when_told() -> None:
    """`make cluster` says how to use it, ends with status 0 when told to, and nothing remains."""
    command = [sys.executable, "-m", "testkit.cluster"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = ""
        while "Ctrl-C" not in told:
            told += process.stdout.readline()
        kubeconfig = Path(told.partition("export KUBECONFIG=")[2].split()[0])
        env = {"KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent)}
        output_of([kubeconfig.parent / "bin" / "kubectl", "get", "namespaces"], env=env)
        children = Path(f"/proc/{process.pid}/task").glob("*/children")
        pids = [int(pid) for each in children for pid in each.read_text().split()]

        process.send_signal(signal.SIGINT)

        assert process.wait(10) == 0
    assert (len(pids), any(map(is_running, pids))) == (3, False)
    assert not kubeconfig.parent.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_leaves_all_contexts(number: signal.Signals) -> None:
    """Ctrl-C, a service manager and a closed terminal all end things in order; impatience changes nothing."""
    with holder(LEAVES_SLOWLY) as (process, _, _):
        process.send_signal(number)
        assert process.stdout
        assert process.stdout.readline() == "leaving\n"
        process.send_signal(number)

        assert (process.wait(10), process.stdout.read()) == (0, "left\n")


def test_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    """The kernel ends a child with the thread that made it, so no thread of a caller's may be that."""
    with ExitStack() as stack:
        children = []

        def start() -> None:
            command = ["sh", "-c", "echo up; exec sleep 600"]
            children.append(child := stack.enter_context(running(command, log=tmp_path / "log")))
            child.wait_until(lambda: child.log.read_text() == "up\n", within=10)

        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        time.sleep(0.2)

        assert children[0].status is None


def test_child_whose_parent_is_gone_is_not_started() -> None:
    """A child that comes to life after its parent's death ends instead of staying for good."""
    ended = finish([sys.executable, TETHER, "1", "echo", "alive"])

    assert (ended.status, ended.output) == (1, "")


def test_child_ends_with_its_context(tmp_path: Path) -> None:
    """An exception ends it as well, with all the processes it made."""

    def fail_with_a_child() -> None:
        with running(["sh", "-c", "sleep 600 & echo $!; wait"], log=tmp_path / "log") as child:
            children.append(child)
            child.wait_until(lambda: child.log.read_text().endswith("\n"), within=10)
            raise ZeroDivisionError

    children: list[Child] = []
    with pytest.raises(ZeroDivisionError):
        fail_with_a_child()

    child = children[0]
    assert child.status == -signal.SIGTERM
    assert await_true(lambda: not is_running(int(child.log.read_text())))


def test_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    """After its grace a child that ignores SIGTERM is ended all the same."""
    script = "trap '' TERM; echo deaf; while :; do sleep 0.1; done"
    with running(["sh", "-c", script], log=tmp_path / "log", grace=0.2) as child:
        child.wait_until(lambda: child.log.read_text() == "deaf\n", within=10)

    assert child.status == -signal.SIGKILL


def test_child_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    """Name, status and the end of the output are what one needs to see why."""
    command = ["sh", "-c", "seq 100; exit 3"]
    with running(command, log=tmp_path / "log") as child, pytest.raises(ProcessFailed) as told:
        child.wait_until(lambda: False, within=10)

    lines = "".join(f"\n  {number}" for number in range(81, 101))
    assert f"sh ended with status 3. The end of {tmp_path}/log:{lines}" == str(told.value)


def test_child_that_is_not_ready_in_time_is_told(tmp_path: Path) -> None:
    """Waiting ends, and says for what."""
    expected = pytest.raises(ProcessFailed, match=r"sleep was not ready within 0.1 s. It wrote nothing")
    with running(["sleep", "600"], log=tmp_path / "log") as child, expected:
        child.wait_until(lambda: False, within=0.1)


def test_program_that_is_not_there_is_told() -> None:
    """The reason stands in the error, as with any other failure."""
    with pytest.raises(
        ProcessFailed, match=r"`no-such-program now` ended with status 127:\nno-such-program cannot"
    ):
        output_of(["no-such-program", "now"])


def test_program_that_takes_too_long_is_killed() -> None:
    """A timeout ends the program and everything it made."""
    with pytest.raises(ProcessFailed, match=r"did not end within 0.2 s"):
        finish(["sh", "-c", "sleep 600 & wait"], timeout=0.2)


def test_environment_is_exactly_what_is_given() -> None:
    """Nothing is inherited and nothing added on the way."""
    assert output_of(["/usr/bin/env"], env={"ONLY": "this"}) == "ONLY=this\n"


def test_reserved_port_cannot_be_taken() -> None:
    """Between choosing a port and listening on it nobody gets it; our API server does."""
    with _reserved_port() as port, socket.socket() as thief:
        with pytest.raises(OSError, match="in use") as refused:
            thief.bind(("127.0.0.1", port))

        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(("127.0.0.1", port))

    assert refused.value.errno == errno.EADDRINUSE


def test_folder_in_use_is_not_swept() -> None:
    """Only folders whose owner is gone are removed, however old."""
    abandoned = Path(tempfile.mkdtemp(prefix=PREFIX))
    old = time.time() - SETTLED - 1
    with throwaway_folder() as used:
        for folder in (used, abandoned):
            os.utime(folder, (old, old))
        with throwaway_folder():
            left = [folder.exists() for folder in (used, abandoned)]

    assert left == [True, False]
