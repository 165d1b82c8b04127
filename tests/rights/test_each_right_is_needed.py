"""Each right of the rendered chart is used by a behaviour, which breaks without it; nothing else is asked.

Whoever adds a right to the chart adds the behaviour that needs it to `testkit.behaviours.BEHAVIOURS`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import yaml

from testkit.behaviours import (
    BEHAVIOURS,
    NAMESPACE,
    RELEASE,
    TEST,
    Behaviour,
    Release,
    rehearse,
    unprepared,
)
from testkit.binaries import provide
from testkit.control_plane import ControlPlane
from testkit.manifests import CHART, ROOT, rendered
from testkit.processes import ProcessFailed
from testkit.rights import AuditLog, rights_of, roles_of
from testkit.tally import Tally
from testkit.workloads import CLIENT, eventually
from workload_identity_operator import contract
from workload_identity_operator.check.cluster import Right

OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
TESTER = f"system:serviceaccount:{NAMESPACE}:{TEST}"
MODES = [values for values, _ in BEHAVIOURS.values()]
POLLS = 6
"""Listings, of one resource, that two starts and what each does to its watches cannot make."""
BREAKS_WITHIN = {"policy": 15.0, "webhook": 15.0, "healing": 60.0}
"""Seconds; with the right each behaviour takes a few, and a whole round of restarts twenty."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that writes down what is asked of it."""

    plane: ControlPlane
    log: AuditLog


@pytest.fixture(scope="module")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all tests here: they install the chart under the same names, one after the other."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    log = AuditLog(tmp_path_factory.mktemp("audit"))
    with ControlPlane(controllers=True, apiserver_args=log.arguments) as plane:
        yield Cluster(plane, log)


def broken(release: Release, behaviours: Sequence[Behaviour]) -> str:
    """Return the first of the behaviours that does not happen, and how that was seen; "" when all do."""
    unprepared(release)
    with ExitStack() as stack:
        try:
            stack.enter_context(release.running())
        except ProcessFailed as ended:
            return f"it does not start: {str(ended).splitlines()[0]}"
        for behaviour in behaviours:
            try:
                behaviour(release)
            except (AssertionError, OSError) as failure:  # OSError: nobody answers a review
                return f"{behaviour.__name__}: {str(failure).splitlines()[0]}"
    return ""


def polls(cluster: Cluster, listing: Right, since: int) -> str:
    """Return how often was listed what cannot be watched; "" when that was no more than at two starts."""
    times = sum(listing.allows(use) for use, _ in cluster.log.uses(OPERATOR, since))
    return f"it lists all of it every few seconds, {times} times" if times > POLLS else ""


@pytest.fixture(scope="module")
def seen(cluster: Cluster) -> Mapping[str, Mapping[Right, Sequence[Behaviour]]]:
    """Have all behaviours happen, and return which of them used each right, by mode; nothing was refused."""
    found = {}
    for mode, (values, behaviours) in BEHAVIOURS.items():
        release = Release(cluster.plane, values, calmly=False)
        release.install()
        granted = release.granted()
        by_right: dict[Right, list[Behaviour]] = {right: [] for right in granted}
        start = since = cluster.log.end()
        unprepared(release)
        with release.running():
            for behaviour in behaviours:
                behaviour(release)
                since, from_here = cluster.log.end(), since
                used = {use for use, _ in cluster.log.uses(OPERATOR, from_here)}
                for right in granted:
                    if any(right.allows(use) for use in used):
                        by_right[right].append(behaviour)
        assert cluster.log.forbidden(OPERATOR, start) == [], mode
        found[mode] = by_right
    return found


def test_each_right_is_used(seen: Mapping[str, Mapping[Right, Sequence[Behaviour]]], tally: Tally) -> None:
    """No right is one too many: the audit log has each of them used by a documented behaviour."""
    for mode, by_right in seen.items():
        for right, behaviours in by_right.items():
            tally.tell(f"{mode}: {right}: {', '.join(one.__name__ for one in behaviours)}")

    healing = {right for right in seen["healing"] if right in seen["policy"]}  # told of there
    idle = [
        f"{mode}: {right}"
        for mode, rights in seen.items()
        for right, used in rights.items()
        if not used and not (mode == "healing" and right in healing)
    ]
    assert idle == [], "never used: take them out of the chart, or add to BEHAVIOURS what needs them"


