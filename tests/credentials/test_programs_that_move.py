"""Programs written for azure-identity do the same with ours, unchanged but for the import."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from testkit.azurite import Azurite
from testkit.entra import EntraStandIn

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
NAMES = [program.stem for program in PROGRAMS]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def entra(entra_of_azure: EntraStandIn) -> EntraStandIn:
    """The stand-in that storage trusts."""
    return entra_of_azure


def moved(program: Path) -> str:
    """Return the program with another import."""
    return re.sub(r"\bazure\.identity\b", "workload_identity", program.read_text(encoding="utf-8"))


def run(program: Path, environment: Mapping[str, str]) -> str:
    """Return what a program says in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", program],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
def test_programs_say_the_same(program: Path, pod: Any, storage: Azurite, tmp_path: Path) -> None:
    """With azure-identity and with ours, in the same pod."""
    environment = {
        **pod.environment,
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "REQUESTS_CA_BUNDLE": pod.environment["SSL_CERT_FILE"],
        "BLOBS": storage.blobs,
        "BLOBS_CA": str(storage.ca_file),
    }
    ours = tmp_path / program.name
    ours.write_text(moved(program), encoding="utf-8")

    said = run(program, environment)

    assert said
    assert run(ours, environment) == said


def test_programs_type_check(tmp_path: Path) -> None:
    """For mypy, strict, and for pyright."""
    for program in PROGRAMS:
        (tmp_path / program.name).write_text(moved(program), encoding="utf-8")
    for checker in (
        ("mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path / "cache")),
        ("pyright", "--pythonpath", sys.executable),
    ):
        command = [sys.executable, "-m", *checker, str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
