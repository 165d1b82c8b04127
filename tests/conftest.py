"""Fixtures that several folders of tests share."""

import secrets
import signal
from collections.abc import Iterator

import pytest

from testkit.binaries import provide
from testkit.control_plane import ControlPlane


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the control plane, so that `-m "not cluster"` leaves it out."""
    for item in items:
        if "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")


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
