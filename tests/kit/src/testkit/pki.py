"""Who trusts whom in a cluster of our own: an authority, certificates, the key of ServiceAccount tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@dataclass(frozen=True, slots=True)
class Party:
    """Whom a certificate is for.

    Attributes:
        names: DNS names and addresses. Go refuses certificates without any, so a user has one too.
        user: As whom the API server knows its holder.
        group: The group that the holder is in.
    """

    names: tuple[str, ...]
    user: str | None = None
    group: str | None = None


def write_pki(folder: Path, parties: Mapping[str, Party]) -> None:
    """Write into a new folder `ca.crt`, certificate and key of each party, and `service-accounts.key`."""
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    for name, party in parties.items():
        issued = authority.issue_cert(*party.names, common_name=party.user, organization_name=party.group)
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
    # RSA: a cluster that federates with Entra signs RS256.
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "service-accounts.key").write_bytes(key)


def certificate(folder: Path, name: str) -> dict[str, str]:
    """Return what a kubeconfig's user is who shows this party's certificate."""
    return {"client-certificate": f"{folder}/{name}.crt", "client-key": f"{folder}/{name}.key"}


def write_kubeconfig(path: Path, server: str, ca_file: Path, user: Mapping[str, str]) -> None:
    """Write a kubeconfig, for our eyes only, of one cluster and one user."""
    name = "testkit"
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority": str(ca_file)}}],
        "users": [{"name": name, "user": dict(user)}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
