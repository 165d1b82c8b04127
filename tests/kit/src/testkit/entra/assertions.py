"""Client assertions: tokens of a foreign issuer that a federated credential lets in (RFC 7523).

The check is a generator: it yields `KeysOf` where it needs an issuer's keys and is sent `Keys`; it ends
quietly or raises `RequestRefused`. Nothing here does I/O or reads a clock.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeAlias, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from testkit.entra.directory import FederatedCredential
from testkit.entra.errors import RequestRefused

_ALGORITHM = "RS256"
_END_OF_TIME = datetime.max.replace(tzinfo=UTC).timestamp()

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Keys:
    """An issuer's RSA keys by their key id, as they were when fetched."""

    by_id: Mapping[str, RSAPublicKey]


@dataclass(frozen=True, slots=True)
class KeysOf:
    """A wish for an issuer's keys.

    Attributes:
        outdated: Keys that were not enough, None at first: whoever fetches must not answer with these again.
    """

    issuer: str
    outdated: Keys | None = None


Flow: TypeAlias = Generator[KeysOf, Keys, _T]


def check_assertion(encoded: str, credentials: Sequence[FederatedCredential], now: float) -> Flow[None]:
    """Check that an assertion is one that these credentials let in, then its signature, then its time.

    Args:
        encoded: A JWT in compact form, perhaps.
        credentials: All that the application has.
        now: The service's clock, seconds since the epoch. No skew is forgiven: tests want to see it.
    """
    assertion = _taken_apart(encoded)
    _check_registration(assertion, credentials)
    if assertion.algorithm != _ALGORITHM:
        raise RequestRefused(5002738, algorithm=assertion.algorithm)

    keys = yield KeysOf(assertion.issuer)
    if assertion.key_id not in keys.by_id:
        keys = yield KeysOf(assertion.issuer, outdated=keys)
    _check_signature(encoded, assertion, keys)

    if not assertion.starts <= now < assertion.ends:
        raise RequestRefused(700024, now=_iso(now), start=_iso(assertion.starts), end=_iso(assertion.ends))


def name_of(encoded: str) -> str:
    """Return an assertion's `jti`, which nobody can sign in with; "" when there is none."""
    try:
        return str(jwt.decode(encoded, options={"verify_signature": False}).get("jti", ""))
    except (jwt.PyJWTError, ValueError):
        return ""


@dataclass(frozen=True, slots=True)
class _Assertion:
    """An assertion taken apart, not yet believed; times in seconds since the epoch."""

    issuer: str
    subject: str
    audiences: tuple[str, ...]
    starts: float
    ends: float
    algorithm: str
    key_id: str


def _taken_apart(encoded: str) -> _Assertion:
    try:
        token = jwt.decode_complete(encoded, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError) as failure:
        # The library's words never quote the token.
        raise RequestRefused(50027, reason=str(failure).rstrip(".")) from failure
    header, claims = token["header"], token["payload"]
    return _Assertion(
        issuer=_string(claims, "iss"),
        subject=_string(claims, "sub"),
        audiences=_audiences(claims),
        starts=_seconds(claims, "nbf") if "nbf" in claims else 0,
        ends=_seconds(claims, "exp"),
        algorithm=str(header.get("alg")),
        key_id=str(header.get("kid", "")),
    )


def _check_registration(assertion: _Assertion, credentials: Sequence[FederatedCredential]) -> None:
    """Find the credential that lets the assertion in; otherwise name the first member that none has."""
    presented: dict[str, object] = {
        "issuer": assertion.issuer,
        "subject": assertion.subject,
        "audience": ",".join(assertion.audiences),
    }
    if not credentials:
        raise RequestRefused(70021, **presented)
    same_issuer = [one for one in credentials if one.issuer == assertion.issuer]
    if not same_issuer:
        raise RequestRefused(700211, **presented, registered=_each(one.issuer for one in credentials))
    same_subject = [one for one in same_issuer if one.subject == assertion.subject]
    if not same_subject:
        raise RequestRefused(700213, **presented, registered=_each(one.subject for one in same_issuer))
    if not any(one.audience in assertion.audiences for one in same_subject):
        raise RequestRefused(700212, **presented, registered=_each(one.audience for one in same_subject))


def _each(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


def _check_signature(encoded: str, assertion: _Assertion, keys: Keys) -> None:
    key = keys.by_id.get(assertion.key_id)
    if key is None:
        _refuse_signature(assertion, "The key was not found")
    try:
        jwt.api_jws.decode(encoded, key, algorithms=[_ALGORITHM])
    except jwt.PyJWTError:
        _refuse_signature(assertion, "The key was found, but verifying the signature with it failed")


def _refuse_signature(assertion: _Assertion, reason: str) -> NoReturn:
    signer = f"Key '{assertion.key_id}' of identity provider '{assertion.issuer}'"
    raise RequestRefused(700027, signer=signer, reason=reason)


def _audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    value = claims.get("aud")
    audiences = value if isinstance(value, list) else [value]
    if not (audiences and all(isinstance(one, str) for one in audiences)):
        raise RequestRefused(50027, reason="Claim 'aud' is no string and no list of strings")
    return tuple(audiences)


def _string(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise RequestRefused(50027, reason=f"Claim '{name}' is no string")
    return value


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _END_OF_TIME:
        raise RequestRefused(50027, reason=f"Claim '{name}' is no time in seconds since the epoch")
    return value


def _iso(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
