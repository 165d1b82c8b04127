"""Debian's packages at recorded versions: fetched by apt, unpacked without running or installing anything.

`python -m testkit.images.debian` records anew what Debian serves now.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from testkit.binaries import alone, cache
from testkit.console import console
from testkit.folders import throwaway_folder
from testkit.processes import ProcessFailed, output_of

PINS: Final = Path(__file__).with_name("debian.lock")
RELEASE: Final = "bookworm"
ARCHITECTURE: Final = "amd64"
PYTHON: Final = "3.11"
"""Its Python."""

LIBC: Final = ("libc6", "libgcc-s1")
INTERPRETER: Final = (
    *LIBC,
    f"libpython{PYTHON}-minimal",
    f"libpython{PYTHON}-stdlib",
    f"python{PYTHON}-minimal",
    # What its extension modules are linked to; sqlite, readline, curses and dbm are left out with theirs.
    *("libbz2-1.0", "libcrypt1", "libexpat1", "libffi8", "liblzma5", "libssl3", "libuuid1", "zlib1g"),
    "media-types",
)
CXX: Final = (*LIBC, "libstdc++6")
"""What a program in C++ needs."""
STRIP: Final = (
    *CXX,
    *("binutils-x86-64-linux-gnu", "libbinutils", "libjansson4", "libzstd1", "zlib1g"),
)
"""`strip` itself: taken at a recorded version too, so that it always leaves the same bytes."""

# What nothing in a container reads: a licence must go with what it is about, the rest of the documentation
# need not.
_LEFT_OUT: Final = re.compile(
    r"""
    usr/share/(?:man|lintian|locale|bug|applications|pixmaps|gdb|doc-base|binfmts|python3?)(?:/|$)
  | usr/share/doc/.*/(?!copyright$)[^/]+$
  | .*/gconv(?:/|$)
  | .*/(?:engines-3|ossl-modules)(?:/|$)
  | .*/lib(?:mvec|nss_hesiod|nss_compat|nsl|thread_db|BrokenLocale|pcprofile|memusage|expatw)
      [.\w-]*\.so[.\d]*$
  | etc/(?:python|ld\.so\.conf)
    """,
    re.VERBOSE,
)
_MODULES_LEFT_OUT: Final = re.compile(
    rf"""
    usr/lib/python{PYTHON}/(?:
        (?:test|idlelib|lib2to3|ensurepip|pydoc_data|turtledemo|tkinter|curses|dbm|sqlite3|unittest
          |distutils|venv|xmlrpc|config-[^/]+)(?:/|$)
      | (?:turtle|pydoc|doctest|pdb|bdb|cgi|cgitb|nntplib|sitecustomize|antigravity|this)\.py$
      | lib-dynload/(?:_?(?:dbm|gdbm|readline|nis|curses\w*|sqlite3|tkinter|test\w*|xxtestfuzz
          |ctypes_test|xxsubtype|xxlimited\w*|crypt|ossaudiodev))\.
    )
    """,
    re.VERBOSE,
)


class PackagesMissing(RuntimeError):  # noqa: N818 - it reads as what happened
    """Debian's packages cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package at a version, in our cache."""

    name: str
    version: str
    sha256: str
    file: Path


def lacking() -> str:
    """Return why this machine can fetch no packages of Debian; "" when it may."""
    absent = [program for program in ("apt-get", "dpkg-deb") if not shutil.which(program)]
    if absent:
        return f"no {' and no '.join(absent)}: an image is made of Debian's packages"
    machine = platform.machine()
    return (
        "" if machine == "x86_64" else f"this machine is {machine}: packages are recorded for {ARCHITECTURE}"
    )


def pins() -> dict[str, tuple[str, str]]:
    """Return version and SHA-256 of each package that is recorded."""
    rows = [line.split() for line in PINS.read_text(encoding="ascii").splitlines() if line[:1] != "#"]
    return {name: (version, digest) for name, version, digest in rows}


def fetch(names: Iterable[str], *, newer: bool = False) -> list[Package]:
    """Return packages as they are recorded, fetching those that are not in the cache.

    Args:
        names: The packages'.
        newer: Whether to take another version, and say so, where the recorded one is no longer served.

    Raises:
        PackagesMissing: apt cannot fetch one, or it is not the one recorded.
    """
    recorded = pins()
    folder = cache().parent / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sorted(set(names))
    missing = [name for name in wanted if not _at(folder, name, *recorded[name]).exists()]
    moved: list[Package] = []
    if missing:
        with alone(folder, "fetches packages"), throwaway_folder() as fresh:
            try:
                downloaded = _download([f"{name}={recorded[name][0]}" for name in missing], fresh)
            except ProcessFailed as failure:
                if not newer:
                    raise PackagesMissing(_cure(str(failure))) from failure
                downloaded = _download(missing, fresh)
            for package in downloaded:
                kept = _at(folder, package.name, package.version, package.sha256)
                package.file.replace(kept)
                found = Package(package.name, package.version, package.sha256, kept)
                if (found.version, found.sha256) != recorded[found.name]:
                    moved.append(found)
    if moved:
        told = ", ".join(f"{one.name} {one.version}" for one in moved)
        if not newer:
            raise PackagesMissing(f"Debian serves other bytes than recorded in {PINS.name}: {told}.")
        console.print(
            f"Debian no longer serves what {PINS.name} records; taken instead: {told}", style="yellow"
        )
    instead = {one.name: one for one in moved}
    return [
        instead.get(name) or Package(name, *recorded[name], _at(folder, name, *recorded[name]))
        for name in wanted
    ]


