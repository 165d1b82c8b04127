"""EnvironmentCredential: a service principal or a user that variables describe."""

from __future__ import annotations

import os

from workload_identity.authority import AzureAuthorityHosts, normal_authority
from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.context import IN_DEFAULT_CHAIN
from workload_identity.credentials import Credential
from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.options import options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from typing import Any, Unpack

    from workload_identity.cache import Held
    from workload_identity.credentials import Order
    from workload_identity.options import SendingOptions
    from workload_identity.persistence import TokenCachePersistenceOptions
    from workload_identity.steps import Flow

CLIENT = "AZURE_CLIENT_ID"
TENANT = "AZURE_TENANT_ID"
SECRET = "AZURE_CLIENT_SECRET"  # noqa: S105 - a variable's name
CERTIFICATE = "AZURE_CLIENT_CERTIFICATE_PATH"
CERTIFICATE_PASSWORD = "AZURE_CLIENT_CERTIFICATE_PASSWORD"  # noqa: S105 - likewise
CHAIN = "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN"
USER = "AZURE_USERNAME"
PASSWORD = "AZURE_PASSWORD"  # noqa: S105 - likewise

_COMPLETE = {
    "ClientSecretCredential": (CLIENT, SECRET, TENANT),
    "CertificateCredential": (CLIENT, CERTIFICATE, TENANT),
    "UsernamePasswordCredential": (CLIENT, USER, PASSWORD),
}
_ARGUMENTS = {
    "ClientSecretCredential": {TENANT: "tenant_id", CLIENT: "client_id", SECRET: "client_secret"},
    "CertificateCredential": {
        TENANT: "tenant_id",
        CLIENT: "client_id",
        CERTIFICATE: "certificate_path",
        CERTIFICATE_PASSWORD: "password",
    },
    "UsernamePasswordCredential": {
        CLIENT: "client_id",
        USER: "username",
        PASSWORD: "password",
        TENANT: "tenant_id",
    },
}
_HOMES = {
    "ClientSecretCredential": "principals",
    "CertificateCredential": "principals",
    "UsernamePasswordCredential": "users",
}
_SHARING = frozenset({"ClientSecretCredential", "CertificateCredential"})
"""A user's tokens are never shared between credentials."""
_ALL = (CLIENT, TENANT, SECRET, CERTIFICATE, CERTIFICATE_PASSWORD, CHAIN, USER, PASSWORD)
_OF_EVERY_POD = frozenset({CLIENT, TENANT})
"""What wired pods always have; nobody who has no more than these meant this credential."""
_OWN = (
    "authority",
    "additionally_allowed_tenants",
    "shared_cache",
    "cache_persistence_options",
    "disable_instance_discovery",
)


