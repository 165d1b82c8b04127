"""The kit's node: pods run on it, and this machine does not notice."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import pytest

from testkit.folders import PREFIX
from testkit.node import Node, cgroups, pause
from testkit.processes import output_of
from testkit.workloads import Namespace

SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
WORDS = re.compile(f"kubelet|containerd|cni|netns|{PREFIX}")
FOLDERS = (
    *("/run/containerd", "/run/netns", "/run/xtables.lock", "/var/lib/kubelet", "/var/lib/cni"),
    *("/var/log/pods", "/var/log/containers", "/etc/cni/net.d"),
)
"""Where a node's programs write by themselves."""
AUDIENCE = "api://ours"


def state_of_the_machine() -> dict[str, object]:
    """Return what a node could have changed."""
    return {
        "settings": [Path("/proc/sys", name).read_text() for name in SETTINGS],
        "network": output_of(["ip", "-brief", "address"]) + output_of(["ip", "route"]),
        "rules": output_of(["nft", "list", "ruleset"]),
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if WORDS.search(line)],
        "folders": [path for path in FOLDERS if Path(path).exists()],
    }


def left_behind(folder: Path) -> list[Path]:
    """Return what there still is of a node with this folder."""
    tops = [root / folder.name for root in (*cgroups.hierarchies(), cgroups.ROOT / "unified")]
    return [path for path in (folder, *tops) if path.exists()]


def processes_of(folder: Path) -> list[str]:
    """Return the command lines that name a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes()
        except OSError:  # ended meanwhile
            continue
        if bytes(folder) in command:
            found.append(command.replace(b"\0", b" ").decode())
    return found


@contextmanager
def kept_node() -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """Run `make node`'s command, yield it and the node's folder once it is up, have it killed in any case."""
    command = [sys.executable, "-m", "testkit.node"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            told = ""
            while "Ctrl-C" not in told:
                line = process.stdout.readline()
                assert line, f"it ended: {told}"
                told += line
            yield process, Path(told.partition("Logs are in ")[2].partition(". ")[0])
        finally:
            process.kill()


def test_pod_runs_with_the_token_it_asked_for(node: Node, namespace: Namespace) -> None:
    """Scheduler, kubelet and containerd make a pod run, and the kubelet projects a token of this cluster."""
    source = {"serviceAccountToken": {"audience": AUDIENCE, "path": "token"}}
    container = {"name": "app", "image": pause.NAME, "volumeMounts": [{"name": "token", "mountPath": "/t"}]}
    spec = {"containers": [container], "volumes": [{"name": "token", "projected": {"sources": [source]}}]}
    made = namespace.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": spec})

    namespace.kubectl("wait", "pod/app", "--for=condition=Ready", "--timeout=60s")
    volumes = f"/var/lib/kubelet/pods/{made['metadata']['uid']}/volumes"
    token = output_of(node.inside(["cat", f"{volumes}/kubernetes.io~projected/token/token"]))

    claims = jwt.decode(token, options={"verify_signature": False})
    subject = f"system:serviceaccount:{namespace.name}:default"
    assert (node.plane.issuer, [AUDIENCE], subject) == (claims["iss"], claims["aud"], claims["sub"])


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_machine_is_left_as_it_was(number: signal.Signals) -> None:
    """Beside a node, and after it however it ended, the machine is as before; two stand side by side."""
    before = state_of_the_machine()
    with kept_node() as (process, folder):
        assert folder.name.startswith(PREFIX)
        assert len(processes_of(folder)) > 5
        assert before == state_of_the_machine()

        process.send_signal(number)
        status = process.wait(60)

        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (left_behind(folder) or processes_of(folder)):
            time.sleep(0.05)
    assert (left_behind(folder), processes_of(folder)) == ([], [])
    assert (0 if number == signal.SIGINT else -signal.SIGKILL) == status
    assert before == state_of_the_machine()
