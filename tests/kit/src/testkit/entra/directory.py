"""What is registered: tenants, applications, and what these prove themselves with.

A directory is a value; every change returns a new one, so that a request is judged by what was registered
when it came, whatever other threads do meanwhile.

Source of the bounds: learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from cryptography.x509 import Certificate

DEFAULT_AUDIENCE = "api://AzureADTokenExchange"
MOST_CREDENTIALS = 20
LONGEST_MEMBER = 600
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,119}")


class NotRegistrable(ValueError):  # noqa: N818 - what happened
    """What was to be registered breaks one of Entra's rules; the message names it."""


class Unknown(LookupError):  # noqa: N818 - what happened
    """No such tenant, application or federated credential; the message names it."""


@dataclass(frozen=True, slots=True)
class FederatedCredential:
    """Whose assertions an application accepts: issuer, subject and audience, compared byte for byte."""

    name: str
    issuer: str
    subject: str
    audience: str = DEFAULT_AUDIENCE

    @classmethod
    def of(
        cls, issuer: str, subject: str, *, audience: str = DEFAULT_AUDIENCE, name: str | None = None
    ) -> Self:
        """Return a credential; a name not given follows from the rest, so that the same again is the same."""
        digest = hashlib.sha256(f"{issuer}\n{subject}\n{audience}".encode()).hexdigest()
        return cls(name or f"fic-{digest[:12]}", issuer, subject, audience)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise NotRegistrable(
                f"name {self.name!r}: 3 to 120 letters, digits, '-' and '_' wanted, a letter or digit first"
            )
        for member in ("issuer", "subject", "audience"):
            length = len(getattr(self, member))
            if not 1 <= length <= LONGEST_MEMBER:
                raise NotRegistrable(f"{member}: 1 to {LONGEST_MEMBER} characters wanted, {length} found")


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A client secret; it is good until then, in seconds since the epoch."""

    value: str = field(repr=False)
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Application:
    """An application or managed identity of a tenant; the object id is its service principal's.

    Attributes:
        credentials: Federated credentials.
        certificates: Those whose keys may sign its assertions.
        trusted_names: A certificate of this common name may too, if this authority vouches for it.
        public: It can keep nothing secret: only users sign in to it.
    """

    tenant_id: str
    client_id: str
    credentials: tuple[FederatedCredential, ...] = ()
    secrets: tuple[ClientSecret, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    trusted_names: tuple[tuple[str, Certificate], ...] = ()
    public: bool = False

    def accepting(self, credential: FederatedCredential) -> Self:
        """Return the application with one more federated credential; the same again changes nothing.

        Raises:
            NotRegistrable: The name, or the pair of issuer and subject, is taken, or there are 20 already.
        """
        if credential in self.credentials:
            return self
        for known in self.credentials:
            if known.name == credential.name:
                raise NotRegistrable(f"a federated credential named {credential.name!r} exists already")
            if (known.issuer, known.subject) == (credential.issuer, credential.subject):
                raise NotRegistrable(f"{known.name!r} has this issuer and subject already")
        if len(self.credentials) >= MOST_CREDENTIALS:
            raise NotRegistrable(
                f"{MOST_CREDENTIALS} federated credentials are the most an application can have"
            )
        return replace(self, credentials=(*self.credentials, credential))

    def without(self, name: str | None) -> Self:
        """Return the application without the credential of that name, or without any (None).

        Raises:
            Unknown: It has none of that name.
        """
        if name is None:
            return replace(self, credentials=())
        left = tuple(credential for credential in self.credentials if credential.name != name)
        if len(left) == len(self.credentials):
            raise Unknown(f"no federated credential named {name!r} on application {self.client_id}")
        return replace(self, credentials=left)


@dataclass(frozen=True, slots=True)
class Directory:
    """Every tenant with its applications; ids compare without regard to case, as GUIDs do.

    Attributes:
        unknown_resources: Resource identifiers that no tenant has; every other one is known.
    """

    tenants: Mapping[str, Mapping[str, Application]] = field(default_factory=dict)
    unknown_resources: frozenset[str] = frozenset()

    def applications(self) -> tuple[Application, ...]:
        """Return all of them, tenant by tenant, in the order of their registration."""
        return tuple(application for tenant in self.tenants.values() for application in tenant.values())

    def application(self, tenant_id: str, client_id: str) -> Application:
        """Return one application.

        Raises:
            Unknown: No such tenant, or no such application in it.
        """
        tenant = self.tenants.get(tenant_id.lower())
        if tenant is None:
            raise Unknown(f"no tenant {tenant_id}")
        application = tenant.get(client_id.lower())
        if application is None:
            raise Unknown(f"no application {client_id} in tenant {tenant_id}")
        return application

    def holding(self, application: Application) -> Self:
        """Return the directory with this application, new or in place of the one of the same ids."""
        tenant_id = application.tenant_id.lower()
        tenant = {**self.tenants.get(tenant_id, {}), application.client_id.lower(): application}
        return replace(self, tenants={**self.tenants, tenant_id: tenant})

    def without(self, application: Application) -> Self:
        """Return the directory without this application; its tenant stays."""
        tenant_id = application.tenant_id.lower()
        tenant = {
            client_id: other
            for client_id, other in self.tenants[tenant_id].items()
            if client_id != application.client_id.lower()
        }
        return replace(self, tenants={**self.tenants, tenant_id: tenant})

    def before_propagation(self) -> Self:
        """Return the directory as a part of Entra sees it that no federated credential has reached yet."""
        tenants = {
            tenant_id: {
                client_id: application.without(None) for client_id, application in applications.items()
            }
            for tenant_id, applications in self.tenants.items()
        }
        return replace(self, tenants=tenants)