def _at(folder: Path, name: str, version: str, digest: str) -> Path:
    return folder / f"{name}_{version}_{digest[:12]}.deb"


def _cure(said: str) -> str:
    return (
        f"Debian's packages cannot be fetched. Needed are apt-get, dpkg-deb and Debian {RELEASE} for "
        f"{ARCHITECTURE} in apt's sources. Where that no longer has the versions of {PINS.name}, "
        f"`python -m testkit.images.debian` records those it has now.\n{said}"
    )


def _download(wanted: list[str], folder: Path) -> list[Package]:
    """Fetch packages, NAME or NAME=VERSION, into a folder; apt checks them against Debian's signature.

    Raises:
        ProcessFailed: One is not served.
    """
    get = ["apt-get", "--quiet=2", "-o", "APT::Sandbox::User="]
    try:
        output_of([*get, "download", *wanted], cwd=folder)
    except ProcessFailed:
        # Its lists may be old or not there. Ours lie beside, so that nothing of the system changes.
        lists = cache().parent / "apt"
        (lists / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        ours = ["-o", f"Dir::State::lists={lists / 'lists'}", "-o", f"Dir::Cache={lists}"]
        (lists / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        output_of([*get, *ours, "update"])
        output_of([*get, *ours, "download", *wanted], cwd=folder)
    found = []
    for file in sorted(folder.glob("*.deb")):
        name, version, _ = unquote(file.stem).split("_")
        found.append(Package(name, version, hashlib.sha256(file.read_bytes()).hexdigest(), file))
    return found


def unpack(packages: Iterable[Package], root: Path) -> dict[str, str]:
    """Lay packages' files under `root`, but for those that no container needs.

    Returns:
        Of each file, by its path from there, the package it is of.
    """
    owners = {}
    for package in packages:
        with _files(package) as files:
            for member in files:
                path = member.name.removeprefix("./")
                if not path or _LEFT_OUT.match(path) or _MODULES_LEFT_OUT.match(path):
                    continue
                files.extract(member, root, filter="tar")
                if not member.isdir():
                    owners[path] = package.name
        _describe(package, root)
        owners[f"var/lib/dpkg/status.d/{package.name}"] = package.name
    return owners


@contextmanager
def _files(package: Package) -> Iterator[tarfile.TarFile]:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package.file], stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as files:
            yield files
        unpacking.stdout.read()
    if unpacking.returncode:
        raise PackagesMissing(f"{package.file} cannot be unpacked by dpkg-deb: delete it.")


def _describe(package: Package, root: Path) -> None:
    """Say in the image what the package is, where scanners look in images without dpkg."""
    told = root / "var" / "lib" / "dpkg" / "status.d" / package.name
    told.parent.mkdir(parents=True, exist_ok=True)
    told.write_text(output_of(["dpkg-deb", "--field", package.file]), encoding="utf-8")


def run_in(root: Path, program: str, *args: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a program of unpacked packages with their libraries, and return what it wrote."""
    libraries = os.pathsep.join(str(root / top / "x86_64-linux-gnu") for top in ("lib", "usr/lib"))
    loader = root / "lib64" / "ld-linux-x86-64.so.2"
    # The link is absolute: followed from here it would be the machine's own.
    loader = root / "lib" / "x86_64-linux-gnu" / loader.name
    return output_of(
        [loader, "--library-path", libraries, root / program, *args], env={"LC_ALL": "C.UTF-8", **(env or {})}
    )


def record() -> None:
    """Write down what Debian serves now."""
    names = sorted({*INTERPRETER, *CXX, *STRIP})
    with throwaway_folder() as folder:
        rows = [f"{one.name} {one.version} {one.sha256}" for one in _download(names, folder)]
    head = [
        f"# Debian {RELEASE}, {ARCHITECTURE}: what images are made of, and `strip`. Name, version, SHA-256.",
        "# Made anew by `python -m testkit.images.debian`.",
    ]
    PINS.write_text("\n".join([*head, *rows, ""]), encoding="ascii")


if __name__ == "__main__":
    try:
        record()
    except ProcessFailed as failure:
        sys.exit(_cure(str(failure)))
