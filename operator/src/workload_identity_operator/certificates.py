"""The webhook's serving certificate and its authority: issuing them, and telling whether they still do.

No I/O and no clock: names and the moment are handed in.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE: Final = timedelta(days=10 * 365)
LEAF_LIFE: Final = timedelta(days=365)
LOOK_AHEAD: Final = timedelta(days=90)
"""One that does not last this much longer is replaced."""
BACKDATED: Final = timedelta(hours=1)
"""For API servers whose clock is behind."""
OVERLAP: Final = timedelta(days=1)
"""How long an authority is still trusted after another took its place: whoever serves by it learns of that,
or takes itself for not ready, within half of it."""
MOST_FORMER: Final = 4
"""Former authorities that are kept: a `caBundle` that grows for ever would one day not fit."""

# A common name holds 64 characters, a service's DNS name can be longer; only the SAN matters.
_AUTHORITY_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "workload-identity-operator-ca")])
_LEAF_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "workload-identity-operator")])
_KEYS: Final = {"ca.crt": "bundle", "ca.key": "authority_key", "tls.crt": "leaf", "tls.key": "leaf_key"}
_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
# What cryptography raises on what it does not understand, most of it no ValueError.
_UNUSABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """An authority and the serving certificate it issued, all PEM.

    Attributes:
        authority: Who issued the leaf.
        authority_key: Its private key.
        leaf: What the webhook serves.
        leaf_key: Its private key.
        former: Authorities that issued before, the latest first; replicas may still serve by them.
    """

    authority: bytes
    authority_key: bytes = field(repr=False)
    leaf: bytes
    leaf_key: bytes = field(repr=False)
    former: bytes = b""

    @property
    def bundle(self) -> bytes:
        """What goes into a `caBundle`: the authority, then those before it."""
        return self.authority + self.former

    def as_secret(self) -> dict[str, bytes]:
        """Return the data of a Secret, under the peer's keys."""
        return {key: getattr(self, name) for key, name in _KEYS.items()}


def from_secret(data: Mapping[str, bytes]) -> Certificate | None:
    """Return what `as_secret` made; None when a part is missing or empty."""
    bundle, authority_key, leaf, leaf_key = (data.get(key) for key in _KEYS)
    if not (bundle and authority_key and leaf and leaf_key):
        return None
    first, *former = _blocks(bundle) or [bundle]
    return Certificate(first, authority_key, leaf, leaf_key, b"".join(former))


def issue(names: Iterable[str], now: datetime) -> Certificate:
    """Return a new authority and a serving certificate for the names (DNS names or IP addresses)."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = (
        _builder(_AUTHORITY_NAME, key.public_key(), now, now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    leaf, leaf_key = _leaf(names, now, now + LEAF_LIFE, key)
    return Certificate(_pem(authority), _pem_key(key), leaf, leaf_key)


def renew(certificate: Certificate, names: Iterable[str], now: datetime) -> Certificate:
    """Return a new serving certificate: of the same authority as long as that lasts, else of a new one."""
    try:
        authority = x509.load_pem_x509_certificate(certificate.authority)
        key = serialization.load_pem_private_key(certificate.authority_key, password=None)
        signs = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        matching = key.public_key() == authority.public_key() and authority.subject == _AUTHORITY_NAME
    except (*_UNUSABLE, x509.ExtensionNotFound):
        return issue(names, now)
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or not signs
        or not matching
        or not _lasts(authority, now)
    ):
        return issue(names, now)
    end = min(now + LEAF_LIFE, authority.not_valid_after_utc)
    leaf, leaf_key = _leaf(names, now, end, key)
    return replace(certificate, leaf=leaf, leaf_key=leaf_key)


def remembering(certificate: Certificate, trusted: bytes, now: datetime) -> Certificate:
    """Return it with all authorities of a `caBundle` among its former ones that can still vouch for someone.

    What is no certificate there, no authority or has ended is left out.
    """
    known = {certificate.authority, *_BLOCK.findall(certificate.former)}
    found = [block for block in _blocks(trusted) if block not in known and _can_vouch(block, now)]
    kept = [*found, *_BLOCK.findall(certificate.former)][:MOST_FORMER]
    return replace(certificate, former=b"".join(kept)) if found else certificate


def is_vouched_for(leaf: bytes, bundle: bytes) -> bool:
    """Whether a `caBundle` has the authority of a serving certificate, both PEM; False for what is none."""
    try:
        served = x509.load_pem_x509_certificates(leaf)
        trusted = x509.load_pem_x509_certificates(bundle)
    except _UNUSABLE:
        return False
    return any(_vouches(one, found) for one in trusted for found in served)


def _vouches(authority: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, *_UNUSABLE):
        return leaf == authority  # trusted itself
    return True


def _leaf(
    names: Iterable[str], now: datetime, end: datetime, authority_key: ec.EllipticCurvePrivateKey
) -> tuple[bytes, bytes]:
    """Return a serving certificate and its key."""
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        _builder(_LEAF_NAME, leaf_key.public_key(), now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    return _pem(leaf), _pem_key(leaf_key)


def _blocks(bundle: bytes) -> list[bytes]:
    """Return the certificates of a bundle as we write them, whatever stands between them."""
    return [block if block.endswith(b"\n") else block + b"\n" for block in _BLOCK.findall(bundle)]


def _can_vouch(block: bytes, now: datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(block)
        signs = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (*_UNUSABLE, x509.ExtensionNotFound):
        return False
    return signs and found.not_valid_after_utc > now


def _lasts(found: x509.Certificate, now: datetime) -> bool:
    return found.not_valid_before_utc <= now and found.not_valid_after_utc >= now + LOOK_AHEAD


def fault_of(certificate: Certificate, names: Iterable[str], now: datetime) -> str | None:
    """Return why the certificate must be replaced; None when it serves these names well enough."""
    try:
        authority = x509.load_pem_x509_certificate(certificate.authority)
        leaf = x509.load_pem_x509_certificate(certificate.leaf)
        key = serialization.load_pem_private_key(certificate.leaf_key, password=None)
        matching = key.public_key() == leaf.public_key()
        leaf.verify_directly_issued_by(authority)
        covered = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except InvalidSignature:
        return "the serving certificate was not issued by the authority beside it"
    except x509.ExtensionNotFound:
        return "the serving certificate has no subject alternative name"
    except _UNUSABLE as error:
        return f"it cannot be used: {error}"
    if not matching:
        return "its private key belongs to another certificate"
    for what, found in (("authority", authority), ("serving certificate", leaf)):
        if not _lasts(found, now):
            return f"the {what} is valid from {found.not_valid_before_utc} to {found.not_valid_after_utc}"
    missing = [name for name in names if _general_name(name) not in covered]
    return f"it does not cover {', '.join(missing)}" if missing else None


def issued_at(authority: bytes) -> datetime:
    """Return when an authority of ours was issued; time zone UTC. Raises ValueError for no certificate."""
    return x509.load_pem_x509_certificate(authority).not_valid_before_utc + BACKDATED


def expiry_of(leaf: bytes) -> datetime:
    """Return when a PEM certificate ends; time zone UTC. Raises ValueError for anything else."""
    return x509.load_pem_x509_certificate(leaf).not_valid_after_utc


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_AUTHORITY_NAME)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        # What stands in a URL may be beyond ASCII; callers ask for its ASCII form.
        return x509.DNSName(name if name.isascii() else name.encode("idna").decode("ascii"))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
