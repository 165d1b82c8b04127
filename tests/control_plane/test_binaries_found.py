"""The control plane's programs are found where people put them, or built once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit import binaries
from testkit.binaries import (
    PROGRAMS,
    BinariesMissing,
    cache,
    explain,
    find,
    kubernetes,
    staging,
)

FAKE_GO = """#!/bin/sh
echo "$@" >> "$GO_CALLS"
case $1 in
list)
    printf 'require (\\n\\tk8s.io/api v0.0.0\\n\\tk8s.io/kube v1.2.3\\n)\\n' > its.mod
    echo "$PWD/its.mod" ;;
build)
    cp go.mod "$GO_CALLS.$(basename "$PWD")"
    sleep 0.3
    while [ "$1" != -o ]; do shift; done
    printf '#!/bin/sh\\n' > "$2"
    chmod +x "$2" ;;
esac
"""


def program(folder: Path, name: str, script: str = "#!/bin/sh\n") -> Path:
    """Write a program into the folder."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(script)
    path.chmod(0o755)
    return path


def make_all(path: str, tmp_path: Path, **more: str) -> "subprocess.Popen[str]":
    """Run `python -m testkit.binaries` with an empty cache and this PATH."""
    env = {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path), **more}
    return subprocess.Popen(
        [sys.executable, "-m", "testkit.binaries"],
        env=env | {"GO_CALLS": str(tmp_path / "calls")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kubebuilder_assets_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the folder that KUBEBUILDER_ASSETS names those are taken that it has; the rest as without it."""
    given = program(tmp_path / "assets", "kubectl")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached = cache() / f"etcd-{PROGRAMS['etcd'].module.version}"
    cached.parent.mkdir(parents=True)
    program(cached.parent, cached.name)

    found = {name: binary.path for name in PROGRAMS if (binary := find(PROGRAMS[name]))}

    assert {"kubectl": given, "etcd": cached} == found


def test_wrong_kubebuilder_assets_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that is not there is somebody's mistake, not a reason to build for minutes."""
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))

    with pytest.raises(BinariesMissing, match=r"KUBEBUILDER_ASSETS is '.*/assets', which is no folder"):
        find(PROGRAMS["etcd"])


@pytest.mark.parametrize("home", ["", "relative/path"])
def test_cache_is_in_the_home_folder_by_default(
    home: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """XDG_CACHE_HOME counts when it is absolute, as its specification has it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", home)

    assert tmp_path / ".cache" / "workload-identity-operator" / "bin" == cache()


def test_missing_go_is_told(tmp_path: Path) -> None:
    """Without programs and Go, a sentence says what to install or set, and nothing is left behind."""
    with make_all("/nonexistent", tmp_path) as process:
        _, told = process.communicate()

    first, rest = told.split("\n", 1)
    assert process.returncode == 1
    assert "kube-apiserver v1.36.3 is not there and cannot be built. Go is not on the PATH." in first
    assert "Install Go 1.26 or later (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder" in first
    assert rest.startswith("`go list")
    assert "Traceback" not in rest
    assert [left.name for left in (tmp_path / "cache/workload-identity-operator/bin").iterdir()] == [".lock"]


@pytest.mark.parametrize("wanted", ["1.37.2", "v1.37", "latest"])
def test_a_version_that_is_none_is_told(tmp_path: Path, wanted: str) -> None:
    """Go would take some of these for a question, and nobody could tell later what was built."""
    with make_all("/nonexistent", tmp_path, TESTKIT_KUBERNETES=wanted) as process:
        _, told = process.communicate()

    assert process.returncode == 1
    assert told == (
        f"TESTKIT_KUBERNETES is {wanted!r}, which is no version such as v1.37.2: correct or unset it.\n"
    )


def test_two_processes_build_once(tmp_path: Path) -> None:
    """Who comes second waits for the first and uses what it built."""
    program(tmp_path / "bin", "go", FAKE_GO)
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"

    with make_all(path, tmp_path) as first, make_all(path, tmp_path) as second:
        listed = [process.communicate()[0] for process in (first, second)]

    calls = (tmp_path / "calls").read_text().splitlines()
    assert [first.returncode, second.returncode] == [0, 0]
    assert len(PROGRAMS) == len([call for call in calls if call.startswith("build")])
    assert len(PROGRAMS) == sum(output.count("(cached)") for output in listed)
    assert len(PROGRAMS) == sum(output.count("(built in ") for output in listed)


def test_staging_modules_are_replaced(tmp_path: Path) -> None:
    """What Kubernetes requires as v0.0.0 is asked for as the v0 of its own version, nothing else is."""
    program(tmp_path / "bin", "go", FAKE_GO)

    with make_all(f"{tmp_path / 'bin'}:/usr/bin:/bin", tmp_path) as process:
        process.communicate()

    go_mod = (tmp_path / "calls.k8s.io-kubernetes").read_text()
    assert "require k8s.io/kubernetes v1.36.3" in go_mod
    assert [line for line in go_mod.splitlines() if line.startswith("replace")] == [
        "replace k8s.io/api => k8s.io/api v0.36.3"
    ]


def test_only_unpublished_modules_are_staging() -> None:
    """Exactly v0.0.0 counts: pseudo-versions begin with it too."""
    required = [
        "k8s.io/api v0.0.0",
        "k8s.io/utils v0.0.0-20260210185600-b8788abfbbc2",
        "k8s.io/x v0.0.0 // indirect",
    ]
    go_mod = "".join(["require (\n", *(f"\t{each}\n" for each in required), ")\n"])

    assert staging(go_mod) == ["k8s.io/api", "k8s.io/x"]


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("go: go.mod requires go >= 1.26 (running go 1.22.2; GOTOOLCHAIN=local)", "This Go is too old."),
        ("go: errors parsing go.mod: invalid go version '1.26.0'", "This Go is too old."),
        ("note: module requires Go 1.26", "This Go is too old."),
        ("write /tmp/x: no space left on device", "The disk is full."),
        (str(OSError(28, os.strerror(28))), "The disk is full."),
        (
            'Get "https://proxy.golang.org/x": dial tcp: lookup proxy.golang.org: no such host',
            "Check the network",
        ),
        ("go: k8s.io/kubernetes@v1.36.3: module lookup disabled by GOPROXY=off", "`go env GOPROXY`"),
        ("undefined: frobnicate", "Correct what it says below"),
    ],
)
def test_failed_builds_say_what_to_do(said: str, cure: str) -> None:
    """One sentence with the cure comes before what Go said."""
    first, rest = explain(PROGRAMS["kubectl"], said).split("\n", 1)

    assert cure in first
    assert said == rest


@pytest.mark.parametrize(
    ("wanted", "version", "minor"), [("", "v1.36.3", "36"), ("v1.37.2", "v1.37.2", "37")]
)
def test_versions_are_stamped_alike(wanted: str, version: str, minor: str) -> None:
    """Kubernetes' programs say of which version they are: the one wished for, else the usual one."""
    module = kubernetes(wanted)
    stamps = dict(stamp.rsplit("/", 1)[1].removeprefix("version.").split("=") for stamp in module.stamps)

    assert module.version == version
    assert stamps == {"gitVersion": version, "gitMajor": "1", "gitMinor": minor}
    assert binaries.GO.count(".") == 1
