"""The service behind the endpoints: its key, what is registered, the faults in place, who asked what.

Blocking code in other threads changes it while the server's event loop answers from it.
"""

import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from testkit.entra.directory import Application, Directory, FederatedCredential, Unknown
from testkit.entra.faults import Faults
from testkit.entra.keys import PublishedKeys
from testkit.entra.people import People
from testkit.entra.users import SignIns
from testkit.signing import SigningKey


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request to the token endpoint, as far as it is no secret.

    Attributes:
        at: When it came, by the machine's clock, seconds since the epoch.
        grant: The form's grant_type, "" when it has none; so for client id and scope.
        outcome: "granted" or Entra's code such as "AADSTS700213", a fault met, or both: "granted, truncated".
        status: HTTP status of the answer, 0 when none was sent.
        assertion: The `jti` of the assertion that it presents, verified or not; "" when it has none.
        form: The whole form, with a mask for what is secret.
    """

    at: float
    path: str
    tenant: str
    client_id: str
    grant: str
    scope: str
    outcome: str
    status: int
    correlation_id: str
    assertion: str = ""
    form: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Service:
    """What one stand-in knows.

    Attributes:
        authority: Its own address without trailing slash, "https://127.0.0.1:41234".
        issuing: Whom its tokens name as their issuer, before the tenant.
        lifetime: `expires_in` of the tokens to come, in seconds.
        refresh_in: Likewise, in seconds; None: not told.
        other_paths: What was asked for beside tokens, such as "GET /common/discovery/instance".
    """

    authority: str
    issuing: str
    key: SigningKey
    lifetime: int
    refresh_in: int | None
    directory: Directory = field(default_factory=Directory)
    faults: Faults = field(default_factory=Faults)
    requests: list[RecordedRequest] = field(default_factory=list)
    sign_ins: SignIns = field(default_factory=SignIns)
    people: People = field(default_factory=People)
    other_paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changing = threading.Lock()
        self._trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nobody yet, the public authorities neither
        self.keys = PublishedKeys(self._trusted)

    def trust(self, ca_file: Path) -> None:
        """Trust the authorities of a PEM file when issuers' documents are fetched.

        Raises:
            ValueError: No certificate in it.
            OSError: It cannot be read.
        """
        try:
            self._trusted.load_verify_locations(cafile=ca_file)
        except ssl.SSLError as failure:
            raise ValueError(f"{ca_file}: PEM certificates wanted, none found") from failure

    def register(self, tenant_id: str, client_id: str, *credentials: FederatedCredential) -> bool:
        """Register an application, its tenant with it, and federated credentials: all of this or nothing.

        Returns:
            Whether that changed anything.

        Raises:
            NotRegistrable: One of Entra's rules is broken.
        """
        with self._changing:
            known = self._found(tenant_id, client_id)
            application = known or Application(tenant_id, client_id)
            for credential in credentials:
                application = application.accepting(credential)
            self.directory = self.directory.holding(application)
            return application is not known

    def change(self, tenant_id: str, client_id: str, change: Callable[[Application], Application]) -> None:
        """Change an application; one that is not there yet is registered."""
        with self._changing:
            known = self._found(tenant_id, client_id) or Application(tenant_id, client_id)
            self.directory = self.directory.holding(change(known))

    def knows(self, client_id: str) -> bool:
        """Tell whether any tenant has an application of this client id."""
        return any(one.client_id.lower() == client_id.lower() for one in self.directory.applications())

    def remove_application(self, tenant_id: str, client_id: str) -> None:
        """Remove an application with its credentials; Unknown when there is none."""
        with self._changing:
            self.directory = self.directory.without(self.directory.application(tenant_id, client_id))

    def remove_credential(self, tenant_id: str, client_id: str, name: str | None) -> None:
        """Remove an application's credential of that name, or all (None); Unknown when there is none."""
        with self._changing:
            application = self.directory.application(tenant_id, client_id)
            self.directory = self.directory.holding(application.without(name))

    def name_unknown_resources(self, resources: Iterable[str]) -> None:
        """Say which resources no tenant has, instead of those said before."""
        with self._changing:
            self.directory = replace(self.directory, unknown_resources=frozenset(resources))

    def _found(self, tenant_id: str, client_id: str) -> Application | None:
        try:
            return self.directory.application(tenant_id, client_id)
        except Unknown:
            return None
