"""The webhook's port under siege: whatever is sent, it answers or hangs up, stays small, and mistakes nobody."""

import secrets

import pytest

from testkit.crowds import client_of, create_account
from testkit.hostile import Hostility
from testkit.installation import Served, webhook_trust
from testkit.siege import besiege, open_files, resident
from testkit.tally import Tally
from testkit.workloads import Namespace, eventually

ACCOUNTS = 10
LIMIT = 192
"""MiB that the chart gives the operator."""
GROWTH = 16
"""MiB; what an allocator keeps differs by so much between two looks."""


@pytest.mark.soak(3_000, 100_000)
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
    trust, pid, warm_up = webhook_trust(served.plane), served.operator.child.pid, size // 10

    first = await besiege(webhook, trust, hostility, range(warm_up), tally)
    files, before = open_files(pid), resident(pid)
    rest = await besiege(webhook, trust, hostility, range(warm_up, size), tally)
    after, most = resident(pid), resident(pid, "VmHWM")

    slowest = {kind: f"{took * 1000:.0f} ms" for kind, took in sorted(rest.slowest.items())}
    tally.tell(
        f"seed {seed}: {size:,} hostile cases, {first.answers + rest.answers:,} answers, "
        f"{first.patches + rest.patches:,} wired, no wrong identity; {first.late + rest.late} after more than a "
        f"second; slowest {slowest}; {first.good + rest.good:,} good ones beside slow clients, the slowest in "
        f"{max(first.slowest_good, rest.slowest_good) * 1000:.0f} ms; {before} MiB before, {after} after, "
        f"{most} at most"
    )
    assert first.faults + rest.faults == []
    assert rest.good > 0
    assert after < before + GROWTH
    assert most < LIMIT
    assert open_files(pid) < files + 100
    log = served.operator.child.log.read_text(encoding="utf-8")
    assert "a review failed" not in log
    assert "Traceback" not in log
