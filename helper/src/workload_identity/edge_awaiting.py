"""Edge: performs steps, awaiting, on asyncio."""

from __future__ import annotations

import asyncio
import inspect
import socket
import sys
from _thread import allocate_lock

from workload_identity.edge import between, perform_at_once, question
from workload_identity.steps import Ask, Block, Call, Lend, Response, Run, Send, Share, Unreachable, Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any, Self

    import httpx

    from workload_identity.clock import Clock, Instant
    from workload_identity.exchange import Address, Answer
    from workload_identity.options import Options
    from workload_identity.steps import Perform, Step
    from workload_identity.token_proxy import TokenProxy


_PIECE = 1 << 16
"""Bytes read at once."""


class Performer:
    """Performs the steps of one flow; an asynchronous context manager, as it may have a connection open."""

    def __init__(self, options: Options, clock: Clock, proxy: TokenProxy | None) -> None:
        self._options = options
        self._proxy = proxy
        self._clock = clock
        # Opened when they are needed, by whether they are for this machine alone, what is trusted there, and
        # the proxy that is in between.
        self._clients: dict[tuple[bool, str, str], httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._options.transport is None:  # the caller's own stays open
            for client in self._clients.values():
                await client.aclose()

    async def __call__(self, step: Step) -> object:  # noqa: PLR0911 - one for each kind
        """Perform a step."""
        match step:
            case Send():
                return await self._send(step)
            case Wait(shortest, longest):
                await asyncio.sleep(between(shortest, longest))
                return None
            case Ask() | Call():
                return await _called(step.function if isinstance(step, Call) else question(step))
            case Share() | Run():
                return await _seldom(step)
            case Block(function):
                return await asyncio.to_thread(function)
            case Lend(borrower):
                return await self._lend(borrower)
        return perform_at_once(step, self._clock)

    async def _lend(self, borrower: Callable[[Perform], object]) -> object:
        loan = _Loan(self, asyncio.get_running_loop())
        try:
            return await asyncio.to_thread(borrower, loan)
        finally:
            loan.end()

    async def _send(self, step: Send) -> Response:
        from workload_identity import sending  # noqa: PLC0415 - what a request needs

        started = self._clock.now()
        left = step.deadline - started.monotonic
        if left <= 0:
            raise sending.too_late(self._options)
        plain = sending.plain(step, self._options, self._proxy)
        try:
            async with asyncio.timeout(left):
                if plain is None:
                    return await self._by_httpx(step, started, left)
                answer = await self._over_a_connection(step, *plain, left)
                return Response(answer.status, answer.reason, answer.headers, answer.body, started)
        except TimeoutError as failure:
            raise sending.too_late(self._options) from failure

    async def _over_a_connection(self, step: Send, address: Address, content: bytes, left: float) -> Answer:
        from workload_identity import exchange, sending  # noqa: PLC0415 - what a request needs

        before = sys.exception()
        connected = False
        writer = None
        try:
            tls, name = None, None
            if address.secure:
                from workload_identity.trust import context_for  # noqa: PLC0415 - not for this machine's own

                tls = self._trusted(step, context_for)
                name = sending.server_name(address, self._proxy)
            seconds = sending.connecting(step, self._options, left)
            async with asyncio.timeout(seconds):
                connection = await _connected(address, asyncio.get_running_loop().time() + seconds)
                reader, writer = await asyncio.open_connection(sock=connection, ssl=tls, server_hostname=name)
            connected = True
            writer.write(content)
            reading = exchange.answer(step.method, sending.LARGEST_ANSWER)
            next(reading)
            while True:
                async with asyncio.timeout(sending.silence(self._options, left)):
                    piece = await reader.read(_PIECE)
                try:
                    reading.send(piece)
                except StopIteration as done:
                    answer: Answer = done.value
                    return answer
        except Unreachable:
            raise
        except Exception as failure:
            raise sending.failed(failure, step, self._options, before, connected=connected) from failure
        finally:
            if writer is not None:
                writer.transport.abort()

    def _trusted(
        self, step: Send, context_for: Callable[[Send, Options, TokenProxy | None], ssl.SSLContext]
    ) -> ssl.SSLContext:
        try:
            return context_for(step, self._options, self._proxy)
        except (OSError, ValueError) as failure:
            raise Unreachable("fault", f"{failure} ({type(failure).__name__})") from failure

    async def _by_httpx(self, step: Send, started: Instant, left: float) -> Response:
        from workload_identity import http, sending  # noqa: PLC0415 - imports httpx

        body = bytearray()
        before = sys.exception()
        try:
            async with self._connect(step).stream(
                **http.request(step, self._options, self._proxy, left)
            ) as answer:
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > sending.LARGEST_ANSWER:
                        raise sending.too_long()
                return http.response_of(
                    answer.status_code, answer.reason_phrase, answer.headers, body, started
                )
        except Unreachable:
            raise
        except Exception as failure:
            raise http.unreachable(failure, self._options, before) from failure

    def _connect(self, step: Send) -> httpx.AsyncClient:
        from workload_identity import http, sending  # noqa: PLC0415 - imports httpx

        outwards = sending.proxy_of_environment(step, self._options, self._proxy)
        kind = step.direct, step.thumbprint, outwards
        client = self._clients.get(kind)
        if client is None:
            given: Any = self._options.transport
            if hasattr(given, "stream"):
                client = given
            else:
                kinds = http.httpx.AsyncClient, http.httpx.AsyncHTTPTransport
                client = http.client(*kinds, step, self._options, self._proxy, outwards)
            self._clients[kind] = client
        return client


async def _connected(address: Address, end: float) -> socket.socket:
    """Connect to the first of a host's addresses that answers; each gets its share of the time.

    `open_connection` has none for them: one that is silent would keep from the others. Nor would every event
    loop take what makes it ask several at once.
    """
    from workload_identity import sending  # noqa: PLC0415 - what a request needs

    loop = asyncio.get_running_loop()
    asked = address.host, address.port
    try:
        places = socket.getaddrinfo(*asked, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # a name: somebody has to be asked
        places = await loop.getaddrinfo(*asked, type=socket.SOCK_STREAM)
    for among, (family, kind, protocol, _, place) in zip(range(len(places), 0, -1), places, strict=True):
        connection = None
        try:
            # A resolver may name addresses of a family that this machine has not.
            connection = socket.socket(family, kind, protocol)
            connection.setblocking(False)
            async with asyncio.timeout(sending.share(end - loop.time(), among)):
                await loop.sock_connect(connection, place)
        except BaseException as failure:
            if connection is not None:
                connection.close()
            if among == 1 or not isinstance(failure, OSError):
                raise
        else:
            return connection
    raise OSError("its name has no address")


async def _seldom(step: Share | Run) -> object:
    """Perform a step of chains or of tools: their modules are loaded for those alone."""
    if isinstance(step, Run):
        from workload_identity.edge_processes import run_awaiting  # noqa: PLC0415 - see above

        return await run_awaiting(step)
    from workload_identity.awaiting import obtain  # noqa: PLC0415 - see above

    return await obtain(step.order, set())  # nothing to renew


async def _called(function: Callable[[], object]) -> object:
    result = function()
    return await result if inspect.isawaitable(result) else result


class _Loan:
    """Lets a thread have steps performed in the event loop, until it is ended."""

    def __init__(self, perform: Performer, loop: asyncio.AbstractEventLoop) -> None:
        self._perform = perform
        self._loop = loop
        self._lock = allocate_lock()
        self._running: Future[object] | None = None
        self._ended = False

    def __call__(self, step: Step) -> object:
        with self._lock:
            if self._ended:
                raise Unreachable("fault", "the call was cancelled")
            performing = self._perform(step)
            running = self._running = asyncio.run_coroutine_threadsafe(performing, self._loop)
        return running.result()

    def end(self) -> None:
        """Cancel the step that is being performed, and perform none any more."""
        with self._lock:
            self._ended = True
            if self._running is not None:
                self._running.cancel()


def fits(transport: Any) -> bool:
    """Tell whether this is an httpx transport or client that awaits."""
    return hasattr(transport, "handle_async_request") or (
        hasattr(transport, "stream") and hasattr(transport, "__aenter__")
    )
