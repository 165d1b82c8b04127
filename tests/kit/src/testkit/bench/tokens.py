"""What a token costs the program in the pod: whole processes with the helper, beside azure-identity.

Each program runs in a process of its own, in turns with the others, against the Entra stand-in, which answers
50 ms late: about what Entra takes.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from testkit.bench.measuring import Effort, Figures, Part, in_turns
from testkit.entra import EntraStandIn
from testkit.entra.faults import Slow
from testkit.issuer import Issuer
from testkit.processes import ProcessFailed

OURS: Final = "ours"
PEER: Final = "azure-identity"
BARE: Final = "bare Python"
MODULES: Final = {OURS: "workload_identity", PEER: "azure.identity"}
TENANT: Final = "99999999-8888-7777-6666-555555555555"
CLIENT: Final = "11111111-2222-3333-4444-555555555555"
LATENCY: Final = 0.05
"""Seconds that the stand-in waits before it answers."""
SCOPE: Final = "https://vault.azure.net/.default"
THREADS, INSTANCES = 100, 20
ANOTHER_CLIENT: Final = "11111111-2222-3333-4444-%012d"

Tick = Callable[[], None]

# MODULE, SCOPE and so on are replaced. What a program says is the last thing that it does.
SAY_PEAK: Final = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(int(line.split()[1]) / 1024)
"""
IMPORT: Final = "from MODULE import WorkloadIdentityCredential"
FIRST: Final = """
from MODULE import WorkloadIdentityCredential
with WorkloadIdentityCredential() as credential:
    assert credential.get_token("SCOPE").token
"""
FIRST_AWAITED: Final = """
import asyncio
from MODULE.aio import WorkloadIdentityCredential
async def main():
    async with WorkloadIdentityCredential() as credential:
        assert (await credential.get_token("SCOPE")).token
asyncio.run(main())
"""
HELD: Final = """
import timeit
from MODULE import WorkloadIdentityCredential
with WorkloadIdentityCredential() as credential:
    credential.get_token("SCOPE")
    took = timeit.repeat(lambda: credential.get_token("SCOPE"), number=CALLS, repeat=5)
print(min(took) / CALLS * 1e6)
"""
HELD_AWAITED: Final = """
import asyncio, time
from MODULE.aio import WorkloadIdentityCredential
async def main():
    async with WorkloadIdentityCredential() as credential:
        await credential.get_token("SCOPE")
        took = []
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(CALLS):
                await credential.get_token("SCOPE")
            took.append(time.perf_counter() - begin)
    print(min(took) / CALLS * 1e6)
asyncio.run(main())
"""
BY_THREADS: Final = """
import threading
from MODULE import WorkloadIdentityCredential
credential = WorkloadIdentityCredential()
together = threading.Barrier(THREADS)
def ask():
    together.wait()
    assert credential.get_token("SCOPE").token
threads = [threading.Thread(target=ask) for _ in range(THREADS)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
BY_TASKS: Final = """
import asyncio
from MODULE.aio import WorkloadIdentityCredential
async def main():
    async with WorkloadIdentityCredential() as credential:
        tokens = await asyncio.gather(*(credential.get_token("SCOPE") for _ in range(THREADS)))
        assert all(token.token for token in tokens)
asyncio.run(main())
"""
BY_INSTANCES: Final = """
from MODULE import WorkloadIdentityCredential
for _ in range(INSTANCES):
    assert WorkloadIdentityCredential().get_token("SCOPE").token
"""
# Claims that come with a call are what a resource asks for when it refuses a token: only a new one will do.
REFRESHED: Final = """
import time
from MODULE import WorkloadIdentityCredential
with WorkloadIdentityCredential() as credential:
    credential.get_token("SCOPE")
    begin = time.process_time()
    for number in range(REFRESHES):
        credential.get_token("SCOPE", claims='{"access_token": {"nbf": {"value": "%d"}}}' % number)
    print((time.process_time() - begin) / REFRESHES * 1e3)
