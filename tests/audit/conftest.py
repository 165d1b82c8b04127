"""A cluster with controllers, the chart, and the operator that audits it and heals whoever asks for it."""

from collections.abc import Iterator

import pytest

from testkit.binaries import provide
from testkit.control_plane import ControlPlane
from testkit.installation import Served, serve
from testkit.workloads import Namespace, fresh_namespace

TENANT = "99999999-8888-7777-6666-555555555555"
HEALING = {"mode": "annotated", "pauseSeconds": 0}


@pytest.fixture(scope="package")
def served(pytestconfig: pytest.Config) -> Iterator[Served]:
    """One for all tests here: what they ask for they annotate."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    values = {"azureTenantID": TENANT, "healing": HEALING}
    with ControlPlane(controllers=True) as plane, serve(plane, values) as found:
        yield found


@pytest.fixture
def inside(served: Served) -> Iterator[Namespace]:
    """A fresh namespace of the served cluster."""
    with fresh_namespace(served.plane) as namespace:
        yield namespace
