"""Puts load on an HTTPS server: connections that are kept, on each the next request when one is answered.

A program of its own, so that it shares no interpreter with anything else: `python -m testkit.bench.load`, an
`Order` as JSON on stdin, a `Yield` as JSON on stdout. One thread, sockets that do not block and epoll: the
least that Python can do for a request, and how much that was is part of the answer.
"""

import gc
import json
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

from testkit.bench.measuring import cpu_seconds
from testkit.processes import output_of

WARM_UP = 0.1
"""Share of the time before which answers do not count: handshakes, and whatever does a first time."""
CHUNK = 65536
SILENCE = 30
"""Seconds without any answer after which the server is given up."""


class WrongAnswer(RuntimeError):  # noqa: N818 - it reads as what happened
    """A server did not do what it was measured at."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        port: On 127.0.0.1.
        ca: Who vouches for the server, in PEM.
        path: Where is posted.
        bodies: What is posted, JSON; in turns.
        expected: Part of every right answer.
        connections: How many.
        seconds: How long; 0: until each body was posted once.
        certificate: Files of a client certificate and its key.
        watched: Processes whose CPU is told.
    """

    port: int
    ca: str
    path: str
    bodies: Sequence[str]
    expected: str
    connections: int = 1
    seconds: float = 0.0
    certificate: Sequence[str] = ()
    watched: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Yield:
    """What came of it, warming up left out.

    Attributes:
        latencies: Milliseconds from the first byte sent to the last one received, as the answers came.
        cpu: Seconds that each watched process used.
        own: Seconds that the client itself used.
    """

    latencies: Sequence[float]
    cpu: Mapping[str, float]
    own: float


def load(order: Order) -> Yield:
    """Run the program.

    Raises:
        ProcessFailed: An answer was wrong or a connection ended; the message shows the client's stderr.
    """
    told = output_of([sys.executable, "-m", "testkit.bench.load"], given=json.dumps(asdict(order)))
    return Yield(**json.loads(told))


class _Connection:
    """A connection with at most one request in the air."""

    def __init__(self, order: Order, trust: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", order.port), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = trust.wrap_socket(plain, server_hostname="127.0.0.1")
        self.socket.setblocking(False)
        self._received = bytearray()
        self._sent = 0.0

    def send(self, request: bytes) -> None:
        """Begin a request."""
        self._received.clear()
        self._sent = time.perf_counter()
        left = memoryview(request)
        while left:
            # A request is smaller than a socket's buffer, so waiting here is rare.
            try:
                left = left[self.socket.send(left) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                time.sleep(0)

    def answered(self) -> float | None:
        """Read what is there; return the milliseconds since the request once the answer is complete."""
        try:
            while data := self.socket.recv(CHUNK):
                self._received += data
        except ssl.SSLWantReadError:
            return (time.perf_counter() - self._sent) * 1000 if self._complete() else None
        raise WrongAnswer(f"the server closed the connection after {bytes(self._received[:300])!r}")

    def _complete(self) -> bool:
        head, ended, body = self._received.partition(b"\r\n\r\n")
        if not ended:
            return False
        lowered = head.lower()
        _, announced, length = lowered.partition(b"content-length:")
        if announced:
            return len(body) >= int(length.partition(b"\r\n")[0])
        return body.endswith(b"0\r\n\r\n")  # chunked

    def check(self, expected: bytes) -> None:
        """Raise WrongAnswer unless the answer was a right one."""
        answer = bytes(self._received)
        if not answer.startswith(b"HTTP/1.1 2") or expected not in answer:
            raise WrongAnswer(f"wanted 2xx with {expected!r}, found {answer[:1000]!r}")


def _work(order: Order) -> Yield:
    requests = [_request(order, body) for body in order.bodies]
    expected = order.expected.encode()
    latencies: list[float] = []
    trust = ssl.create_default_context(cadata=order.ca)
    if order.certificate:
        trust.load_cert_chain(*order.certificate)
    posted = answered = 0
    with ExitStack() as stack, selectors.DefaultSelector() as ready:
        idle = [_Connection(order, trust) for _ in range(order.connections)]
        for connection in idle:
            stack.enter_context(connection.socket)
            ready.register(connection.socket, selectors.EVENT_READ, connection)
        gc.disable()
        begin = time.perf_counter()
        counting, end = begin + WARM_UP * order.seconds, begin + order.seconds
        counted = False
        cpu, own = _used(order), time.process_time()
        while True:
            now = time.perf_counter()
            if not counted and now >= counting:
                counted, latencies = True, []
                cpu, own = _used(order), time.process_time()
            more = now < end if order.seconds else posted < len(requests)
            if not more and answered == posted:
                break
            while more and idle and (order.seconds or posted < len(requests)):
                idle.pop().send(requests[posted % len(requests)])
                posted += 1
            if not (events := ready.select(SILENCE)):
                raise WrongAnswer(f"no answer within {SILENCE} s")
            for key, _ in events:
                connection = key.data
                if (took := connection.answered()) is not None:
                    connection.check(expected)
                    latencies.append(took)
                    answered += 1
                    idle.append(connection)
        used = _used(order)
        own = time.process_time() - own
    return Yield(latencies, {name: used[name] - cpu[name] for name in used}, own)


def _request(order: Order, body: str) -> bytes:
    content = body.encode()
    head = (
        f"POST {order.path} HTTP/1.1\r\nHost: 127.0.0.1:{order.port}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _used(order: Order) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in order.watched.items()}


if __name__ == "__main__":
    json.dump(asdict(_work(Order(**json.load(sys.stdin)))), sys.stdout)
