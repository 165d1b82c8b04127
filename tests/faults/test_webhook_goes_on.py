"""With the webhook alone no pod is unwired or lost, and none refused by what is done in good order."""

import json
import os
import signal
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testkit.control_plane import ControlPlane
from testkit.installation import CONFIGURATION, NAMESPACE, RELEASE, install_chart
from testkit.manifests import ROOT
from testkit.processes import finish
from testkit.replicas import Replica
from testkit.stream import Phase
from testkit.tally import Tally
from testkit.trials import PATIENT, TENANT, Trial, trying
from testkit.workloads import eventually
from workload_identity_operator import certificates, contract
from workload_identity_operator.certificates import Certificate, from_secret
from workload_identity_operator.kube import FIELD_MANAGER

MANY = pytest.mark.soak(15, 1_500)
"""Pods that come to be during each fault."""
SECRET = f"{RELEASE}-certificate"
WEBHOOKS = "mutatingwebhookconfiguration"
YEAR = 365 * 24 * 3600
HASTE = {
    "certificates.LEAF_LIFE": 40,
    "certificates.LOOK_AHEAD": 30,
    "certificates.AUTHORITY_LIFE": 50,
    "certificates.OVERLAP": 30,
    "trust.SETTLE": 3,
    "trust.CHECK_EVERY": 1,
}
"""Seconds: certificates are renewed every ten, authorities every twenty and trusted for thirty more."""
PREVIOUS = "8a1da43491b892c8b71d2b298d1861a8876f3e87"
"""The last commit whose operator knew one authority at a time, and cut kept connections when it ended."""


@pytest.fixture(scope="module")
def trial(plane: ControlPlane, rate: float, tally: Tally) -> Iterator[Trial]:
    """Two replicas behind a Service, and a stream of pods."""
    with trying(plane, "webhook", rate, tally) as found:
        yield found


def nobody_noticed(phase: Phase) -> None:
    """Assert that each create succeeded at the first try."""
    assert (phase.refused, phase.fresh_refused, phase.away) == ({}, {}, {})


def secret_of(trial: Trial) -> dict[str, bytes]:
    """Return the data of the certificate's Secret; {} when it has none or is not there."""
    items = trial.replicas.plane.get(
        "secrets", f"--namespace={NAMESPACE}", f"--field-selector=metadata.name={SECRET}"
    )["items"]
    data = items[0].get("data") or {} if items else {}
    return {key: b64decode(value) for key, value in data.items()}


def bundle_of(trial: Trial) -> bytes:
    """Return what the API server trusts the webhook by."""
    (webhook,) = (
        one
        for one in trial.replicas.plane.get(WEBHOOKS, CONFIGURATION)["webhooks"]
        if one["name"] == contract.WEBHOOK_NAME
    )
    return b64decode(webhook["clientConfig"].get("caBundle", ""))


@MANY
def test_each_replica_is_killed(trial: Trial, size: int, tally: Tally) -> None:
    """Calls under way to one that dies fail, and succeed when they are tried again."""
    trial.during("each replica killed", size, trial.replicas.kill_each, tally)


@MANY
@pytest.mark.parametrize("how", ["emptied", "deleted", "spoilt"])
def test_the_secret_is_wiped(trial: Trial, size: int, tally: Tally, how: str) -> None:
    """What replicas serve is written back, before anybody misses it."""
    before = secret_of(trial)
    where = f"--namespace={NAMESPACE}"
    patch = {"emptied": None, "spoilt": {"tls.key": b64encode(b"nonsense").decode()}}

    def wipe() -> None:
        if how == "deleted":
            trial.replicas.plane.kubectl("delete", "secret", SECRET, where)
        else:
            body = json.dumps({"data": patch[how]})
            trial.replicas.plane.kubectl("patch", "secret", SECRET, where, "--type=merge", f"--patch={body}")
        eventually(lambda: secret_of(trial) == before, within=180)

    phase = trial.during(f"Secret {how}", size, wipe, tally)

    nobody_noticed(phase)
    assert bundle_of(trial) == before["ca.crt"]