"""
REFRESHED_AWAITED: Final = """
import asyncio, time
from MODULE.aio import WorkloadIdentityCredential
async def main():
    async with WorkloadIdentityCredential() as credential:
        await credential.get_token("SCOPE")
        begin = time.process_time()
        for number in range(REFRESHES):
            await credential.get_token("SCOPE", claims='{"access_token": {"nbf": {"value": "%d"}}}' % number)
        print((time.process_time() - begin) / REFRESHES * 1e3)
asyncio.run(main())
"""
MADE: Final = """
import gc, os
from MODULE import WorkloadIdentityCredential
def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024
with WorkloadIdentityCredential() as first:
    first.get_token("SCOPE")
before = resident()
made = [WorkloadIdentityCredential(client_id="ANOTHER" % number) for number in range(MADE)]
print((resident() - before) / MADE)
"""
USED: Final = MADE.replace("print", 'for one in made: assert one.get_token("SCOPE").token\nprint')

_OF_CHAIN: Final = ("WorkloadIdentityCredential", "DefaultAzureCredential")
WHOLE: Final = {
    "import": IMPORT,
    "first token": FIRST,
    "first token, awaited": FIRST_AWAITED,
    "first token, default chain": FIRST.replace(*_OF_CHAIN),
    "first token, default chain, awaited": FIRST_AWAITED.replace(*_OF_CHAIN),
}
CALLS: Final = {"get_token, held": HELD, "get_token, held, awaited": HELD_AWAITED}
AT_ONCE: Final = {
    "CPU per refresh": ("ms", REFRESHED),
    "CPU per refresh, awaited": ("ms", REFRESHED_AWAITED),
    "memory of a credential": ("KiB", MADE),
    "memory of a credential with its token": ("KiB", USED),
}
"""What takes many requests: here the token service answers at once."""
REQUESTS: Final = {
    f"requests of {THREADS} threads": BY_THREADS,
    f"requests of {THREADS} tasks": BY_TASKS,
    f"requests of {INSTANCES} instances": BY_INSTANCES,
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program took from its start to its end.

    Attributes:
        cpu: Milliseconds, all its threads, its own and the kernel's for it.
        wall: Milliseconds.
        said: What it wrote.
    """

    cpu: float
    wall: float
    said: str


@dataclass(frozen=True, slots=True)
class Pod:
    """The environment of a wired pod, and the Entra stand-in that knows its identity."""

    environ: Mapping[str, str]
    entra: EntraStandIn


@contextmanager
def wired(*, latency: float = LATENCY, others: int = 0) -> Iterator[Pod]:
    """Make a pod with a token, for programs of both libraries.

    Args:
        latency: Seconds that the stand-in waits before it answers.
        others: How many further clients it knows, whose ids are ANOTHER_CLIENT's.
    """
    with Issuer() as issuer, EntraStandIn(trust=[issuer.ca_file]) as entra:
        for client in (CLIENT, *(ANOTHER_CLIENT % number for number in range(others))):
            entra.register(
                client, tenant_id=TENANT, issuer=issuer.url, subject="system:serviceaccount:default:default"
            )
        with tempfile.NamedTemporaryFile("w", encoding="ascii") as token, entra.fault(Slow(latency)):
            token.write(issuer.mint())
            token.flush()
            environ = {
                "PATH": os.defpath,
                "HOME": os.environ.get("HOME", "/"),
                "AZURE_TENANT_ID": TENANT,
                "AZURE_CLIENT_ID": CLIENT,
                "AZURE_AUTHORITY_HOST": f"{entra.authority}/",
                "AZURE_FEDERATED_TOKEN_FILE": token.name,
                # One for each HTTP client: httpx's and aiohttp's, requests'.
                "SSL_CERT_FILE": str(entra.ca_file),
                "REQUESTS_CA_BUNDLE": str(entra.ca_file),
            }
            yield Pod(environ, entra)


