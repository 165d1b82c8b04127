"""Sends hostile cases to a webhook, several at once, while slow clients hang on it and a good one goes on."""

import asyncio
import json
import random
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from testkit.hostile import PATH, Case, Hostility, fault_of
from testkit.tally import Tally

LANES = 12
"""Cases at the same time."""
SLOW = 40
"""Slow clients at the same time."""
HANGS = 20.0
"""Seconds after which an answer is taken never to come."""
_SLOW_PAUSE = 1.0
"""Seconds between two bytes of a slow client."""
_GOOD_PAUSE = 0.05
"""Seconds from a good review's answer to the next one."""
_HEAD = (
    f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
).encode()


@dataclass(slots=True)
class Outcome:
    """What came of a siege.

    Attributes:
        faults: What went wrong, each with the number of its case.
        answers: How many answers came.
        patches: How many of them wired a pod.
        slowest: Seconds of the slowest answer or end of a connection, by kind of case.
        late: Answers and ends that took longer than a second.
        good: Good reviews that were wired meanwhile.
        slowest_good: Seconds of the slowest of these.
    """

    faults: list[str] = field(default_factory=list)
    answers: int = 0
    patches: int = 0
    slowest: dict[str, float] = field(default_factory=dict)
    late: int = 0
    good: int = 0
    slowest_good: float = 0.0

    def __add__(self, other: "Outcome") -> "Outcome":
        slowest = {kind: max(other.slowest.get(kind, 0), took) for kind, took in self.slowest.items()}
        return Outcome(
            self.faults + other.faults,
            self.answers + other.answers,
            self.patches + other.patches,
            other.slowest | slowest,
            self.late + other.late,
            self.good + other.good,
            max(self.slowest_good, other.slowest_good),
        )


async def besiege(
    webhook: str, trust: ssl.SSLContext, hostility: Hostility, cases: range, tally: Tally
) -> Outcome:
    """Send the cases of these numbers, and tell what came of them."""
    siege = _Siege(webhook, trust, hostility, tally)
    numbers = iter(cases)
    async with asyncio.TaskGroup() as beside:
        tasks = [beside.create_task(siege.hang(number)) for number in range(SLOW)]
        tasks.append(beside.create_task(siege.be_good()))
        async with asyncio.TaskGroup() as lanes:
            for _ in range(LANES):
                lanes.create_task(siege.send(numbers))
        for task in tasks:
            task.cancel()
    return siege.outcome


