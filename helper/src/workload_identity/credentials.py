"""What each credential is, neither blocking nor awaiting: its keywords, its identity, its flow.

This much is loaded with a credential's class. What a token request needs is loaded when one is made.
"""

from __future__ import annotations

import os

from workload_identity.authority import AzureAuthorityHosts, normal_authority, tenant_for, valid_tenant
from workload_identity.cache import OVER, SHARED, TokenCache
from workload_identity.clock import SYSTEM
from workload_identity.errors import ClientAuthenticationError
from workload_identity.options import Identical, Options, options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from typing import Any, Unpack

    from workload_identity.cache import Held, Slot
    from workload_identity.clock import Clock
    from workload_identity.options import TransportOptions
    from workload_identity.steps import Flow
    from workload_identity.token_proxy import TokenProxy

_MOST_HOT = 100


class Order:
    """One call's wish for a token: all that a family needs to fulfil it.

    Attributes:
        label: Who asks and for what, for log records and messages.
        cache: Where the token is held.
        slot: Its place there.
        way: What tells this request for it from others: claims, how it is sent, how long it may take.
        must: Only a new token will do.
        wide: A token for more scopes that will do.
        clock: The clocks.
        options: How requests are sent.
        proxy: Through which token proxy they go, if any.
        patience: The longest a request can take, in seconds.
        flow: Makes the flow that asks; told whether it is in the background, with a good token still held.
    """

    __slots__ = (
        "cache",
        "clock",
        "flow",
        "label",
        "must",
        "options",
        "patience",
        "proxy",
        "slot",
        "way",
        "wide",
    )

    def __init__(
        self,
        label: str,
        *,
        cache: TokenCache,
        slot: Slot,
        way: Hashable,
        clock: Clock,
        options: Options,
        patience: float,
        flow: Callable[[bool], Flow[Held]],
        proxy: TokenProxy | None = None,
        must: bool = False,
        wide: Held | None = None,
    ) -> None:
        self.label = label
        self.cache = cache
        self.slot = slot
        self.way = way
        self.clock = clock
        self.options = options
        self.proxy = proxy
        self.patience = patience
        self.flow = flow
        self.must = must
        self.wide = wide


