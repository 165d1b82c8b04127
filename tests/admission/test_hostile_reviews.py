"""The webhook's port under siege: it answers or hangs up, stays small, and mistakes nobody for another."""

import secrets

import pytest

from testkit.crowds import client_of, create_account
from testkit.hostile import Hostility
from testkit.installation import Served, webhook_trust
from testkit.siege import Outcome, besiege, open_files, resident
from testkit.tally import Tally
from testkit.workloads import Namespace, eventually

ACCOUNTS = 10
LIMIT = 192
"""MiB that the chart gives the operator."""
GROWTH = 32
"""MiB; what an allocator keeps after large bodies differs by as much between two looks."""


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
