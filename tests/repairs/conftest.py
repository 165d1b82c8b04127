"""A cluster whose API server wires pods by the chart's policy, which tests delete and edit."""

from collections.abc import Iterator

import pytest

from testkit.binaries import provide
from testkit.control_plane import ControlPlane
from testkit.installation import Served, serve
from testkit.workloads import Namespace, fresh_namespace

TENANT = "99999999-8888-7777-6666-555555555555"


@pytest.fixture(scope="package")
def plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """One for all tests here, with nothing in it; the policies that they break are of no other folder's."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    with ControlPlane() as found:
        yield found


@pytest.fixture
def served(plane: ControlPlane) -> Iterator[Served]:
    """The chart installed, and a fresh operator, to which nobody has been insistent yet."""
    with serve(plane, {"azureTenantID": TENANT, "engine": "auto"}) as found:
        yield found


@pytest.fixture
def inside(served: Served) -> Iterator[Namespace]:
    """A fresh namespace of the served cluster."""
    with fresh_namespace(served.plane) as namespace:
        yield namespace
