"""Certificates with which clients prove who they are, in the files that users keep them in."""

import datetime as dt
import functools
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@functools.cache
def rsa_key(owner: str) -> rsa.RSAPrivateKey:
    """Make a key once for all tests: it takes longer than most of them."""
    del owner
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, its key, and the certificates that vouch for it, its issuer's first."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def of(cls, name: str, *, key: Key | None = None, issuer: "Issued | None" = None) -> "Issued":
        """Issue a certificate for a common name, by itself or by an authority, for a day from now."""
        own = key or rsa_key(name)
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(issuer.certificate.subject if issuer else _name(name))
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer.key if issuer else own, SHA256())
        )
        return cls(certificate, own, (issuer.certificate, *issuer.chain) if issuer else ())

    def key_pem(self, password: bytes | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        """Return the private key in PEM, encrypted with a password."""
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, form, encryption)

    def certificate_pem(self) -> bytes:
        """Return the certificate alone in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def chain_pem(self) -> bytes:
        """Return those that vouch for it in PEM."""
        return b"".join(one.public_bytes(Encoding.PEM) for one in self.chain)

    def pem(self, password: bytes | None = None) -> bytes:
        """Return a file with all of it in PEM."""
        return self.key_pem(password) + self.certificate_pem() + self.chain_pem()

    def pkcs12(self, password: bytes | None = None) -> bytes:
        """Return a file with all of it in PKCS#12."""
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        return pkcs12.serialize_key_and_certificates(
            b"client", self.key, self.certificate, self.chain, encryption
        )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
