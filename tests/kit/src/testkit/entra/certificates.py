"""Client assertions that are signed with a certificate's key: what an application proves itself with.

Checked against what is registered: certificates by thumbprint, or a name and the authority that vouches for
it, for which the assertion must bring its certificates.

Source: learn.microsoft.com/entra/identity-platform/certificate-credentials; RFC 7515 for x5t, x5t#S256, x5c.
"""

import base64
from collections.abc import Mapping
from typing import Any, NoReturn

import jwt
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from testkit.entra.directory import Application
from testkit.entra.errors import RequestRefused

_ALGORITHMS = ("PS256", "RS256")
_THUMBPRINTS = {"x5t#S256": SHA256(), "x5t": SHA1()}  # noqa: S303 - a name for a certificate


def of_certificate(header: Mapping[str, Any]) -> bool:
    """Tell whether an assertion's header names a certificate and not a key of an issuer."""
    return not header.keys().isdisjoint(("x5t", "x5t#S256", "x5c"))


def check_certificate_assertion(encoded: str, application: Application, endpoint: str, now: float) -> None:
    """Check signer, signature, audience, names and time, in this order.

    Args:
        encoded: A JWT in compact form.
        application: Who it is to be.
        endpoint: The token endpoint that it was sent to.
        now: The service's clock, seconds since the epoch. No skew is forgiven: tests want to see it.
    """
    header = jwt.get_unverified_header(encoded)
    thumbprint = _shown(header)
    if header.get("alg") not in _ALGORITHMS:
        raise RequestRefused(5002738, algorithm=header.get("alg"))
    certificate = _registered(header, application) or _vouched_for(header, application)
    if certificate is None:
        _refuse(thumbprint, "The key was not found")
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        _refuse(thumbprint, "The key is of another kind")
    try:
        jwt.api_jws.decode(encoded, key, algorithms=list(_ALGORITHMS))
    except jwt.PyJWTError:
        _refuse(thumbprint, "The key was found, but verifying the signature with it failed")
    if certificate.not_valid_after_utc.timestamp() <= now:
        _refuse(thumbprint, "The certificate has run out")
    claims = jwt.decode(encoded, options={"verify_signature": False})
    if claims.get("aud") != endpoint:
        raise RequestRefused(700023, found=claims.get("aud"), wanted=endpoint)
    if not (claims.get("iss") == claims.get("sub") == application.client_id):
        raise RequestRefused(700021, found=claims.get("sub"), client_id=application.client_id)
    if not claims.get("jti"):
        raise RequestRefused(50027, reason="Claim 'jti' is missing")
    starts, ends = claims.get("nbf", 0), claims.get("exp", 0)
    if not starts <= now < ends:
        raise RequestRefused(700024, now=now, start=starts, end=ends)


def _registered(header: Mapping[str, Any], application: Application) -> x509.Certificate | None:
    for name, algorithm in _THUMBPRINTS.items():
        for certificate in application.certificates if name in header else ():
            # azure-identity and MSAL leave the padding.
            if _encoded(certificate.fingerprint(algorithm)) == str(header[name]).rstrip("="):
                return certificate
    return None


def _vouched_for(header: Mapping[str, Any], application: Application) -> x509.Certificate | None:
    """Return the assertion's own certificate if its name is trusted and its chain leads to the authority."""
    try:
        chain = [x509.load_der_x509_certificate(base64.b64decode(one)) for one in header.get("x5c", ())]
        for name, authority in application.trusted_names if chain else ():
            common = chain[0].subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            if [one.value for one in common] == [name]:
                for certificate, issuer in zip(chain, [*chain[1:], authority], strict=True):
                    if certificate != authority:
                        certificate.verify_directly_issued_by(issuer)
                return chain[0]
    except (ValueError, TypeError, InvalidSignature):
        pass
    return None


def _shown(header: Mapping[str, Any]) -> str:
    return str(header.get("x5t#S256") or header.get("x5t") or "")


def _refuse(thumbprint: str, reason: str) -> NoReturn:
    signer = f"The certificate with thumbprint '{thumbprint}'"
    raise RequestRefused(700027, signer=signer, reason=reason)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
