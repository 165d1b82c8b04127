"""Edge: TLS with a server that is known by the SHA-1 of its certificate and has nobody to vouch for it.

The check is part of the handshake, so that nothing is sent to another server, whoever makes the connection:
every HTTP client and event loop takes an `ssl.SSLContext` and ends a connection whose handshake fails. Only a
Service Fabric node is met like this.
"""

from __future__ import annotations

import ssl
from hashlib import sha1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class Pinned(ssl.SSLContext):
    """Trusts one certificate.

    Attributes:
        thumbprint: Its SHA-1, 40 lower-case hex digits.
    """

    thumbprint: str

    def __new__(cls, thumbprint: str) -> Self:
        """Make a context for a client."""
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # no authority is asked, the certificate itself is compared
        context.thumbprint = thumbprint
        return context

    def check(self, certificate: bytes | None) -> None:
        """Refuse any certificate (DER) but the one.

        Raises:
            ssl.SSLCertVerificationError: It is another one.
        """
        # Service Fabric tells no other sum; to make a second certificate with a given SHA-1 is still out of
        # anyone's reach.
        found = sha1(certificate or b"", usedforsecurity=False).hexdigest()
        if not certificate or found != self.thumbprint:
            raise ssl.SSLCertVerificationError(
                1, f"the SHA-1 of its certificate is {found}, and {self.thumbprint} was wanted"
            )


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check(self)


class _Object(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _check(self)


def _check(connection: ssl.SSLSocket | ssl.SSLObject) -> None:
    context = connection.context
    if not isinstance(context, Pinned):
        raise TypeError("this connection belongs to a context that pins a certificate")
    context.check(connection.getpeercert(binary_form=True))


Pinned.sslsocket_class = _Socket
Pinned.sslobject_class = _Object
