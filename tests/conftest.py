"""Fixtures that several folders of tests share."""

import re
import secrets
import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from testkit.binaries import provide
from testkit.control_plane import ControlPlane
from testkit.tally import Tally

TALLY = pytest.StashKey[Tally]()
MANY_FILES = {"credentials", "entra", "tokens"}
"""Folders whose files share nothing that is dear to make."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have the sizes chosen."""
    parser.addoption("--full", action="store_true", help="give tests marked soak their full size")
    parser.addoption("--rate", type=float, default=50, help="pods a second in tests/faults at full size")
    parser.addoption("--seed", type=int, help="repeat the hostile reviews that a failure named by this seed")


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many cases hypothesis makes: the same few in every run, or many and always others."""
    # No deadlines: on a busy machine they tell of the machine.
    settings.register_profile("ordinary", derandomize=True, deadline=None)
    settings.register_profile("full", max_examples=10_000, print_blob=True, deadline=None)
    settings.load_profile("full" if config.getoption("full") else "ordinary")
    capture = config.pluginmanager.getplugin("capturemanager")

    def show(line: str) -> None:
        if config.getoption("full"):
            with capture.global_and_fixture_disabled():
                print(line, flush=True)

    config.stash[TALLY] = Tally(show)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell of each long test how long it took, and of those by hypothesis how many cases it had."""
    report = yield
    if report.when == "call" and item.get_closest_marker("soak"):
        statistics = getattr(item, "hypothesis_statistics", "")
        cases = sum(map(int, re.findall(r"(\d+) passing", statistics)))
        counted = f"{cases:,} cases, " if statistics else ""
        item.config.stash[TALLY].tell(f"{item.nodeid}: {report.outcome}, {counted}{report.duration:.0f} s")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Close long runs with what was counted."""
    if config.getoption("full"):
        terminalreporter.section("what was counted")
        for line in config.stash[TALLY].lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Count, for people who wait and for the closing lines."""
    return pytestconfig.stash[TALLY]


@pytest.fixture
def size(request: pytest.FixtureRequest) -> int:
    """How many of what the test counts: the first number of its mark `soak`, the second one with --full."""
    ordinary, full = request.node.get_closest_marker("soak").args
    return int(full if request.config.getoption("full") else ordinary)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the control plane, so that `-m "not cluster"` leaves it out."""
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")


class ByFolder(LoadScopeScheduling):  # type: ignore[misc]  # xdist's schedulers have no types
    """Has a folder's tests run by one process, which starts what they share: a cluster, a node.

    xdist's own way to say so, the mark `xdist_group`, does nothing with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        return file if folder.rpartition("/")[2] in MANY_FILES else folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    """Choose who tests what where several processes test at once."""
    return ByFolder(config, log)


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """One control plane with controllers for all tests, each of which makes its own namespace."""
    # The first build takes minutes: its progress is for people, not for a test's captured output.
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    # A CI job that is cancelled gets SIGTERM: end as with Ctrl-C, tidily.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ControlPlane(controllers=True) as plane:
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace of the shared control plane; its deletion is not waited for."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.create_namespace(name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
