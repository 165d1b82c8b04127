"""Edge: HTTP/1.1 as an API server speaks it: small requests, on connections that are kept.

A server for everything makes a task, a request, two streams and a response of each request, which is half
of what a review costs. Here a request is whole before anyone is told of it, and an answer is one write. What
HTTP is, llhttp knows (httptools); what it has no bounds for is bounded here, since anyone may reach the port.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus
from operator import attrgetter
from typing import Final, TypeAlias, cast

from httptools import (
    HttpParserError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
    parse_url,
)

READ_TIMEOUT: Final = 10.0
"""Seconds that a request may take to arrive; the API server waits no longer for the answer."""
IDLE_TIMEOUT: Final = 3600.0
"""Seconds that a connection may be silent; longer than any client keeps it, so that none is met by an end."""
_LINGER: Final = 2.0
"""Seconds in which what still comes is dropped after an error: who ends earlier takes the answer away."""
_LOOK_EVERY: Final = 1.0
"""Seconds between looks at all connections: a timer for each request would cost more than parsing it."""
_SHUTDOWN: Final = 5.0
"""Seconds that answers may take which are being made when the server ends."""
MOST_HELD: Final = 32 * 1024 * 1024
"""Bytes of all large bodies that are arriving: who sends many of them slowly must not have our memory."""
_SMALL: Final = 32 * 1024
"""Bytes of a body that do not count there: a review of a pod as people write it is always taken."""
MOST_CONNECTIONS: Final = 400
"""From which on those that wait for no answer are ended, the longest silent first: each takes memory and a
file. API servers have more only where that many wait."""
_READ_AT_ONCE: Final = 32 * 1024
"""Bytes."""
_LARGEST_HEAD: Final = 32 * 1024
"""Bytes of request line and fields that may follow those which came first; there are a few hundred."""
_MOST_WAITING: Final = 2
"""Requests sent ahead of answers from which on a connection is not read."""


@dataclass(frozen=True, slots=True)
class Request:
    """What came.

    Attributes:
        method: As sent.
        path: Of the URL, as sent; without query.
        content_type: As sent; "" when absent.
        body: All of it.
        peer: Address of the client; "" when not known.
    """

    method: str
    path: str
    content_type: str
    body: bytes
    peer: str


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back: JSON, always."""

    status: int
    body: bytes


Answer: TypeAlias = Callable[[Request], Awaitable[Response]]
Refuse: TypeAlias = Callable[[int, str], Response]


@dataclass(slots=True)
class _Server:
    """What all connections share."""

    answer: Answer
    refuse: Refuse
    largest_body: int
    connections: set["_Connection"]
    leaving: Callable[[], bool]
    farewell: Response
    empty: asyncio.Event
    held: int = 0
    date: bytes = b""


@asynccontextmanager
async def serving(
    answer: Answer,
    refuse: Refuse,
    largest_body: int,
    bound: socket.socket,
    tls: ssl.SSLContext,
    farewell: Response,
    leaving: Callable[[], bool] = lambda: False,
) -> AsyncIterator[None]:
    """Serve on the socket until the block ends; answers being made then have a few seconds.

    A kept connection that nothing was sent on for a while may be chosen by its client in the very moment in
    which it is ended here, and the request would be lost. So it is not just ended: it is answered first, and
    whoever has sent something takes that for the answer to it. API servers then call once more, by another
    connection, since it is a 503 with `Retry-After`; those that have sent nothing drop it.

    Args:
        answer: Makes the answer to a request; must not raise.
        refuse: Makes the answer to what is no HTTP, too large or too late, of status and message.
        largest_body: Bytes.
        bound: Has its address, and does not listen yet.
        tls: Read at each handshake, so its certificate may change.
        farewell: What is said, at the end, on connections that wait for no answer.
        leaving: Whether the server ends soon: each answer then asks the client to come back by another
            connection, which may reach another server, so that few are left when it does end.
    """
    server = _Server(answer, refuse, largest_body, set(), leaving, farewell, asyncio.Event())
    server.date = _date()
    # Each connection keeps memory for as much as ever came of it at once, which the system counts as well.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _READ_AT_ONCE)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: _Connection(server), sock=bound, ssl=tls, backlog=128, ssl_handshake_timeout=READ_TIMEOUT
    )
    looking = asyncio.create_task(_look(server))
    try:
        yield
    finally:
        listening.close()
        for connection in tuple(server.connections):
            connection.finish()
        if server.connections:
            server.empty.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(server.empty.wait(), _SHUTDOWN)
        looking.cancel()


