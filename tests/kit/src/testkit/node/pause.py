"""The image of the container that holds a pod's namespaces: one small program of ours, built once."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Final

from testkit.binaries import alone, cache
from testkit.folders import throwaway_folder
from testkit.images import oci
from testkit.processes import output_of

SOURCE: Final = Path(__file__).with_name("pause.go")
NAME: Final = "localhost/pause:1"
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""What Go calls this machine's."""


def archive() -> Path:
    """Return the image as an OCI archive, made if the cache has none of this source.

    Raises:
        ProcessFailed: Go cannot build the program.
    """
    path = cache() / f"pause-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}.tar"
    if not path.exists():
        with alone(cache()), throwaway_folder() as folder:
            (folder / "root").mkdir()
            how = ["-trimpath", "-ldflags", "-s -w", "-o", f"{folder}/root/pause"]
            output_of(
                ["go", "build", *how, str(SOURCE)], env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
            )
            architecture = ARCHITECTURES[platform.machine()]
            image = oci.Image(NAME, architecture, "1970-01-01T00:00:00Z", {"Entrypoint": ["/pause"]})
            unfinished = path.with_suffix(".unfinished")
            oci.write(image, [oci.pack(folder / "root", folder / "layer.tar")], unfinished)
            unfinished.replace(path)
    return path
