"""Wheels as uv.lock has them, by hash, and our own packages, as files to lay into an image."""

import csv
import json
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from testkit.folders import throwaway_folder
from testkit.images.debian import PYTHON
from testkit.processes import output_of

ROOT: Final = Path(__file__).parents[5]
PLATFORM: Final = "x86_64-manylinux_2_36"
"""As uv calls what Debian's C library can run."""

# Sources of extension modules, tests, types for checkers, and what an installer remembers.
_LEFT_OUT: Final = re.compile(
    r"(?:^|/)(?:tests?|testing|benchmarks?)/|^bin/|-stubs/|\.(?:pyx|pxd|pxi|pyi|c|cc|cpp|h|hpp|typed|lock)$"
    r"|\.hash$|dist-info/(?:RECORD|INSTALLER|REQUESTED|direct_url\.json|uv_cache\.json)$|^\.lock$"
)


def exported(selection: Sequence[str], form: str) -> str:
    """Return what uv.lock has of a selection of packages, in one of the forms of `uv export`."""
    return output_of([*_uv("export"), "--locked", "--format", form, *selection], cwd=ROOT)


def install(selection: Sequence[str], to: Path) -> dict[str, str]:
    """Lay the wheels of a selection, but not our own packages, into a folder.

    Returns:
        Of each file, by its path from there, the distribution it is of.
    """
    with throwaway_folder() as folder:
        (folder / "requirements.txt").write_text(requirements(selection), encoding="utf-8")
        where = [f"--target={to}", f"--python-version={PYTHON}", f"--python-platform={PLATFORM}"]
        locked = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--link-mode=copy"]
        given = f"--requirements={folder / 'requirements.txt'}"
        output_of([*_uv("pip", "install"), *where, *locked, given], cwd=ROOT)
    return _trim(to)


def requirements(selection: Sequence[str]) -> str:
    """Return what is installed of others, with hashes, as pip reads it."""
    return exported([*selection, "--no-emit-workspace", "--no-header", "--no-annotate"], "requirements.txt")


def lay_own(packages: Sequence[str], to: Path) -> dict[str, str]:
    """Build distributions of the workspace and lay them into a folder, as `install` does."""
    with throwaway_folder() as folder:
        for package in packages:
            output_of([*_uv("build"), "--wheel", "--package", package, "--out-dir", folder], cwd=ROOT)
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as files:
                files.extractall(to)
    return _trim(to)


def components(selection: Sequence[str]) -> list[dict[str, Any]]:
    """Return the CycloneDX components of a selection, our own among them."""
    found: list[dict[str, Any]] = json.loads(exported(selection, "cyclonedx1.5"))["components"]
    return found


def _uv(*command: str) -> list[str]:
    # `uv run`, by which all of the kit is started, tells its children where it is.
    return [os.environ.get("UV", "uv"), *command, "--quiet"]


def _trim(folder: Path) -> dict[str, str]:
    """Remove what nothing in a container reads, and return whose the other files are."""
    owners = {}
    for record in sorted(folder.glob("*.dist-info/RECORD")):
        distribution = _name(record)
        with record.open(encoding="utf-8", newline="") as rows:
            owners.update({row[0]: distribution for row in csv.reader(rows)})
    for path in sorted(folder.rglob("*"), reverse=True):
        name = str(path.relative_to(folder))
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif _LEFT_OUT.search(name):
            path.unlink()
    return {name: owner for name, owner in owners.items() if (folder / name).is_file()}


def _name(record: Path) -> str:
    return record.parent.name.removesuffix(".dist-info").rpartition("-")[0].replace("_", "-").lower()
