"""Faults, made while two replicas of the operator serve and pods are created all along."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from testkit.control_plane import ControlPlane
from testkit.crowds import create_account, together
from testkit.replicas import Replicas, running_replicas
from testkit.stream import Phase, Stream, flowing
from testkit.tally import Tally
from testkit.workloads import Namespace, eventually, fresh_namespace

TENANT = "99999999-8888-7777-6666-555555555555"
KNOWN = 10
"""ServiceAccounts that are there, and known, before anything happens."""
PATIENT = {"timeoutSeconds": 30}
"""Of the chart: a machine that has other things to do is none of the faults."""
FRESH = 7
"""Each so many-th pod is of a ServiceAccount that is annotated a breath before."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Two replicas, and the stream of pods that they wire.

    Attributes:
        replicas: They.
        stream: It.
        inside: Where the pods are.
        engine: The chart's value.
    """

    replicas: Replicas
    stream: Stream
    inside: Namespace
    engine: str

    def during(self, what: str, pods: int, fault: Callable[[], object], tally: Tally) -> Phase:
        """Make a fault while pods come to be, and so many more after it; return what came of them.

        No pod of them is unwired or lost, and no replica ends on its own, or it fails here.
        """
        self.stream.begin(what)
        fault()
        self.stream.wait_for(pods)
        phase = self.stream.finish()
        self.replicas.check()
        tally.tell(f"{self.engine} engine, {phase}")
        assert (phase.unwired, phase.lost) == ({}, {})
        return phase


@contextmanager
def trying(plane: ControlPlane, engine: str, rate: float, tally: Tally) -> Iterator[Trial]:
    """Have two replicas serve, and pods created at a rate; in the end look at each pod that is stored."""
    with (
        running_replicas(plane, {"azureTenantID": TENANT, "engine": engine, **PATIENT}) as replicas,
        fresh_namespace(plane) as inside,
    ):
        together(lambda number: create_account(inside, number), KNOWN)
        eventually(lambda: len(wired_by_policy(inside)) == KNOWN, within=180)
        with flowing(plane, inside.name, tenant=TENANT, rate=rate, known=KNOWN, fresh=FRESH) as stream:
            stream.begin("before all")
            stream.wait_for(5)
            yield Trial(replicas, stream, inside, engine)
        total = sum(phase.pods for phase in stream.phases)
        tally.tell(f"{engine} engine: {total:,} pods in all, each looked at as it is stored")
        assert {phase.name: (phase.unwired, phase.lost) for phase in stream.phases} == {
            phase.name: ({}, {}) for phase in stream.phases
        }


def wired_by_policy(inside: Namespace) -> dict[str, object]:
    """Return the identities that the namespace's PodWiring has."""
    found = inside.get("podwirings")["items"]
    return found[0]["spec"]["identities"] if found else {}
