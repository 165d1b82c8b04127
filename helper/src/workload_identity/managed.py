"""Managed identity: the machine's own endpoint gives tokens to who runs there."""

from __future__ import annotations

import os
import sys

from workload_identity import hosts
from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.context import IN_CHAIN, IN_DEFAULT_CHAIN
from workload_identity.credentials import Credential, resource_of
from workload_identity.errors import CredentialUnavailableError
from workload_identity.options import Options, options_of
from workload_identity.workload import WorkloadIdentity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from typing import Unpack

    from workload_identity.cache import Held
    from workload_identity.options import TransportOptions
    from workload_identity.steps import Flow

_OF_PODS = ("enable_azure_proxy", "additionally_allowed_tenants")


class ManagedIdentity(Credential):
    """Gets tokens of the identity that Azure gave to the machine this runs on.

    Which endpoint is asked is read from the environment when the credential is made: App Service, Functions
    and Container Apps, Azure Arc, Azure ML, Cloud Shell, Service Fabric; a pod's workload identity; else the
    instance metadata service (IMDS) of virtual machines and nodes. Nothing is sent before the first token is
    asked for. A chain looks for the metadata service first, for a second at most and once in 30 s; a
    credential on its own expects it.

    Scopes are resources: exactly one at a time, with or without "/.default". Claims make for a new token and
    are not sent, `tenant_id` and `enable_cae` change nothing; a pod's workload identity has both.

    Args:
        client_id: The client id of a user-assigned identity; missing or empty: the system-assigned one, or in
            a pod the identity of AZURE_CLIENT_ID.
        identity_config: Instead, a mapping with one of `client_id`, `object_id` and `resource_id`. For Cloud
            Shell, further parameters to send.
        shared_cache: Whether tokens are shared with other credentials of the same identity in this process.
        enable_azure_proxy: As with `WorkloadIdentityCredential`, where a pod's workload identity is meant.
        additionally_allowed_tenants: Likewise; elsewhere without effect.
        _exclude_workload_identity: A pod's token is another credential's to use.
        _probe: Whether to look for the metadata service first; None: in a chain.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: Two identities are named, or a value cannot work; the message names it.

    Source: azure-identity 1.27.0, `ManagedIdentityCredential`.
    """

    def __init__(
        self,
        *,
        client_id: str | None = None,
        identity_config: Mapping[str, str] | None = None,
        shared_cache: bool = True,
        enable_azure_proxy: bool | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        _exclude_workload_identity: bool = False,
        _probe: bool | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        known = ("client_id", "identity_config", "shared_cache", *_OF_PODS)
        self._host = hosts.host_of(os.environ, sys.platform, workload_identity=not _exclude_workload_identity)
        self._evaluates = self._host.kind == hosts.WORKLOAD
        self._probe = _probe
        super().__init__(options_of(options, known), shared_cache=shared_cache)
        self._identified, self._others = hosts.identity_of(
            client_id, identity_config, self._host.kind, tolerant=IN_DEFAULT_CHAIN.get()
        )
        self._fingerprint = _fingerprint(self._host.secret)
        self._workload: WorkloadIdentity | None = None
        match self._host.kind:
            case hosts.WORKLOAD:
                self._be_the_pods(enable_azure_proxy, additionally_allowed_tenants)
            case hosts.IMDS:
                self._options = patient(self._options)
            case hosts.SERVICE_FABRIC if self._options.transport is not None:
                raise ValueError(
                    "transport: Service Fabric's endpoint proves itself by its certificate alone, which a"
                    " transport of yours would not check; leave it out"
                )
        _log_choice(self._name(), self._host.kind, self._identified)

    def __repr__(self) -> str:
        place = f" at {self._host.place}" if self._host.endpoint else ""
        identity = "" if self._identified is None else " {}={!r}".format(*self._identified)
        return f"<{self._name()} {self._host.kind}{place}{identity}>"

    def _be_the_pods(
        self, enable_azure_proxy: bool | None, additionally_allowed_tenants: Iterable[str] | None
    ) -> None:
        if self._identified is None or self._identified[0] != "client_id":
            client_id = os.environ.get("AZURE_CLIENT_ID", "")
            self._identified = ("client_id", client_id) if client_id else None
        if self._identified is not None:
            self._workload = _Workload(
                client_id=self._identified[1],
                enable_azure_proxy=enable_azure_proxy,
                additionally_allowed_tenants=additionally_allowed_tenants,
                **vars(self._options),
            )
            self._proxy = self._workload._proxy  # noqa: SLF001 - see `_Workload`

    def _identity(self) -> tuple[Hashable, ...]:
        if self._workload is not None:
            return self._workload._identity()  # noqa: SLF001 - see `_Workload`
        host = self._host
        others = tuple(sorted(self._others.items()))
        return (
            "managed",
            host.kind,
            host.endpoint,
            host.thumbprint,
            self._fingerprint,
            self._identified,
            others,
        )

    def _tenant(self, requested: str | None) -> str:
        if self._workload is not None:
            return self._workload._tenant(requested)  # noqa: SLF001 - see `_Workload`
        return ""  # the machine's identity is of one tenant

    def _scopes(self, asked: tuple[object, ...]) -> tuple[str, ...]:
        scopes = super()._scopes(asked)
        return scopes if self._host.kind == hosts.WORKLOAD else (resource_of(scopes),)

    def _manner(self) -> Hashable:
        return super()._manner(), self._probing()

    def _probing(self) -> bool:
        if self._host.kind != hosts.IMDS or self._host.certain:
            return False
        return IN_CHAIN.get() if self._probe is None else self._probe

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        if self._workload is not None:
            return self._workload._flow(scopes, tenant, claims, background)  # noqa: SLF001 - see `_Workload`
        if self._host.kind == hosts.WORKLOAD:
            raise CredentialUnavailableError(
                "no managed identity: this pod has a token of its ServiceAccount (AZURE_FEDERATED_TOKEN_FILE)"
                " and no client to trade it for. Set AZURE_CLIENT_ID or client_id, or annotate the"
                " ServiceAccount with azure.workload.identity/client-id and create the pod again."
            )
        from workload_identity import endpoints  # noqa: PLC0415 - what a token request needs

        wish = endpoints.Wish(
            host=self._host,
            resource=scopes[0],
            identity=self._identified,
            others=self._others,
            probing=self._probing(),
            hurried=background or IN_CHAIN.get(),
        )
        return endpoints.managed_identity(wish, self._options)


class ManagedIdentityCredential(ManagedIdentity, Blocking):  # noqa: D101 - it has, see below
    # The same words for both families.
    __doc__ = ManagedIdentity.__doc__


class AsyncManagedIdentityCredential(ManagedIdentity, Awaiting):  # noqa: D101 - likewise
    __doc__ = ManagedIdentity.__doc__


class _Workload(WorkloadIdentity):
    # In the hands of a managed identity credential, which is of a family and passes on what it is asked.
    def _check_transport(self, transport: object) -> None:
        """Leave that to the credential whose options these are."""


def patient(options: Options) -> Options:
    """Return the options of a credential that asks the metadata service: its own, where they are not given.

    It is throttled and updated now and then, so more statuses are tried again and more often; and where it
    does not take a connection at once, it is not.

    Source: azure-identity 1.27.0, `imds.py`.
    """
    defaults = {"connection_timeout": 2, "retry_backoff_max": 60, "retry_status": 5, "retry_total": 5}
    statuses = (404, 410, 501, 505, *options.retry_on_status_codes)
    return Options({**defaults, **vars(options), "retry_on_status_codes": statuses})


def _fingerprint(secret: str) -> str:
    if not secret:
        return ""
    from hashlib import sha256  # noqa: PLC0415 - few hosts have a secret

    return sha256(secret.encode()).hexdigest()


def _log_choice(name: str, kind: str, identity: tuple[str, str] | None) -> None:
    # Who reads records of this level has imported logging: for others it is not worth its import.
    logging = sys.modules.get("logging")
    if logging is not None:
        whose = "no id" if identity is None else f"{identity[0]} {identity[1]}"
        logging.getLogger("workload_identity").info("%s: uses %s, with %s", name, kind, whose)
