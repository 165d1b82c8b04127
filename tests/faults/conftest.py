"""A cluster in which faults are made."""

from collections.abc import Iterator

import pytest

from testkit.binaries import provide
from testkit.control_plane import ControlPlane


@pytest.fixture(scope="package")
def plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """One for all tests here: its faults are no other folder's.

    It forgets old versions soon, so that watches and listings that were away expire.
    """
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    with ControlPlane(apiserver_args=["--etcd-compaction-interval=2s"]) as found:
        yield found


@pytest.fixture(scope="package")
def rate(pytestconfig: pytest.Config) -> float:
    """Pods a second."""
    return float(pytestconfig.getoption("rate")) if pytestconfig.getoption("full") else 6.0
