"""The image of the container that holds a pod's namespaces: one small program of ours, built once."""

import hashlib
import io
import json
import os
import platform
import tarfile
from pathlib import Path
from typing import Any, Final

from testkit.binaries import alone, cache
from testkit.processes import output_of

SOURCE: Final = Path(__file__).with_name("pause.go")
NAME: Final = "localhost/pause:1"
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""What Go and image archives call this machine's."""


def archive() -> Path:
    """Return the image as an OCI archive, made if the cache has none of this source.

    Raises:
        ProcessFailed: Go cannot build the program.
    """
    path = cache() / f"pause-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}.tar"
    if not path.exists():
        with alone(cache()):
            program = path.with_suffix(".program")
            env = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
            output_of(["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, SOURCE], env=env)
            unfinished = path.with_suffix(".unfinished")
            _pack(unfinished, program.read_bytes())
            program.unlink()
            unfinished.replace(path)
    return path


def _pack(path: Path, program: bytes) -> None:
    """Write an image of one layer with one file. Source: OCI image specification 1.1, image layout."""
    blobs: dict[str, bytes] = {}

    def blob(media_type: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        kind = f"application/vnd.oci.image.{media_type}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    layer = blob("layer.v1.tar", _tar({"pause": program}))
    system = {"os": "linux", "architecture": ARCHITECTURES[platform.machine()]}
    config = {
        **system,
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    described = {"schemaVersion": 2, "config": blob("config.v1+json", _json(config)), "layers": [layer]}
    manifest = {
        **blob("manifest.v1+json", _json(described)),
        "platform": system,
        "annotations": {"io.containerd.image.name": NAME},
    }
    index = {"schemaVersion": 2, "manifests": [manifest]}
    layout = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    path.write_bytes(_tar(layout | blobs))


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()


def _tar(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()
