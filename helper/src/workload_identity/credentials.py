"""What all credentials share, neither blocking nor awaiting: whose token is wanted, and where it is held.

This much is loaded with any credential's class. What a token request needs is loaded when one is made.
"""

from __future__ import annotations

import os

from workload_identity.authority import tenant_for, valid_tenant
from workload_identity.cache import OVER, SHARED, TokenCache
from workload_identity.clock import SYSTEM
from workload_identity.context import IN_CHAIN
from workload_identity.errors import ClientAuthenticationError
from workload_identity.options import Identical, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from typing import Any

    from workload_identity.cache import Held, Slot
    from workload_identity.clock import Clock
    from workload_identity.steps import Flow
    from workload_identity.token_proxy import TokenProxy

_MOST_HOT = 100


class Order:
    """One call's wish for a token: all that a family needs to fulfil it.

    Attributes:
        label: Who asks and for what, for log records and messages.
        cache: Where the token is held.
        slot: Its place there.
        way: What tells this request for it from others: claims, how it is sent, how long it may take, and in
            which manner.
        must: Only a new token will do.
        wide: A token for more scopes that will do.
        clock: The clocks.
        options: How requests are sent.
        proxy: Through which token proxy they go, if any.
        patience: The longest a request can take, in seconds.
        flow: Makes the flow that asks; told whether it is in the background, with a good token still held.
        silent: What becomes of it is logged elsewhere.
        late: What is raised for who waits too long for somebody else's request.
    """

    __slots__ = (
        "cache",
        "clock",
        "flow",
        "label",
        "late",
        "must",
        "options",
        "patience",
        "proxy",
        "silent",
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
        silent: bool = False,
        late: type[ClientAuthenticationError] = ClientAuthenticationError,
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
        self.silent = silent
        self.late = late


class Credential:
    """What all credentials of both families share.

    A credential says who it is (`_identity`), for which tenant (`_tenant`) and how it asks (`_flow`); a
    family, which transports it can use (`_check_transport`).
    """

    _holds = True
    """Whether a token is held for later calls; if not, calls at the same time still make one request."""
    _late: type[ClientAuthenticationError] = ClientAuthenticationError
    """What is raised for who waits too long for somebody else's request."""
    _evaluates = True
    """Whether there are tokens of continuous access evaluation; if not, asking for them changes nothing."""

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
        self._cae: dict[tuple[object, ...], Slot] = {} if self._evaluates else self._plain
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

    def _name(self) -> str:
        # Both families have one name for users.
        return type(self).__name__.removeprefix("Async")

    def _identity(self) -> tuple[Hashable, ...]:
        raise NotImplementedError

    def _tenant(self, requested: str | None) -> str:
        raise NotImplementedError

    def _check_transport(self, transport: object) -> None:
        raise NotImplementedError

    def _patience(self) -> float:
        return self._options.timeout

    def _manner(self) -> Hashable:
        # A chain has others to ask, so its members do not wait for long.
        return IN_CHAIN.get()

    def _scopes(self, asked: tuple[object, ...]) -> tuple[str, ...]:
        return named_scopes(asked)

    def _flow(self, scopes: tuple[str, ...], tenant: str, claims: str | None, background: bool) -> Flow[Held]:
        raise NotImplementedError

    def _flow_of(
        self,
        scopes: tuple[str, ...],
        tenant: str,
        claims: str | None,
        background: bool,
        cae: bool,
    ) -> Flow[Held]:
        """Do as `_flow`, for who holds more than access tokens: what is of `cae` is held apart."""
        del cae
        return self._flow(scopes, tenant, claims, background)

    def _order(
        self, asked: tuple[object, ...], claims: str | None, tenant_id: str | None, enable_cae: bool
    ) -> Order:
        """Check what a call asks for and find the place of its token.

        Raises:
            ValueError: It can never be given, or the credential is closed.
            ClientAuthenticationError: It names a tenant that is not allowed.
        """
        if self._closed:
            raise ValueError(f"this {self._name()} is closed; make another one to get tokens")
        scopes = self._scopes(asked)
        enable_cae = enable_cae and self._evaluates
        tenant = self._tenant(tenant_id or None)
        declared = declared_claims(claims or None, cae=enable_cae)
        # Who answers through another transport may be somebody else.
        identity = (*self._identity(), tenant.lower(), enable_cae, Identical(self._options.transport))
        now = self._clock.now()
        # In this order: who replaces all of them, as for another person, replaces the cache last. So no place
        # in a former one gets into a new one.
        cache = self._cache
        hot = self._cae if enable_cae else self._plain
        plain = not tenant_id and all(isinstance(scope, str) for scope in asked)
        slot = cache.slot(identity, frozenset(scopes), now, hot.get(asked) if plain else None)
        wide = None
        must = bool(claims) or not self._holds
        if not must:
            if plain and cache is self._cache:
                if len(hot) >= _MOST_HOT:
                    hot.clear()
                hot[asked] = slot
            if slot.held is None or slot.held.freshness(now) is OVER:
                wide = cache.wider(identity, frozenset(scopes), now)
        return Order(
            f"{self._name()} for {' '.join(scopes)}",
            cache=cache,
            slot=slot,
            way=(declared, self._options, self._proxy, self._patience(), self._manner()),
            clock=self._clock,
            options=self._options,
            proxy=self._proxy,
            patience=self._patience(),
            flow=lambda background: guarded(self._flow_of(scopes, tenant, declared, background, enable_cae)),
            must=must,
            wide=wide,
            late=self._late,
        )


def guarded(flow: Flow[Held]) -> Flow[Held]:
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


def resource_of(scopes: tuple[str, ...]) -> str:
    """Return the resource that a scope is of, for who asks for resources: the scope without "/.default".

    Raises:
        ValueError: There is more than one scope, or nothing is left of it.
    """
    resource = scopes[0].removesuffix("/.default")
    if len(scopes) != 1 or not resource:
        raise ValueError(
            "wanted one scope of one resource, such as 'https://vault.azure.net/.default'; found"
            f" {' '.join(scopes)!r}"
        )
    return resource


def declared_claims(claims: str | None, *, cae: bool) -> str | None:
    """Return the claims to send: a challenge, and what says that the caller knows continuous evaluation.

    Without `cae` a challenge is passed on as it is.

    Raises:
        ValueError: A challenge that is no text or, with `cae`, no JSON object.

    Source: learn.microsoft.com/entra/identity-platform/claims-challenge, "Client capabilities".
    """
    if claims is not None and not isinstance(claims, str):
        raise ValueError(f"claims: JSON text was wanted, found {type(claims).__name__}")
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


def allowed_tenants(given: Iterable[str] | None) -> tuple[str, ...]:
    """Return `additionally_allowed_tenants`: of several, of one that is given as it is, or of none.

    What is empty, as of a variable that is not set, allows none.

    Raises:
        ValueError: They are no texts.
    """
    tenants: Any = [given] if isinstance(given, str) else given or ()
    found: list[Any] = [tenant for tenant in tenants if tenant] if hasattr(tenants, "__iter__") else [tenants]
    if not all(isinstance(tenant, str) for tenant in found):
        raise ValueError(f"additionally_allowed_tenants: wanted texts, tenants or '*', found {given!r}")
    return tuple(found)


def seconds_of(name: str, value: Any, default: float = 0) -> float:
    """Return an option's seconds; None counts as not given.

    Raises:
        ValueError: It is no number, or a negative one; the message names the option.
    """
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name}: wanted seconds, 0 or more, found {value!r}")
    return float(value)
