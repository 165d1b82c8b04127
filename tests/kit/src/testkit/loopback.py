"""Web applications on loopback: real TLS, a thread of their own, a port chosen by the kernel.

Tests and demo are blocking or awaiting as they like; a server here never shares their event loop, so it can
neither starve nor be starved by what it is there to try.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

import trustme
from aiohttp import web

_TURNS_TO_CLOSE = 3  # of the event loop, from abort to the closed socket
_GRACE_SECONDS = 0.1  # what unfinished answers get when a server ends: a slow one must not hold up a test


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on host and port (0: the kernel chooses); connections wait until `serving` answers them.

    Raises:
        OSError: That cannot be listened on; the message says why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as failure:
        raise OSError(f"cannot listen on {host}:{port}: {failure}") from failure
    with listener:
        yield listener


def address(listener: socket.socket, scheme: str = "https") -> str:
    """Return the address of a listening socket, without a path: "https://127.0.0.1:41234"."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def server_tls(authority: trustme.CA, host: str) -> ssl.SSLContext:
    """Return a server's TLS context: a certificate of this authority for the host and the loopback names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*dict.fromkeys((host, "localhost", "127.0.0.1", "::1"))).configure_cert(context)
    return context


async def _end(runner: web.AppRunner) -> None:
    """End a server with its connections: a TLS goodbye that nobody answers would outlast the event loop."""
    connections = () if runner.server is None else runner.server.connections
    open_still = [connection.transport for connection in connections if connection.transport is not None]
    await runner.cleanup()
    for transport in open_still:
        transport.abort()
    for _ in range(_TURNS_TO_CLOSE):
        await asyncio.sleep(0)


@contextmanager
def serving(
    application: web.Application, listener: socket.socket, tls: ssl.SSLContext | None
) -> Iterator[None]:
    """Serve the application in a thread of its own until the block ends; over plain HTTP without `tls`."""
    started: Future[Callable[[], object]] = Future()

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        # A client that gives up must not leave its slow answer behind.
        runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=_GRACE_SECONDS
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listener, ssl_context=tls).start()
            started.set_result(partial(loop.call_soon_threadsafe, ended.set))
            await ended.wait()
        finally:
            await _end(runner)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as failure:
            if started.done():
                raise
            started.set_exception(failure)

    thread = threading.Thread(target=run, name=f"serving {address(listener)}", daemon=True)
    thread.start()
    end = started.result()
    try:
        yield
    finally:
        end()
        thread.join()
