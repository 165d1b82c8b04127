"""Issuers' keys: what Entra fetches, anonymously and over TLS, before it believes an assertion.

`keys_location` and `parsed_keys` read the two documents (OpenID Connect Discovery 1.0, RFC 7517);
`PublishedKeys` fetches and keeps them.
"""

import asyncio
import json
import ssl
from collections import defaultdict
from typing import Any

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from testkit.entra.assertions import Keys, KeysOf
from testkit.entra.errors import RequestRefused

_TIMEOUT = aiohttp.ClientTimeout(total=5)


def discovery_location(issuer: str) -> str:
    """Return where an issuer publishes its discovery document."""
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def keys_location(issuer: str, document: str) -> str:
    """Return the address of the key set that an issuer's discovery document names.

    Raises:
        RequestRefused: 50166, no JSON object, without an address, or speaking for another issuer.
    """
    url = discovery_location(issuer)
    members = _json_object(document)
    if members is None:
        raise RequestRefused(50166, url=url, reason="The document is no JSON object")
    if members.get("issuer") != issuer:
        raise RequestRefused(
            50166,
            url=url,
            reason=f"The document's issuer is '{members.get('issuer')}', '{issuer}' was expected",
        )
    location = members.get("jwks_uri")
    if not isinstance(location, str):
        raise RequestRefused(50166, url=url, reason="The document names no jwks_uri")
    return location


def parsed_keys(url: str, document: str) -> Keys:
    """Return the RSA keys of a key set; keys of other kinds and for other uses are left out.

    Raises:
        RequestRefused: 900612, no key set, or a broken key in it.
    """
    members = _json_object(document)
    published = None if members is None else members.get("keys")
    if not isinstance(published, list) or not all(isinstance(key, dict) for key in published):
        raise RequestRefused(900612, url=url, reason="no JSON object with a list of keys")
    keys = {}
    for member in published:
        if member.get("kty") == "RSA" and member.get("use", "sig") == "sig":
            try:
                key = jwt.PyJWK(member, algorithm="RS256").key
            except (jwt.PyJWTError, ValueError, TypeError) as failure:
                raise RequestRefused(
                    900612, url=url, reason=f"key '{member.get('kid')}': {failure}"
                ) from failure
            if isinstance(key, RSAPublicKey):
                keys[str(member.get("kid", ""))] = key
    return Keys(keys)


class PublishedKeys:
    """The keys of every issuer met so far, one fetch at a time for each, kept until they prove outdated.

    Entra keeps them for minutes to an hour; here only a key id that is not among them has them fetched again.
    """

    def __init__(self, trusted: ssl.SSLContext) -> None:
        self._trusted = trusted
        self._kept: dict[str, Keys] = {}
        self._fetching = defaultdict[str, asyncio.Lock](asyncio.Lock)

    async def answer(self, wish: KeysOf) -> Keys:
        """Return an issuer's keys; RequestRefused tells why they cannot be had."""
        async with self._fetching[wish.issuer]:
            kept = self._kept.get(wish.issuer)
            if kept is None or kept is wish.outdated:
                kept = self._kept[wish.issuer] = await self._fetched(wish.issuer)
            return kept

    async def _fetched(self, issuer: str) -> Keys:
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session:
            location = keys_location(issuer, await self._document(session, discovery_location(issuer)))
            return parsed_keys(location, await self._document(session, location))

    async def _document(self, session: aiohttp.ClientSession, url: str) -> str:
        if not url.startswith("https://"):
            raise RequestRefused(50166, url=url, reason="Only https is allowed")
        try:
            async with session.get(url, ssl=self._trusted, allow_redirects=False) as response:
                if response.status != 200:
                    raise RequestRefused(501661, url=url, status=response.status)
                return await response.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError, ValueError) as failure:
            raise RequestRefused(90061, url=url, reason=str(failure) or type(failure).__name__) from failure


def _json_object(document: str) -> dict[str, Any] | None:
    try:
        members = json.loads(document)
    except ValueError:
        return None
    return members if isinstance(members, dict) else None
