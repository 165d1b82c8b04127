"""Container images without Docker: Debian's Python, locked wheels, our own packages, an OCI archive.

`make image` builds the operator's. The others are for pods in tests: a program with the helper in it, the
same with azure-identity, the Entra stand-in, Azurite. The bytes of an image depend on nothing but what is
recorded and what is in the work tree.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from testkit import azurite
from testkit.binaries import cache
from testkit.folders import throwaway_folder
from testkit.images import bom, debian, layers, oci, wheels
from testkit.images.wheels import ROOT
from testkit.processes import finish
from workload_identity_operator import __version__

PROGRAMS: Final = Path(__file__).with_name("programs")
REGISTRY: Final = "docker.io/library"
"""What a name without a registry means to a container runtime."""
NAMED_IMAGES: Final = "TESTKIT_IMAGES"
"""Environment variable: where a cluster that is not ours pulls them from, `registry.example.com/folder`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of.

    Attributes:
        name: Its repository.
        title: What it is, in a sentence.
        debian: Packages of Debian.
        selection: Which wheels, in the words of `uv export`; () for none.
        own: Distributions of the workspace.
        files: Further files by their paths, as text; those below a `bin` can be run.
        more: Lays further files into a folder and returns whose they are.
        entrypoint: What is started.
    """

    name: str
    title: str
    entrypoint: Sequence[str]
    debian: Sequence[str] = debian.INTERPRETER
    selection: Sequence[str] = ()
    own: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    more: Callable[[Path], dict[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """An image in its archive.

    Attributes:
        archive: The file.
        reference: The name under which a container runtime knows it once it is loaded.
        digest: Of its manifest, "sha256:…".
        parts: Bytes by the package that brings them, largest first.
        bill: What it is made of, in CycloneDX.
    """

    archive: Path
    reference: str
    digest: str
    parts: Mapping[str, int]
    bill: Mapping[str, Any]


def _program(name: str) -> str:
    return (PROGRAMS / name).read_text(encoding="utf-8")


_LAUNCHER: Final = """\
#!/usr/bin/python3
from workload_identity_operator.__main__ import main

main()
"""

OPERATOR: Final = Recipe(
    "workload-identity-operator",
    "Gives the pods of annotated Kubernetes ServiceAccounts an Azure identity without a secret",
    ["workload-identity-operator"],
    selection=["--package=workload-identity-operator", "--no-dev"],
    own=["workload-identity-operator"],
    files={"usr/local/bin/workload-identity-operator": _LAUNCHER},
)
RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        OPERATOR,
        Recipe(
            "workload-identity-sample",
            "A program that writes blobs with the identity of its pod",
            ["python3", "/srv/blobs.py"],
            selection=["--only-group=image-sample"],
            own=["workload-identity"],
            files={"srv/blobs.py": _program("blobs.py")},
        ),
        Recipe(
            "workload-identity-sample-azure-identity",
            "The same program with azure-identity",
            ["python3", "/srv/blobs.py"],
            selection=["--only-group=image-azure-identity"],
            # Moving over is changing an import.
            files={
                "srv/blobs.py": _program("blobs.py").replace(
                    "from workload_identity import", "from azure.identity import"
                )
            },
        ),
        Recipe(
            "workload-identity-entra-standin",
            "A token service that verifies as Microsoft Entra does, for tests",
            ["python3", "-m", "testkit.entra"],
            selection=["--only-group=image-entra-standin"],
            own=["workload-identity-testkit"],
        ),
        Recipe(
            "workload-identity-azurite",
            "Microsoft's emulator of Azure storage, for tests",
            ["node", "/srv/node_modules/azurite/dist/src/blob/main.js"],
            debian=debian.CXX,
            more=layers.lay_azurite,
        ),
    )
}


def build(
    recipe: Recipe, to: Path, *, registry: str = REGISTRY, newer: bool = False, kept: bool = True
) -> Built:
    """Build an image into a folder.

    Args:
        recipe: What it is made of.
        to: The folder.
        registry: What its name starts with.
        newer: Whether Debian's packages may be newer than recorded where those are no longer served.
        kept: Whether layers are taken from the cache, and kept there; else all is made anew.

    Raises:
        PackagesMissing: Debian's packages cannot be had.
        ProcessFailed: The wheels cannot.
    """
    to.mkdir(parents=True, exist_ok=True)
    with throwaway_folder() as folder:
        place = cache().parent / "images" if kept else folder / "kept"
        stacked = list(_layers(recipe, newer, place, folder))
        known_as = reference(recipe.name, registry)
        archive = to / f"{recipe.name}-{__version__}.oci.tar"
        commit, date = provenance()
        image = oci.Image(known_as, debian.ARCHITECTURE, date, config(recipe, commit, date))
        unfinished = folder / "archive"
        digest = oci.write(image, [layer.blob for layer in stacked], unfinished)
        shutil.move(unfinished, archive)
    sizes = Counter[str]()
    for layer in stacked:
        sizes.update(layer.sizes)
    parts = dict(sizes.most_common())
    bill = bom.bill(
        recipe.name, recipe.title, digest, date, debian.fetch(recipe.debian, newer=newer), _python(recipe)
    )
    return Built(archive, known_as, digest, parts, bill)


def reference(name: str, registry: str | None = None) -> str:
    """Return under which name a container runtime knows an image."""
    return f"{registry or REGISTRY}/{name}:{__version__}"


def lay(recipe: Recipe, to: Path, *, newer: bool = False) -> None:
    """Lay all files of an image into a folder, as a container would see them."""
    with throwaway_folder() as folder:
        for layer in _layers(recipe, newer, cache().parent / "images", folder):
            shutil.copytree(layer.root, to, symlinks=True, dirs_exist_ok=True)


def provenance() -> tuple[str, str]:
    """Return commit and date: the work tree's, else GIT_COMMIT and BUILD_DATE, else none and the epoch."""
    asked = finish(["git", "log", "-1", "--format=%H %cI"], cwd=ROOT) if (ROOT / ".git").exists() else None
    if asked and not asked.status:
        commit, date = asked.output.split()
        changed = finish(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT).output.strip()
        return (f"{commit}-dirty" if changed else commit), date
    return os.environ.get("GIT_COMMIT", ""), os.environ.get("BUILD_DATE", "") or "1970-01-01T00:00:00Z"


