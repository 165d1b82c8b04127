"""The operator as a Deployment and a Service have it: several at once, replaced one by one, called by turns.

What kubelet and Service would do is done here: a replica is called while it is ready, a new one is ready
before an old one is told to end, and the old one then goes on serving until nobody is sent to it any more.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from testkit.control_plane import ControlPlane
from testkit.installation import (
    CONFIGURATION,
    NAMESPACE,
    RELEASE,
    Operator,
    free_port,
    install_chart,
    operator_running,
)
from testkit.relay import Relay, relaying, repeatedly

DRAIN = 4.0
"""Seconds that one which was told to end goes on serving; API servers' connections move on meanwhile."""


@dataclass(slots=True)
class Replica:
    """One of them.

    Attributes:
        port: Where it answers reviews.
        operator: Its process.
    """

    port: int
    operator: Operator
    _context: AbstractContextManager[Operator]


class Replicas:
    """Those that run, see `running_replicas`.

    Attributes:
        plane: The cluster that they serve.
        service: What the API server calls.
        link: Between all of them and the API server.
        members: They, oldest first.
        environ: Environment of those that are started from now on.
        program: What those are, see `operator_running`.
    """

    def __init__(self, plane: ControlPlane, service: Relay, link: Relay, environ: Mapping[str, str]) -> None:
        self.plane = plane
        self.service = service
        self.link = link
        self.members: list[Replica] = []
        self._ending: set[int] = set()
        self._leading = Lock()
        self.environ = dict(environ)
        self.program: Sequence[str] = ("workload_identity_operator",)
        self._kubeconfig = _through(link, plane.kubeconfig_for(RELEASE, NAMESPACE))

    def start(self) -> Replica:
        """Start one more, and wait until it is ready."""
        port = free_port()
        context = operator_running(
            self.plane,
            port,
            environ=self.environ,
            flags=[f"--drain-seconds={DRAIN:g}", f"--webhook-configuration={CONFIGURATION}"],
            kubeconfig=self._kubeconfig,
            program=self.program,
        )
        replica = Replica(port, context.__enter__(), context)
        self.members.append(replica)
        return replica

    def kill(self, replica: Replica) -> None:
        """Kill one, as the kernel does that runs out of memory."""
        self.members.remove(replica)
        replica.operator.child.end(0)
        replica._context.__exit__(None, None, None)

    def stop(self, replica: Replica) -> None:
        """Tell one to end, which the Service no longer leads to, and wait until it has."""
        self._ending.add(replica.port)
        self.lead()
        replica.operator.child.end(DRAIN + 30)
        self.members.remove(replica)
        replica._context.__exit__(None, None, None)

    def roll(self) -> None:
        """Replace each, as a Deployment with `maxSurge: 1` and `maxUnavailable: 0` does."""
        for old in tuple(self.members):
            self.start()
            self.stop(old)

    def kill_each(self) -> None:
        """Kill one after the other, and have another take its place."""
        for old in tuple(self.members):
            self.kill(old)
            self.start()

    def lead(self) -> None:
        """Have the Service lead to those that are ready."""
        with self._leading:
            members = [one for one in tuple(self.members) if one.port not in self._ending]
            self.service.lead_to([one.port for one in members if one.operator.ready()])

    def check(self) -> None:
        """Raise ProcessFailed if one has ended on its own."""
        for replica in self.members:
            replica.operator.child.check()

    def end(self) -> None:
        """End all that are left."""
        for replica in tuple(self.members):
            self.kill(replica)


def _through(link: Relay, kubeconfig: Path) -> Path:
    """Return a kubeconfig whose API server is reached through a relay."""
    config = kubeconfig.with_name(f"{kubeconfig.name}-through-{link.port}")
    text = kubeconfig.read_text(encoding="utf-8")
    (server,) = {line.split("server: ")[1] for line in text.splitlines() if "server: " in line}
    config.touch(mode=0o600)
    config.write_text(text.replace(server, f"https://127.0.0.1:{link.port}"), encoding="utf-8")
    return config


@contextmanager
def running_replicas(
    plane: ControlPlane,
    values: Mapping[str, object],
    *,
    count: int = 2,
) -> Iterator[Replicas]:
    """Install the chart with these values and have so many replicas serve until the context is left."""
    port = int(plane.server.rpartition(":")[2])
    with ExitStack() as stack:
        service, link = stack.enter_context(relaying()), stack.enter_context(relaying([port]))
        install_chart(plane, service.port, values)
        needed = {"AZURE_TENANT_ID": str(values["azureTenantID"])}
        replicas = Replicas(plane, service, link, needed)
        stack.callback(replicas.end)
        for _ in range(count):
            replicas.start()
        replicas.lead()
        stack.enter_context(repeatedly(replicas.lead))
        yield replicas
