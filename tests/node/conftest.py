"""One node for all tests with pods that run; each of them makes its own namespace."""

import signal
from collections.abc import Iterator

import pytest

from testkit import images
from testkit.binaries import provide
from testkit.images import debian
from testkit.node import PROGRAMS, Node, requirements
from testkit.workloads import Namespace, fresh_namespace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the node, so that `-m "not node"` leaves it out."""
    for item in items:
        if "node" in getattr(item, "fixturenames", ()):
            item.add_marker("node")


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> Iterator[Node]:
    """A node for all of them; where there can be none, they are skipped with the reason."""
    if reason := requirements.lacking():
        pytest.skip(reason)
    # The first build takes minutes: its progress is for people, not for a test's captured output.
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide(PROGRAMS)
    # A CI job that is cancelled gets SIGTERM: end as with Ctrl-C, tidily.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Node() as running:
        yield running


@pytest.fixture(scope="session")
def operator_image(node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The operator's image, which the node has; its Python serves for other programs too."""
    if reason := debian.lacking():
        pytest.skip(reason)
    built = images.build(images.OPERATOR, tmp_path_factory.mktemp("images"), newer=True)
    node.load(built.archive)
    return built.reference


@pytest.fixture
def namespace(node: Node) -> Iterator[Namespace]:
    """A fresh namespace of the node's cluster; its deletion is not waited for."""
    with fresh_namespace(node.plane) as made:
        yield made
