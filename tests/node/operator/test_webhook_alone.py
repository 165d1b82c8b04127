"""The operator in pods where the API server wires nothing by itself: engine: webhook."""

from collections.abc import Iterator

import pytest

from testkit.node import Node
from testkit.processes import ProcessFailed
from testkit.releases import Release, is_wired, is_wired_by_policy, released
from testkit.residents import SHOW, claims_seen_in, many, one, resident
from testkit.workloads import CLIENT, Namespace
from workload_identity_operator import contract


@pytest.fixture(scope="module")
def release(node: Node, operator_image: str) -> Iterator[Release]:
    """The chart without the policy."""
    assert operator_image
    with released(node.plane, {"engine": "webhook"}) as made:
        yield made


def test_webhook_wires_what_the_policy_would(
    namespace: Namespace, operator_image: str, release: Release
) -> None:
    """Pods made in the same breath as their ServiceAccount have its token, and a Job's pod ends well."""
    assert release.pods()
    namespace.account("billing", {contract.CLIENT_ID: CLIENT})
    job = resident(operator_image, "billing", program=SHOW, restartPolicy="Never")
    made = namespace.create(one("job", job))

    namespace.kubectl("wait", "pod/job", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")

    assert (is_wired(made), is_wired_by_policy(made)) == (True, False)
    assert f"system:serviceaccount:{namespace.name}:billing" in namespace.kubectl("logs", "job")


def test_labelled_pods_wait_while_both_replicas_are_away(
    namespace: Namespace, operator_image: str, release: Release
) -> None:
    """Nobody can wire them, so they are refused; unlabelled ones are made as they are; all come later."""
    namespace.account("billing", {contract.CLIENT_ID: CLIENT})
    spec = resident(operator_image, "billing")
    with release.away():
        with pytest.raises(ProcessFailed, match=r"mutation\.azure-workload-identity\.io"):
            namespace.create(one("labelled", spec))
        plain = namespace.create(one("plain", spec, labels={}))
        namespace.create(many("web", spec, 2))

    namespace.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
    claims = claims_seen_in(namespace, "deployment/web")
    assert not is_wired(plain)
    assert claims["sub"] == f"system:serviceaccount:{namespace.name}:billing"
