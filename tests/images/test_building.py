"""Images without Docker: what is in them, what is not, and the same bytes each time."""

import hashlib
import io
import json
import re
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from testkit.images import OPERATOR, RECIPES, Built, build, config, debian, lay, layers
from testkit.images.wheels import ROOT
from testkit.processes import finish

pytestmark = pytest.mark.skipif(bool(debian.lacking()), reason=debian.lacking() or "not skipped")

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The operator's image."""
    return build(OPERATOR, tmp_path_factory.mktemp("dist"), newer=True)


@pytest.fixture(scope="module")
def blobs(operator: Built) -> Mapping[str, bytes]:
    """What is in its archive, by path."""
    with tarfile.open(operator.archive) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def blob(blobs: Mapping[str, bytes], descriptor: Mapping[str, Any]) -> bytes:
    """Return what a descriptor names, checked against it."""
    kind, _, digest = descriptor["digest"].partition(":")
    found = blobs[f"blobs/{kind}/{digest}"]
    assert (hashlib.sha256(found).hexdigest(), len(found)) == (digest, descriptor["size"])
    return found


@pytest.fixture(scope="module")
def manifest(blobs: Mapping[str, bytes]) -> dict[str, Any]:
    """Its manifest."""
    (only,) = json.loads(blobs["index.json"])["manifests"]
    found: dict[str, Any] = json.loads(blob(blobs, only))
    return found


@pytest.fixture(scope="module")
def files(blobs: Mapping[str, bytes], manifest: Mapping[str, Any]) -> dict[str, tarfile.TarInfo]:
    """The files of its layers, by path."""
    found = {}
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blob(blobs, layer))) as members:
            found.update({member.name: member for member in members})
    return found


