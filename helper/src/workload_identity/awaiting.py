"""The awaiting family, for asyncio: credentials whose methods are awaited.

Loaded with every credential's class, by blocking programs too: so asyncio itself is only imported where a
program has it already, inside an event loop.
"""

from __future__ import annotations

import time
from _thread import get_ident

from workload_identity.cache import ABANDONED, Held
from workload_identity.credentials import Credential, named_scopes
from workload_identity.errors import another

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any, Self

    from workload_identity.cache import Flight, Outcome
    from workload_identity.credentials import Order
    from workload_identity.protocols import AsyncSupportsTokenInfo, AsyncTokenCredential, TokenRequestOptions
    from workload_identity.tokens import AccessToken, AccessTokenInfo

_LOOK_UP = 1.0
"""Seconds after which who waits for another event loop or thread looks whether it is still at it."""


class Awaiting(Credential):
    """The methods of an awaiting credential; safe to use from several event loops and threads."""

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,  # noqa: ARG002 - newer callers may pass what we do not know yet
    ) -> AccessToken:
        """Return a token for the scopes, from memory while there is a good one.

        Cancelling a call ends the request for the token only when nobody else waits for it.

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
        return (await obtain(self._order(scopes, claims, tenant_id, enable_cae), self._renewals)).token

    async def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return a token for the scopes with its type and when to ask again, else as `get_token` does.

        Args:
            scopes: What the token is for.
            options: `claims`, `tenant_id`, `enable_cae`; other keys are ignored.

        Raises:
            ClientAuthenticationError: There is no token to be had.
            ValueError: As with `get_token`.
        """
        wanted = options or {}
        claims, tenant_id = wanted.get("claims"), wanted.get("tenant_id")
        enable_cae = bool(wanted.get("enable_cae"))
        if not claims and not tenant_id:
            held = self._at_hand(scopes, enable_cae)
            if held is not None:
                return held.info
        return (await obtain(self._order(scopes, claims, tenant_id, enable_cae), self._renewals)).info

    async def close(self) -> None:
        """End the use of this credential and its renewals in the background; again does no harm."""
        import asyncio  # noqa: PLC0415 - see above

        self._shut()
        here = asyncio.get_running_loop()
        ending = [task for task in self._renewals if task.get_loop() is here]
        for task in list(self._renewals):
            _cancel(task)
        await asyncio.gather(*ending, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()

    def _check_transport(self, transport: object) -> None:
        from workload_identity.edge_awaiting import fits  # noqa: PLC0415 - hardly anyone brings a transport

        if not fits(transport):
            raise ValueError(
                "transport: wanted an httpx.AsyncBaseTransport or an httpx.AsyncClient, found"
                f" {type(transport).__name__}"
            )


def get_bearer_token_provider(
    credential: AsyncTokenCredential | AsyncSupportsTokenInfo, *scopes: str
) -> Callable[[], Coroutine[Any, Any, str]]:
    """Return a coroutine function that returns a token's text, for libraries that take one.

    A credential of this package holds its tokens itself, unless it runs a tool or is a chain. Another one's
    token is held here: one caller asks for all, a token that is good for less than five minutes is renewed in
    the background.

    Args:
        credential: Anything with an awaitable `get_token_info` or `get_token`.
        scopes: What the token is for.

    Raises:
        ValueError: No scope.
    """
    if isinstance(credential, Awaiting) and credential._holds:  # noqa: SLF001 - one of ours
        named_scopes(scopes)

        async def of_ours() -> str:
            return (await credential.get_token(*scopes)).token

        return of_ours
    from workload_identity.providers import order_of  # noqa: PLC0415 - for credentials of others only

    order = order_of(credential, scopes)
    renewals: set[asyncio.Task[None]] = set()

    async def of_another() -> str:
        return (await obtain(order, renewals)).token.token

    return of_another


async def obtain(order: Order, renewals: set[asyncio.Task[None]]) -> Held:
    """Return the token of an order: from memory, from who is asking already, or by asking.

    Args:
        order: What is wanted.
        renewals: Gets the task of a renewal in the background, for as long as it runs.
    """
    if order.wide is not None:
        return order.wide
    import asyncio  # noqa: PLC0415 - see above

    loop = asyncio.get_running_loop()
    while True:
        boarding = order.cache.board(
            order.slot, order.way, order.clock.now(), get_ident(), loop, must=order.must
        )
        if isinstance(boarding, Held):
            return boarding
        flight, held, leading = boarding
        if leading:
            task = _launch(order, flight, loop)
            if held is not None:
                renewals.add(task)
                task.add_done_callback(renewals.discard)
        if held is not None:
            return held
        outcome = await _landing(order, flight, loop)
        if isinstance(outcome, Held):
            return outcome
        if isinstance(outcome, BaseException):
            raise another(outcome)


def _launch(order: Order, flight: Flight, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
    from functools import partial  # noqa: PLC0415 - asyncio has it

    # A task of its own, so that its caller can be cancelled without it.
    task = loop.create_task(_fly(order, flight), name="workload-identity")
    flight.cancel = partial(_cancel, task)
    # A task that is cancelled before its first step runs none of its own code.
    task.add_done_callback(lambda _: order.cache.land(order.slot, order.way, flight, ABANDONED))
    return task


async def _fly(order: Order, flight: Flight) -> None:
    from workload_identity import fulfilment  # noqa: PLC0415 - what a token request needs
    from workload_identity.drive import drive_async  # noqa: PLC0415
    from workload_identity.edge_awaiting import Performer  # noqa: PLC0415

    began = order.clock.monotonic()
    outcome: Outcome = ABANDONED
    try:
        async with Performer(order.options, order.clock, order.proxy) as perform:
            outcome = await drive_async(order.flow(flight.renewal), perform)
    except Exception as failure:  # noqa: BLE001 - raised where it is waited for
        outcome = failure
    finally:
        fulfilment.landed(order, flight, outcome, began)


async def _landing(order: Order, flight: Flight, loop: asyncio.AbstractEventLoop) -> Outcome:
    import asyncio  # noqa: PLC0415 - see above
    from contextlib import suppress  # noqa: PLC0415 - asyncio has it

    landed: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, landed)

    if order.cache.join(flight, wake):
        foreign = flight.loop is not loop
        give_up = time.monotonic() + order.patience + _LOOK_UP
        try:
            while not landed.done():
                await asyncio.wait([landed], timeout=_LOOK_UP if foreign else None)
                if landed.done():
                    break
                if flight.stalled():
                    order.cache.land(order.slot, order.way, flight, ABANDONED)
                elif time.monotonic() > give_up:
                    from workload_identity.fulfilment import waited_too_long  # noqa: PLC0415

                    raise waited_too_long(order)
        finally:
            order.cache.leave(order.slot, order.way, flight, wake)
    return flight.outcome or ABANDONED


def _settle(landed: asyncio.Future[None]) -> None:
    if not landed.done():
        landed.set_result(None)


def _cancel(task: asyncio.Task[None]) -> None:
    from contextlib import suppress  # noqa: PLC0415 - asyncio has it

    with suppress(RuntimeError):  # its loop is closed: it has ended
        task.get_loop().call_soon_threadsafe(task.cancel)
