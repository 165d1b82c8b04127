"""A cluster whose API server wires pods by the chart's policy, and the operator that keeps its tables."""

from collections.abc import Iterator

import pytest

from testkit.binaries import provide
from testkit.control_plane import ControlPlane
from testkit.installation import Served, serve
from testkit.workloads import Namespace, fresh_namespace

TENANT = "99999999-8888-7777-6666-555555555555"


@pytest.fixture(scope="package")
def served(pytestconfig: pytest.Config) -> Iterator[Served]:
    """One for all tests here, by the policy where it is served, as it is here."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    with ControlPlane() as plane, serve(plane, {"azureTenantID": TENANT, "engine": "auto"}) as found:
        yield found


@pytest.fixture
def inside(served: Served) -> Iterator[Namespace]:
    """A fresh namespace of the served cluster."""
    with fresh_namespace(served.plane) as namespace:
        yield namespace