@MANY
def test_gitops_applies_the_chart_again_and_again(trial: Trial, size: int, tally: Tally) -> None:
    """A second field manager owns what the chart renders, by force; caBundle stays ours and is never lost."""
    plane = trial.replicas.plane
    found = plane.get(WEBHOOKS, CONFIGURATION)
    (webhook,) = (one for one in found["webhooks"] if one["name"] == contract.WEBHOOK_NAME)
    webhook["clientConfig"] = {"url": webhook["clientConfig"]["url"]}
    before = bundle_of(trial)
    kept = {key: found["metadata"][key] for key in ("name", "labels", "annotations")}
    manifest = {key: found[key] for key in ("apiVersion", "kind")} | {"metadata": kept, "webhooks": [webhook]}

    def sync() -> None:
        times = 0
        while times < 5 or trial.stream.phases[-1].pods < size:
            kept["annotations"]["synced"] = str(times)
            how = ("--server-side", "--field-manager=gitops", "--force-conflicts", "--filename=-")
            plane.kubectl("apply", *how, given=json.dumps(manifest))
            assert bundle_of(trial) == before
            times += 1

    phase = trial.during("GitOps applies the chart", size, sync, tally)

    nobody_noticed(phase)
    found = plane.get(WEBHOOKS, CONFIGURATION, "--show-managed-fields")
    assert int(found["metadata"]["annotations"]["synced"]) >= 4
    assert owners(found, "f:caBundle") == {FIELD_MANAGER}


def owners(configuration: dict[str, Any], field: str) -> set[str]:
    """Return who owns a field of the chart's webhook's clientConfig."""
    key = json.dumps({"name": contract.WEBHOOK_NAME}, separators=(",", ":"))
    return {
        one["manager"]
        for one in configuration["metadata"]["managedFields"]
        if field in one["fieldsV1"].get("f:webhooks", {}).get(f"k:{key}", {}).get("f:clientConfig", {})
    }


@MANY
def test_the_ca_bundle_is_taken_away(trial: Trial, size: int, tally: Tally) -> None:
    """Somebody replaces the configuration by one without: it is there again, and pods are tried again."""
    plane, before = trial.replicas.plane, bundle_of(trial)
    patch = json.dumps([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}])

    def take_away() -> None:
        plane.kubectl("patch", WEBHOOKS, CONFIGURATION, "--type=json", f"--patch={patch}")
        eventually(lambda: bundle_of(trial) == before, within=180)

    trial.during("caBundle taken away", size, take_away, tally)


@MANY
def test_a_clock_jumps(trial: Trial, size: int, tally: Tally) -> None:
    """A replica whose clock is two years ahead renews nothing: the API server's counts, which judges."""
    before = secret_of(trial)
    with another(trial, {"jump": 2 * YEAR, "trust.CHECK_EVERY": 1}) as replica:
        child = replica.operator.child

        def jump() -> None:
            os.kill(child.pid, signal.SIGUSR1)
            child.wait_until(lambda: "the clock has jumped" in child.log.read_text(), within=120)

        phase = trial.during("clock two years ahead", size, jump, tally)

    nobody_noticed(phase)
    assert (secret_of(trial), bundle_of(trial)) == (before, before["ca.crt"])


@contextmanager
def another(trial: Trial, constants: Mapping[str, float]) -> Iterator[Replica]:
    """Have one more replica serve, of this kind; see `testkit.hurried`."""
    replicas = trial.replicas
    ordinary, replicas.program = replicas.program, ("testkit.hurried", json.dumps(constants))
    replica = replicas.start()
    replicas.program = ordinary
    try:
        yield replica
    finally:
        replicas.kill(replica)


@MANY
def test_the_disk_is_full(trial: Trial, size: int, tally: Tally) -> None:
    """What it logs cannot be written, and nothing else is: it has no file open but where its output goes."""
    where, before = f"--namespace={NAMESPACE}", secret_of(trial)
    with another(trial, {}) as replica:
        pid = replica.operator.child.pid
        assert open_files(pid) == {replica.operator.child.log}

        def fill() -> None:
            os.kill(pid, signal.SIGUSR2)
            eventually(lambda: open_files(pid) == {Path("/dev/full")}, within=120)
            # Mending what follows is logged, or tried to.
            emptied = json.dumps({"data": None})
            trial.replicas.plane.kubectl(
                "patch", "secret", SECRET, where, "--type=merge", f"--patch={emptied}"
            )
            eventually(lambda: secret_of(trial) == before, within=180)

        nobody_noticed(trial.during("disk full", size, fill, tally))


