"""Folders as an OCI image archive, the same bytes each time for the same folders.

Source: OCI image format specification 1.1.1: image-layout.md, manifest.md, config.md, layer.md. Layers are
not compressed: another zlib would make other bytes of them. What pushes an archive compresses it.
"""

import hashlib
import io
import json
import stat
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_MEDIA: Final = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes under their digest.

    Attributes:
        sha256: Of them, in hexadecimal digits.
        size: How many.
        content: Them, or the file that has them.
    """

    sha256: str
    size: int
    content: bytes | Path

    def descriptor(self, kind: str) -> dict[str, Any]:
        """Return how another document names it."""
        return {"mediaType": f"{_MEDIA}.{kind}", "digest": f"sha256:{self.sha256}", "size": self.size}


@dataclass(frozen=True, slots=True)
class Image:
    """What an image is, beside its layers.

    Attributes:
        reference: The name it is known by, `registry/repository:tag`.
        architecture: As Go calls it, "amd64".
        created: When what is in it was changed last, RFC 3339.
        config: Go's names: Entrypoint, Cmd, Env, User, WorkingDir, Labels.
    """

    reference: str
    architecture: str
    created: str
    config: Mapping[str, Any]


def pack(folder: Path, to: Path) -> Blob:
    """Write a folder as a layer: sorted, owned by root, without times, no mode that umask had a say in."""
    with tarfile.open(to, "w", format=tarfile.GNU_FORMAT) as layer:
        for path in sorted(folder.rglob("*")):
            layer.addfile(*_member(path, folder))
    with to.open("rb") as packed:
        return Blob(hashlib.file_digest(packed, "sha256").hexdigest(), to.stat().st_size, to)


def _member(path: Path, folder: Path) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    found, member = path.lstat(), tarfile.TarInfo(str(path.relative_to(folder)))
    if stat.S_ISLNK(found.st_mode):
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        return member, None
    if stat.S_ISDIR(found.st_mode):
        # Sticky is /tmp, and nothing else.
        member.type, member.mode = tarfile.DIRTYPE, 0o1777 if found.st_mode & stat.S_ISVTX else 0o755
        return member, None
    member.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
    content = path.read_bytes()
    member.size = len(content)
    return member, io.BytesIO(content)


def write(image: Image, layers: Sequence[Blob], to: Path) -> str:
    """Write the archive and return its manifest's digest, "sha256:…"."""
    config = _document(
        {
            "architecture": image.architecture,
            "os": "linux",
            "created": image.created,
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.sha256}" for layer in layers]},
            "history": [{"created": image.created, "created_by": "make image"} for _ in layers],
        }
    )
    manifest = _document(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": config.descriptor("config.v1+json"),
            "layers": [layer.descriptor("layer.v1.tar") for layer in layers],
        }
    )
    named = {
        **manifest.descriptor("manifest.v1+json"),
        "platform": {"architecture": image.architecture, "os": "linux"},
        "annotations": {
            # containerd reads the first, others the second.
            "io.containerd.image.name": image.reference,
            "org.opencontainers.image.ref.name": image.reference.rpartition(":")[2],
        },
    }
    index = {"schemaVersion": 2, "mediaType": f"{_MEDIA}.index.v1+json", "manifests": [named]}
    with tarfile.open(to, "w", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, "oci-layout", _document({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _document(index))
        for blob in sorted((config, manifest, *layers), key=lambda one: one.sha256):
            _add(archive, f"blobs/sha256/{blob.sha256}", blob)
    return f"sha256:{manifest.sha256}"


def _document(value: Mapping[str, Any]) -> Blob:
    content = json.dumps(value, sort_keys=True).encode()
    return Blob(hashlib.sha256(content).hexdigest(), len(content), content)


def _add(archive: tarfile.TarFile, name: str, blob: Blob) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = blob.size, 0o644
    if isinstance(blob.content, bytes):
        archive.addfile(member, io.BytesIO(blob.content))
    else:
        with blob.content.open("rb") as content:
            archive.addfile(member, content)
