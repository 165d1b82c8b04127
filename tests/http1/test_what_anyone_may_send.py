"""HTTP on the webhook's port: real TLS, and bytes as no well-behaved client would send them."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trustme

from workload_identity_operator import http1
from workload_identity_operator.http1 import Request, Response

LARGEST = 1000
FAREWELL = b"somebody else is there for you"
POST = b"POST /r?timeout=5s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class Service:
    """A server whose answers repeat what was asked, and a client of it.

    Attributes:
        asked: The bodies that came, in order.
        begun: Set once anything was asked.
        gate: Answers are made once it is set.
    """

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self.port = port
        self.asked: list[bytes] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._trust = trust

    async def answer(self, request: Request) -> Response:
        """Say what came."""
        self.asked.append(request.body)
        self.begun.set()
        await self.gate.wait()
        told = f"{request.method} {request.path} {request.content_type} {request.body.decode()}"
        return Response(200, told.encode())

    def refuse(self, status: int, message: str) -> Response:
        """Say why not."""
        return Response(status, message.encode())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self._trust)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    """Run one."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    found = Service(bound.getsockname()[1], trust)
    async with http1.serving(found.answer, found.refuse, LARGEST, bound, tls, Response(503, FAREWELL)):
        yield found


async def next_answer(reader: asyncio.StreamReader, *, body: bool = True) -> tuple[int, str, bytes]:
    """Return status, the head and the body of the next answer."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    length = int(re.findall(r"Content-Length: (\d+)", head)[0])
    return int(head.split()[1]), head, await reader.readexactly(length) if body else b""


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends the connection, and sends nothing before."""
    return await asyncio.wait_for(reader.read(), 10) == b""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at connections often, so that nothing here takes seconds."""
    monkeypatch.setattr(http1, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(http1, "_LINGER", 0.3)


WHOLE = POST + b"Content-Length: 2\r\n\r\n{}"
SAID = b"POST /r application/json {}"


@pytest.mark.parametrize(
    "sent",
    [
        WHOLE,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\nContent-Type: text/x\r\n\r\n",
        b"\r\n" + WHOLE,
        WHOLE.replace(b"POST /r", b"POST https://elsewhere.example/r"),
        WHOLE.replace(b"Content-Type", b"content-TYPE"),
    ],
    ids=["plain", "chunks and trailer", "blank line ahead", "absolute URL", "any case"],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_request_is_whole_before_it_is_told(sent: bytes, size: int) -> None:
    """However it is written, and in whatever pieces it comes; the connection is kept."""
    async with service() as found, found.connection() as (reader, writer):
        for _ in range(2):
            for start in range(0, len(sent), size):
                writer.write(sent[start : start + size])
                await writer.drain()
            status, head, body = await next_answer(reader)

            assert (status, body) == (200, SAID)
            assert "Connection" not in head
            assert re.search(r"\r\nDate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", head)


EXPECTING = WHOLE.replace(b"Content-Length", b"Expect: 100-Continue\r\nContent-Length")


async def test_who_asks_first_is_told_to_go_on() -> None:
    """Once for each request, and not where the body comes without waiting, nor by an old version."""
    async with service() as found, found.connection() as (reader, writer):
        for _ in range(2):
            writer.write(EXPECTING[:-2])
            assert (
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
            )
            writer.write(EXPECTING[-2:-1])
            await asyncio.sleep(0.05)
            writer.write(EXPECTING[-1:])
            assert (await next_answer(reader))[2] == SAID
        writer.write(EXPECTING + WHOLE)
        assert [(await next_answer(reader))[2] for _ in range(2)] == [SAID, SAID]
        old = EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0")
        writer.write(old[:-2])
        await asyncio.sleep(0.05)
        writer.write(old[-2:])
        assert (await next_answer(reader))[2] == SAID


async def test_answers_come_in_order_however_far_ahead_is_sent() -> None:
    """And requests wait their turn: no more than a few are read ahead of the answers."""
    many = 2000
    bodies = [b"%04d" % number for number in range(many)]
    async with service() as found, found.connection() as (reader, writer):
        found.gate.clear()
        for body in bodies:
            writer.write(POST + b"Content-Length: 4\r\n\r\n" + body)
        await asyncio.sleep(0.2)
        assert found.asked == bodies[:1]
        found.gate.set()
        answers = [(await next_answer(reader))[2][-4:] for _ in bodies]

    assert answers == found.asked == bodies


async def test_client_that_reads_nothing_is_made_to_wait() -> None:
    """Answers wait for the client, requests for the answers, and its own sending for us; then all go on."""
    batch = 100
    requests = (POST + b"Content-Length: 900\r\n\r\n" + b"x" * 900) * batch
    sent = 0
    async with service() as found, found.connection() as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        with suppress(TimeoutError):
            while sent < 200_000:
                writer.write(requests)
                sent += batch
                await asyncio.wait_for(writer.drain(), 1)
        assert len(found.asked) < sent
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(sent):
            assert (await next_answer(reader))[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}" + WHOLE,
    ],
    ids=["asked for", "old version", "more after the last"],
)
async def test_last_request_of_a_connection_is_answered(sent: bytes) -> None:
    """Then it ends; what follows is not looked at."""
    async with service() as found, found.connection() as (reader, writer):
        writer.write(sent)
        status, head, body = await next_answer(reader)

        assert (status, body) == (200, SAID)
        assert "Connection: close" in head
        assert await ended(reader)
        assert len(found.asked) == 1


async def test_answer_to_head_has_no_body() -> None:
    """The next answer would be taken for it."""
    async with service() as found, found.connection() as (reader, writer):
        writer.write(b"HEAD /r HTTP/1.1\r\nHost: x\r\n\r\n" + WHOLE)
        await next_answer(reader, body=False)

        assert (await next_answer(reader))[2] == SAID


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 what is this\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (
            POST
            + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}PRI * HTTP/2.0\r\n\r\n",
            400,
        ),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"X: " + b"y" * 400_000, 431),
        (POST[:-2] + b" " * 400_000, 431),
        (b"POST /" + b"y" * 400_000, 431),
        (POST + b"Content-Length: 1001\r\n\r\n" + b" " * 1001, 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1001, 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 400_000, 413),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_ends(sent: bytes, status: int) -> None:
    """The answer arrives although more was sent than is read."""
    async with service() as found, found.connection() as (reader, writer):
        writer.write(sent)
        await writer.drain()
        refused, head, message = await next_answer(reader)

        assert refused == status
        assert b"wanted" in message
        assert "Connection: close" in head
        writer.write(b"x" * 100_000)  # who has not read the answer yet goes on sending
        assert await ended(reader)
        assert found.asked == []


@pytest.mark.parametrize("begun", [POST, POST + b"Content-Length: 2\r\n\r\n{", b"POST"])
async def test_request_that_does_not_end_is_given_up(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """In head or body."""
    monkeypatch.setattr(http1, "READ_TIMEOUT", 0.2)
    async with service() as found, found.connection() as (reader, writer):
        writer.write(WHOLE)
        assert (await next_answer(reader))[0] == 200
        writer.write(begun)
        status, _, message = await next_answer(reader)

        assert (status, message) == (408, b"the request did not arrive within 0.2 s")
        assert await ended(reader)


async def test_silent_connection_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first request and after one."""
    monkeypatch.setattr(http1, "IDLE_TIMEOUT", 0.2)
    async with service() as found:
        async with found.connection() as (reader, _):
            assert await ended(reader)
        async with found.connection() as (reader, writer):
            writer.write(WHOLE)
            assert (await next_answer(reader))[0] == 200
            assert await ended(reader)


