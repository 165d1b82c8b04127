"""Edge: performs steps, awaiting, on asyncio."""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import TYPE_CHECKING, Any, Self

from workload_identity.edge import between, perform_at_once, question
from workload_identity.steps import Ask, Block, Call, Send, Share, Unreachable, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from workload_identity.clock import Clock
    from workload_identity.options import Options
    from workload_identity.steps import Response, Step
    from workload_identity.token_proxy import TokenProxy


class Performer:
    """Performs the steps of one flow; an asynchronous context manager, as it may have a connection open."""

    def __init__(self, options: Options, clock: Clock, proxy: TokenProxy | None) -> None:
        self._options = options
        self._proxy = proxy
        self._clock = clock
        # Opened when they are needed, by whether they are for this machine alone.
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._options.transport is None:  # the caller's own stays open
            for client in self._clients.values():
                await client.aclose()

    async def __call__(self, step: Step) -> object:
        """Perform a step."""
        match step:
            case Send():
                return await self._send(step)
            case Wait(shortest, longest):
                await asyncio.sleep(between(shortest, longest))
                return None
            case Ask():
                return await _called(question(step))
            case Share(order):
                from workload_identity.awaiting import obtain  # noqa: PLC0415 - chains only

                return await obtain(order, set())  # nothing to renew
            case Call(function):
                return await _called(function)
            case Block(function):
                return await asyncio.to_thread(function)
        return perform_at_once(step, self._clock)

    async def _send(self, step: Send) -> Response:
        from workload_identity import http  # noqa: PLC0415 - imports httpx

        started = self._clock.now()
        left = step.deadline - started.monotonic
        if left <= 0:
            raise http.too_late(self._options)
        body = bytearray()
        before = sys.exception()
        try:
            async with (
                asyncio.timeout(left),
                self._connect(step).stream(**http.request(step, self._options, self._proxy, left)) as answer,
            ):
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > http.LARGEST_ANSWER:
                        raise http.too_long()
                return http.response_of(
                    answer.status_code, answer.reason_phrase, answer.headers, body, started
                )
        except Unreachable:
            raise
        except TimeoutError as failure:
            raise http.too_late(self._options) from failure
        except Exception as failure:
            raise http.unreachable(failure, self._options, before) from failure

    def _connect(self, step: Send) -> httpx.AsyncClient:
        from workload_identity import http  # noqa: PLC0415 - imports httpx

        client = self._clients.get(step.direct)
        if client is None:
            given: Any = self._options.transport
            if hasattr(given, "stream"):
                client = given
            else:
                arguments = http.client_arguments(
                    self._options, self._proxy, http.httpx.AsyncHTTPTransport, direct=step.direct
                )
                client = http.httpx.AsyncClient(**arguments)
            self._clients[step.direct] = client
        return client


async def _called(function: Callable[[], object]) -> object:
    result = function()
    return await result if inspect.isawaitable(result) else result


def fits(transport: Any) -> bool:
    """Tell whether this is an httpx transport or client that awaits."""
    return hasattr(transport, "handle_async_request") or (
        hasattr(transport, "stream") and hasattr(transport, "__aenter__")
    )