async def _look(server: _Server) -> None:
    """Keep the date, and end what takes too long."""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        server.date = _date()
        now = asyncio.get_running_loop().time()
        for connection in tuple(server.connections):
            connection.look(now)


def _make_room(server: _Server) -> None:
    """End a connection that waits for no answer where there are too many: one at its end, else the silent."""
    if len(server.connections) <= MOST_CONNECTIONS:
        return
    waiting = [connection for connection in server.connections if not connection.answers]
    if ending := [connection for connection in waiting if connection.ends]:
        min(ending, key=attrgetter("since")).abort()
    elif waiting:
        min(waiting, key=attrgetter("since")).give_way()


def _date() -> bytes:
    return formatdate(usegmt=True).encode("ascii")


class _Connection(asyncio.Protocol):
    """A client's connection: reads ahead a little, answers one request after the other.

    Attributes:
        since: When it last did what is bounded in time: began to come, to wait or to be read.
        ends: Whether it is at its end, where what still comes is dropped.
    """

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._waiting: deque[tuple[Request | Response, bool]] = deque()
        self._making: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.ends = False
        self._lingers = False
        self._paused = False
        self.since = self._loop.time()
        # The request that is coming in.
        self._coming = False
        self._chunk = self._size = 0
        self._url = self._content_type = b""
        self._head = True
        self._expects = False
        self._body: list[bytes] = []
        self._length = 0
        self._held = 0

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        _make_room(self._server)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""

    def connection_lost(self, _: Exception | None) -> None:
        self._server.connections.discard(self)
        if not self._server.connections:
            self._server.empty.set()
        self._release()
        self._parser = None  # which knows us
        self.ends = True
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self.ends or self._parser is None:
            return
        self._chunk = len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            pass  # is refused already
        except HttpParserError as error:
            if not self.ends:  # else it is what follows the last request
                self._refuse(400, f"wanted HTTP/1.1, found a request that is none: {error}")
        else:
            if self._coming and not self.ends:
                if self._expects and not self._head and not self.answers:
                    self._expects = False
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._size += self._chunk
                if self._head and self._size > _LARGEST_HEAD:
                    self._refuse(431, f"wanted at most {_LARGEST_HEAD} bytes of header fields, found more")
                elif self._size > _LARGEST_HEAD + self._server.largest_body:
                    self._refuse_large()  # endless fields after the body, or chunks of a byte

    def pause_writing(self) -> None:
        self.since = self._loop.time()
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # What the parser tells.

    def on_message_begin(self) -> None:
        self._coming = self._head = True
        self._size = -self._chunk  # earlier requests may be in the same chunk
        self._length = 0
        self.since = self._loop.time()
        self._url = self._content_type = b""
        self._expects = False
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head:
            return
        name = name.lower()
        if name == b"content-type":
            self._content_type = value
        elif name == b"expect":
            # Such as curl, which sends a large body once it is told to, or a second later.
            self._expects = value.lower() == b"100-continue" and self._is_current()

    def _is_current(self) -> bool:
        """Whether the client knows of answers that are none yet."""
        return self._parser is not None and self._parser.get_http_version() == "1.1"

    def on_headers_complete(self) -> None:
        self._head = False

    def on_body(self, body: bytes) -> None:
        self._length += len(body)
        if self._length > self._server.largest_body:
            if not self.ends:
                self._refuse_large()
        elif not self.ends:
            self._body.append(body)
            if self._length > _SMALL:
                self._server.held += self._length - self._held
                self._held = self._length
                if self._server.held > MOST_HELD:
                    self._body.clear()
                    self._refuse(503, "too many large requests at once, try again later")

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser is None or self.ends:
            return
        self._coming = False
        self._release()
        if parser.should_upgrade():  # a body is not looked for then
            self._refuse(400, "wanted plain HTTP/1.1, found a request for another protocol")
            return
        last = not parser.should_keep_alive() or self._server.leaving()
        request = Request(
            method=parser.get_method().decode("ascii"),
            path=_path_of(self._url),
            content_type=self._content_type.decode("latin-1"),
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            peer=self._peer,
        )
        self._put(request, last=last)

    # What we do.

    def look(self, now: float) -> None:
        """End it if it takes too long."""
        waited = now - self.since
        if self._making:
            if self._writable and waited > READ_TIMEOUT:
                self._transport.abort()  # it does not read its answers
            return
        if self.ends and waited > _LINGER:
            self._transport.abort()
        elif self._coming and waited > READ_TIMEOUT:
            self._refuse(408, f"the request did not arrive within {READ_TIMEOUT:g} s")
        elif waited > IDLE_TIMEOUT:
            self._transport.close()

    @property
    def answers(self) -> bool:
        """Whether an answer is made, or being sent."""
        return self._making is not None

    def give_way(self) -> None:
        """End for the sake of others; for one that does not answer."""
        self._refuse(503, f"more than {MOST_CONNECTIONS} connections at once, try again later")

    def abort(self) -> None:
        """End without a word."""
        self._transport.abort()

    def finish(self) -> None:
        """Take no more requests, and end once what is being answered is: at once when nothing is."""
        if self._making is None and not self.ends:
            self._say(self._server.farewell)
        self.ends = True

    def _release(self) -> None:
        self._server.held -= self._held
        self._held = 0

    def _refuse_large(self) -> None:
        self._body.clear()
        self._refuse(413, f"wanted at most {self._server.largest_body} bytes, found more")

    def _refuse(self, status: int, message: str) -> None:
        self._say(self._server.refuse(status, message))

    def _say(self, last: Response) -> None:
        """Answer what may still be coming, and end when the client does, or a little later."""
        self._coming = False
        self._release()
        self._body.clear()
        self._lingers = True
        self._put(last, last=True)

    def _put(self, what: Request | Response, *, last: bool) -> None:
        self.ends = self.ends or last
        self._waiting.append((what, last))
        if self._making is None:
            self._making = self._loop.create_task(self._make())
        elif len(self._waiting) >= _MOST_WAITING and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    async def _make(self) -> None:
        """Answer what waits, in its order."""
        try:
            while self._waiting:
                what, last = self._waiting.popleft()
                answer = await self._server.answer(what) if isinstance(what, Request) else what
                self._send(answer, head_only=isinstance(what, Request) and what.method == "HEAD", last=last)
                if self._writable:
                    await self._writable
        except BaseException:
            self._transport.abort()  # nobody waits for an answer that never comes
            raise
        self._making = None
        self.since = self._loop.time()
        if self.ends and not self._lingers:
            self._transport.close()
        elif self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _send(self, answer: Response, *, head_only: bool, last: bool) -> None:
        if not self._transport.is_closing():
            more = (_AGAIN if answer.status == HTTPStatus.SERVICE_UNAVAILABLE else b"") + (
                _CLOSE if last else b""
            )
            head = _HEAD % (_status(answer.status), len(answer.body), self._server.date, more)
            self._transport.write(head if head_only else head + answer.body)


_HEAD: Final = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nDate: %b\r\n%b\r\n"
_CLOSE: Final = b"Connection: close\r\n"
_AGAIN: Final = b"Retry-After: 1\r\n"
"""API servers call once more then, after so many seconds, as long as the webhook's timeoutSeconds allow."""


@cache
def _status(code: int) -> bytes:
    return f"{code} {HTTPStatus(code).phrase}".encode("ascii")


@lru_cache(16)
def _path_of(url: bytes) -> str:
    """Return a request target's path; all of what is no URL."""
    try:
        return (parse_url(url).path or b"").decode("latin-1")
    except HttpParserInvalidURLError:
        return url.decode("latin-1")
