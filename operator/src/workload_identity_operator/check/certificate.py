"""Whether the API server will trust what the webhook serves."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

SOON: Final = timedelta(days=14)
"""The operator renews its own a quarter of a year ahead, others a month."""
_UNUSABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


def certificate_faults(bundle: bytes, served: bytes, name: str, now: float) -> Iterator[tuple[str, str, str]]:
    """Yield code, what was wanted and what was found of each fault.

    Args:
        bundle: The authorities that the API server trusts, PEM; b"" when none are named.
        served: The serving certificate, PEM, perhaps with those between it and its authority.
        name: By which the API server calls the webhook.
        now: Seconds since the epoch.
    """
    try:
        chain = x509.load_pem_x509_certificates(served)
    except _UNUSABLE as error:
        yield "certificate-unusable", "a serving certificate in PEM", f"none: {error}"
        return
    leaf, at = chain[0], datetime.fromtimestamp(now, UTC)
    yield from validity_faults(
        "the serving certificate", leaf.not_valid_before_utc, leaf.not_valid_after_utc, at
    )
    if name not in (names := _names_of(leaf)):
        found = ", ".join(sorted(names)) or "no subject alternative name"
        yield "certificate-name-wrong", f"a certificate for {name}", found
    if not bundle:
        return  # is told of the configuration
    try:
        authorities = x509.load_pem_x509_certificates(bundle)
    except _UNUSABLE as error:
        yield "ca-bundle-wrong", "certificates in PEM", f"none: {error}"
        return
    issuers = [one for one in authorities if _vouches(one, chain)]
    if not issuers:
        wanted = f"the authority of the certificate that is served: {leaf.issuer.rfc4514_string()}"
        found = "; ".join(one.subject.rfc4514_string() for one in authorities)
        yield "ca-bundle-wrong", wanted, f"none whose key signed it, but {found}"
    elif all(one.not_valid_after_utc < at for one in issuers):
        one = issuers[0]
        yield from validity_faults("the authority", one.not_valid_before_utc, one.not_valid_after_utc, at)


def validity_faults(
    what: str, begin: datetime, end: datetime, at: datetime
) -> Iterator[tuple[str, str, str]]:
    """Yield code, what was wanted and what was found where a certificate is not valid, or not for long."""
    if at > end:
        yield "certificate-expired", f"{what} valid now, {_day(at)}", f"valid until {_day(end)}"
    elif at < begin:
        yield "certificate-expired", f"{what} valid now, {_day(at)}", f"valid from {_day(begin)}"
    elif end - at < SOON:
        yield "certificate-expires-soon", f"{what} renewed by now", f"valid until {_day(end)}"


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")


def _names_of(leaf: x509.Certificate) -> set[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNUSABLE):
        return set()
    addresses = found.get_values_for_type(x509.IPAddress)
    return {*found.get_values_for_type(x509.DNSName), *map(str, addresses)}


def _vouches(authority: x509.Certificate, chain: Iterable[x509.Certificate]) -> bool:
    """Whether a certificate of the chain is, or was issued by, this authority, as those before lead to."""
    former: x509.Certificate | None = None
    for one in chain:
        if former is not None and not _issued(former, one):
            return False
        if one == authority or _issued(one, authority):
            return True
        former = one
    return False


def _issued(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNUSABLE):
        return False
    return True
