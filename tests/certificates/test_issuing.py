"""The operator's own certificates serve under every name, last, and keep their keys to themselves."""

import base64
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from workload_identity_operator.certificates import (
    MOST_FORMER,
    Certificate,
    expiry_of,
    fault_of,
    from_secret,
    is_vouched_for,
    issue,
    remembering,
    renew,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SERVICE = "workload-identity-operator.azure-workload-identity-system.svc"
# Longer than a common name may be: a service's name and a namespace's hold 63 characters each.
LONG_SERVICE = f"{'s' * 63}.{'n' * 63}.svc"
NAMES = [SERVICE, LONG_SERVICE, "localhost", "127.0.0.1", "::1"]

KEY_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign"),
)

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
CERTIFICATE = issue(NAMES, NOW)
OTHER = issue(NAMES, NOW)


def handshake(certificate: Certificate, called: str, trusted: bytes, folder: Path) -> x509.Certificate:
    """Return the certificate that a client is served which calls by this name and trusts this authority.

    Client and server are OpenSSL's, their bytes carried by hand; the client is as strict as Python 3.13's.
    """
    pem = folder / "served.pem"
    pem.write_bytes(certificate.leaf + certificate.leaf_key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    calling = ssl.create_default_context(cadata=trusted.decode())
    calling.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = calling.wrap_bio(to_client, to_server, server_hostname=called)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    served = client.getpeercert(binary_form=True)
    assert served is not None
    return x509.load_der_x509_certificate(served)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_served(name: str, tmp_path: Path) -> None:
    """A client that trusts the authority accepts the server under each DNS name and address."""
    certificate = issue(NAMES, datetime.now(UTC))

    served = handshake(certificate, name, certificate.authority, tmp_path)

    assert certificate.leaf == served.public_bytes(Encoding.PEM)


@pytest.mark.parametrize("name", ["elsewhere.svc", f"x.{SERVICE}", "127.0.0.2", "::2"])
def test_no_other_name_is_served(name: str, tmp_path: Path) -> None:
    """A client that calls by another name refuses the server."""
    certificate = issue(NAMES, datetime.now(UTC))

    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        handshake(certificate, name, certificate.authority, tmp_path)


def test_no_other_authority_vouches(tmp_path: Path) -> None:
    """A client that trusts an authority of the same name, but another key, refuses the server."""
    certificate, other = issue(NAMES, datetime.now(UTC)), issue(NAMES, datetime.now(UTC))

    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certificate, SERVICE, other.authority, tmp_path)


def test_names_beyond_ascii() -> None:
    """A host of a URL may be written beyond ASCII; the certificate has the form that callers ask for."""
    certificate = issue(["bücher.example"], NOW)

    assert fault_of(certificate, ["bücher.example", "xn--bcher-kva.example"], NOW) is None


