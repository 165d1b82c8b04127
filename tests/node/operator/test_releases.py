"""What becomes of running pods and of the cluster when a release is upgraded, rolled back, uninstalled."""

import json
from collections.abc import Mapping
from typing import Any

from kubernetes.client.exceptions import ApiException

from testkit.installation import NAMESPACE, RELEASE
from testkit.node import Node
from testkit.releases import SELECTOR, create, is_wired, released, stream, until_known
from testkit.residents import claims_seen_in, many, one, resident
from testkit.workloads import CLIENT, Namespace, eventually
from workload_identity_operator import contract

KEPT = {"customresourcedefinition.apiextensions.k8s.io/podwirings.workload-identity.io"}
"""What an uninstall leaves, as the chart says: deleting it would delete the next release's PodWirings."""


def ours(node: Node) -> set[str]:
    """Return all objects whose labels or names say that they are the release's; PodWirings aside."""
    kubectl = node.plane.kubectl
    kinds = kubectl("api-resources", "--verbs=list", "--output=name").split()
    listed = ",".join(kind for kind in kinds if not kind.startswith(("events", "podwirings", "apiservices")))
    labelled = kubectl(
        "get", listed, "--all-namespaces", f"--selector=app.kubernetes.io/instance={RELEASE}", "-oname"
    )
    everything = kubectl("get", listed, "--all-namespaces", "--output=name").split()
    return set(labelled.split()) | {name for name in everything if RELEASE in name}


def running_wired(namespace: Namespace, app: str) -> int:
    """Return how many pods run with an identity; 0 as long as there are others."""
    pods = namespace.get("pods", f"--selector=app={app}")["items"]
    good = [pod for pod in pods if is_wired(pod) and pod["status"]["phase"] == "Running"]
    return len(good) if len(good) == len(pods) else 0


def made_without_identity(namespace: Namespace, manifest: Mapping[str, Any]) -> bool:
    """Whether the API server has noticed that our webhook and policy are gone: it does so within a second."""
    try:
        return not is_wired(create(namespace, manifest, dry_run="All"))
    except ApiException:
        return False


def test_a_release_from_its_install_to_the_next(
    node: Node, namespace: Namespace, operator_image: str
) -> None:
    """Upgrade and rollback refuse nobody; after an uninstall running pods go on, and nothing of ours is left.

    Pods made without an identity meanwhile get one when the chart is installed again, with healing on; those
    that have theirs are not touched.
    """
    spec = resident(operator_image, "billing")
    strange = one("probe", resident(operator_image, "stranger"))
    namespace.account("billing", {contract.CLIENT_ID: CLIENT})
    namespace.account("stranger")
    subject = f"system:serviceaccount:{namespace.name}:billing"
    with released(node.plane, {}) as release:
        until_known(namespace, one("probe", spec))
        namespace.create(many("web", spec, 1))
        namespace.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
        (running,) = namespace.get("pods", "--selector=app=web")["items"]
        name = running["metadata"]["name"]

        with stream(namespace, strange) as seen:
            release.upgrade({"logLevel": "debug", "podAnnotations": {"try": "two"}})
            upgraded = release.pods()
            node.plane.helm("rollback", RELEASE, f"--namespace={NAMESPACE}", "--wait", "--timeout=180s")
        before = ours(node)
        node.plane.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait", "--timeout=180s")

        # The running pod has what it had, and new ones are made, without an identity.
        assert claims_seen_in(namespace, name)["sub"] == subject
        (still,) = namespace.get("pods", "--selector=app=web")["items"]
        eventually(lambda: made_without_identity(namespace, one("probe", spec)), within=60)
        later = namespace.create(one("later", spec))
        release.kubectl("wait", "pods", f"--selector={SELECTOR}", "--for=delete", "--timeout=180s")
        left = ours(node) - {f"namespace/{NAMESPACE}"}
        releases = json.loads(node.plane.helm("list", f"--namespace={NAMESPACE}", "--output=json"))

        # The next release finds what was made meanwhile.
        namespace.create(many("late", spec, 2))
        namespace.kubectl("rollout", "status", "deployment/late", "--timeout=180s")
        unwired = namespace.get("pods", "--selector=app=late")["items"]
        release.upgrade({"healing": {"mode": "restart", "pauseSeconds": 1}})
        eventually(lambda: running_wired(namespace, "late") == 2, within=180)
        (same,) = namespace.get("pods", "--selector=app=web")["items"]

    assert (seen.refused, seen.unwired) == ([], 0)
    assert {pod["metadata"]["annotations"]["try"] for pod in upgraded} == {"two"}
    assert len(before) > 10
    assert (left, releases) == (KEPT, [])
    assert running["metadata"]["uid"] == still["metadata"]["uid"]
    assert [is_wired(pod) for pod in (later, *unwired)] == [False] * 3
    assert same["metadata"]["uid"] == running["metadata"]["uid"]
