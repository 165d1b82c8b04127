"""A stream of pods: created at a rate, each looked at, refused ones created again as a controller does.

A program of its own, so that it shares no interpreter with what is tried meanwhile: `python -m testkit.stream
PORT` is told on a connection to that port, in lines of JSON: first an `Order`, then the name of each phase
that begins; the end of it ends the stream. It tells what came of each phase so far, and in the end of all.
"""

import asyncio
import json
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

from testkit import loopback
from testkit.control_plane import ControlPlane
from testkit.crowds import client_of, fault_of
from testkit.processes import Child, running
from testkit.workloads import pod
from workload_identity_operator import contract

PATIENCE = 120.0
"""Seconds that a pod may take to come to be."""
AGAIN_AFTER = 0.5
"""Seconds until a refused pod is created again; twice as many each time, as controllers do."""
LONGEST_AGAIN = 8.0
_ANSWER_WITHIN = 20.0
_TELL_EVERY = 0.2
_STARTS_WITHIN = 180.0
_ENDS_WITHIN = PATIENCE + 120.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be created.

    Attributes:
        server: Base URL of the API server.
        ca: File with its authorities.
        certificate: Files of an administrator's certificate and key.
        namespace: Where.
        tenant: Of the pods' identity.
        rate: Pods a second.
        known: Pods are those of ServiceAccounts `sa-0` to `sa-<known - 1>`, which are there already, in
            turns.
        fresh: Each so many-th pod is of a ServiceAccount that is created, annotated, a breath before; 0:
            none.
    """

    server: str
    ca: str
    certificate: tuple[str, str]
    namespace: str
    tenant: str
    rate: float
    known: int
    fresh: int = 0


@dataclass(slots=True)
class Phase:
    """What came of the pods that were begun in a phase.

    Attributes:
        name: Whatever its beginner called it.
        pods: How many came to be, wired or not.
        refused: Why webhook or policy refused pods of known ServiceAccounts, and how often.
        fresh_refused: Why they refused pods of fresh ones, and how often.
        away: Why else creates failed, and how often: the API server was not there, or could not store.
        begun: Pods that were begun in it; those of an earlier one may still be under way.
        unwired: What is wrong with pods that came to be, by name.
        lost: Pods that did not come to be at all, and why.
        slowest: Seconds that the slowest one took to come to be.
    """

    name: str
    pods: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    fresh_refused: dict[str, int] = field(default_factory=dict)
    away: dict[str, int] = field(default_factory=dict)
    begun: int = 0
    unwired: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0

    def __str__(self) -> str:
        """Return its figures."""
        refused, fresh, away = (sum(each.values()) for each in (self.refused, self.fresh_refused, self.away))
        return (
            f"{self.name}: {self.pods:,} pods, {len(self.unwired)} unwired, {len(self.lost)} lost, "
            f"{refused:,} creates refused, {fresh:,} more of fresh identities, "
            f"{away:,} while the API server was away, slowest {self.slowest:.1f} s"
        )

    @property
    def over(self) -> bool:
        """Whether it is known of each pod what came of it."""
        return self.pods + len(self.lost) >= self.begun


class Stream:
    """One that flows, see `flowing`.

    Attributes:
        phases: What came of each so far.
    """

    def __init__(self, child: Child, connection: socket.socket) -> None:
        self.phases: list[Phase] = []
        self._child = child
        self._connection = connection
        self._ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def begin(self, phase: str) -> None:
        """Have pods from now on counted under this name, which no other phase has."""
        self.tell(phase)
        self._child.wait_until(lambda: self._named(phase) is not None, within=PATIENCE)

    def tell(self, what: Any) -> None:
        """Tell the program something."""
        self._child.check()
        self._connection.sendall(json.dumps(what).encode() + b"\n")

    def wait_for(self, pods: int) -> None:
        """Wait until so many more have come to be in the present phase."""
        phase = self.phases[-1].name
        wanted = self.phases[-1].pods + pods
        self._child.wait_until(lambda: self._so_far(phase).pods >= wanted, within=2 * PATIENCE + pods)

    def finish(self) -> Phase:
        """End the present phase and return what came of it."""
        phase = self.phases[-1].name
        self.begin(f"after {phase}")
        self._child.wait_until(lambda: self._so_far(phase).over, within=2 * PATIENCE)
        return self._so_far(phase)

    def _named(self, phase: str) -> Phase | None:
        return next((one for one in self.phases if one.name == phase), None)

    def _so_far(self, phase: str) -> Phase:
        found = self._named(phase)
        assert found is not None
        return found

    def end(self) -> None:
        """Have it end, and learn what came of it."""
        self._connection.shutdown(socket.SHUT_WR)
        self._listener.join(_ENDS_WITHIN)
        assert self._ended, self._child.last_words()

    def _listen(self) -> None:
        with self._connection.makefile("rb") as lines:
            for line in lines:
                told = json.loads(line)
                self.phases = [Phase(**one) for one in told["phases"]]
                self._ended = told["ended"]


async def _serve(port: int) -> None:
    lines, told = await asyncio.open_connection("127.0.0.1", port)
    order = Order(**json.loads(await lines.readline()))
    trust = ssl.create_default_context(cafile=order.ca)
    trust.load_cert_chain(*order.certificate)
    limits = aiohttp.ClientTimeout(total=_ANSWER_WITHIN)
    connector = aiohttp.TCPConnector(ssl=trust, limit=64)
    async with aiohttp.ClientSession(order.server, connector=connector, timeout=limits) as session:
        flow = _Flow(order, session)
        hearing = asyncio.create_task(flow.hear(lines))
        telling = asyncio.create_task(flow.tell(told))
        await flow.create_all(hearing)
        await flow.look_at_all()
        telling.cancel()
    told.write(flow.report(ended=True))
    await told.drain()
    told.close()


class _Flow:
    def __init__(self, order: Order, session: aiohttp.ClientSession) -> None:
        self._order = order
        self._session = session
        self._path = f"/api/v1/namespaces/{order.namespace}"
        self.phases: list[Phase] = []
        self._phase_of: dict[str, Phase] = {}

    async def hear(self, lines: asyncio.StreamReader) -> None:
        """Begin phases as told, until there is nothing more to hear."""
        while line := await lines.readline():
            self.phases.append(Phase(json.loads(line)))

    async def tell(self, told: asyncio.StreamWriter) -> None:
        """Tell for ever what came of the phases so far."""
        while True:
            told.write(self.report(ended=False))
            await asyncio.sleep(_TELL_EVERY)

    def report(self, *, ended: bool) -> bytes:
        """Return a line with what came of the phases."""
        phases = [asdict(phase) for phase in self.phases]
        return json.dumps({"ended": ended, "phases": phases}).encode() + b"\n"

    async def create_all(self, hearing: asyncio.Task[None]) -> None:
        """Create pods at the rate until told to end."""
        loop = asyncio.get_running_loop()
        begin, number = loop.time(), 0
        async with asyncio.TaskGroup() as tasks:
            while not hearing.done():
                await asyncio.sleep(max(0.0, begin + number / self._order.rate - loop.time()))
                if self.phases:
                    self.phases[-1].begun += 1
                    tasks.create_task(self._create(number, self.phases[-1]))
                number += 1

    async def _create(self, number: int, phase: Phase) -> None:
        order = self._order
        fresh = bool(order.fresh) and number % order.fresh == order.fresh - 1
        account = order.known + number if fresh else number % order.known
        name = f"pod-{number}"
        self._phase_of[name] = phase
        began, pause = time.monotonic(), AGAIN_AFTER
        fault = "never tried"
        while time.monotonic() - began < PATIENCE:
            if not fresh or not (fault := await self._have_account(account)):
                fault = await self._have_pod(pod(name, f"sa-{account}"), phase)
            if not fault:
                phase.pods += 1
                phase.slowest = max(phase.slowest, time.monotonic() - began)
                return
            refused = contract.WEBHOOK_NAME in fault or "MutatingAdmissionPolicy" in fault
            reasons = (phase.fresh_refused if fresh else phase.refused) if refused else phase.away
            reason = re.sub("[0-9]{2,}", "N", fault)[:300]  # there are few, however many pods
            reasons[reason] = reasons.get(reason, 0) + 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_AGAIN)
        phase.lost[name] = fault

    async def _have_account(self, number: int) -> str:
        """Create a ServiceAccount, annotated; return why not, "" when it is there."""
        annotations = {contract.CLIENT_ID: client_of(number)}
        meta = {"name": f"sa-{number}", "annotations": annotations}
        status, answer = await self._call("POST", "/serviceaccounts", {"metadata": meta})
        return "" if status in {201, 409} else f"{status}: {answer.get('message')}"

    async def _have_pod(self, manifest: Mapping[str, Any], phase: Phase) -> str:
        """Create a pod and look at it; return why not, "" when it is there."""
        name = manifest["metadata"]["name"]
        status, answer = await self._call("POST", "/pods", manifest)
        if status == 409:  # an answer was lost, the pod was not
            status, answer = await self._call("GET", f"/pods/{name}")
        if status not in {200, 201}:
            return f"{status}: {answer.get('message')}"
        if fault := fault_of(answer, self._order.tenant):
            phase.unwired[name] = fault
        return ""

    async def look_at_all(self) -> None:
        """Look at all pods that are stored: whatever was answered, these count."""
        stored, following = set[str](), ""
        while True:
            more = f"&continue={following}" if following else ""
            status, answer = await self._call("GET", f"/pods?limit=500{more}")
            # A cluster that forgets soon says by 410 where to go on; none is missed, for none is created now.
            assert status == 200 or (status == 410 and following), answer
            for one in answer.get("items", ()):
                name = one["metadata"]["name"]
                stored.add(name)
                if name in self._phase_of and (fault := fault_of(one, self._order.tenant)):
                    self._phase_of[name].unwired[name] = fault
            following = answer["metadata"].get("continue", "")
            if not following:
                break
        for name in self._phase_of.keys() - stored:
            self._phase_of[name].lost.setdefault(name, "was created, and is gone")

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        try:
            async with self._session.request(method, self._path + path, json=body) as response:
                return response.status, json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return 0, {"message": f"{type(error).__name__}: {error}"}


@contextmanager
def flowing(
    plane: ControlPlane, namespace: str, *, tenant: str, rate: float, known: int, fresh: int = 0
) -> Iterator[Stream]:
    """Have a stream of pods flow until the context is left; what came of it is in its `phases` afterwards.

    See `Order`. The ServiceAccounts that are known must be there; see `crowds.create_account`.
    """
    pki = plane.folder / "pki"
    order = Order(
        server=plane.server,
        ca=str(plane.ca_file),
        certificate=(f"{pki}/admin.crt", f"{pki}/admin.key"),
        namespace=namespace,
        tenant=tenant,
        rate=rate,
        known=known,
        fresh=fresh,
    )
    with loopback.listening("127.0.0.1", 0) as listener:
        listener.settimeout(_STARTS_WITHIN)
        command = [sys.executable, "-m", "testkit.stream", str(listener.getsockname()[1])]
        with running(command, log=plane.folder / f"stream-{namespace}.log") as child:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(None)
                stream = Stream(child, connection)
                stream.tell(asdict(order))
                yield stream
                stream.end()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