def _layers(recipe: Recipe, newer: bool, kept: Path, scratch: Path) -> Iterator[layers.Layer]:
    """Yield an image's layers, what changes least often first."""
    packages = debian.fetch(recipe.debian, newer=newer)
    digests = [one.sha256 for one in packages]
    base = layers.kept(kept, "debian", digests, partial(layers.lay_base, packages))
    yield base
    if recipe.selection:
        made_of = [base.blob.sha256, wheels.requirements(recipe.selection)]
        lay_wheels = partial(layers.lay_wheels, recipe.selection, base.root, newer=newer)
        yield layers.kept(kept, "wheels", made_of, lay_wheels)
    if recipe.more:
        yield layers.kept(kept, "more", [recipe.name, azurite.VERSION], recipe.more)
    own = scratch / "own"
    python = base.root if recipe.debian is debian.INTERPRETER else None
    if owners := layers.lay_own(recipe.name, recipe.own, recipe.files, own, python):
        yield layers.packed(own, owners)


def _python(recipe: Recipe) -> list[dict[str, Any]]:
    ours: list[dict[str, Any]] = [bom.component(name, "pypi", name, __version__) for name in recipe.own]
    return [*ours, *(wheels.components(recipe.selection) if recipe.selection else [])]


def config(recipe: Recipe, commit: str, date: str) -> dict[str, Any]:
    """Return what a container runtime is told: user, environment, what to start, and labels."""
    label = "org.opencontainers.image"
    return {
        "Entrypoint": list(recipe.entrypoint),
        "Env": [
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "LANG=C.UTF-8",
            "PYTHONDONTWRITEBYTECODE=1",
            "PYTHONUNBUFFERED=1",
            f"GIT_COMMIT={commit}",
            f"BUILD_DATE={date}",
        ],
        "User": f"{layers.USER}:{layers.USER}",
        "WorkingDir": "/",
        "Labels": {
            f"{label}.title": recipe.name,
            f"{label}.description": recipe.title,
            f"{label}.version": __version__,
            f"{label}.revision": commit,
            f"{label}.created": date,
            f"{label}.licenses": "MIT",
        },
    }


@contextmanager
def start_measured(recipe: Recipe) -> Iterator[Callable[..., float]]:
    """Yield what starts the image's Python with some arguments and returns how long it took, in seconds."""
    with throwaway_folder() as root:
        lay(recipe, root)
        env = {
            "PYTHONHOME": str(root / "usr"),
            "PYTHONPATH": str(root / layers.SITE),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

        def start(*args: str) -> float:
            started = time.perf_counter()
            debian.run_in(root, f"usr/bin/python{debian.PYTHON}", *args, env=env)
            return time.perf_counter() - started

        yield start
