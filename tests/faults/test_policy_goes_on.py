"""With the API server's policy no pod of a known identity is refused or unwired, whatever happens.

Pods of identities that are new during an outage may be refused while it lasts; tried again they are wired.
"""

import json
from collections.abc import Iterator
from itertools import count

import pytest

from testkit.control_plane import ControlPlane
from testkit.crowds import create_account
from testkit.installation import RELEASE
from testkit.processes import ProcessFailed
from testkit.tally import Tally
from testkit.trials import Trial, trying, wired_by_policy
from testkit.workloads import eventually
from workload_identity_operator import contract

MANY = pytest.mark.soak(12, 1_500)
"""Pods that come to be during each fault; at the full size 50 a second, for five minutes in all."""
LATE = count(1_000_000)
"""Numbers of ServiceAccounts that come after a fault."""


@pytest.fixture(scope="module")
def trial(plane: ControlPlane, rate: float, tally: Tally) -> Iterator[Trial]:
    """Two replicas behind a Service, and a stream of pods."""
    with trying(plane, "auto", rate, tally) as found:
        yield found


def learns(trial: Trial, within: float = 180) -> None:
    """Wait until the operator has told the policy of a ServiceAccount that is annotated now."""
    number = next(LATE)
    create_account(trial.inside, number)
    eventually(lambda: f"sa-{number}" in wired_by_policy(trial.inside), within)


@MANY
def test_each_replica_is_killed(trial: Trial, size: int, tally: Tally) -> None:
    """Replicas die one after the other, as for want of memory, and others take their place."""
    phase = trial.during("each replica killed", size, trial.replicas.kill_each, tally)

    assert phase.refused == {}
    learns(trial)


