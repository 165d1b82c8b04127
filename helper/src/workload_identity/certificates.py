"""Certificates that prove who a client is: read from PEM or PKCS#12, and what is signed with their keys.

Source: learn.microsoft.com/entra/identity-platform/certificate-credentials; RFC 7515, 7518 and 8705 for the
names of header members. cryptography is needed here, and nowhere else but in user sign-in.
"""

from __future__ import annotations

import json
from binascii import b2a_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

_WANTED = "wanted an RSA private key and its certificate, in PEM or PKCS#12"
_PEM = b"-----BEGIN"


class ClientCertificate:
    """A certificate with its private key, and the other certificates that came with them.

    Attributes:
        thumbprint: SHA-1 of the certificate, as the portal shows it.
        until: When the certificate runs out, as text.
    """

    def __init__(self, data: bytes, password: bytes | None, source: str) -> None:
        """Read one.

        Args:
            data: All of it, PEM or PKCS#12.
            password: What the private key is encrypted with; None: nothing.
            source: What to call it in an error.

        Raises:
            ValueError: It cannot be used; the message says what was found.
        """
        try:
            key, several = (_from_pem if _PEM in data else _from_pkcs12)(data, password)
        except ImportError as failure:
            raise ValueError(f"{source}: certificates need the package cryptography ({failure})") from failure
        except (ValueError, TypeError) as failure:
            raise ValueError(f"{source}: {_WANTED}; {_found(data, password, failure)}") from failure
        self._key = _rsa(key, source)
        self._several = _own_first(self._key, several, source)
        from cryptography.hazmat.primitives.hashes import SHA1, SHA256  # noqa: PLC0415 - a heavy import

        leaf = self._several[0]
        # SHA-1 names the certificate to ADFS and to people; it protects nothing.
        sha1 = leaf.fingerprint(SHA1())  # noqa: S303
        self.thumbprint = sha1.hex().upper()
        self.until = f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
        self._names = {"x5t": _encoded(sha1), "x5t#S256": _encoded(leaf.fingerprint(SHA256()))}

    def __repr__(self) -> str:
        return f"<ClientCertificate {self.thumbprint}>"

    def signed(self, claims: Mapping[str, Any], *, adfs: bool, chain: bool) -> str:
        """Return the claims as a signed JWT.

        Args:
            claims: What it states.
            adfs: For ADFS, which knows RS256 and SHA-1 thumbprints only.
            chain: Whether the certificates go with it: trust by subject and issuer needs them.
        """
        from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415 - a heavy import
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        name = "x5t" if adfs else "x5t#S256"
        header: dict[str, Any] = {"alg": "RS256" if adfs else "PS256", "typ": "JWT", name: self._names[name]}
        if chain:
            header["x5c"] = [_der(certificate) for certificate in self._several]
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        way = padding.PKCS1v15() if adfs else padding.PSS(padding.MGF1(SHA256()), SHA256().digest_size)
        return f"{text}.{_encoded(self._key.sign(text.encode(), way, SHA256()))}"


def _from_pem(data: bytes, password: bytes | None) -> tuple[object, list[Certificate]]:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - heavy
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415

    key = load_pem_private_key(_key_block(data), password)
    if b"CERTIFICATE-----" not in data:
        raise ValueError("there is no certificate in it")
    return key, load_pem_x509_certificates(data)


def _key_block(data: bytes) -> bytes:
    """Return the private key's block alone: certificates around it may have been written by anyone."""
    label = b"PRIVATE KEY-----"
    ends = data.find(b"-----END", data.find(label) + len(label))
    if label not in data or ends < 0:
        raise ValueError("there is no private key in it")
    begins = data.rfind(_PEM, 0, data.find(label))
    return data[begins : data.find(label, ends) + len(label)] + b"\n"


def _from_pkcs12(data: bytes, password: bytes | None) -> tuple[object, list[Certificate]]:
    from cryptography.hazmat.primitives.serialization.pkcs12 import (  # noqa: PLC0415 - a heavy import
        load_key_and_certificates,
    )

    key, leaf, others = load_key_and_certificates(data, password)
    if key is None or leaf is None:
        raise ValueError(f"there is no {'private key' if key is None else 'certificate'} in it")
    return key, [leaf, *others]