class _Siege:
    def __init__(self, webhook: str, trust: ssl.SSLContext, hostility: Hostility, tally: Tally) -> None:
        where = urlsplit(webhook)
        self._host, self._port = where.hostname or "", where.port or 443
        self._trust = trust
        self._hostility = hostility
        self._tally = tally
        self.outcome = Outcome()

    async def send(self, numbers: Iterator[int]) -> None:
        """Send cases over one connection after the other."""
        connection: _Connection | None = None
        for number in numbers:
            case = self._hostility.case(number)
            started = time.perf_counter()
            kept = False
            try:
                if case.bodies is None or connection is None:
                    if connection:
                        connection.abort()
                    connection = await self._connect(tls=case.tls)
                async with asyncio.timeout(HANGS):
                    kept, started = await self._sent(case, connection)
            except TimeoutError:
                self._fault(number, case, f"neither answer nor end within {HANGS:g} s")
            except (OSError, EOFError, ValueError, LookupError, TypeError) as error:
                self._fault(number, case, f"{type(error).__name__}: {error}")
            took = time.perf_counter() - started
            self.outcome.slowest[case.kind] = max(took, self.outcome.slowest.get(case.kind, 0))
            self.outcome.late += took > 1
            if connection and not kept:
                connection.abort()
                connection = None
            self._tally.one("hostile cases")
        if connection:
            connection.abort()

    async def _sent(self, case: Case, connection: "_Connection") -> tuple[bool, float]:
        """Send a case; return whether the connection can be used again, and when all was sent."""
        if case.bodies is None:
            with suppress(OSError):
                await connection.write(case.pieces)
                connection.finish()
            started = time.perf_counter()
            await connection.end()
            return False, started
        try:
            await connection.write(case.pieces)
        except OSError:
            if len(case.bodies[0]) <= 7 * 1024 * 1024:  # of a longer one it need not read all
                raise
        started = time.perf_counter()
        kept = True
        for body in case.bodies:
            status, answer, kept = await connection.answer()
            self.outcome.answers += 1
            self.outcome.patches += b'"patch"' in answer
            if fault := fault_of(body, status, answer, self._hostility):
                raise ValueError(fault)
        return kept, started

    def _fault(self, number: int, case: Case, fault: str) -> None:
        sent = b"".join(case.pieces)[:300]
        self.outcome.faults.append(
            f"{case.kind}, seed {self._hostility.seed}, case {number}: {fault}; sent {sent!r}"
        )

    async def hang(self, number: int) -> None:
        """Be slow for ever, in one of several ways, and come again when the webhook has had enough."""
        # One that reads no answers is enough: a socket's buffers take thousands of reviews from it.
        way = number % 4 if number else 4
        rng = random.Random(number)  # noqa: S311 - to be repeated
        body = json.dumps(self._hostility.good(rng, f"slow-{number}")).encode()
        announced = _HEAD % len(body)
        while True:
            with suppress(OSError, EOFError):
                connection = await self._connect(tls=way != 0)
                try:
                    await self._dawdle(connection, way, announced, body)
                finally:
                    connection.abort()
            await asyncio.sleep(_SLOW_PAUSE)

    async def _dawdle(self, connection: "_Connection", way: int, announced: bytes, body: bytes) -> None:
        """Begin a handshake, a head, a body or nothing at all and go on byte by byte; or read no answer."""
        if way == 4:
            connection.pause()
            while True:  # until nothing more is taken
                await connection.write([announced + body])
        begun = [b"\x16\x03\x01\x02\x00", announced[:40], announced + body[:-500], b""][way]
        rest = [b"\x01" * 5000, b"x" * 5000, body[-500:-1], b""][way]
        await connection.write([begun])
        for byte in rest:
            await asyncio.sleep(_SLOW_PAUSE)
            await connection.write([bytes([byte])])
        await connection.end()

    async def be_good(self) -> None:
        """Send good reviews, as an API server does, while all this goes on."""
        rng = random.Random(0)  # noqa: S311 - to be repeated
        connection: _Connection | None = None
        try:
            connection = await self._connect(tls=True)
            for number in count():
                body = json.dumps(self._hostility.good(rng, f"good-{number}")).encode()
                started = time.perf_counter()
                async with asyncio.timeout(HANGS):
                    await connection.write([_HEAD % len(body) + body])
                    status, answer, _ = await connection.answer()
                if fault := fault_of(body, status, answer, self._hostility):
                    raise ValueError(fault)
                self.outcome.good += b'"patch"' in answer
                self.outcome.slowest_good = max(self.outcome.slowest_good, time.perf_counter() - started)
                await asyncio.sleep(_GOOD_PAUSE)
        except (OSError, EOFError, ValueError, LookupError, TimeoutError) as error:
            self.outcome.faults.append(f"good review {self.outcome.good}: {type(error).__name__}: {error}")
        finally:
            if connection:
                connection.abort()

    async def _connect(self, *, tls: bool) -> "_Connection":
        async with asyncio.timeout(HANGS):
            streams = await asyncio.open_connection(
                self._host, self._port, ssl=self._trust if tls else None, limit=32 * 1024 * 1024
            )
        return _Connection(*streams)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def write(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    def finish(self) -> None:
        """Tell that nothing more comes, and go on listening."""
        found: socket.socket = self._writer.get_extra_info("socket")
        found.shutdown(socket.SHUT_WR)

    def pause(self) -> None:
        """Read nothing from now on."""
        cast("asyncio.Transport", self._writer.transport).pause_reading()

    async def end(self) -> None:
        """Read until the other side ends the connection."""
        with suppress(OSError):
            while await self._reader.read(65536):
                pass

    async def answer(self) -> tuple[int, bytes, bool]:
        """Return status and body of an answer, and whether the connection goes on."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        _, _, length = head.partition(b"content-length: ")
        body = await self._reader.readexactly(int(length.partition(b"\r\n")[0]))
        return int(head.split()[1]), body, b"connection: close" not in head

    def abort(self) -> None:
        self._writer.close()  # else it complains that nobody did
        self._writer.transport.abort()


def resident(pid: int, what: str = "VmRSS") -> int:
    """Return the resident memory of a process in MiB: now, or the most it ever had (VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) // 1024


def open_files(pid: int) -> int:
    """Return how many files and connections a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
