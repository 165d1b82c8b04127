"""One node for all tests with pods that run in a process; each of them makes its own namespace."""

import os
import signal
from collections.abc import Iterator

import pytest

from testkit import images
from testkit.azure import TENANT, Azure, azure
from testkit.binaries import provide
from testkit.control_plane import NAMED_KUBECONFIG, ControlPlane
from testkit.images import NAMED_IMAGES, debian
from testkit.installation import install_in_cluster
from testkit.node import PROGRAMS, Node, requirements
from testkit.releases import Release
from testkit.workloads import Namespace, fresh_namespace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the node, so that `-m "not node"` leaves it out."""
    for item in items:
        if "node" in getattr(item, "fixturenames", ()):
            item.add_marker("node")


@pytest.fixture(scope="package")
def node(pytestconfig: pytest.Config) -> Iterator[Node]:
    """One node; where there can be none, they are skipped with the reason."""
    if os.environ.get(NAMED_KUBECONFIG):
        pytest.skip(f"{NAMED_KUBECONFIG} is set: this is about the kit's own node")
    if reason := requirements.lacking():
        pytest.skip(reason)
    # The first build takes minutes: its progress is for people, not for a test's captured output.
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide(PROGRAMS)
    # A CI job that is cancelled gets SIGTERM: end as with Ctrl-C, tidily.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Node() as running:
        yield running


@pytest.fixture(scope="package")
def operator_image(node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The operator's image, which the node has; its Python serves for other programs too."""
    if reason := debian.lacking():
        pytest.skip(reason)
    built = images.build(images.OPERATOR, tmp_path_factory.mktemp("images"), newer=True)
    node.load(built.archive)
    return built.reference


@pytest.fixture(scope="module")
def release(node: Node, operator_image: str) -> Release:
    """The operator in pods of its own, where there is none with default values; none is taken away."""
    assert operator_image
    found = Release(node.plane)
    if found.values() is None:
        found.upgrade({})
    return found


@pytest.fixture(scope="package")
def cluster(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """Where pods run: the node's cluster, or the one that TESTKIT_KUBECONFIG names."""
    if os.environ.get(NAMED_KUBECONFIG):
        with ControlPlane() as plane:
            plane.publish_discovery()
            yield plane
    else:
        yield request.getfixturevalue("node").plane


@pytest.fixture
def namespace(cluster: ControlPlane) -> Iterator[Namespace]:
    """A fresh namespace of the cluster; its deletion is not waited for."""
    with fresh_namespace(cluster) as made:
        yield made


@pytest.fixture(scope="package")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The references of all images, which the cluster's nodes have or can pull."""
    if os.environ.get(NAMED_KUBECONFIG):
        return {name: images.reference(name, os.environ.get(NAMED_IMAGES)) for name in images.RECIPES}
    node: Node = request.getfixturevalue("node")
    if reason := debian.lacking():
        pytest.skip(reason)
    references = {}
    for name, recipe in images.RECIPES.items():
        built = images.build(recipe, tmp_path_factory.mktemp("images"), newer=True)
        node.load(built.archive)
        built.archive.unlink()
        references[name] = built.reference
    return references


@pytest.fixture(scope="package")
def standins(cluster: ControlPlane, loaded: dict[str, str]) -> Iterator[Azure]:
    """Azure, for all pods."""
    with azure(cluster, loaded) as running:
        yield running


@pytest.fixture(scope="package")
def values(standins: Azure, loaded: dict[str, str]) -> dict[str, object]:
    """The chart's default values, but for the tenant, the Azure that pods find, and where images are."""
    given: dict[str, object] = {"azureTenantID": TENANT, "azureAuthorityHost": standins.authority}
    if os.environ.get(NAMED_KUBECONFIG):
        given["image"] = {"repository": loaded[images.OPERATOR.name].rpartition(":")[0]}
    return given


@pytest.fixture(scope="module")
def installed(cluster: ControlPlane, values: dict[str, object]) -> None:
    """The operator in pods of its own; whoever takes it away brings it back."""
    install_in_cluster(cluster, values)