@MANY
def test_all_replicas_are_away(trial: Trial, size: int, tally: Tally) -> None:
    """There is no operator for a while."""
    replicas = trial.replicas

    def kill_all() -> None:
        replicas.end()
        trial.stream.wait_for(size // 2)
        replicas.start()
        replicas.start()

    phase = trial.during("no replica", size, kill_all, tally)

    assert phase.refused == {}
    assert len(phase.fresh_refused) > 0
    learns(trial)


@MANY
@pytest.mark.parametrize("part", ["kube-apiserver", "etcd"])
def test_the_control_plane_restarts(trial: Trial, size: int, tally: Tally, part: str) -> None:
    """A part of it is killed and comes back: what could not be created meanwhile is wired afterwards."""
    plane = trial.replicas.plane

    def restart() -> None:
        plane.kill(part)
        plane.start_again(part)

    phase = trial.during(f"{part} killed", size, restart, tally)

    assert phase.refused == {}
    learns(trial)


@MANY
def test_watches_expire(trial: Trial, size: int, tally: Tally) -> None:
    """What the operator watched from is forgotten while it is cut off: it lists anew what it missed."""
    plane, link = trial.replicas.plane, trial.replicas.link
    listed = plane.kubectl("get", "--raw=/api/v1/serviceaccounts?limit=1")
    since = json.loads(listed)["metadata"]["resourceVersion"]
    missed = next(LATE)

    def expire() -> None:
        targets = link.targets
        link.lead_to([])
        link.cut()
        create_account(trial.inside, missed)
        plane.kill("kube-apiserver")  # and with it what it remembers of events
        plane.start_again("kube-apiserver")
        eventually(lambda: is_forgotten(plane, since), within=180)
        link.lead_to(targets)

    phase = trial.during("watches expired", size, expire, tally)

    assert phase.refused == {}
    eventually(lambda: f"sa-{missed}" in wired_by_policy(trial.inside), within=180)


def is_forgotten(plane: ControlPlane, version: str) -> bool:
    """Whether the API server answers 410 to who would watch ServiceAccounts from there."""
    path = f"/api/v1/serviceaccounts?watch=true&timeoutSeconds=1&resourceVersion={version}"
    try:
        told = plane.kubectl("get", f"--raw={path}")
    except ProcessFailed as failure:
        told = str(failure)
    return "too old resource version" in told or '"code":410' in told


@MANY
def test_the_tables_definition_is_deleted(trial: Trial, size: int, tally: Tally) -> None:
    """Without its table the policy wires nobody: the webhook does, until all is there again."""
    plane = trial.replicas.plane
    definition = f"{contract.POD_WIRINGS}.{contract.POD_WIRING_GROUP}"

    def delete() -> None:
        plane.kubectl("delete", "customresourcedefinition", definition)
        eventually(lambda: is_kept(trial), within=180)

    phase = trial.during("CustomResourceDefinition deleted", size, delete, tally)

    assert phase.refused == {}
    learns(trial)


def is_kept(trial: Trial) -> bool:
    """Whether the namespace has its PodWiring."""
    try:
        return len(wired_by_policy(trial.inside)) > 0
    except ProcessFailed:  # there is no such resource
        return False


@MANY
def test_etcd_is_full(trial: Trial, size: int, tally: Tally) -> None:
    """Nothing can be stored for a while (NOSPACE): what could not is stored, and wired, afterwards."""
    plane = trial.replicas.plane
    member = plane.ask_etcd("/v3/maintenance/status", {})["header"]["member_id"]
    alarm = {"memberID": member, "alarm": "NOSPACE"}

    def fill() -> None:
        plane.ask_etcd("/v3/maintenance/alarm", alarm | {"action": "ACTIVATE"})
        with pytest.raises(ProcessFailed, match="database space exceeded"):
            plane.kubectl("create", "namespace", "too-much")
        eventually(lambda: any("space" in why for why in trial.stream.phases[-1].away), within=180)
        plane.ask_etcd("/v3/maintenance/alarm", alarm | {"action": "DEACTIVATE"})

    phase = trial.during("etcd full", size, fill, tally)

    assert phase.refused == {}
    learns(trial)


@MANY
def test_rights_are_taken_away(trial: Trial, size: int, tally: Tally) -> None:
    """For a moment, as when a release is deleted and applied anew, the operator may not see anything."""
    plane, link = trial.replicas.plane, trial.replicas.link
    binding = plane.get("clusterrolebinding", RELEASE)
    binding["metadata"] = {key: binding["metadata"][key] for key in ("name", "labels", "annotations")}

    def take_away() -> None:
        plane.kubectl("delete", "clusterrolebinding", RELEASE)
        link.cut()  # what is watched already goes on: rights are looked at when it begins
        trial.stream.wait_for(size // 2)
        plane.kubectl("create", "--filename=-", given=json.dumps(binding))

    phase = trial.during("rights taken away", size, take_away, tally)

    assert phase.refused == {}
    learns(trial)


@MANY
def test_the_api_server_is_slow(trial: Trial, size: int, tally: Tally) -> None:
    """Each way between operator and API server takes a quarter of a second; replicas start all the same."""
    link = trial.replicas.link

    def slow_down() -> None:
        link.slow_down(0.25)
        trial.replicas.kill(trial.replicas.members[0])
        trial.replicas.start()
        trial.stream.wait_for(size // 2)
        link.slow_down(0.0)

    phase = trial.during("slow API server", size, slow_down, tally)

    assert phase.refused == {}
    learns(trial)


@MANY
def test_the_network_falls_silent(trial: Trial, size: int, tally: Tally) -> None:
    """Between operator and API server every byte is lost, what stood never comes back, and nobody is told.

    The operator notices when its watch does not end in time. Here that is after five seconds.
    """
    replicas = trial.replicas
    hurry = '{"handlers._WATCH": 3, "handlers._LATE": 2}'
    replicas.program = ("testkit.hurried", hurry)
    replicas.roll()

    def silence() -> None:
        replicas.link.fall_silent()
        trial.stream.wait_for(size // 2)
        replicas.link.speak()

    phase = trial.during("network silent", size, silence, tally)

    assert phase.refused == {}
    learns(trial, within=180)
