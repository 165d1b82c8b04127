"""The peer's own webhook, Azure/azure-workload-identity, where PEER_WEBHOOK names its binary.

It insists on the port 9443, so there can be one at a time on a machine.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

import trustme

from testkit.control_plane import ControlPlane
from testkit.installation import free_port
from testkit.processes import Child, running

VARIABLE: Final = "PEER_WEBHOOK"
PORT: Final = 9443
READY_WITHIN: Final = 60
"""Seconds."""
FREE_WITHIN: Final = 60
"""Seconds that one waits for another process to leave the port."""


class PortTaken(RuntimeError):  # noqa: N818 - it reads as what happened
    """Another process has the one port that the peer can listen on."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running webhook of the peer, and the authority behind its certificate, in PEM."""

    child: Child
    ca: str


def named() -> Path | None:
    """Return the binary that PEER_WEBHOOK names; None when it is not set."""
    return Path(path) if (path := os.environ.get(VARIABLE)) else None


@contextmanager
def peer_running(binary: Path, plane: ControlPlane, tenant: str) -> Iterator[Peer]:
    """Run it until the context is left; when this begins its own probe says ready, and it listens.

    Raises:
        ProcessFailed: It ended, or was not ready in time; the message has the end of its log.
        PortTaken: Another process has its port and keeps it.
    """
    _wait_for_port()
    folder = plane.folder / "peer-certificates"
    folder.mkdir(exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    health = free_port()
    command: list[str | Path] = [
        *(binary, f"--kubeconfig={plane.kubeconfig}", "--disable-cert-rotation"),
        *(f"--webhook-cert-dir={folder}", f"--health-addr=127.0.0.1:{health}"),
        f"--metrics-addr=127.0.0.1:{free_port()}",
    ]
    env = {"AZURE_TENANT_ID": tenant, "POD_NAMESPACE": "default", "PATH": os.defpath}
    with running(command, log=plane.folder / "peer.log", env=env) as child:
        child.wait_until(lambda: _ready(health), within=READY_WITHIN)
        yield Peer(child, authority.cert_pem.bytes().decode("ascii"))


def _wait_for_port() -> None:
    deadline = time.monotonic() + FREE_WITHIN
    while _listens():
        if time.monotonic() > deadline:
            raise PortTaken(f"The peer insists on port {PORT}, which another process has: end that one.")
        time.sleep(0.2)


def _listens() -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", PORT), timeout=5):
        return True
    return False


def _ready(port: int) -> bool:
    return _listens() and _probed(port)


def _probed(port: int) -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
