"""What an image is made of, as a CycloneDX document.

Source: CycloneDX 1.5; package URLs as purl-spec has them for `deb` and `pypi`. uv writes the components of
wheels; Debian's are added. The same image gives the same document.
"""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from testkit.images.debian import ARCHITECTURE, RELEASE, Package
from workload_identity_operator import __version__


def bill(
    name: str,
    title: str,
    digest: str,
    created: str,
    packages: Iterable[Package],
    python: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the document of an image, given its manifest's digest and what it is made of."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{name}@{digest}").urn,
        "version": 1,
        "metadata": {
            "timestamp": created,
            "component": {
                "type": "container",
                "bom-ref": name,
                "name": name,
                "version": __version__,
                "description": title,
                "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
            },
        },
        "components": [*map(_of_debian, packages), *python],
    }


def component(name: str, kind: str, path: str, version: str, qualifiers: str = "") -> dict[str, Any]:
    """Return a library's component; its package URL is of this kind, path and qualifiers."""
    purl = f"pkg:{kind}/{quote(path, safe='/+')}@{quote(version, safe='')}{qualifiers}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _of_debian(package: Package) -> dict[str, Any]:
    where = f"?arch={ARCHITECTURE}&distro={RELEASE}"
    described = component(package.name, "deb", f"debian/{package.name}", package.version, where)
    return {**described, "hashes": [{"alg": "SHA-256", "content": package.sha256}]}
