"""A stretch of network between a client and servers of this machine: slow, silent or cut, as it is told.

It knows bytes only, so TLS goes through it from end to end. With several servers it stands in for a Service:
a new connection goes to one of those that are ready, and one that stands stays where it is.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from typing import TypeVar

from testkit import loopback

T = TypeVar("T")

_CHUNK = 65536
_LOOK_EVERY = 0.1
"""Seconds between looks at who is ready; a kubelet's are seconds apart, but as many."""


class Relay:
    """One that runs, see `relaying`; its methods may be called from any thread.

    Attributes:
        port: Where clients connect, on 127.0.0.1.
    """

    def __init__(self, port: int, targets: Sequence[int]) -> None:
        self.port = port
        self._targets = tuple(targets)
        self._turns = count()
        self._delay = 0.0
        self._silent = False
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def targets(self) -> tuple[int, ...]:
        """Ports of the servers that new connections go to, in turns; without any they are refused."""
        return self._targets

    def lead_to(self, targets: Sequence[int]) -> None:
        """Have new connections go to these."""
        self._targets = tuple(targets)

    def slow_down(self, seconds: float) -> None:
        """Have each piece take so long on its way, there and back."""
        self._delay = seconds

    def fall_silent(self) -> None:
        """Lose every byte from now on, without a word to either side: as when a cable is pulled.

        What stands stays lost for ever, as behind a firewall that has forgotten it.
        """
        self._silent = True
        for connection in tuple(self._connections):
            connection.lost = True

    def speak(self) -> None:
        """Let new connections through again."""
        self._silent = False

    def cut(self) -> None:
        """End all connections, as when a machine restarts."""
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a new connection."""
        # A task of our own: of the server's an end is an error.
        task = self._loop.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        connection = _Connection(writer, lost=self._silent)
        self._connections.add(connection)
        try:
            if connection.lost:
                while await reader.read(_CHUNK):
                    pass
                return
            targets = self._targets
            if not targets:
                return
            target = targets[next(self._turns) % len(targets)]
            answers, onward = await asyncio.open_connection("127.0.0.1", target)
            connection.onward = onward
            await asyncio.gather(
                self._pump(connection, reader, onward), self._pump(connection, answers, writer)
            )
        except OSError:
            pass  # either side is gone
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _pump(
        self, connection: "_Connection", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK):
            if connection.lost:
                continue
            if self._delay:
                await asyncio.sleep(self._delay)
            writer.write(data)
            await writer.drain()
        if connection.lost:
            await asyncio.Event().wait()  # the other side is never told
        with suppress(OSError):
            writer.write_eof() if writer.can_write_eof() else writer.close()


class _Connection:
    def __init__(self, writer: asyncio.StreamWriter, *, lost: bool) -> None:
        self._writer = writer
        self.onward: asyncio.StreamWriter | None = None
        self.lost = lost

    def abort(self) -> None:
        for writer in (self._writer, self.onward):
            if writer is not None:
                writer.transport.abort()


@contextmanager
def relaying(targets: Sequence[int] = ()) -> Iterator[Relay]:
    """Relay from a port of its own, in a thread of its own, until the context is left."""
    started: Future[tuple[Relay, Callable[[], object]]] = Future()

    async def relay(listener: socket.socket) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        found = Relay(listener.getsockname()[1], targets)
        server = await asyncio.start_server(found.take, sock=listener)
        started.set_result((found, lambda: loop.call_soon_threadsafe(ended.set)))
        await ended.wait()
        server.close()
        found._abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with loopback.listening("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(relay(listener)), name="relay", daemon=True)
        thread.start()
        found, end = started.result(10)
        try:
            yield found
        finally:
            end()
            thread.join()


@contextmanager
def repeatedly(work: Callable[[], None], every: float = _LOOK_EVERY) -> Iterator[None]:
    """Do something again and again, in a thread of its own, until the context is left."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every):
            work()

    thread = threading.Thread(target=go_on, name="again and again", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