async def test_longest_silent_give_way_to_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for an answer, and the youngest, stay; a request begun long ago is no reason to."""
    monkeypatch.setattr(http1, "MOST_CONNECTIONS", 3)
    async with service() as found, AsyncExitStack() as clients:

        async def connected(sent: bytes) -> asyncio.StreamReader:
            reader, writer = await clients.enter_async_context(found.connection())
            writer.write(sent)
            return reader

        found.gate.clear()
        waits = await connected(WHOLE)
        await found.begun.wait()
        oldest = [await connected(begun) for begun in (b"", WHOLE[:-1])]
        youngest = []

        for reader in oldest:
            youngest.append(await connected(b""))
            status, head, message = await next_answer(reader)
            assert (status, message) == (503, b"more than 3 connections at once, try again later")
            assert "Retry-After" in head
            assert await ended(reader)
        found.gate.set()
        assert (await next_answer(waits))[2] == SAID
        assert not any(reader.at_eof() for reader in youngest)


async def test_answers_being_made_are_sent_when_the_server_ends() -> None:
    """Who waits for none is told to come again, since a request may be on its way in that moment."""
    async with AsyncExitStack() as clients:
        async with service() as found:
            idle, _ = await clients.enter_async_context(found.connection())
            half, writer = await clients.enter_async_context(found.connection())
            writer.write(WHOLE[:-2])
            whole, writer = await clients.enter_async_context(found.connection())
            found.gate.clear()
            writer.write(WHOLE)
            await found.begun.wait()
            asyncio.get_running_loop().call_later(0.2, found.gate.set)
        for reader in (idle, half):
            status, head, message = await next_answer(reader)
            assert (status, message) == (503, FAREWELL)
            assert "Retry-After: 1\r\nConnection: close\r\n" in head
            assert await ended(reader)
        assert (await next_answer(whole))[2] == SAID
        assert await ended(whole)
        with pytest.raises(OSError, match="Connect call failed"):
            await clients.enter_async_context(found.connection())
