"""Edge: runs a developer's tool, blocking and awaiting.

A tool has a session of its own, so that it is ended together with all that it started: `az` is a script that
starts Python, and what it leaves behind would hold the lock of its token cache.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress

from workload_identity.steps import Ran

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from workload_identity.steps import Run

_END = 5.0
"""Seconds that the end of a killed process is waited for, so that none is left behind."""


def run(step: Run) -> Ran:
    """Run a program, blocking.

    Raises:
        OSError: It cannot be started.
        TimeoutError: It took too long, and was ended.
    """
    process = subprocess.Popen(step.argv, **_arguments(step))  # noqa: S603 - a whole path, checked arguments
    try:
        stdout, stderr = process.communicate(timeout=step.timeout)
    except subprocess.TimeoutExpired as late:
        if process.poll() is None:
            raise TimeoutError from None
        # It is done, but something that it started and left running still holds its output open.
        stdout, stderr = late.output or b"", late.stderr or b""
    finally:
        if process.poll() is None:
            _kill(process.pid)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    return Ran(process.returncode, stdout, stderr)


async def run_awaiting(step: Run) -> Ran:
    """Run a program, awaiting; cancelling ends it as well.

    Raises:
        OSError: It cannot be started.
        TimeoutError: It took too long, and was ended.
    """
    loop = asyncio.get_running_loop()
    starting = loop.create_task(
        loop.subprocess_exec(lambda: _Output(loop), *step.argv, **_arguments(step)),
        name="workload-identity tool",
    )
    try:
        transport, output = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_given_up)
        raise
    except NotImplementedError:
        # An event loop of Windows that knows no processes.
        return await asyncio.to_thread(run, step)
    try:
        await asyncio.wait([output.over], timeout=step.timeout)
        status = transport.get_returncode()
        if status is None:
            raise TimeoutError
        return Ran(status, bytes(output.written[1]), bytes(output.written[2]))
    finally:
        try:
            if transport.get_returncode() is None:
                _kill(transport.get_pid())
                await asyncio.wait([output.ended], timeout=_END)
        finally:
            if not output.ended.done():
                # Cancelled once more, as an event loop does when it ends: it will not tell of the end.
                with suppress(subprocess.TimeoutExpired):
                    transport.get_extra_info("subprocess").wait(_END)
            transport.close()


def _given_up(starting: asyncio.Task[tuple[asyncio.SubprocessTransport, _Output]]) -> None:
    """End a program that nobody waits for any more when it has started."""
    if not starting.cancelled() and starting.exception() is None:
        transport, _ = starting.result()
        _kill(transport.get_pid())
        transport.close()


class _Output(asyncio.SubprocessProtocol):
    """Collects what a program writes.

    Attributes:
        written: What it wrote, by file descriptor.
        ended: Done when the program has ended.
        over: Done when nobody can write any more either.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.written = {1: bytearray(), 2: bytearray()}
        self.ended: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.written[fd] += data

    def process_exited(self) -> None:
        _settle(self.ended)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        _settle(self.over)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _arguments(step: Run) -> dict[str, Any]:
    return {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "cwd": step.folder,
        "env": {**os.environ, **step.environment},
        "start_new_session": True,  # without effect on Windows
    }


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended by itself
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)  # which is TerminateProcess there
