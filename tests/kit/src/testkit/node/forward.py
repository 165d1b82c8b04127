"""Takes connections in one network namespace and continues them in another.

Run as a script by `testkit.node`, never imported: `python -I -S forward.py NAMESPACE ADDRESS PORT` listens on
a free port of loopback here, says which, and connects to that address from the other namespace, which is
named by its file below /proc.
"""

import asyncio
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000  # Source: setns(2).
CHUNK = 1 << 16


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry what comes from one side to the other until it ends, and tell that end."""
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    try:
        there, onward = await asyncio.open_connection(address, int(port))
    except OSError:
        writer.close()
        return
    await asyncio.gather(carry(reader, onward), carry(there, writer))
    onward.close()
    writer.close()


async def serve() -> None:
    """Serve until we are ended."""
    server = await asyncio.start_server(forward, sock=listener)
    print(listener.getsockname()[1], flush=True)
    await server.serve_forever()


namespace, address, port = sys.argv[1:]
# A socket stays in the namespace that it was made in.
listener = socket.create_server(("127.0.0.1", 0))
file = os.open(namespace, os.O_RDONLY)
if ctypes.CDLL(None, use_errno=True).setns(file, CLONE_NEWNET):
    sys.exit(f"{namespace}: {os.strerror(ctypes.get_errno())}")
os.close(file)
asyncio.run(serve())
