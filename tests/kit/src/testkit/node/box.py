"""Is the first process in the namespaces of a node: makes them fit for one, says "ready", buries orphans.

Run as a script by `testkit.node`, never imported: `python -I -S box.py FOLDER NAME ADDRESS/BITS SERVICES`.
The host's network, mounts, /run and host name are not touched, and when this process ends, the kernel ends
all others in the namespaces and unmounts what was mounted.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

KEPT = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""Settings of the whole machine that a kubelet writes unless it finds them so: it is shown files that are."""

folder, name, address, services = Path(sys.argv[1]), *sys.argv[2:]


def run(*command: str) -> None:
    """Run a command that is to succeed; its words are our last ones."""
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"`{' '.join(command)}` failed")


def show(content: str, path: Path) -> None:
    """Have this content found at the path, where there is a file."""
    if path.is_file():
        copy = folder / "shown" / "_".join(path.parts[1:])
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(content, encoding="ascii")
        run("mount", "--bind", str(copy), str(path))


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
# Pods get volumes that are mounted after them, from the kubelet's mounts.
run("mount", "--make-rshared", "/")
for setting, value in KEPT.items():
    show(value + "\n", Path("/proc/sys", setting))
# The host's name servers are out of reach: be refused at once instead of waiting for them.
show("", Path("/etc/resolv.conf").resolve())
show(f"127.0.0.1 localhost\n{address.partition('/')[0]} {name}\n", Path("/etc/hosts"))
run("hostname", name)
run("ip", "link", "set", "lo", "up")
# The CNI plugin finds its bridge made: the node has its address before the first pod.
run("ip", "link", "add", "cni0", "type", "bridge")
run("ip", "address", "add", address, "dev", "cni0")
run("ip", "link", "set", "cni0", "up")
# A route is looked up before kube-proxy's rules give a Service's address another one.
run("ip", "route", "add", services, "dev", "cni0")
run("ip", "route", "add", "unreachable", "default")
Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n", encoding="ascii")
print("ready", flush=True)
while True:
    signal.sigwait({signal.SIGCHLD})
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
