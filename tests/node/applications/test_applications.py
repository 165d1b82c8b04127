"""From `helm install` to a blob: an annotated ServiceAccount, a pod, and the token that it was given."""

from collections.abc import Callable
from typing import Any

import pytest

from testkit.applications import WITHIN, Application
from testkit.azure import TENANT, Azure
from testkit.control_plane import ControlPlane
from testkit.installation import NAMESPACE, RELEASE
from testkit.workloads import Namespace, eventually
from workload_identity_operator import contract

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture
def application(namespace: Namespace, standins: Azure, loaded: dict[str, str]) -> Application:
    """An application with the helper, in a namespace that enforces Pod Security `restricted`."""
    standins.trust_in(namespace)
    namespace.plane.kubectl(
        "label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted"
    )
    made = Application(namespace, standins, loaded["workload-identity-sample"])
    made.settle()
    return made


def of(application: Application, told: dict[str, Any]) -> bool:
    """Whether a program wrote its blob as this application, with the token for storage."""
    wanted = {"appid": application.client_id, "tid": TENANT, "aud": "https://storage.azure.com", "same": True}
    assert {name: told[name] for name in wanted} == wanted
    return True


def test_every_kind_of_workload_writes_blobs(application: Application) -> None:
    """Deployment, StatefulSet, DaemonSet, Job, CronJob and bare pod: each of their pods writes its blob."""
    goes_on = application.template("x", restartPolicy="Always")["spec"]
    goes_on["containers"] = [application.container(every=3600)]
    ends = {**goes_on, "restartPolicy": "Never", "containers": [application.container()]}

    def template(app: str, spec: dict[str, Any]) -> dict[str, Any]:
        return {**application.template(app), "spec": spec}

    def workload(kind: str, spec: dict[str, Any]) -> None:
        api, app = "batch/v1" if kind.endswith("Job") else "apps/v1", kind.lower()
        application.space.create({"apiVersion": api, "kind": kind, "metadata": {"name": app}, "spec": spec})

    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        selected = {"matchLabels": {"app": kind.lower()}}
        workload(kind, {"selector": selected, "template": template(kind.lower(), goes_on)})
    workload("Job", {"template": template("job", ends)})
    monthly = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template("cronjob", ends)}}}
    workload("CronJob", monthly)
    application.space.kubectl("create", "job", "by-hand", "--from=cronjob/cronjob")  # nobody waits a year
    application.pod("pod", ends)

    for app in ("deployment", "statefulset", "daemonset", "job", "cronjob", "pod"):
        assert of(application, application.told(app)), app
    done = ("wait", "--for=condition=Complete", f"--timeout={WITHIN}s", "job/job", "job/by-hand")
    application.space.kubectl(*done)


def test_every_container_of_a_pod_writes_blobs(application: Application) -> None:
    """An init container, a native sidecar and two ordinary ones all find the identity; the pod can end."""
    init = application.container("init")
    sidecar = application.container("sidecar", every=3600, restartPolicy="Always")
    spec = application.spec(
        application.container("first"), application.container("second"), restartPolicy="Never"
    )
    application.pod("several", {**spec, "initContainers": [sidecar, init]})

    for container in ("sidecar", "init", "first", "second"):
        assert of(application, application.told("several", container)), container
    eventually(lambda: application.phase("several") == "Succeeded", within=WITHIN)


@pytest.fixture
def of_azure_identity(application: Application, loaded: dict[str, str]) -> Application:
    """The same application with azure-identity in its image instead of the helper."""
    image = loaded["workload-identity-sample-azure-identity"]
    return Application(
        application.space, application.azure, image, application.account, application.client_id
    )


def test_azure_identity_is_served_as_it_is(of_azure_identity: Application) -> None:
    """A program that has never heard of us writes its blob by what was added to its pod."""
    of_azure_identity.pod("theirs", of_azure_identity.spec(restartPolicy="Never"))

    told = of_azure_identity.told("theirs")
    assert of(of_azure_identity, told)
    assert told["credential"].startswith("azure.identity.")


def test_token_is_found_where_the_peer_had_it(of_azure_identity: Application) -> None:
    """A program that has the peer's former path built in finds the token there."""
    env = {contract.ENV_TOKEN_FILE: f"{contract.LEGACY_PATH}/{contract.LEGACY_TOKEN_PATH}"}
    spec = of_azure_identity.spec(of_azure_identity.container(env=env), restartPolicy="Never")
    of_azure_identity.pod("former", spec, annotations={contract.LEGACY_PATH_ANNOTATION: "true"})

    assert of(of_azure_identity, of_azure_identity.told("former"))


@pytest.fixture
def without_operator(cluster: ControlPlane, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Return what takes all replicas away; they are brought back after the test."""
    deployment = (f"--namespace={NAMESPACE}", f"deployment/{RELEASE}")

    def bring_back() -> None:
        cluster.kubectl("scale", *deployment, "--replicas=2")
        cluster.kubectl("rollout", "status", *deployment, f"--timeout={2 * WITHIN}s")

    def take_away() -> None:
        request.addfinalizer(bring_back)
        cluster.kubectl("scale", *deployment, "--replicas=0")
        gone = ("wait", "--for=delete", f"--selector=app.kubernetes.io/instance={RELEASE}")
        cluster.kubectl(*gone, "pod", f"--namespace={NAMESPACE}", f"--timeout={2 * WITHIN}s")

    return take_away


def test_pods_of_known_identities_start_without_the_operator(
    application: Application, without_operator: Callable[[], None]
) -> None:
    """Both replicas are gone: a pod of a known ServiceAccount starts, gets its token and writes its blob."""
    without_operator()

    stored = application.pod("alone", application.spec(restartPolicy="Never"))

    assert any(volume["name"] == contract.POLICY_VOLUME for volume in stored["spec"]["volumes"])
    assert of(application, application.told("alone"))
    eventually(lambda: application.phase("alone") == "Succeeded", within=WITHIN)
