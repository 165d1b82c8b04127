"""An Entra stand-in: a local token service that does to a client assertion what Microsoft Entra does.

`with EntraStandIn() as entra:` in a test, `python -m testkit.entra` beside a demo. It fetches the issuer's
documents, checks signature, time, issuer, subject and audience, and answers an access token signed by itself,
or one of Entra's own errors. What it knows and does can be changed at any time, by its methods or over HTTPS
at `/standin/`.
"""

import math
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
from aiohttp import web

from testkit import loopback
from testkit.entra.control import add_control
from testkit.entra.directory import DEFAULT_AUDIENCE, FederatedCredential
from testkit.entra.endpoints import add_endpoints
from testkit.entra.faults import Fault
from testkit.entra.service import RecordedRequest, Service
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
        ca_file: The authority behind its TLS certificate, a PEM file: what its clients must trust.
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
        """
        self._host = host
        self._port = port
        self._folder = folder
        self._trust = tuple(trust)
        self._lifetime = lifetime
        self._refresh_in = refresh_in
        self._key = key
        self._issuing = issuing
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            folder = self._folder or starting.enter_context(throwaway_folder())
            listener = starting.enter_context(loopback.listening(self._host, self._port))
            self.authority = loopback.address(listener)
            self._service = Service(
                authority=self.authority,
                issuing=self._issuing or self.authority,
                key=self._key or SigningKey.generate(),
                lifetime=self._lifetime,
                refresh_in=self._refresh_in,
            )
            for ca_file in self._trust:
                self.trust(ca_file)
            ca = trustme.CA(organization_name="Entra stand-in")
            self.ca_file = folder / "entra-ca.pem"
            ca.cert_pem.write_to_path(self.ca_file)
            application = web.Application()
            add_control(application, self._service)
            add_endpoints(application, self._service)
            starting.enter_context(
                loopback.serving(application, listener, loopback.server_tls(ca, self._host))
            )
            self._running = starting.pop_all()
        return self

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