class Environment(Credential):
    """Is the client that the environment describes, by the first set of variables that is complete.

    - AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET: a `ClientSecretCredential`
    - AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_CERTIFICATE_PATH, perhaps
      AZURE_CLIENT_CERTIFICATE_PASSWORD, and AZURE_CLIENT_SEND_CERTIFICATE_CHAIN ("true" or "1"): a
      `CertificateCredential`
    - AZURE_CLIENT_ID, AZURE_USERNAME and AZURE_PASSWORD, perhaps AZURE_TENANT_ID: a
      `UsernamePasswordCredential`

    They are read once, at construction; an empty one counts as absent. With none complete, or with values
    that cannot work, it is calls for tokens that fail, so that a chain can be made anyway.

    Args:
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        shared_cache: Whether tokens are shared with other credentials of the same client in this process.
        cache_persistence_options: Where tokens are stored beyond the life of the process; by default nowhere.
        disable_instance_discovery: For a user: trust the authority without asking Entra whether it knows it.
        timeout: As in `workload_identity.options.Options`.
        options: See there.

    Raises:
        ValueError: A keyword or the authority cannot work; the message names it.

    Source: azure-identity 1.27.0, `EnvironmentCredential`.
    """

    _holds = False
    _prefix = ""

    def __init__(
        self,
        *,
        authority: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        shared_cache: bool = True,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        disable_instance_discovery: bool = False,
        timeout: float | None = None,
        **options: Unpack[SendingOptions],
    ) -> None:
        super().__init__(options_of({**options, "timeout": timeout}, _OWN), shared_cache=shared_cache)
        host = authority or os.environ.get("AZURE_AUTHORITY_HOST") or AzureAuthorityHosts.AZURE_PUBLIC_CLOUD
        common: dict[str, Any] = {
            **{name: value for name, value in options.items() if name in vars(self._options)},
            "timeout": timeout,
            "authority": normal_authority(host),
            "additionally_allowed_tenants": additionally_allowed_tenants,
            "cache_persistence_options": cache_persistence_options,
            "disable_instance_discovery": disable_instance_discovery,
        }
        self._chosen: Any = None
        self._broken = ""
        values = {name: os.environ[name] for name in _ALL if os.environ.get(name)}
        self._set = tuple(values)
        kind = next((kind for kind, names in _COMPLETE.items() if values.keys() >= set(names)), None)
        if kind is not None:
            try:
                if kind in _SHARING:
                    common["shared_cache"] = shared_cache
                self._chosen = _class(kind, self._prefix)(**_arguments(kind, values), **common)
            except ValueError as failure:
                self._broken = f"a {kind} cannot be made of {', '.join(_COMPLETE[kind])}: {failure}"
        if not _OF_EVERY_POD.issuperset(self._set):
            _log(kind, self._set, self._broken)

    def __repr__(self) -> str:
        return f"<{self._name()} {self._chosen!r}>" if self._chosen is not None else f"<{self._name()}>"

    def _at_hand(self, asked: tuple[object, ...], enable_cae: bool) -> Held | None:
        if self._chosen is None or self._closed:
            return None
        held: Held | None = self._chosen._at_hand(asked, enable_cae)  # noqa: SLF001 - a credential too
        return held

    def _order(
        self, asked: tuple[object, ...], claims: str | None, tenant_id: str | None, enable_cae: bool
    ) -> Order:
        if self._chosen is None or self._closed:
            return super()._order(asked, claims, tenant_id, enable_cae)
        order: Order = self._chosen._order(asked, claims, tenant_id, enable_cae)  # noqa: SLF001 - as above
        return order

    def _shut(self) -> None:
        super()._shut()
        if self._chosen is not None:
            self._chosen._shut()  # noqa: SLF001 - as above

    def _identity(self) -> tuple[Hashable, ...]:
        return "environment", self._set, self._broken

    def _tenant(self, requested: str | None) -> str:
        return requested or ""

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        del scopes, tenant, claims, background
        yield from ()
        if self._broken:
            raise ClientAuthenticationError(f"the environment is not in order: {self._broken}")
        sets = "; or ".join(", ".join(names) for names in _COMPLETE.values())
        found = ", ".join(self._set) or "none of them"
        raise CredentialUnavailableError(
            f"{self._name()}: the environment is not fully configured. Wanted {sets}; found {found}."
        )


def _class(kind: str, prefix: str) -> Any:
    from importlib import import_module  # noqa: PLC0415 - only the one that is meant

    home = _HOMES[kind]
    try:
        return getattr(import_module(f"workload_identity.{home}"), f"{prefix}{kind}")
    except (ImportError, AttributeError) as failure:
        raise ValueError(f"this installation has no {kind} ({failure})") from failure


def _arguments(kind: str, values: Mapping[str, str]) -> dict[str, Any]:
    given = {name: values[variable] for variable, name in _ARGUMENTS[kind].items() if variable in values}
    if kind == "CertificateCredential":
        # As in the other languages' libraries; azure-identity for Python takes "false" for true.
        return {**given, "send_certificate_chain": values.get(CHAIN, "").lower() in {"1", "true"}}
    return given


def _log(kind: str | None, found: tuple[str, ...], broken: str) -> None:
    import logging  # noqa: PLC0415 - where there is something to say

    logger = logging.getLogger("workload_identity")
    if kind is not None and not broken:
        logger.info("EnvironmentCredential is a %s", kind)
        return
    level = logging.INFO if IN_DEFAULT_CHAIN.get() else logging.WARNING
    why = broken or "no set of variables is complete"
    logger.log(level, "EnvironmentCredential is not configured: %s; found %s", why, ", ".join(found))


class EnvironmentCredential(Environment, Blocking):  # noqa: D101 - it has, see below
    # The same words for both families.
    __doc__ = Environment.__doc__


class AsyncEnvironmentCredential(Environment, Awaiting):  # noqa: D101 - likewise
    __doc__ = Environment.__doc__

    _prefix = "Async"
