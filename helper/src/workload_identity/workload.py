"""Workload identity: a pod's service account token is traded for access tokens."""

from __future__ import annotations

import os

from workload_identity.authority import AzureAuthorityHosts, normal_authority, region_of, valid_tenant
from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.credentials import Credential, allowed_tenant, allowed_tenants, seconds_of
from workload_identity.options import options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from typing import Unpack

    from workload_identity.cache import Held
    from workload_identity.options import TransportOptions
    from workload_identity.steps import Flow


class WorkloadIdentity(Credential):
    """Trades the service account token of a pod for tokens of the identity that the pod is wired to.

    Keywords that are missing or empty come from the environment that the Workload Identity Operator (or
    Azure's own webhook) gives the pod. Nothing is read or sent before the first token is asked for.

    Args:
        tenant_id: The identity's tenant; from AZURE_TENANT_ID.
        client_id: The identity's client id; from AZURE_CLIENT_ID.
        token_file_path: The projected service account token; from AZURE_FEDERATED_TOKEN_FILE. Read anew for
            each request.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        token_file_timeout: Seconds to wait for a token file that is not there yet; 0 does not wait.
        retry_on_propagation: Seconds to repeat the request while Entra does not know a federated credential
            yet, as is so for minutes after it was made; 0 does not repeat.
        shared_cache: Whether tokens are shared with other credentials of the same identity in this process.
        enable_azure_proxy: Whether to trade the token at the token proxy of an AKS identity binding; None:
            where AZURE_KUBERNETES_TOKEN_PROXY names one.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: No tenant, client or token file is known, or a value cannot work; the message names it.

    Source: azure-identity 1.27.0, `WorkloadIdentityCredential`.
    """

    def __init__(
        self,
        *,
        tenant_id: str | None = None,
        client_id: str | None = None,
        token_file_path: str | os.PathLike[str] | None = None,
        authority: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        token_file_timeout: float = 0,
        retry_on_propagation: float = 0,
        shared_cache: bool = True,
        enable_azure_proxy: bool | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        known = ("tenant_id", "client_id", "token_file_path", "authority", "additionally_allowed_tenants")
        own = ("token_file_timeout", "retry_on_propagation", "shared_cache", "enable_azure_proxy")
        super().__init__(options_of(options, known + own), shared_cache=shared_cache)
        found = _from_pod(
            {"tenant_id": tenant_id, "client_id": client_id, "token_file_path": token_file_path}
        )
        self._tenant_id = valid_tenant(found["tenant_id"])
        self._client_id = found["client_id"]
        self._token_file_path = found["token_file_path"]
        host = authority or os.environ.get("AZURE_AUTHORITY_HOST") or AzureAuthorityHosts.AZURE_PUBLIC_CLOUD
        self._authority = normal_authority(host)
        self._region = region_of(os.environ)
        self._allowed_tenants = allowed_tenants(additionally_allowed_tenants)
        self._token_file_timeout = seconds_of("token_file_timeout", token_file_timeout)
        self._retry_on_propagation = seconds_of("retry_on_propagation", retry_on_propagation)
        if os.environ.get("AZURE_KUBERNETES_TOKEN_PROXY") or enable_azure_proxy:
            from workload_identity.token_proxy import token_proxy  # noqa: PLC0415 - few pods have one

            self._proxy = token_proxy(os.environ, wanted=enable_azure_proxy)
            if self._proxy is not None and self._options.transport is not None:
                raise ValueError("transport: a token proxy is in use, which has a transport of its own")

    def __repr__(self) -> str:
        return (
            f"<{self._name()} client_id={self._client_id!r} tenant_id={self._tenant_id!r}"
            f" token_file_path={self._token_file_path!r} authority={self._authority!r}>"
        )

    def _identity(self) -> tuple[Hashable, ...]:
        return "workload", self._authority.lower(), self._client_id.lower(), self._token_file_path

    def _tenant(self, requested: str | None) -> str:
        return allowed_tenant(self._tenant_id, requested, self._allowed_tenants)

    def _patience(self) -> float:
        return self._options.timeout + self._token_file_timeout + self._retry_on_propagation

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        from workload_identity import federation  # noqa: PLC0415 - what a token request needs

        wish = federation.Wish(
            authority=self._authority,
            tenant_id=tenant,
            client_id=self._client_id,
            token_file=self._token_file_path,
            scopes=scopes,
            claims=claims,
            token_file_timeout=self._token_file_timeout,
            retry_on_propagation=self._retry_on_propagation,
            region=self._region,
            proxy=self._proxy,
        )
        return federation.workload_identity(wish, self._options, background=background)


class WorkloadIdentityCredential(WorkloadIdentity, Blocking):  # noqa: D101 - it has, see below
    # The same words for both families.
    __doc__ = WorkloadIdentity.__doc__


class AsyncWorkloadIdentityCredential(WorkloadIdentity, Awaiting):  # noqa: D101 - likewise
    __doc__ = WorkloadIdentity.__doc__


def _from_pod(given: Mapping[str, str | os.PathLike[str] | None]) -> dict[str, str]:
    variables = {
        "tenant_id": "AZURE_TENANT_ID",
        "client_id": "AZURE_CLIENT_ID",
        "token_file_path": "AZURE_FEDERATED_TOKEN_FILE",
    }
    found = {name: given[name] or os.environ.get(variables[name], "") for name in variables}
    for name, value in found.items():
        if not isinstance(value, str | os.PathLike):
            raise ValueError(f"{name}: wanted a text, found {type(value).__name__}")  # noqa: TRY004 - misuse
    missing = [f"{name} (variable {variables[name]})" for name, value in found.items() if not value]
    if missing:
        raise ValueError(
            f"WorkloadIdentityCredential lacks {', '.join(missing)}. A pod gets these from the Workload"
            " Identity Operator when it is created: this one may lack the label azure.workload.identity/use:"
            ' "true", its ServiceAccount the annotation azure.workload.identity/client-id, or it was created'
            " while the operator was not there; set them and create the pod again."
        )
    return {name: os.fspath(value) for name, value in found.items()}