@pytest.mark.soak(1, 1000)
def test_each_right_is_needed(
    cluster: Cluster, seen: Mapping[str, Mapping[Right, Sequence[Behaviour]]], size: int, tally: Tally
) -> None:
    """Without it a behaviour breaks: some of the rights in every run, each of them in `make soak`."""
    idle = []
    shown: set[Right] = set()
    for mode, by_right in seen.items():
        values, behaviours = BEHAVIOURS[mode]
        release = Release(cluster.plane, values, patience=BREAKS_WITHIN[mode])
        rights = [right for right in by_right if right not in shown][: size - len(shown)]
        if size > len(by_right):
            release.install()
            assert broken(release, behaviours) == "", "in as much time, with all rights"
        for right in rights:
            release.install()
            using, since = by_right[right], cluster.log.end()
            with release.without(right):
                what = broken(release, [*behaviours[:1], *(one for one in behaviours[1:] if one in using)])
                what = what or broken(release, behaviours)
            if not what and right.verb == "watch":
                what = polls(cluster, right._replace(verb="list"), since)
            tally.tell(f"{mode}: without {right}: {what or 'nothing breaks'}")
            if not what:
                idle.append(f"{mode}: {right}")
        shown |= {*rights}
    assert idle == [], (
        "nothing breaks without them: take them out of the chart, or add what does to BEHAVIOURS"
    )


def test_every_rule_is_rendered_somewhere(cluster: Cluster) -> None:
    """The modes bring all rules that the chart's templates have, whatever value brings them."""
    templates = [path.read_text("utf-8") for path in (CHART / "templates").glob("*role*.yaml")]
    written = {
        line.strip().removeprefix("verbs: ")
        for text in templates
        for line in text.splitlines()
        if line.strip().startswith(("resources: ", "verbs: "))
    }
    found = set()
    for values, _ in BEHAVIOURS.values():
        for one in Release(cluster.plane, values).objects():
            for rule in one.get("rules", ()):
                found |= {f"[{', '.join(rule['verbs'])}]", f"resources: [{', '.join(rule['resources'])}]"}

    assert written - found == set(), "no mode of BEHAVIOURS renders them"


def test_readme_tells_every_right() -> None:
    """The table in the operator's README has each verb on each resource that a mode grants, and no other."""
    text = (ROOT / "operator" / "README.md").read_text(encoding="utf-8")
    table = text.partition("| resource | verbs |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table]
    told = {(verb, kind) for row in cells for kind in row[0].split(", ") for verb in row[1].split(", ")}
    objects = [one for values in MODES for one in yaml.safe_load_all(rendered(values, RELEASE)) if one]
    roles = roles_of(objects, RELEASE)

    assert told == {(right.verb, right.resource) for role in roles for right in rights_of(role)}


def test_helm_test_uses_its_rights(cluster: Cluster) -> None:
    """The pod of `helm test` says that a pod would be wired, and has no right that it does not use."""
    release = Release(cluster.plane, BEHAVIOURS["policy"][0])
    release.install()
    plane = cluster.plane
    since = cluster.log.end()
    plane.kubectl("annotate", "serviceaccount", "default", f"{contract.CLIENT_ID}={CLIENT}")
    try:
        with release.running():
            release.expect(release.operator.ready, "ready")
            told_too_early = rehearse(release, timeout=2)
            be_nodes(release)
            told = rehearse(release)
    finally:
        plane.kubectl("annotate", "serviceaccount", "default", f"{contract.CLIENT_ID}-")

    assert (told_too_early.returncode, "wanted 1 ready replicas, found 0" in told_too_early.stderr) == (
        1,
        True,
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "a labelled pod in namespace default would be wired" in told.stdout
    used = {use for use, _ in cluster.log.uses(TESTER, since)}
    assert cluster.log.forbidden(TESTER, since) == []
    assert [str(right) for right in release.granted(TEST) if not any(map(right.allows, used))] == []
    assert plane.get("pods", "--namespace=default")["items"] == []


def be_nodes(release: Release) -> None:
    """Do what nodes do for the operator's own pods: say that they are ready."""

    def available() -> bool:
        for found in release.plane.get("pods", f"--namespace={NAMESPACE}")["items"]:
            ready = [{"type": "Ready", "status": "True"}]
            status = json.dumps({"status": {"phase": "Running", "conditions": ready}})
            name = found["metadata"]["name"]
            release.kubectl("patch", "pod", name, "--subresource=status", f"--patch={status}")
        return bool(release.get("deployment")["status"].get("availableReplicas"))

    eventually(available, within=60)
