"""Azurite, Microsoft's emulator of Azure storage: over TLS it takes bearer tokens and checks them.

It checks a token's issuer, audience and dates, not its signature. Installed once from npm, at the versions of
package-lock.json, into the cache that the control plane's programs are in.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

from testkit.binaries import alone, cache
from testkit.console import console, duration, long_step
from testkit.installation import free_port
from testkit.processes import ProcessFailed, running

PACKAGE: Final = Path(__file__).with_name("package.json")
VERSION: Final[str] = json.loads(PACKAGE.read_text(encoding="utf-8"))["dependencies"]["azurite"]
ACCOUNT: Final = "devstoreaccount1"
"""The storage account that it always has."""
ISSUING: Final = "https://sts.windows.net"
"""An issuer that it takes tokens of."""
_INSTALLED_WITHIN: Final = 60.0


class AzuriteMissing(RuntimeError):  # noqa: N818 - it reads as what happened
    """It is neither there nor can it be installed; the message says why."""


@dataclass(frozen=True, slots=True)
class Azurite:
    """A running one.

    Attributes:
        blobs: The URL of its account's blobs.
        ca_file: The authority behind its TLS certificate, a PEM file.
    """

    blobs: str
    ca_file: Path


@contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    """Run Azurite with an empty storage account until the block ends.

    Args:
        folder: Where it keeps all it has, its log too.

    Raises:
        AzuriteMissing: It cannot be installed.
    """
    program = provide()
    authority = trustme.CA(organization_name="Azurite")
    ca_file, certificate, key = (folder / name for name in ("ca.pem", "tls.pem", "tls.key"))
    authority.cert_pem.write_to_path(ca_file)
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(key)
    port = free_port()
    command: list[str | Path] = [
        *(node("node"), program, "--location", folder / "stored", "--skipApiVersionCheck"),
        *("--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--cert", certificate, "--key", key, "--oauth", "basic"),
    ]
    with running(command, log=folder / "azurite.log", cwd=folder, grace=0) as child:
        child.wait_until(lambda: _listens(port), within=30)
        yield Azurite(f"https://127.0.0.1:{port}/{ACCOUNT}", ca_file)


def provide() -> Path:
    """Return Azurite's program for blobs, installing it when it is not there.

    Raises:
        AzuriteMissing: It cannot be installed.
    """
    home = cache().parent / f"azurite-{VERSION}"
    program = home / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not program.exists():
        with alone(cache()):
            if not program.exists():
                _install(home)
    return program


def _install(home: Path) -> None:
    title, started = f"Installing Azurite {VERSION}", time.monotonic()
    unfinished = home.with_name(f".{home.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for file in (PACKAGE, PACKAGE.with_name("package-lock.json")):
        shutil.copy(file, unfinished)
    command: list[str | Path] = [node("npm"), "ci"]
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    # npm's own first line looks for `node` on the PATH.
    path = os.pathsep.join([str(node("node").parent), os.environ.get("PATH", os.defpath)])
    log = home.with_name(f"{home.name}.log")
    try:
        with (
            long_step(title, _INSTALLED_WITHIN) as tick,
            running(
                [*command, *quiet], log=log, env={**os.environ, "PATH": path}, cwd=unfinished, grace=0
            ) as npm,
        ):
            while npm.status is None:
                tick()
                time.sleep(0.2)
            if npm.status:
                npm.check()
    except ProcessFailed as failure:
        raise AzuriteMissing(
            f"Azurite {VERSION} cannot be installed from npm. Check the network and what `npm config get"
            f" registry` says.\n{failure}"
        ) from failure
    unfinished.replace(home)
    log.unlink()
    console.print(f"[green]✓[/] {title}  [dim]{duration(time.monotonic() - started)}[/]")


def node(program: str) -> Path:
    """Return a program of the environment's own Node."""
    return Path(sys.executable).with_name(program)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
