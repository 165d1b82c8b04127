"""With `guard`, no labelled pod is stored without an identity, whatever let it through."""

from collections.abc import Iterator
from typing import Any

import pytest

from testkit.control_plane import ControlPlane
from testkit.installation import free_port, install_chart
from testkit.neighbours import other_webhook
from testkit.processes import ProcessFailed
from testkit.workloads import LABELS, Namespace, eventually, fresh_namespace, pod
from workload_identity_operator import contract

TOKEN_FILE = [{"name": contract.ENV_TOKEN_FILE, "value": contract.TOKEN_FILE}]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Namespace]:
    """A namespace where a webhook set to Ignore has nobody behind it."""
    values = {"azureTenantID": "t", "failurePolicy": "Ignore", "guard": True, "engine": "webhook"}
    with ControlPlane() as plane, fresh_namespace(plane) as inside:
        install_chart(plane, free_port(), values)
        inside.account("billing", {contract.CLIENT_ID: "c"})
        # API servers take a moment to learn of a policy.
        eventually(lambda: refused(inside, [{"name": "app", "image": "x"}]))
        yield inside


def refused(inside: Namespace, containers: list[dict[str, Any]]) -> bool:
    """Whether a labelled pod with these containers is refused."""
    try:
        create(inside, containers)
    except ProcessFailed:
        return True
    return False


def create(inside: Namespace, containers: list[dict[str, Any]], **metadata: Any) -> None:
    """Create a pod with these containers, as a dry run."""
    metadata = {"labels": dict(LABELS), **metadata}
    inside.create(
        pod("web", "billing", metadata=metadata, spec={"containers": containers}), "--dry-run=server"
    )


def test_unwired_pod_is_refused(guarded: Namespace) -> None:
    """The message names the containers that would run without, and what to do."""
    containers: list[dict[str, Any]] = [
        {"name": "app", "image": "x"},
        {"name": "done", "image": "x", "env": TOKEN_FILE},
        {"name": "proxy", "image": "x"},
    ]

    with pytest.raises(ProcessFailed, match="container app, proxy; the operator was not asked") as refusal:
        create(guarded, containers)

    assert contract.USE_LABEL in str(refusal.value)


def test_container_added_to_a_wired_pod_is_refused(guarded: Namespace) -> None:
    """API servers do not ask again who had nothing to do: what a later webhook adds is seen here."""
    sidecar = {"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": "x"}}

    with (
        other_webhook(guarded, [sidecar], "later"),
        pytest.raises(ProcessFailed, match="container sidecar;"),
    ):
        create(guarded, [{"name": "app", "image": "x", "env": TOKEN_FILE}])


def test_init_containers_count(guarded: Namespace) -> None:
    """An init container without it is as wrong."""
    spec = {
        "initContainers": [{"name": "first", "image": "x"}],
        "containers": [{"name": "app", "image": "x", "env": TOKEN_FILE}],
    }

    with pytest.raises(ProcessFailed, match="container first;"):
        guarded.create(pod("web", "billing", spec=spec), "--dry-run=server")


def test_wired_and_skipped_containers_pass(guarded: Namespace) -> None:
    """Skipped ones are named as the webhook reads them, with blanks around."""
    annotations = {contract.SKIP_CONTAINERS: " proxy ; nobody"}

    create(
        guarded,
        [{"name": "app", "image": "x", "env": TOKEN_FILE}, {"name": "proxy", "image": "x"}],
        annotations=annotations,
    )


@pytest.mark.parametrize("labels", [{}, {contract.USE_LABEL: "false"}])
def test_other_pods_pass(guarded: Namespace, labels: dict[str, str]) -> None:
    """Who did not ask for an identity by the label is not guarded."""
    create(guarded, [{"name": "app", "image": "x"}], labels=labels)


def test_pod_without_containers_gets_the_usual_message(guarded: Namespace) -> None:
    """The guard has nothing to say about a pod that could not be stored anyway."""
    with pytest.raises(ProcessFailed, match=r"spec\.containers: Required value"):
        guarded.create(pod("web", "billing", spec={"containers": []}), "--validate=false")
