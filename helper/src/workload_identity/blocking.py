"""The blocking family: credentials whose methods return when the token is there."""

from __future__ import annotations

import time
from _thread import allocate_lock, get_ident

from workload_identity.cache import ABANDONED, Held
from workload_identity.credentials import Credential, named_scopes
from workload_identity.errors import another

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self

    from workload_identity.cache import Flight, Outcome
    from workload_identity.credentials import Order
    from workload_identity.protocols import SupportsTokenInfo, TokenCredential, TokenRequestOptions
    from workload_identity.tokens import AccessToken, AccessTokenInfo

_LOOK_UP = 1.0
"""Seconds after which who waits looks whether the one who asks is still at it."""


class Blocking(Credential):
    """The methods of a blocking credential; safe to use from any number of threads."""

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,  # noqa: ARG002 - newer callers may pass what we do not know yet
    ) -> AccessToken:
        """Return a token for the scopes, from memory while there is a good one.

        Args:
            scopes: What the token is for, such as "https://vault.azure.net/.default".
            claims: A claims challenge, JSON text, as a resource sent it: only a new token will do.
            tenant_id: Another tenant than the credential's own; see `additionally_allowed_tenants`.
            enable_cae: Ask for a token of continuous access evaluation, for who handles claims challenges.
            kwargs: Ignored.

        Raises:
            ClientAuthenticationError: There is no token to be had; CredentialUnavailableError when nothing
                could be asked.
            ValueError: No scope, or arguments that can never work, or the credential is closed.
        """
        if not claims and not tenant_id:
            held = self._at_hand(scopes, enable_cae)
            if held is not None:
                return held.token
        return obtain(self._order(scopes, claims, tenant_id, enable_cae)).token

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Return a token for the scopes with its type and when to ask again, else as `get_token` does.

        Args:
            scopes: What the token is for.
            options: `claims`, `tenant_id`, `enable_cae`; other keys are ignored.

        Raises:
            ClientAuthenticationError: There is no token to be had.
            ValueError: As with `get_token`.
        """
        if not options:
            held = self._at_hand(scopes, False)
            return (held or obtain(self._order(scopes, None, None, False))).info
        claims, tenant_id = options.get("claims"), options.get("tenant_id")
        enable_cae = bool(options.get("enable_cae"))
        if not claims and not tenant_id:
            held = self._at_hand(scopes, enable_cae)
            if held is not None:
                return held.info
        return obtain(self._order(scopes, claims, tenant_id, enable_cae)).info

    def close(self) -> None:
        """End the use of this credential; again does no harm. Nothing is open between two token requests."""
        self._shut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()

    def _check_transport(self, transport: object) -> None:
        from workload_identity.edge_blocking import fits  # noqa: PLC0415 - hardly anyone brings a transport

        if not fits(transport):
            raise ValueError(
                "transport: wanted an httpx.BaseTransport or an httpx.Client, found"
                f" {type(transport).__name__}"
            )


def get_bearer_token_provider(
    credential: TokenCredential | SupportsTokenInfo, *scopes: str
) -> Callable[[], str]:
    """Return a function that returns a token's text, for libraries that take one.

    A credential of this package holds its tokens itself, unless it runs a tool or is a chain. Another one's
    token is held here: one caller asks for all, a token that is good for less than five minutes is renewed in
    the background.

    Args:
        credential: Anything with `get_token_info` or `get_token`.
        scopes: What the token is for.

    Raises:
        ValueError: No scope.
    """
    if isinstance(credential, Blocking) and credential._holds:  # noqa: SLF001 - one of ours
        named_scopes(scopes)
        return lambda: credential.get_token(*scopes).token
    from workload_identity.providers import order_of  # noqa: PLC0415 - for credentials of others only

    order = order_of(credential, scopes)
    return lambda: obtain(order).token.token


def obtain(order: Order) -> Held:
    """Return the token of an order: from memory, from who is asking already, or by asking."""
    if order.wide is not None:
        return order.wide
    while True:
        boarding = order.cache.board(
            order.slot, order.way, order.clock.now(), get_ident(), None, must=order.must
        )
        if isinstance(boarding, Held):
            return boarding
        flight, held, leading = boarding
        if held is not None:
            _renew(order, flight)
            return held
        if leading:
            return _fly(order, flight)
        outcome = _landing(order, flight)
        if isinstance(outcome, Held):
            return outcome
        if isinstance(outcome, BaseException):
            raise another(outcome)


def _fly(order: Order, flight: Flight) -> Held:
    from workload_identity import fulfilment  # noqa: PLC0415 - what a token request needs
    from workload_identity.drive import drive  # noqa: PLC0415
    from workload_identity.edge_blocking import Performer  # noqa: PLC0415

    began = order.clock.monotonic()
    outcome: Outcome = ABANDONED
    try:
        with Performer(order.options, order.clock, order.proxy) as perform:
            outcome = held = drive(order.flow(flight.renewal), perform)
    except Exception as failure:
        outcome = failure
        raise
    finally:
        fulfilment.landed(order, flight, outcome, began)
    return held


def _renew(order: Order, flight: Flight) -> None:
    import threading  # noqa: PLC0415 - half a life after the first token
    from contextlib import suppress  # noqa: PLC0415

    def fly() -> None:
        # Who asked has a token; the failure is in the log.
        with suppress(Exception):
            _fly(order, flight)

    try:
        threading.Thread(target=fly, name="workload-identity renewal", daemon=True).start()
    except RuntimeError:
        # No more threads, or the interpreter is about to end.
        order.cache.land(order.slot, order.way, flight, ABANDONED)


def _landing(order: Order, flight: Flight) -> Outcome:
    landed = allocate_lock()
    landed.acquire()
    if order.cache.join(flight, landed.release):
        give_up = time.monotonic() + order.patience + _LOOK_UP
        try:
            while not landed.acquire(timeout=_LOOK_UP):
                if flight.stalled():
                    order.cache.land(order.slot, order.way, flight, ABANDONED)
                elif time.monotonic() > give_up:
                    from workload_identity.fulfilment import waited_too_long  # noqa: PLC0415

                    raise waited_too_long(order)
        finally:
            order.cache.leave(order.slot, order.way, flight, landed.release)
    return flight.outcome or ABANDONED