def _rsa(key: object, source: str) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415 - a heavy import

    if not isinstance(key, RSAPrivateKey):
        kind = type(key).__name__.removesuffix("PrivateKey").strip("_") or "another"
        raise ValueError(f"{source}: {_WANTED}; the private key found is of kind {kind}")  # noqa: TRY004 - as any other
    return key


def _own_first(key: RSAPrivateKey, several: list[Certificate], source: str) -> list[Certificate]:
    """Return the certificates, that of the key first: the signing one, then those that vouch for it."""
    public = key.public_key()
    own = next((certificate for certificate in several if certificate.public_key() == public), None)
    if own is None:
        raise ValueError(f"{source}: {_WANTED}; the certificates found are of other keys")
    return [own, *(certificate for certificate in several if certificate is not own)]


def _found(data: bytes, password: bytes | None, failure: Exception) -> str:
    """Return what is wrong in few words: a library's own may quote what it read."""
    words = str(failure)
    if not data:
        return "found nothing"
    if isinstance(failure, ValueError) and words.startswith("there is no "):
        return words
    if _PEM in data and isinstance(failure, TypeError):
        return (
            "the private key is encrypted, and no password is given"
            if password is None
            else "a password is given, but the private key is not encrypted"
        )
    if _PEM not in data or b"ENCRYPTED" in data:
        need = "another password is needed" if password is not None else "a password may be needed"
        return f"what was found cannot be read: it is damaged, or {need}"
    return "what was found cannot be read: it is damaged"


def _der(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - a heavy import

    return b2a_base64(certificate.public_bytes(Encoding.DER), newline=False).decode()


def _encoded(data: bytes) -> str:
    text = b2a_base64(data, newline=False).decode()
    return text.rstrip("=").replace("+", "-").replace("/", "_")


class CertificateSource:
    """Where a certificate comes from: bytes, or a file that may be replaced while the program runs.

    Attributes:
        path: The file; "" for bytes.
        data: What was there first; holds a private key.
        current: The certificate that was read last.
    """

    def __init__(self, path: str, data: bytes, password: bytes | None, name: str) -> None:
        """Read it.

        Raises:
            ValueError: It cannot be used.
        """
        self.path = path
        self.data = data
        self._password = password
        self._name = name
        self._seen = data
        self.current = ClientCertificate(data, password, name)

    def __reduce__(self) -> tuple[object, ...]:
        return CertificateSource, (self.path, self.data, self._password, self._name)

    def replaced(self, data: bytes) -> None:
        """Take what is in the file now.

        Raises:
            ValueError: It cannot be used; the certificate from before stays, and this is raised again until
                the file is in order.
        """
        if data != self._seen:
            self.current = ClientCertificate(data, self._password, self._name)
            self._seen = data


def certificate_source(
    path: object, data: bytes | None, password: str | bytes | None, *, names: tuple[str, str]
) -> CertificateSource:
    """Read a certificate for a credential.

    Args:
        path: A file.
        data: Or what would be in it.
        password: What the private key is encrypted with.
        names: What the two are called where they are given.

    Raises:
        ValueError: Neither or both are given, or what is there cannot be used.
    """
    if bool(path) == bool(data):
        raise ValueError(
            f"one of {names[0]} and {names[1]} was wanted, found {'both' if path else 'neither'}"
        )
    secret = password.encode() if isinstance(password, str) else password
    if data:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ValueError(f"{names[1]}: bytes were wanted, found {type(data).__name__}")
        return CertificateSource("", bytes(data), secret or None, names[1])
    import os  # noqa: PLC0415 - for a file only

    file = os.fspath(path)  # type: ignore[call-overload] # a path, or TypeError says that it is none
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - pathlib is no light import
            content = opened.read()
    except (OSError, ValueError) as failure:
        words = getattr(failure, "strerror", None) or str(failure)
        raise ValueError(f"{names[0]} {file!r} cannot be read: {words}") from failure
    return CertificateSource(str(file), content, secret or None, f"{names[0]} {file!r}")
