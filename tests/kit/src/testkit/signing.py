"""RSA keys that sign tokens, known by the id that kube-apiserver would give them."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs tokens with RS256.

    Attributes:
        key_id: base64url of the SHA-256 of the public key's DER form, unpadded, as kube-apiserver does.
    """

    private: RSAPrivateKey = field(repr=False)
    key_id: str

    @classmethod
    def generate(cls) -> Self:
        """Make a new key of 2048 bits; takes about a tenth of a second."""
        private = generate_private_key(public_exponent=65537, key_size=2048)
        der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(private, base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode())

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return the claims as a signed JWT in compact form."""
        # The plain signature, not jwt.encode: tests sign claims of wrong types too.
        payload = json.dumps(claims).encode()
        return jwt.api_jws.encode(payload, self.private, algorithm="RS256", headers={"kid": self.key_id})

    def published(self) -> dict[str, str]:
        """Return the public half as a member of a key set (RFC 7517)."""
        members = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {
            "use": "sig",
            "kty": "RSA",
            "kid": self.key_id,
            "alg": "RS256",
            "n": members["n"],
            "e": members["e"],
        }
