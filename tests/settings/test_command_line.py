"""The real command: what it prints, where, and how it ends."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("workload-identity-operator")
TENANT = {"AZURE_TENANT_ID": "22222222-2222-2222-2222-222222222222"}
NO_TENANT = "error: AZURE_TENANT_ID is not set: set it to the tenant id of your Azure directory"

IN_A_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in an environment of nothing but these variables."""
    return subprocess.run(
        [PROGRAM, *arguments],
        env={"HOME": "/nonexistent", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def faults_of(*arguments: str, environ: Mapping[str, str] = TENANT) -> list[str]:
    """Return the lines that a start with wrong settings prints; it must print nothing else and end with 2."""
    ended = run("run", *arguments, environ=environ)

    assert (ended.returncode, ended.stdout) == (2, "")
    lines = ended.stderr.splitlines()
    assert [line for line in lines if not line.startswith("error: ")] == []
    return lines


@pytest.mark.parametrize("arguments", [["--version"], ["-version"], ["run", "--version"]])
def test_version(arguments: list[str]) -> None:
    """The version is one line of JSON on stdout, and needs no settings."""
    ended = run(*arguments)

    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    told = json.loads(line)
    assert told.keys() == {"buildVersion", "gitCommit", "buildDate", "pythonVersion", "platform"}
    assert told["buildVersion"]


def test_no_settings() -> None:
    """Without a tenant there is one line that names the variable, and nothing else."""
    assert faults_of(environ={}) == [NO_TENANT]


def test_all_faults() -> None:
    """Faults of flags and variables are told together, a line each, before anything is started."""
    flags = ("--listen=nowhere", "--log-level=loud", "--kubeconfig=/nonexistent")

    lines = faults_of(*flags, environ={"AZURE_ENVIRONMENT": "Nephele"})

    assert len(lines) == 5
    for part in ("AZURE_TENANT_ID", "AZURE_ENVIRONMENT", "--listen", "--log-level", "--kubeconfig"):
        assert [line for line in lines if line.startswith(f"error: {part}")]


@pytest.mark.parametrize(
    "flags",
    [
        ("--log-level=loud",),
        ("--log-level", "loud"),
        ("-log-level=loud",),
        ("-log-level", "loud"),
    ],
)
def test_flags_as_one_writes_them(flags: tuple[str, ...]) -> None:
    """One dash or two, an equals sign or a blank: all are the same flag."""
    (line,) = faults_of(*flags)

    assert line.startswith('error: --log-level: "loud" is unknown')


@pytest.mark.parametrize(
    "switch", ["--disable-cert-rotation", "-disable-cert-rotation=true", "--disable-cert-rotation=T"]
)
def test_switch_on(switch: str) -> None:
    """A switch is on when it stands there, or is said to be true."""
    (line,) = faults_of(switch, "--webhook-cert-dir=/nonexistent")

    assert line.startswith('error: --webhook-cert-dir: "/nonexistent" has no tls.crt')


@pytest.mark.parametrize("switch", ["-disable-cert-rotation=false", "--disable-cert-rotation=0"])
def test_switch_off(switch: str) -> None:
    """A switch that is said to be false is off; the only fault is then the tenant's."""
    assert faults_of(switch, "--webhook-cert-dir=/nonexistent", environ={}) == [NO_TENANT]


@pytest.mark.skipif(IN_A_POD.exists(), reason="the pod that runs these tests brings a cluster")
def test_no_cluster() -> None:
    """With good settings but no cluster to work in, that is the one line."""
    (line,) = faults_of()

    assert line.startswith("error: no cluster: name one by --kubeconfig or KUBECONFIG")


@pytest.mark.parametrize("content", ["", "[]", "current-context: gone\n"])
def test_kubeconfig_without_a_cluster(tmp_path: Path, content: str) -> None:
    """A kubeconfig that names no cluster is one line as well."""
    (tmp_path / "config").write_text(content, encoding="utf-8")

    (line,) = faults_of(f"--kubeconfig={tmp_path / 'config'}")

    assert line.startswith("error: kubeconfig: cannot be used")


def test_kubeconfig_variable() -> None:
    """A kubeconfig that the variable names must be there as well."""
    (line,) = faults_of(environ=TENANT | {"KUBECONFIG": "/nonexistent"})

    assert line.startswith("error: kubeconfig: cannot be used")
    assert "/nonexistent" in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--arc-cluster"), "--arc-cluster"),
        (("run", "--drain-seconds=soon"), "soon"),
        (("run", "--disable-cert-rotation=perhaps"), "--disable-cert-rotation"),
        (("run", "stray"), "stray"),
        (("walk",), "walk"),
        (("rehearse", "--namespace=a/b"), "--namespace: 'a/b' is no namespace's name"),
        (("rehearse", "--deployment=a/b/c"), "--deployment: 'a/b/c' is none: wanted NAMESPACE/NAME"),
        (("rehearse", "--label=a"), "--label: 'a' is none: wanted KEY=VALUE"),
        (("rehearse", "--kubeconfig=/none"), '"/none": No such file'),
    ],
)
def test_no_such_flag(arguments: tuple[str, ...], told: str) -> None:
    """What the command line cannot mean ends with 2 and is named on the last line of stderr."""
    ended = run(*arguments, environ=TENANT)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("run", "--help")])
def test_help(arguments: tuple[str, ...]) -> None:
    """Help is on stdout, and no failure."""
    ended = run(*arguments)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("Usage: workload-identity-operator")