def open_files(pid: int) -> set[Path]:
    """Return the files that a process has open for writing, but for what is no file on a disk."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            flags = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text(encoding="ascii")
            target = link.readlink()
        except FileNotFoundError:  # closed by now
            continue
        (mode,) = (line.split()[1] for line in flags.splitlines() if line.startswith("flags:"))
        if int(mode, 8) & (os.O_WRONLY | os.O_RDWR) and target.is_absolute():
            found.add(target)
    return {one for one in found if one != Path("/dev/null") and not str(one).startswith("/memfd:")}


@MANY
def test_an_upgrade(trial: Trial, size: int, tally: Tally) -> None:
    """The chart is upgraded, another value changed, and the replicas roll."""
    replicas = trial.replicas

    def upgrade() -> None:
        values = {"azureTenantID": TENANT, "engine": "webhook", **PATIENT, "commonLabels": {"changed": "yes"}}
        # Forced, since somebody else may have applied it meanwhile.
        install_chart(replicas.plane, replicas.service.port, values, "--force-conflicts")
        replicas.roll()

    nobody_noticed(trial.during("rolling upgrade", size, upgrade, tally))


@MANY
def test_two_versions_side_by_side(trial: Trial, size: int, tally: Tally, tmp_path: Path) -> None:
    """An earlier operator and this one serve together, as in the middle of an upgrade."""
    archive = tmp_path / "earlier.tar"
    wanted = ["git", "-C", str(ROOT), "archive", f"--output={archive}", PREVIOUS, "operator/src"]
    if finish(wanted).status:
        pytest.skip("needs the repository with its history")
    assert finish(["tar", "-xf", str(archive), "-C", str(tmp_path)]).status == 0
    replicas, before = trial.replicas, secret_of(trial)
    replicas.environ["PYTHONPATH"] = str(tmp_path / "operator" / "src")
    earlier = replicas.start()
    del replicas.environ["PYTHONPATH"]
    # It has no flag that has come since.
    assert "legacy" not in Path(f"{tmp_path}/operator/src/workload_identity_operator/settings.py").read_text()

    wired = 'workload_identity_reviews_total{outcome="wired"}'

    def let_it_serve() -> None:
        for one in tuple(replicas.members):
            if one is not earlier:
                replicas.stop(one)  # kept connections would stay with one of ours
        eventually(lambda: earlier.operator.metric(wired) > 0, within=180)
        replicas.start()
        replicas.start()

    phase = trial.during("an earlier version beside", size, let_it_serve, tally)

    nobody_noticed(phase)
    assert (secret_of(trial), bundle_of(trial)) == (before, before["ca.crt"])
    replicas.stop(earlier)


@MANY
def test_the_secret_is_wiped_while_nobody_knows_it(trial: Trial, size: int, tally: Tally) -> None:
    """A new replica has a new authority issue; whoever serves by the one before goes on being trusted."""
    replicas, former = trial.replicas, secret_of(trial)["ca.crt"]
    emptied = json.dumps({"data": None})

    def wipe() -> None:
        replicas.link.fall_silent()  # those that know it can neither see nor mend it
        where = f"--namespace={NAMESPACE}"
        replicas.plane.kubectl("patch", "secret", SECRET, where, "--type=merge", f"--patch={emptied}")
        replicas.link.speak()
        replicas.start()

    phase = trial.during("Secret wiped, a new replica first", size, wipe, tally)

    assert (phase.refused, phase.away) == ({}, {})
    assert secret_of(trial)["ca.crt"] == bundle_of(trial)
    assert bundle_of(trial).endswith(former)
    assert bundle_of(trial) != former
    replicas.kill(replicas.members[0])


@pytest.mark.soak(30, 10_000)
def test_certificates_are_renewed_and_replicas_replaced(trial: Trial, size: int, tally: Tally) -> None:
    """Certificates about to expire are renewed, authorities too, and replicas roll: no create fails."""
    replicas = trial.replicas
    replicas.end()
    expiring = issued_in_haste().as_secret()
    data = json.dumps({"data": {key: b64encode(value).decode() for key, value in expiring.items()}})
    where = (f"--namespace={NAMESPACE}", "--type=merge", f"--patch={data}")
    replicas.plane.kubectl("patch", "secret", SECRET, *where)
    replicas.program = ("testkit.hurried", json.dumps(HASTE))
    replicas.start()
    replicas.start()
    served, authorities, bundles = set[bytes](), set[bytes](), set[bytes]()

    def go_on() -> None:
        while True:
            found = from_secret(secret_of(trial))
            assert found is not None
            served.add(found.leaf)
            authorities.add(found.authority)
            bundles.add(bundle_of(trial))
            if trial.stream.phases[-1].pods >= size and has_gone(bundles):
                return
            replicas.roll()

    phase = trial.during("certificates renewed, replicas rolled", size, go_on, tally)

    tally.tell(f"meanwhile {len(served)} serving certificates and {len(authorities)} authorities were seen")
    nobody_noticed(phase)


def issued_in_haste() -> Certificate:
    """Return a certificate as a replica in haste would issue it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LEAF_LIFE", "AUTHORITY_LIFE"):
            patch.setattr(certificates, name, timedelta(seconds=HASTE[f"certificates.{name}"]))
        return certificates.issue(["localhost", "127.0.0.1", "::1"], datetime.now(UTC))


def has_gone(bundles: Collection[bytes]) -> bool:
    """Whether an authority that was in one of these is in another no more, and both have one in common."""
    kept = [frozenset(bundle.split(b"-----END CERTIFICATE-----\n")) - {b""} for bundle in bundles]
    return any(one & other and one - other for one in kept for other in kept)