def tokens(effort: Effort, tick: Tick) -> Part:
    """Run the programs of both libraries in turns."""
    figures = Figures()
    with wired() as inside:
        for name, program in WHOLE.items():
            _whole(figures, inside, name, program, effort, tick)
        for name, program in CALLS.items():
            for who in in_turns(list(MODULES), min(effort.processes, 3)):
                tick()
                ran = run(_for(who, program, effort), inside.environ)
                figures.add(name, "µs", who, float(ran.said))
        for name, program in REQUESTS.items():
            for who in MODULES:
                tick()
                before = len(inside.entra.requests)
                run(_for(who, program, effort), inside.environ)
                figures.add(name, "", who, len(inside.entra.requests) - before)
    with wired(latency=0, others=effort.credentials) as inside:
        for name, (unit, program) in AT_ONCE.items():
            for who in MODULES:
                tick()
                ran = run(_for(who, program, effort), inside.environ)
                figures.add(name, unit, who, float(ran.said))
    return Part(
        name="tokens",
        title="Tokens for the program in the pod",
        who=(OURS, PEER, BARE),
        compared=((OURS, PEER),),
        figures=figures.all(),
        notes=[
            "Whole processes, Python's start included: `import` alone; import, credential and first token.",
            f"The token service is local and waits {LATENCY * 1000:.0f} ms before it answers.",
            "Each as its users have it: azure-identity on requests, awaited on aiohttp.",
            "Ours opens a connection for each request; it loads httpx only where that is needed (a proxy).",
            "Ours loads what a request needs with the first one, so `import` alone flatters it.",
            "The default chain finds the workload identity of its pod.",
            f"Refreshes are {effort.refreshes:,} requests of one process, as claims rule out a token held.",
            f"Memory is what a process grows by for each of {effort.credentials:,} different credentials.",
            "For both, the token service answers at once.",
        ],
    )


def _whole(figures: Figures, inside: Pod, name: str, program: str, effort: Effort, tick: Tick) -> None:
    """Run a program and, for comparison, one that does nothing; each library once before it counts."""
    everyone = [*MODULES, BARE]
    for who in everyone:
        run(_for(who, program, effort), inside.environ)
    for who in in_turns(everyone, effort.processes):
        tick()
        ran = run(_for(who, program, effort) + SAY_PEAK, inside.environ)
        figures.add(f"{name}: CPU", "ms", who, ran.cpu)
        figures.add(f"{name}: wall", "ms", who, ran.wall)
        figures.add(f"{name}: peak memory", "MiB", who, float(ran.said))


def _for(who: str, program: str, effort: Effort) -> str:
    if who == BARE:
        return "pass\n"
    given = {"MODULE": MODULES[who], "SCOPE": SCOPE, "CALLS": str(effort.calls)}
    given |= {"THREADS": str(THREADS), "INSTANCES": str(INSTANCES), "ANOTHER": ANOTHER_CLIENT}
    given |= {"REFRESHES": str(effort.refreshes), "MADE": str(effort.credentials)}
    for name, value in given.items():
        program = program.replace(name, value)
    return f"{program}\n"


def run(program: str, environ: Mapping[str, str]) -> Ran:
    """Run a Python program to its end.

    The kernel tells what it used when it is reaped; so it is no child of `testkit.processes`, whose tether
    would be counted too.

    Raises:
        ProcessFailed: It ended with another status than 0; the message has what it wrote.
    """
    with tempfile.TemporaryFile() as said:
        opened = [(os.POSIX_SPAWN_DUP2, said.fileno(), number) for number in (1, 2)]
        begin = time.perf_counter()
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", program], environ, file_actions=opened)
        try:
            _, status, used = os.wait4(pid, 0)
        except BaseException:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise
        wall = time.perf_counter() - begin
        said.seek(0)
        text = said.read().decode(errors="replace")
    if status:
        told = json.dumps(program.strip().splitlines()[0])
        raise ProcessFailed(
            f"A measured program, {told} …, ended with {os.waitstatus_to_exitcode(status)}:\n{text}"
        )
    return Ran((used.ru_utime + used.ru_stime) * 1000, wall * 1000, text)
