"""Edge: performs steps, blocking."""

from __future__ import annotations

import sys
import time

from workload_identity.edge import between, perform_at_once, question
from workload_identity.steps import Ask, Block, Call, Lend, Response, Run, Send, Share, Unreachable, Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    import httpx

    from workload_identity.clock import Clock, Instant
    from workload_identity.exchange import Address, Answer
    from workload_identity.options import Options
    from workload_identity.steps import Step
    from workload_identity.token_proxy import TokenProxy


_PIECE = 1 << 16
"""Bytes read at once."""


class Performer:
    """Performs the steps of one flow; a context manager, as it may have a connection open."""

    def __init__(self, options: Options, clock: Clock, proxy: TokenProxy | None) -> None:
        self._options = options
        self._proxy = proxy
        self._clock = clock
        # Opened when they are needed, by whether they are for this machine alone, what is trusted there, and
        # the proxy that is in between.
        self._clients: dict[tuple[bool, str, str], httpx.Client] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._options.transport is None:  # the caller's own stays open
            for client in self._clients.values():
                client.close()

    def __call__(self, step: Step) -> object:  # noqa: PLR0911 - one for each kind
        """Perform a step."""
        match step:
            case Send():
                return self._send(step)
            case Wait(shortest, longest):
                time.sleep(between(shortest, longest))
                return None
            case Ask() | Call():
                return _called(step.function if isinstance(step, Call) else question(step))
            case Share() | Run():
                return _seldom(step)
            case Block(function):
                return function()
            case Lend(borrower):
                return borrower(self)
        return perform_at_once(step, self._clock)

    def _send(self, step: Send) -> Response:
        from workload_identity import sending  # noqa: PLC0415 - what a request needs

        started = self._clock.now()
        left = step.deadline - started.monotonic
        if left <= 0:
            raise sending.too_late(self._options)
        plain = sending.plain(step, self._options, self._proxy)
        if plain is None:
            return self._by_httpx(step, started, left)
        answer = self._over_a_connection(step, *plain)
        return Response(answer.status, answer.reason, answer.headers, answer.body, started)

    def _over_a_connection(self, step: Send, address: Address, content: bytes) -> Answer:
        import socket  # noqa: PLC0415 - what a request needs

        from workload_identity import exchange, sending  # noqa: PLC0415

        before = sys.exception()
        connected = False
        connection = None
        try:
            tls = None
            if address.secure:
                from workload_identity.trust import context_for  # noqa: PLC0415 - not for this machine's own

                tls = self._trusted(step, context_for)
            places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            end = self._clock.monotonic() + sending.connecting(step, self._options, self._left(step))
            connection = self._connected(places, end)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                connection.settimeout(sending.share(end - self._clock.monotonic(), 1))
                connection = tls.wrap_socket(
                    connection, server_hostname=sending.server_name(address, self._proxy)
                )
            connected = True
            connection.settimeout(sending.silence(self._options, self._left(step)))
            connection.sendall(content)
            reading = exchange.answer(step.method, sending.LARGEST_ANSWER)
            next(reading)
            while True:
                connection.settimeout(sending.silence(self._options, self._left(step)))
                piece = connection.recv(_PIECE)
                try:
                    reading.send(piece)
                except StopIteration as done:
                    answer: Answer = done.value
                    return answer
        except Unreachable:
            raise
        except Exception as failure:
            if self._clock.monotonic() >= step.deadline:
                raise sending.too_late(self._options) from failure
            raise sending.failed(failure, step, self._options, before, connected=connected) from failure
        finally:
            if connection is not None:
                connection.close()

    def _connected(self, places: Sequence[Any], end: float) -> socket.socket:
        """Connect to the first of a host's addresses that answers; each gets its share of the time."""
        import socket  # noqa: PLC0415 - what a request needs

        from workload_identity import sending  # noqa: PLC0415

        for among, (family, kind, protocol, _, place) in zip(range(len(places), 0, -1), places, strict=True):
            connection = None
            try:
                # A resolver may name addresses of a family that this machine has not.
                connection = socket.socket(family, kind, protocol)
                connection.settimeout(sending.share(end - self._clock.monotonic(), among))
                connection.connect(place)
            except BaseException as failure:
                if connection is not None:
                    connection.close()
                if among == 1 or not isinstance(failure, OSError):
                    raise
            else:
                return connection
        raise OSError("its name has no address")

    def _left(self, step: Send) -> float:
        left = step.deadline - self._clock.monotonic()
        if left <= 0:
            from workload_identity import sending  # noqa: PLC0415 - what a request needs

            raise sending.too_late(self._options)
        return left

    def _trusted(
        self, step: Send, context_for: Callable[[Send, Options, TokenProxy | None], ssl.SSLContext]
    ) -> ssl.SSLContext:
        try:
            return context_for(step, self._options, self._proxy)
        except (OSError, ValueError) as failure:
            raise Unreachable("fault", f"{failure} ({type(failure).__name__})") from failure

    def _by_httpx(self, step: Send, started: Instant, left: float) -> Response:
        from workload_identity import http, sending  # noqa: PLC0415 - imports httpx

        body = bytearray()
        before = sys.exception()
        try:
            request = http.request(step, self._options, self._proxy, left)
            if self._options.transport is None:
                request["extensions"]["trace"] = http.bounding(lambda: self._left(step))
            with self._connect(step).stream(**request) as answer:
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > sending.LARGEST_ANSWER:
                        raise sending.too_long()
                    self._left(step)
                return http.response_of(
                    answer.status_code, answer.reason_phrase, answer.headers, body, started
                )
        except Unreachable:
            raise
        except Exception as failure:
            if self._clock.monotonic() >= step.deadline:
                raise sending.too_late(self._options) from failure
            raise http.unreachable(failure, self._options, before) from failure

    def _connect(self, step: Send) -> httpx.Client:
        from workload_identity import http, sending  # noqa: PLC0415 - imports httpx

        outwards = sending.proxy_of_environment(step, self._options, self._proxy)
        kind = step.direct, step.thumbprint, outwards
        client = self._clients.get(kind)
        if client is None:
            given: Any = self._options.transport
            if hasattr(given, "stream"):
                client = given
            else:
                kinds = http.httpx.Client, http.httpx.HTTPTransport
                client = http.client(*kinds, step, self._options, self._proxy, outwards)
            self._clients[kind] = client
        return client


def _seldom(step: Share | Run) -> object:
    """Perform a step of chains or of tools: their modules are loaded for those alone."""
    if isinstance(step, Run):
        from workload_identity.edge_processes import run  # noqa: PLC0415 - see above

        return run(step)
    from workload_identity.blocking import obtain  # noqa: PLC0415 - see above

    return obtain(step.order)


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