class Credential:
    """What all credentials of both families share.

    A credential says who it is (`_identity`), for which tenant (`_tenant`) and how it asks (`_flow`); a
    family, which transports it can use (`_check_transport`).
    """

    def __init__(self, options: Options, *, shared_cache: bool) -> None:
        if options.transport is not None:
            self._check_transport(options.transport)
        self._options = options
        self._proxy: TokenProxy | None = None
        self._shared = shared_cache
        self._clock = SYSTEM
        self._open()

    def _open(self) -> None:
        self._cache = SHARED if self._shared else TokenCache()
        self._closed = False
        # Where the tokens of earlier calls are, by the scopes as they were given: `get_token` looks here
        # first.
        self._plain: dict[tuple[object, ...], Slot] = {}
        self._cae: dict[tuple[object, ...], Slot] = {}
        # Renewals in the air, of the awaiting family: `close` ends them.
        self._renewals: set[Task[None]] = set()

    def _at_hand(self, asked: tuple[object, ...], enable_cae: bool) -> Held | None:
        """Return the token of an earlier call if it will do: the way of nearly all calls, without a lock."""
        try:
            slot = (self._cae if enable_cae else self._plain)[asked]
        except (KeyError, TypeError):  # not asked for before, or asked for with a list
            return None
        held = slot.held
        if held is None:
            return None
        clock = self._clock
        monotonic = clock.monotonic()
        if monotonic < held.due_monotonic and clock.epoch() < held.due_epoch:
            return held
        if monotonic < slot.rest and monotonic < held.over_monotonic and clock.epoch() < held.over_epoch:
            return held
        return None

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy in another process needs: no token goes there."""
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THIS_PROCESS}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._clock = SYSTEM
        self._open()

    def _shut(self) -> None:
        self._closed = True
        self._plain = {}
        self._cae = {}
        if not self._shared:
            self._cache = TokenCache()

    def _identity(self) -> tuple[Hashable, ...]:
        raise NotImplementedError

    def _tenant(self, requested: str | None) -> str:
        raise NotImplementedError

    def _check_transport(self, transport: object) -> None:
        raise NotImplementedError

    def _patience(self) -> float:
        return self._options.timeout

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        raise NotImplementedError

    def _order(
        self, asked: tuple[object, ...], claims: str | None, tenant_id: str | None, enable_cae: bool
    ) -> Order:
        """Check what a call asks for and find the place of its token.

        Raises:
            ValueError: It can never be given, or the credential is closed.
            ClientAuthenticationError: It names a tenant that is not allowed.
        """
        if self._closed:
            raise ValueError(f"this {type(self).__name__} is closed; make another one to get tokens")
        scopes = named_scopes(asked)
        tenant = self._tenant(tenant_id or None)
        declared = declared_claims(claims or None, cae=enable_cae)
        # Who answers through another transport may be somebody else.
        identity = (*self._identity(), tenant.lower(), enable_cae, Identical(self._options.transport))
        now = self._clock.now()
        slot = self._cache.slot(identity, frozenset(scopes), now)
        wide = None
        if not claims:
            if not tenant_id and all(isinstance(scope, str) for scope in asked):
                hot = self._cae if enable_cae else self._plain
                if len(hot) >= _MOST_HOT:
                    hot.clear()
                hot[asked] = slot
            if slot.held is None or slot.held.freshness(now) is OVER:
                wide = self._cache.wider(identity, frozenset(scopes), now)
        return Order(
            f"{type(self).__name__} for {' '.join(scopes)}",
            cache=self._cache,
            slot=slot,
            way=(declared, self._options, self._proxy, self._patience()),
            clock=self._clock,
            options=self._options,
            proxy=self._proxy,
            patience=self._patience(),
            flow=lambda background: _guarded(self._flow(scopes, tenant, declared, background)),
            must=bool(claims),
            wide=wide,
        )


def _guarded(flow: Flow[Held]) -> Flow[Held]:
    """Let nothing but our own errors out of a flow: callers and chains know no others."""
    try:
        return (yield from flow)
    except ClientAuthenticationError:
        raise
    except Exception as failure:
        raise ClientAuthenticationError(
            f"the request for a token broke off unexpectedly: {type(failure).__name__}: {failure}"
        ) from failure


_OF_THIS_PROCESS = frozenset({"_cache", "_clock", "_closed", "_plain", "_cae", "_renewals"})


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
        additionally_allowed_tenants: Iterable[str] = (),
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
        several = additionally_allowed_tenants
        self._allowed_tenants = (several,) if isinstance(several, str) else tuple(several)
        self._token_file_timeout = _seconds("token_file_timeout", token_file_timeout)
        self._retry_on_propagation = _seconds("retry_on_propagation", retry_on_propagation)
        if os.environ.get("AZURE_KUBERNETES_TOKEN_PROXY") or enable_azure_proxy:
            from workload_identity.token_proxy import token_proxy  # noqa: PLC0415 - few pods have one

            self._proxy = token_proxy(os.environ, wanted=enable_azure_proxy)
            if self._proxy is not None and self._options.transport is not None:
                raise ValueError("transport: a token proxy is in use, which has a transport of its own")

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} client_id={self._client_id!r} tenant_id={self._tenant_id!r}"
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
            proxy=self._proxy,
        )
        return federation.workload_identity(wish, self._options, background=background)


def named_scopes(asked: tuple[object, ...]) -> tuple[str, ...]:
    """Return the scopes of a call, given one by one or as one list.

    Raises:
        ValueError: None is given, or one is no text or has a control character in it.
    """
    if len(asked) == 1 and isinstance(asked[0], list | tuple):
        asked = tuple(asked[0])
    if not asked:
        raise ValueError(
            "a token needs at least one scope, such as 'https://vault.azure.net/.default'; found none"
        )
    for scope in asked:
        if not isinstance(scope, str) or not scope.strip() or any(letter < " " for letter in scope):
            raise ValueError(
                f"a scope such as 'https://vault.azure.net/.default' was wanted; found {scope!r}"
            )
    return tuple(str(scope) for scope in asked)


def declared_claims(claims: str | None, *, cae: bool) -> str | None:
    """Return the claims to send: a challenge, and what says that the caller knows continuous evaluation.

    Without `cae` a challenge is passed on as it is.

    Raises:
        ValueError: With `cae`, a challenge that is no JSON object.

    Source: learn.microsoft.com/entra/identity-platform/claims-challenge, "Client capabilities".
    """
    if not cae:
        return claims
    import json  # noqa: PLC0415 - many programs never come here

    try:
        challenge = json.loads(claims) if claims else {}
        access_token = challenge.setdefault("access_token", {})
        access_token = challenge["access_token"] = {} if access_token is None else access_token
        access_token["xms_cc"] = {"values": ["CP1"]}
    except (ValueError, TypeError, AttributeError, RecursionError) as failure:
        raise ValueError(
            f"claims: a JSON object was wanted, as a claims challenge has it ({failure})"
        ) from failure
    return json.dumps(challenge)


def allowed_tenant(configured: str, requested: str | None, allowed: Sequence[str]) -> str:
    """Return the tenant to ask.

    Raises:
        ValueError: The requested one is no tenant id.
        ClientAuthenticationError: It is not allowed.
    """
    if requested is not None:
        valid_tenant(requested)
    single = bool(os.environ.get("AZURE_IDENTITY_DISABLE_MULTITENANTAUTH"))
    tenant = tenant_for(configured, requested, allowed, single=single)
    if tenant is None:
        raise ClientAuthenticationError(
            f"a token of tenant {requested} was asked for, but this credential is for tenant {configured}."
            f" Add {requested!r} to additionally_allowed_tenants, or '*' for any tenant."
        )
    return tenant


def _from_pod(given: Mapping[str, str | os.PathLike[str] | None]) -> dict[str, str]:
    variables = {
        "tenant_id": "AZURE_TENANT_ID",
        "client_id": "AZURE_CLIENT_ID",
        "token_file_path": "AZURE_FEDERATED_TOKEN_FILE",
    }
    found = {name: os.fspath(given[name] or os.environ.get(variables[name], "")) for name in variables}
    missing = [f"{name} (variable {variables[name]})" for name, value in found.items() if not value]
    if missing:
        raise ValueError(
            f"WorkloadIdentityCredential lacks {', '.join(missing)}. A pod gets these from the Workload"
            " Identity Operator when it is created: this one may lack the label azure.workload.identity/use:"
            ' "true", its ServiceAccount the annotation azure.workload.identity/client-id, or it was created'
            " while the operator was not there; set them and create the pod again."
        )
    return found


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name}: wanted seconds, 0 or more, found {value!r}")
    return float(value)
