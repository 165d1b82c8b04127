"""Edge: performs steps, blocking."""

from __future__ import annotations

import sys
import time
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
    """Performs the steps of one flow; a context manager, as it may have a connection open."""

    def __init__(self, options: Options, clock: Clock, proxy: TokenProxy | None) -> None:
        self._options = options
        self._proxy = proxy
        self._clock = clock
        # Opened when they are needed, by whether they are for this machine alone.
        self._clients: dict[bool, httpx.Client] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._options.transport is None:  # the caller's own stays open
            for client in self._clients.values():
                client.close()

    def __call__(self, step: Step) -> object:
        """Perform a step."""
        match step:
            case Send():
                return self._send(step)
            case Wait(shortest, longest):
                time.sleep(between(shortest, longest))
                return None
            case Ask():
                return _called(question(step))
            case Share(order):
                from workload_identity.blocking import obtain  # noqa: PLC0415 - chains only

                return obtain(order)
            case Call(function):
                return _called(function)
            case Block(function):
                return function()
        return perform_at_once(step, self._clock)

    def _send(self, step: Send) -> Response:
        from workload_identity import http  # noqa: PLC0415 - imports httpx

        started = self._clock.now()
        left = step.deadline - started.monotonic
        if left <= 0:
            raise http.too_late(self._options)
        body = bytearray()
        before = sys.exception()
        try:
            with self._connect(step).stream(**http.request(step, self._options, self._proxy, left)) as answer:
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > http.LARGEST_ANSWER:
                        raise http.too_long()
                    if self._clock.monotonic() > step.deadline:
                        raise http.too_late(self._options)
                return http.response_of(
                    answer.status_code, answer.reason_phrase, answer.headers, body, started
                )
        except Unreachable:
            raise
        except Exception as failure:
            raise http.unreachable(failure, self._options, before) from failure

    def _connect(self, step: Send) -> httpx.Client:
        from workload_identity import http  # noqa: PLC0415 - imports httpx

        client = self._clients.get(step.direct)
        if client is None:
            given: Any = self._options.transport
            if hasattr(given, "stream"):
                client = given
            else:
                arguments = http.client_arguments(
                    self._options, self._proxy, http.httpx.HTTPTransport, direct=step.direct
                )
                client = http.httpx.Client(**arguments)
            self._clients[step.direct] = client
        return client


def _called(function: Callable[[], object]) -> object:
    result = function()
    if hasattr(result, "__await__"):
        if hasattr(result, "close"):
            result.close()
        raise TypeError("a function that is awaited was given; use the credential of workload_identity.aio")
    return result


def fits(transport: Any) -> bool:
    """Tell whether this is an httpx transport or client that blocks."""
    return hasattr(transport, "handle_request") or (
        hasattr(transport, "stream") and hasattr(transport, "__enter__")
    )
