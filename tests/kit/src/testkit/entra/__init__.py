"""An Entra stand-in: a local token service that does to a token request what Microsoft Entra does.

`with EntraStandIn() as entra:` in a test, `python -m testkit.entra` beside a demo. It fetches the issuer's
documents, checks signature, time, issuer, subject and audience, and answers an access token signed by itself,
or one of Entra's own errors. Secrets, certificates, users' tokens, codes and refresh tokens are checked as
well. What it knows and does can be changed at any time, by its methods or over HTTPS at `/standin/`.
"""

import math
import ssl
import time
import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
from aiohttp import web
from cryptography.x509 import Certificate

from testkit import loopback
from testkit.entra.control import add_control
from testkit.entra.directory import DEFAULT_AUDIENCE, ClientSecret, FederatedCredential
from testkit.entra.endpoints import add_endpoints
from testkit.entra.faults import Fault
from testkit.entra.grants import token_issuer
from testkit.entra.pages import add_pages
from testkit.entra.people import Account, People
from testkit.entra.service import RecordedRequest, Service
from testkit.entra.users import User
from testkit.folders import throwaway_folder
from testkit.signing import SigningKey

__all__ = ["EntraStandIn", "PlacedFault", "RecordedRequest"]


class PlacedFault:
    """A fault in its place; it goes at the end of a `with` block, by `remove`, or when its time is over."""

    def __init__(self, service: Service, number: int) -> None:
        self._service = service
        self._number = number

    def remove(self) -> None:
        """Remove the fault, if it is still there."""
        self._service.faults.remove(self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


class EntraStandIn:
    """A running stand-in: a context manager around a server in a thread of its own.

    Attributes:
        authority: Its address, "https://127.0.0.1:41234": what AZURE_AUTHORITY_HOST must name.
        ca_file: The authority behind its TLS certificate, a PEM file: what its clients must trust. The
            certificate itself where it was given one.
    """

    authority: str
    ca_file: Path

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        folder: Path | None = None,
        trust: Iterable[Path] = (),
        lifetime: int = 3599,
        refresh_in: int | None = None,
        key: SigningKey | None = None,
        issuing: str | None = None,
        known_as: str | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        """Prepare a stand-in; `with` starts it.

        Args:
            host: Where it listens.
            port: Likewise; 0: where the kernel finds a free one.
            folder: Where `ca_file` is written; None: into a folder that goes with the stand-in.
            trust: CA files of issuers, as for `trust`.
            lifetime: `expires_in` of its tokens, in seconds.
            refresh_in: Its answers' `refresh_in`, in seconds; None: left out, as Entra mostly does.
            key: What signs its tokens; None: a new one.
            issuing: Whom its tokens name as their issuer, before the tenant, such as Entra's own
                "https://sts.windows.net"; None: itself.
            known_as: Its address as clients have it, such as a Service's; None: where it listens.
            certificate: Its TLS certificate and the key, PEM files; None: one of an authority of its own.
        """
        self._host = host
        self._port = port
        self._folder = folder
        self._trust = tuple(trust)
        self._lifetime = lifetime
        self._refresh_in = refresh_in
        self._key = key
        self._issuing = issuing
        self._known_as = known_as
        self._certificate = certificate
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            listener = starting.enter_context(loopback.listening(self._host, self._port))
            self.authority = self._known_as or loopback.address(listener)
            self._service = Service(
                authority=self.authority,
                issuing=self._issuing or self.authority,
                key=self._key or SigningKey.generate(),
                lifetime=self._lifetime,
                refresh_in=self._refresh_in,
            )
            for ca_file in self._trust:
                self.trust(ca_file)
            tls = self._tls(starting)
            application = web.Application()
            add_control(application, self._service)
            add_endpoints(application, self._service)
            add_pages(application, self._service)
            starting.enter_context(loopback.serving(application, listener, tls))
            self._running = starting.pop_all()
        return self

    def _tls(self, starting: ExitStack) -> ssl.SSLContext:
        """Return its side of TLS, and have `ca_file` say what clients must trust."""
        if self._certificate:
            self.ca_file = self._certificate[0]
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
            return context
        ca = trustme.CA(organization_name="Entra stand-in")
        folder = self._folder or starting.enter_context(throwaway_folder())
        self.ca_file = folder / "entra-ca.pem"
        ca.cert_pem.write_to_path(self.ca_file)
        return loopback.server_tls(ca, self._host)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.close()

    @property
    def lifetime(self) -> int:
        """`expires_in` of the tokens to come, in seconds."""
        return self._service.lifetime

    @lifetime.setter
    def lifetime(self, seconds: int) -> None:
        self._service.lifetime = seconds

    @property
    def refresh_in(self) -> int | None:
        """`refresh_in` of the answers to come, in seconds; None: left out."""
        return self._service.refresh_in

    @refresh_in.setter
    def refresh_in(self, seconds: int | None) -> None:
        self._service.refresh_in = seconds

    @property
    def requests(self) -> list[RecordedRequest]:
        """What came to the token endpoint so far, oldest first; a copy."""
        return list(self._service.requests)

    def trust(self, ca_file: Path | str) -> None:
        """Trust the authorities of a PEM file when issuers' documents are fetched; no other is trusted."""
        self._service.trust(Path(ca_file))

    def register(
        self,
        client_id: str,
        *,
        tenant_id: str,
        issuer: str,
        subject: str,
        audience: str = DEFAULT_AUDIENCE,
        name: str | None = None,
    ) -> None:
        """Register a federated credential, with its application and tenant; the same again changes nothing.

        Raises:
            NotRegistrable: One of Entra's rules is broken (20 at most, names and issuer-subject pairs once).
        """
        credential = FederatedCredential.of(issuer, subject, audience=audience, name=name)
        self._service.register(tenant_id, client_id, credential)

    def unregister(self, client_id: str, *, tenant_id: str, name: str | None = None) -> None:
        """Remove the federated credential of that name, or all (None); the application stays.

        Raises:
            Unknown: No such tenant, application or credential.
        """
        self._service.remove_credential(tenant_id, client_id, name)

    def add_secret(self, client_id: str, secret: str, *, tenant_id: str, lifetime: float = math.inf) -> None:
        """Give an application a client secret, for so many seconds; negative: it is over already."""
        given = ClientSecret(secret, time.time() + lifetime)
        self._service.change(tenant_id, client_id, lambda one: replace(one, secrets=(*one.secrets, given)))

    def add_certificate(self, client_id: str, certificate: Certificate, *, tenant_id: str) -> None:
        """Let assertions be signed with a certificate's key."""
        self._service.change(
            tenant_id, client_id, lambda one: replace(one, certificates=(*one.certificates, certificate))
        )

    def trust_name(self, client_id: str, name: str, authority: Certificate, *, tenant_id: str) -> None:
        """Let assertions be signed with any certificate of a common name that an authority vouches for."""
        self._service.change(
            tenant_id,
            client_id,
            lambda one: replace(one, trusted_names=(*one.trusted_names, (name, authority))),
        )

    def make_public(self, client_id: str, *, tenant_id: str) -> None:
        """Make an application one that proves nothing."""
        self._service.change(tenant_id, client_id, lambda one: replace(one, public=True))

    def sign_in(self, client_id: str, *, tenant_id: str, redirect_uri: str, user: str = "ada") -> str:
        """Return the code that a user's browser brings back from signing in to an application."""
        return self._service.sign_ins.code(client_id, redirect_uri, User(tenant_id, user), time.time())

    def add_user(
        self,
        name: str,
        password: str,
        *,
        tenant_id: str,
        second_factor: bool = False,
        federated: bool = False,
    ) -> None:
        """Add a user who can sign in; see `testkit.entra.people.Account`."""
        user = User(tenant_id, name)
        self.people.add(Account(user, password, second_factor=second_factor, federated=federated))

    @property
    def people(self) -> People:
        """Who can sign in, and who is there to do it."""
        return self._service.people

    @property
    def other_paths(self) -> list[str]:
        """What was asked for beside tokens, such as "GET /common/discovery/instance"; a copy."""
        return list(self._service.other_paths)

    def revoke_refresh_tokens(self) -> None:
        """Let no refresh token of before be good any more."""
        self._service.sign_ins.revoke()

    def user_token(
        self, client_id: str, *, tenant_id: str, user: str = "ada", lifetime: float = 3600, **claims: object
    ) -> str:
        """Return the access token with which a user's client calls an API.

        Args:
            client_id: The API's.
            tenant_id: Its tenant.
            user: By name.
            lifetime: In seconds from now; negative: it is over already.
            claims: Instead of or beside those that Entra states.
        """
        now, who = int(time.time()), User(tenant_id, user)
        stated = {
            "aud": client_id,
            "iss": token_issuer(self._service.issuing, tenant_id),
            "iat": now,
            "nbf": now,
            "exp": int(now + lifetime),
            "oid": who.object_id,
            "scp": "access_as_user",
            "tid": tenant_id,
            "upn": user,
            "uti": str(uuid.uuid4()),
        }
        return self._service.key.sign({**stated, **claims})

    def add_application(self, client_id: str, *, tenant_id: str) -> None:
        """Register an application that has no federated credential."""
        self._service.register(tenant_id, client_id)

    def remove_application(self, client_id: str, *, tenant_id: str) -> None:
        """Remove an application; its tenant stays. Unknown is raised when there is none."""
        self._service.remove_application(tenant_id, client_id)

    def name_unknown_resources(self, *resources: str) -> None:
        """Say which resources no tenant has (AADSTS500011), instead of those said before."""
        self._service.name_unknown_resources(resources)

    def fault(
        self,
        fault: Fault,
        *,
        tenant_id: str | None = None,
        client_id: str | None = None,
        times: int | None = None,
        seconds: float | None = None,
    ) -> PlacedFault:
        """Put a fault in place; without more it meets every request until it is removed.

        Args:
            fault: One of those in `testkit.entra.faults`.
            tenant_id: Only requests of this tenant meet it.
            client_id: Only requests of this client meet it.
            times: So many requests meet it.
            seconds: It ends by itself after so long.
        """
        until = math.inf if seconds is None else time.monotonic() + seconds
        placed = self._service.faults.place(
            fault, tenant_id=tenant_id, client_id=client_id, times=times, until=until
        )
        return PlacedFault(self._service, placed.number)
