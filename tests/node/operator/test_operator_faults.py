"""The operator in pods, by helm with default values, and what befalls those pods."""

import pytest

from testkit.installation import NAMESPACE
from testkit.node import Node
from testkit.processes import ProcessFailed, finish
from testkit.releases import SELECTOR, Release, is_wired, is_wired_by_policy, stream, until_known
from testkit.residents import claims_seen_in, many, one, resident
from testkit.workloads import CLIENT, Namespace, env_of, eventually
from workload_identity_operator import contract

AUDIENCE = "api://AzureADTokenExchange"
HOGS = 4
HOG = "while True: pass"
GREEDY = "held = bytearray(1 << 30); print(sum(held[:: 4096]))"


@pytest.fixture
def known(namespace: Namespace, operator_image: str, release: Release) -> Namespace:
    """A namespace with a ServiceAccount, `billing`, whose pods the API server wires by itself."""
    assert release.pods()
    namespace.account("billing", {contract.CLIENT_ID: CLIENT})
    until_known(namespace, one("probe", resident(operator_image, "billing")))
    return namespace


def make(namespace: Namespace, image: str, account: str, replicas: int) -> list[dict[str, object]]:
    """Have a Deployment make pods, and return them once all are running."""
    namespace.create(many("web", resident(image, account), replicas))
    namespace.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
    return list(namespace.get("pods", "--selector=app=web")["items"])


def test_pods_run_with_their_identity(known: Namespace, operator_image: str) -> None:
    """Pods of an annotated ServiceAccount find a token of the cluster's issuer for it, and whose they are."""
    made = make(known, operator_image, "billing", 1)

    claims = claims_seen_in(known, "deployment/web")

    subject = f"system:serviceaccount:{known.name}:billing"
    assert ([AUDIENCE], subject) == (claims["aud"], claims["sub"])
    assert claims["iss"] == known.plane.issuer
    assert env_of(made[0])[contract.ENV_CLIENT_ID] == CLIENT


def test_known_identities_start_while_both_replicas_are_away(
    known: Namespace, operator_image: str, release: Release
) -> None:
    """The API server wires their pods alone; labelled pods nobody knows are refused, none slips through."""
    known.account("stranger")
    strange = one("strange", resident(operator_image, "stranger"))
    with release.away():
        made = make(known, operator_image, "billing", 2)
        claims = claims_seen_in(known, "deployment/web")
        with pytest.raises(ProcessFailed, match=r"mutation\.azure-workload-identity\.io"):
            known.create(strange)
        known.create(many("late", resident(operator_image, "stranger"), 1))

    assert [is_wired_by_policy(pod) for pod in made] == [True, True]
    assert claims["sub"] == f"system:serviceaccount:{known.name}:billing"
    known.kubectl("rollout", "status", "deployment/late", "--timeout=180s")
    (late,) = known.get("pods", "--selector=app=late")["items"]
    assert is_wired(late)


def test_killed_replica_costs_no_identity(
    known: Namespace, operator_image: str, release: Release, node: Node
) -> None:
    """A replica's process is gone without a word; pods that need the webhook come all the same, all wired."""
    before = release.restarts()
    (state,) = release.pods()[0]["status"]["containerStatuses"]
    known.account("stranger")

    node.kill(state["containerID"])
    made = make(known, operator_image, "stranger", 5)

    assert [is_wired(pod) for pod in made] == [True] * 5
    eventually(lambda: release.restarts() == before + 1, within=60)
    release.settle()


def test_rollout_refuses_nobody(known: Namespace, operator_image: str, release: Release) -> None:
    """While all replicas are replaced, pods that need the webhook are made without a break, all wired."""
    known.account("stranger")
    old = {pod["metadata"]["name"] for pod in release.pods()}

    with stream(known, one("probe", resident(operator_image, "stranger"))) as seen:
        release.kubectl("rollout", "restart", "deployment/workload-identity-operator")
        release.settle()
        # The last old one goes on serving for a while, and is told to end then.
        release.kubectl("wait", "pods", f"--selector={SELECTOR}", "--for=condition=Ready", "--timeout=180s")
        for name in sorted(old):
            release.kubectl("wait", f"pod/{name}", "--for=delete", "--timeout=180s")

    assert (seen.refused, seen.unwired) == ([], 0)
    assert seen.made > 20
    assert not old & {pod["metadata"]["name"] for pod in release.pods()}


def test_drain_leaves_one_replica_serving(known: Namespace, operator_image: str, release: Release) -> None:
    """A drain takes one replica; the budget holds the other as long as there is no replacement."""
    known.account("stranger")
    pods = f"--pod-selector={SELECTOR}"
    drain = ["drain", "node", pods, "--timeout=20s"]
    try:
        with stream(known, one("probe", resident(operator_image, "stranger"))) as seen:
            drained = finish([known.plane.folder / "bin" / "kubectl", *drain], env=known.plane.environment)
            left = [pod for pod in release.pods() if pod["status"]["phase"] == "Running"]
    finally:
        known.plane.kubectl("uncordon", "node")
    release.settle()

    assert "would violate the pod's disruption budget" in drained.errors
    assert (drained.status, len(left)) == (1, 1)
    assert (seen.refused, seen.unwired) == ([], 0)
    assert len(release.pods()) == 2


def test_busy_node_costs_no_identity(known: Namespace, operator_image: str, release: Release) -> None:
    """Beside programs that take all processors, the operator's request keeps it alive and answering."""
    before = release.restarts()
    known.account("stranger")
    known.create(many("hog", resident(operator_image, "billing", program=HOG), HOGS))
    known.kubectl("rollout", "status", "deployment/hog", "--timeout=180s")

    made = make(known, operator_image, "stranger", 3)

    known.kubectl("delete", "deployment/hog", "--cascade=foreground", "--timeout=180s")
    assert [is_wired(pod) for pod in made] == [True] * 3
    assert before == release.restarts()


def test_operator_out_of_memory_comes_back(known: Namespace, operator_image: str, release: Release) -> None:
    """Where a container's memory is used up, its limit ends what is in it and not the service."""
    known.account("stranger")
    name = release.pods()[0]["metadata"]["name"]
    greed = ["exec", name, f"--namespace={NAMESPACE}", "--", "python3", "-c", GREEDY]

    greedy = finish([known.plane.folder / "bin" / "kubectl", *greed], env=known.plane.environment)
    made = make(known, operator_image, "stranger", 3)

    assert greedy.status == 137
    assert [is_wired(pod) for pod in made] == [True] * 3
    release.settle()
