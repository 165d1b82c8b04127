"""The webhook's port under siege: it answers or hangs up, stays small, and mistakes nobody for another."""

import asyncio
import secrets
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit

import pytest

from testkit.crowds import client_of, create_account
from testkit.hostile import Hostility
from testkit.installation import Served, webhook_trust
from testkit.siege import Outcome, besiege, open_files, resident
from testkit.tally import Tally
from testkit.workloads import Namespace, env_of, eventually, pod
from workload_identity_operator import contract

ACCOUNTS = 10
LIMIT = 192
"""MiB that the chart gives the operator."""
GROWTH = 8
"""MiB; what is held just now differs by as much between two looks."""
HOARDERS = 30
"""Clients that each send a body of seven megabytes, but for its last byte."""
MANY = 700
"""Clients that each send a part of a body of half a megabyte."""
ROUNDS = 5
"""Between them memory is looked at, and slow clients come anew."""


@pytest.mark.soak(1_500, 100_000)
async def test_any_request(
    served: Served, inside: Namespace, size: int, tally: Tally, pytestconfig: pytest.Config
) -> None:
    """Random and hostile reviews, rubbish and slow clients: see `testkit.hostile` for who sends what."""
    seed = pytestconfig.getoption("seed")
    if seed is None:
        seed = secrets.randbits(32) if pytestconfig.getoption("full") else 0
    for number in range(ACCOUNTS):
        create_account(inside, number)
    clients = {f"sa-{number}": client_of(number) for number in range(ACCOUNTS)} | {"default": ""}
    eventually(lambda: served.operator.metric("workload_identity_identities") >= ACCOUNTS)
    hostility, webhook = Hostility(seed, inside.name, clients), served.operator.webhook
    trust, pid = webhook_trust(served.plane), served.operator.child.pid

    found, memory, files = Outcome(), [resident(pid)], open_files(pid)
    for at in range(ROUNDS):
        cases = range(size * at // ROUNDS, size * (at + 1) // ROUNDS)
        found += await besiege(webhook, trust, hostility, cases, tally)
        memory.append(resident(pid))
    most = resident(pid, "VmHWM")

    slowest = ", ".join(f"{kind} {1000 * took:.0f} ms" for kind, took in sorted(found.slowest.items()))
    tally.tell(
        f"seed {seed}: {size:,} hostile cases, {found.answers:,} answers, {found.patches:,} wired, "
        f"{len(found.faults)} wrong, {found.late} after more than a second"
    )
    tally.tell(f"the slowest of each kind: {slowest}")
    tally.tell(
        f"beside slow clients {found.good:,} good reviews wired, the slowest in "
        f"{1000 * found.slowest_good:.0f} ms; memory before and after each fifth {memory} MiB, {most} at most"
    )
    assert found.faults == []
    assert found.good > 0
    assert memory[-1] < max(memory[:-2]) + GROWTH
    assert most < LIMIT
    assert open_files(pid) < files + 100
    log = served.operator.child.log.read_text(encoding="utf-8").splitlines()
    assert [line for line in log if "Traceback" in line][:3] == []


async def test_large_bodies_that_never_end(served: Served, inside: Namespace) -> None:
    """However many large bodies are begun, memory stays bounded, and a small review is answered."""
    create_account(inside, 0)
    where, trust = urlsplit(served.operator.webhook), webhook_trust(served.plane)
    pid = served.operator.child.pid
    before, size = resident(pid), contract.MAX_REVIEW_BYTES
    head = f"POST {where.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    begun = f"{head}Content-Length: {size}\r\n\r\n".encode() + b"x" * (size - 1)

    async with AsyncExitStack() as open_connections:

        async def hoard() -> None:
            _, writer = await asyncio.open_connection(where.hostname, where.port, ssl=trust)
            open_connections.callback(writer.transport.abort)  # and before that
            open_connections.callback(writer.close)
            with suppress(OSError):  # it need not read all of them
                writer.write(begun)
                await writer.drain()

        await asyncio.gather(*(hoard() for _ in range(HOARDERS)))
        held = resident(pid)
        stored = inside.create(pod("web", "sa-0"))
    await asyncio.sleep(0.1)  # in which the event loop closes what is aborted

    assert env_of(stored)["AZURE_CLIENT_ID"] == client_of(0)
    assert held < before + HOARDERS * size // 1024**2 // 2


async def test_many_bodies_that_never_end(served: Served, inside: Namespace) -> None:
    """However many clients begin, those that wait longest give way, and a small review is answered."""
    create_account(inside, 0)
    where, trust = urlsplit(served.operator.webhook), webhook_trust(served.plane)
    size = 250_000
    head = f"POST {where.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    begun = f"{head}Content-Length: {2 * size}\r\n\r\n".encode() + b"x" * size

    async with AsyncExitStack() as open_connections:
        for _ in range(MANY):
            _, writer = await asyncio.open_connection(where.hostname, where.port, ssl=trust)
            open_connections.callback(writer.transport.abort)  # and before that
            open_connections.callback(writer.close)
            writer.write(begun)
        await asyncio.sleep(0.5)
        held = resident(served.operator.child.pid)
        stored = inside.create(pod("web", "sa-0"))
    await asyncio.sleep(0.1)  # in which the event loop closes what is aborted

    assert env_of(stored)["AZURE_CLIENT_ID"] == client_of(0)
    assert held < LIMIT