def test_archive_is_an_image(
    operator: Built, blobs: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> None:
    """Each part is what its digest says, and the configuration names the layers in their order."""
    index = json.loads(blobs["index.json"])["manifests"][0]
    described = json.loads(blob(blobs, manifest["config"]))

    assert json.loads(blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert index["digest"] == operator.digest
    assert index["annotations"]["io.containerd.image.name"] == operator.reference
    assert described["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert (described["os"], described["architecture"]) == ("linux", "amd64")
    assert described["config"]["User"] == "65532:65532"
    assert described["config"]["Labels"]["org.opencontainers.image.version"] == "0.1.0"


def test_reference_is_what_the_chart_asks_for(operator: Built) -> None:
    """A runtime that has loaded it finds it under the name of the chart's default values."""
    assert operator.reference == "docker.io/library/workload-identity-operator:0.1.0"


def test_nothing_is_in_it_that_is_not_run(files: Mapping[str, tarfile.TarInfo]) -> None:
    """No shell, compiler or installer; no file that others may write; nothing with another's rights."""
    programs = {Path(name).name for name, member in files.items() if "bin" in Path(name).parts[:-1]}
    top = {
        Path(name).parts[-1].partition("-")[0] for name in files if Path(name).parent.name == "dist-packages"
    }

    assert {"sh", "bash", "dash", "gcc", "pip", "pip3", "apt-get", "dpkg"} & programs == set()
    assert {"pip", "setuptools", "wheel", "uv", "pytest", "kubernetes", "testkit"} & top == set()
    assert [name for name, member in files.items() if member.mode & (stat.S_ISUID | stat.S_ISGID)] == []
    writable = [name for name, m in files.items() if m.mode & stat.S_IWOTH and not m.issym()]
    assert writable == ["tmp"]
    assert not [name for name in files if re.search(r"/tests?/|\.(?:c|h|pyx|a)$", name)]


def test_it_stays_small(operator: Built) -> None:
    """Half of what it was without stripping; what grows is seen here first, by name."""
    assert operator.archive.stat().st_size < 58 * MEGABYTE, operator.parts
    assert next(iter(operator.parts)) == "cryptography"


def test_licences_are_in_it(files: Mapping[str, tarfile.TarInfo]) -> None:
    """Whoever passes on Debian's packages and wheels must pass on what they are licensed under."""
    licensed = {name.split("/")[3] for name in files if re.fullmatch(r"usr/share/doc/[^/]+/copyright", name)}
    assert licensed >= {"libc6", "libssl3", "zlib1g"}
    assert any(re.search(r"kopf-.*\.dist-info/licenses/", name) for name in files)


def test_bill_of_materials_has_all_of_it(operator: Built, files: Mapping[str, tarfile.TarInfo]) -> None:
    """Each package and each distribution whose files are there is a component, and no wheel is more."""
    components = {(one["name"], one["version"]) for one in operator.bill["components"]}
    found = [re.fullmatch(rf"{layers.SITE}/(.+)-([^-]+)\.dist-info/METADATA", name) for name in files]
    installed = {(one[1].replace("_", "-").lower(), one[2]) for one in found if one}
    described = {name.rpartition("/")[2] for name in files if name.startswith("var/lib/dpkg/status.d/")}

    assert installed <= components
    assert described == set(debian.INTERPRETER) <= {name for name, _ in components}
    assert {name for name, _ in components} == {name for name, _ in installed} | described
    assert operator.bill["metadata"]["component"]["hashes"][0]["content"] in operator.digest
    assert all(one["hashes"] for one in operator.bill["components"] if one["purl"].startswith("pkg:deb/"))


def test_same_bytes_each_time(operator: Built, tmp_path: Path) -> None:
    """Made anew without anything kept, archive and bill of materials are the same."""
    again = build(OPERATOR, tmp_path, newer=True, kept=False)

    assert again.digest == operator.digest
    assert again.archive.read_bytes() == operator.archive.read_bytes()
    assert again.bill == operator.bill


def test_its_python_runs_the_operator(tmp_path: Path) -> None:
    """With nothing of this machine but its kernel the operator answers, from compiled modules."""
    lay(OPERATOR, tmp_path / "root", newer=True)
    root = tmp_path / "root"
    env = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": str(root / layers.SITE), "GIT_COMMIT": "abc"}
    told = debian.run_in(root, "usr/bin/python3.11", "-m", "workload_identity_operator", "--version", env=env)

    assert json.loads(told)["gitCommit"] == "abc"
    program = "import workload_identity_operator.run, kopf, ssl; print(kopf.__file__, ssl.__file__)"
    told = debian.run_in(root, "usr/bin/python3.11", "-c", program, env=env)
    assert [Path(name).suffix for name in told.split()] == [".pyc", ".pyc"]
    assert (root / "usr/local/bin/workload-identity-operator").stat().st_mode & stat.S_IXOTH


def test_every_package_is_recorded() -> None:
    """What any image is made of has a version and a hash."""
    used = {name for recipe in RECIPES.values() for name in recipe.debian} | set(debian.STRIP)
    recorded = debian.pins()

    assert used == recorded.keys()
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for _, digest in recorded.values())


@pytest.fixture
def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions."""
    text = (ROOT / "operator" / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_dockerfile_says_what_the_archive_says(dockerfile: list[tuple[str, str]]) -> None:
    """User, environment, labels, working directory and what is started are the same; so is uv's version."""
    wanted = config(OPERATOR, "${GIT_COMMIT}", "${BUILD_DATE}")
    final = dockerfile[[word for word, _ in dockerfile].index("FROM", 1) :]
    told = {word: rest for word, rest in final if word in {"USER", "WORKDIR", "ENTRYPOINT"}}

    assert told == {
        "USER": wanted["User"],
        "WORKDIR": wanted["WorkingDir"],
        "ENTRYPOINT": json.dumps(wanted["Entrypoint"]),
    }
    assert [rest for word, rest in final if word == "ENV"] == wanted["Env"]
    labels = dict(rest.split("=", 1) for word, rest in final if word == "LABEL")
    assert {name: value.strip('"') for name, value in labels.items()} == wanted["Labels"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    version = re.findall(r"^UV_VERSION := (.*)$", makefile, re.MULTILINE)[0]
    assert ("ARG", f"UV_VERSION={version}") in dockerfile
    assert ("FROM", f"python:{debian.PYTHON}-slim-{debian.RELEASE} AS build") in dockerfile


def test_dockerfile_copies_what_its_build_needs(dockerfile: list[tuple[str, str]], tmp_path: Path) -> None:
    """Its command, run where there is nothing but what it copies, lays the image's files."""
    copied = [rest.split() for word, rest in dockerfile if word == "COPY" and not rest.startswith("--from")]
    sent = (ROOT / "operator" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for *sources, target in copied:
        for source in sources:
            assert f"!{source}" in sent
            (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
            where = tmp_path / (source if target == "./" else target)
            finish(["cp", "--recursive", ROOT / source, where])
    command = next(rest for word, rest in dockerfile if word == "RUN" and "testkit.images" in rest)
    wanted = command.split(" && ")[1].replace("/image", str(tmp_path / "image"))

    ended = finish(["bash", "-euc", wanted.replace("uv run", '"$UV" run', 1)], cwd=tmp_path, timeout=300)

    assert ended.status == 0, ended.errors
    assert (tmp_path / "image" / "usr/local/bin/workload-identity-operator").exists()