def test_what_the_certificates_say() -> None:
    """The authority may only sign, the leaf may only serve; common names fit their 64 characters."""
    authority = x509.load_pem_x509_certificate(CERTIFICATE.authority)
    leaf = x509.load_pem_x509_certificate(CERTIFICATE.leaf)

    def said(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> object:
        return certificate.extensions.get_extension_for_class(kind).value

    assert said(authority, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    assert said(leaf, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
    assert said(leaf, x509.ExtendedKeyUsage) == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    for certificate, used in ((authority, {"key_cert_sign", "crl_sign"}), (leaf, {"digital_signature"})):
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert {name for name in KEY_USAGES if getattr(usage.value, name)} == used
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).critical
    for certificate in (authority, leaf):
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert len(str(name.value)) <= 64
        assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert authority.not_valid_after_utc == NOW + 3650 * DAY
    assert leaf.not_valid_after_utc == NOW + 365 * DAY == expiry_of(CERTIFICATE.leaf)
    assert authority.serial_number != leaf.serial_number


def test_each_key_belongs_to_its_certificate() -> None:
    """Authority and leaf have keys of their own."""
    for pem, key in (
        (CERTIFICATE.authority, CERTIFICATE.authority_key),
        (CERTIFICATE.leaf, CERTIFICATE.leaf_key),
    ):
        public = load_pem_private_key(key, password=None).public_key()
        assert public == x509.load_pem_x509_certificate(pem).public_key()
    assert CERTIFICATE.authority_key != CERTIFICATE.leaf_key


def test_expiry_of_no_certificate() -> None:
    """The end of something that is no certificate is a ValueError."""
    with pytest.raises(ValueError, match="PEM"):
        expiry_of(b"")


# Whether it still serves.


@pytest.mark.parametrize("names", [[], [SERVICE], NAMES, NAMES[::-1], ["0:0::1"]])
@pytest.mark.parametrize("moment", [NOW, NOW + 100 * DAY, NOW + 275 * DAY])
def test_a_good_one_is_kept(names: list[str], moment: datetime) -> None:
    """It is kept while it covers the names and has 90 days to go."""
    assert fault_of(CERTIFICATE, names, moment) is None


@pytest.mark.parametrize(
    ("moment", "told"),
    [
        (NOW - timedelta(hours=2), "the authority is valid from 2026-03-01 11:00"),
        (NOW + 275 * DAY + timedelta(seconds=1), "the serving certificate is valid from 2026-03-01 11:00"),
        (NOW + 400 * DAY, "the serving certificate is valid"),
        (NOW + 3600 * DAY, "the authority is valid"),
    ],
)
def test_one_that_ends_is_replaced(moment: datetime, told: str) -> None:
    """One that is not valid yet, or not for 90 days more, is replaced; the reason says which and when."""
    assert told in (fault_of(CERTIFICATE, NAMES, moment) or "")


@pytest.mark.parametrize("name", ["elsewhere.svc", SERVICE.upper(), "127.0.0.2", "::2", "*.svc"])
def test_one_that_does_not_cover_a_name_is_replaced(name: str) -> None:
    """A name or address that the webhook is called by and that is not in it is named."""
    assert fault_of(CERTIFICATE, [SERVICE, name], NOW) == f"it does not cover {name}"


def pem(der: bytes) -> bytes:
    """Return DER bytes as a PEM certificate."""
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def of_no_version(certificate: bytes) -> bytes:
    """Return the certificate, claiming an X.509 version that there is not."""
    der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    return pem(der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020105"), 1))


def with_names(raw: bytes) -> Certificate:
    """Return a certificate, well issued, whose names are these bytes; none at all for b""."""
    authority_key = load_pem_private_key(CERTIFICATE.authority_key, password=None)
    leaf = x509.load_pem_x509_certificate(CERTIFICATE.leaf)
    builder = x509.CertificateBuilder(
        issuer_name=leaf.issuer,
        subject_name=leaf.subject,
        public_key=leaf.public_key(),
        serial_number=1,
        not_valid_before=leaf.not_valid_before_utc,
        not_valid_after=leaf.not_valid_after_utc,
    )
    if raw:
        names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, raw)
        builder = builder.add_extension(names, critical=False)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    return replace(CERTIFICATE, leaf=builder.sign(authority_key, SHA256()).public_bytes(Encoding.PEM))


SPOILT = {
    "key of another": (replace(CERTIFICATE, leaf_key=OTHER.leaf_key), "belongs to another certificate"),
    "authority of another": (
        replace(CERTIFICATE, authority=OTHER.authority),
        "was not issued by the authority",
    ),
    "leaf of another": (replace(CERTIFICATE, leaf=OTHER.leaf, leaf_key=OTHER.leaf_key), "was not issued by"),
    "authority as leaf": (replace(CERTIFICATE, leaf=CERTIFICATE.authority), "no subject alternative name"),
    "leaf as authority": (replace(CERTIFICATE, authority=CERTIFICATE.leaf), "cannot be used"),
    "authority no PEM": (replace(CERTIFICATE, authority=b"nonsense"), "cannot be used"),
    "leaf no PEM": (replace(CERTIFICATE, leaf=b"\xff\x00"), "cannot be used"),
    "key no PEM": (replace(CERTIFICATE, leaf_key=b"nonsense"), "cannot be used"),
    "leaf cut off": (replace(CERTIFICATE, leaf=CERTIFICATE.leaf[:300]), "cannot be used"),
    "leaf of no version": (replace(CERTIFICATE, leaf=of_no_version(CERTIFICATE.leaf)), "cannot be used"),
    "authority of no version": (
        replace(CERTIFICATE, authority=of_no_version(CERTIFICATE.authority)),
        "cannot be used",
    ),
    "no names": (with_names(b""), "no subject alternative name"),
    "names no one understands": (with_names(bytes.fromhex("3005a303020100")), "cannot be used"),
    "names no DER": (with_names(b"nonsense"), "cannot be used"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_one_is_replaced(name: str) -> None:
    """What does not fit together, or cannot be read, is replaced and said so; no key is told."""
    certificate, told = SPOILT[name]

    fault = fault_of(certificate, NAMES, NOW)

    assert fault is not None
    assert told in fault
    assert "PRIVATE" not in fault


# Its successor.


@pytest.mark.parametrize("moment", [NOW, NOW + 300 * DAY, NOW + 3400 * DAY, NOW + 3560 * DAY])
def test_the_authority_outlasts_its_certificates(moment: datetime) -> None:
    """While the authority lasts 90 days more it issues the next one too: nobody must learn of another."""
    renewed = renew(CERTIFICATE, ["new.svc"], moment)

    assert (renewed.authority, renewed.authority_key) == (CERTIFICATE.authority, CERTIFICATE.authority_key)
    assert CERTIFICATE.leaf not in (renewed.leaf, b"")
    assert fault_of(renewed, ["new.svc"], moment) is None
    assert expiry_of(renewed.leaf) == min(moment + 365 * DAY, NOW + 3650 * DAY)


@pytest.mark.parametrize(
    "worn",
    [
        CERTIFICATE,
        replace(CERTIFICATE, authority_key=OTHER.authority_key),
        replace(CERTIFICATE, authority_key=b"nonsense"),
        replace(CERTIFICATE, authority=b"nonsense"),
        replace(CERTIFICATE, authority=CERTIFICATE.leaf, authority_key=CERTIFICATE.leaf_key),
        replace(CERTIFICATE, authority_key=RSA_KEY),
    ],
    ids=["ends", "key of another", "no key", "no PEM", "no authority", "another kind of key"],
)
def test_a_worn_authority_is_followed_by_another(worn: Certificate) -> None:
    """One that ends, or cannot sign, is followed by a new one."""
    moment = NOW + 3600 * DAY

    renewed = renew(worn, NAMES, moment)

    assert renewed.authority not in (CERTIFICATE.authority, OTHER.authority)
    assert fault_of(renewed, NAMES, moment) is None


def test_authorities_of_a_bundle_are_remembered() -> None:
    """Those in a caBundle stay trusted beside the one that issues now, the latest first, each once."""
    older = issue(NAMES, NOW)
    noted = remembering(CERTIFICATE, OTHER.authority, NOW)

    assert noted.bundle == CERTIFICATE.authority + OTHER.authority
    assert remembering(noted, noted.bundle, NOW) == noted
    both = remembering(noted, older.authority + noted.bundle, NOW)
    assert both.bundle == CERTIFICATE.authority + older.authority + OTHER.authority
    assert (both.leaf, both.authority_key) == (CERTIFICATE.leaf, CERTIFICATE.authority_key)


@pytest.mark.parametrize("bundle", [b"", b"nonsense", CERTIFICATE.leaf, CERTIFICATE.authority])
def test_what_vouches_for_nobody_is_not_remembered(bundle: bytes) -> None:
    """Neither what is no authority, nor itself; nor one that has ended."""
    assert remembering(CERTIFICATE, bundle, NOW) == CERTIFICATE
    assert remembering(CERTIFICATE, OTHER.authority, NOW + 3651 * DAY) == CERTIFICATE


def test_few_are_remembered() -> None:
    """However often somebody wipes the Secret, the bundle stays small; the latest are kept."""
    noted, authorities = CERTIFICATE, [issue(NAMES, NOW).authority for _ in range(MOST_FORMER + 2)]
    for authority in authorities:
        noted = remembering(noted, authority, NOW)

    assert noted.former == b"".join(authorities[: -MOST_FORMER - 1 : -1])


@pytest.mark.parametrize("name", ["of two", "served"])
def test_either_authority_of_a_bundle_is_trusted(name: str, tmp_path: Path) -> None:
    """A client that trusts the bundle accepts what either authority issued, though both have one name."""
    certificate, other = issue(NAMES, datetime.now(UTC)), issue(NAMES, datetime.now(UTC))
    both = remembering(certificate, other.authority, datetime.now(UTC))

    served = handshake({"of two": other, "served": certificate}[name], SERVICE, both.bundle, tmp_path)

    assert served.issuer == x509.load_pem_x509_certificate(other.authority).subject


@pytest.mark.parametrize(
    ("leaf", "bundle", "vouched"),
    [
        (CERTIFICATE.leaf, CERTIFICATE.authority, True),
        (CERTIFICATE.leaf, OTHER.authority + CERTIFICATE.authority, True),
        (CERTIFICATE.leaf, OTHER.authority, False),
        (CERTIFICATE.leaf, CERTIFICATE.leaf, True),
        (CERTIFICATE.leaf + OTHER.leaf, OTHER.authority, True),
        (CERTIFICATE.leaf, b"nonsense", False),
        (b"", CERTIFICATE.authority, False),
    ],
)
def test_whom_a_bundle_vouches_for(leaf: bytes, bundle: bytes, vouched: bool) -> None:
    """It vouches for what one of its authorities issued, and for what is in it."""
    assert is_vouched_for(leaf, bundle) == vouched


# The Secret.


def test_secret_keeps_former_authorities() -> None:
    """They are in `ca.crt` after the one that issues, as an older operator would have them, and come back."""
    noted = remembering(CERTIFICATE, OTHER.authority, NOW)

    assert noted.as_secret()["ca.crt"] == noted.bundle
    assert from_secret(noted.as_secret()) == noted
    assert from_secret({**noted.as_secret(), "ca.crt": noted.bundle.strip()}) == noted


def test_secret_keeps_it_whole() -> None:
    """What a Secret is given comes back, other keys in it or not, under the names that the peer uses."""
    data = CERTIFICATE.as_secret()

    assert data.keys() == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    assert from_secret(data) == CERTIFICATE
    assert from_secret(data | {"more": b""}) == CERTIFICATE


@pytest.mark.parametrize("key", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
def test_wiped_secret_holds_none(key: str) -> None:
    """A Secret in which a part is missing or empty holds no certificate."""
    data = CERTIFICATE.as_secret()

    assert from_secret(data | {key: b""}) is None
    assert from_secret({name: part for name, part in data.items() if name != key}) is None
    assert from_secret({}) is None


def test_keys_are_never_shown() -> None:
    """Neither key is in what a certificate shows of itself, alone or inside something else."""
    for shown in (repr(CERTIFICATE), str(CERTIFICATE), f"{[CERTIFICATE]}", str(ValueError(CERTIFICATE))):
        assert "PRIVATE" not in shown
        for key in (CERTIFICATE.authority_key, CERTIFICATE.leaf_key):
            assert [line for line in key.decode().splitlines() if line in shown] == []
