"""The helper where it lives: what it explains in a pod, tokens that are renewed, clocks that differ."""

import re

import pytest

from testkit.applications import SCOPE, WITHIN, Application
from testkit.azure import Azure
from testkit.node import Node
from testkit.workloads import Namespace, eventually
from workload_identity_operator import contract

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture
def application(namespace: Namespace, standins: Azure, loaded: dict[str, str]) -> Application:
    """An application with the helper, that Azure does not trust yet."""
    standins.trust_in(namespace)
    made = Application(namespace, standins, loaded["workload-identity-sample"])
    made.settle(trusted=False)
    return made


def start(application: Application, name: str, **metadata: object) -> None:
    """Run a pod of the application that waits for whoever looks into it."""
    waits = application.container(command=["python3", "-c", "import signal; signal.pause()"])
    application.pod(name, application.spec(waits, terminationGracePeriodSeconds=0), **metadata)


def is_running(application: Application, name: str) -> None:
    """Wait until a pod runs."""
    application.space.kubectl("wait", "--for=condition=Ready", f"--timeout={WITHIN}s", f"pod/{name}")


def test_explaining_wired_unwired_and_wrongly_federated_pods(application: Application) -> None:
    """By `kubectl exec`: what is wrong and what to change, or that there is a token; never the token."""
    start(application, "opted-out", labels={contract.USE_LABEL: "false"})
    start(application, "wired")
    is_running(application, "opted-out")
    is_running(application, "wired")

    status, said = application.explain("opted-out")
    assert status == 1
    assert "WorkloadIdentityCredential lacks" in said
    assert f'{contract.USE_LABEL}: "true"' in said

    application.azure.register(application.client_id, "elsewhere/somebody")
    status, said = application.explain("wired")
    subject = f"system:serviceaccount:{application.space.name}:{application.account}"
    assert status == 1
    assert subject in said
    assert application.space.plane.issuer in said
    assert "AADSTS7002" in said

    application.azure.register(application.client_id, f"{application.space.name}/{application.account}")
    status, said = application.explain("wired")
    assert status == 0, said
    assert re.search(r"WorkloadIdentityCredential +token", said), said
    assert "eyJ" not in said


@pytest.fixture
def trusted(application: Application) -> Application:
    """The application, trusted."""
    application.azure.register(application.client_id, f"{application.space.name}/{application.account}")
    return application


AGAIN_AND_AGAIN = """\
import time
from workload_identity import WorkloadIdentityCredential
credential = WorkloadIdentityCredential()
while True:
    credential.get_token({scope!r}, claims='{{"access_token": {{}}}}')  # whatever is held
    time.sleep(0.5)
"""


def test_token_that_the_kubelet_renews(trusted: Application, node: Node) -> None:
    """The file changes under a running process, which goes on with what is in it now and misses nothing."""
    program = AGAIN_AND_AGAIN.format(scope=SCOPE)
    trusted.pod("lasting", trusted.spec(trusted.container(command=["python3", "-c", program])))

    def presented() -> list[str]:
        return [one["assertion"] for one in trusted.azure.requests(trusted.client_id)]

    first = eventually(presented, within=WITHIN)[0]
    node.restart_kubelet()
    eventually(lambda: presented()[-1] != first, within=WITHIN)
    seen = len(presented())
    eventually(lambda: len(presented()) > seen + 2, within=WITHIN)

    assert first
    assert len(set(presented())) == 2
    assert {one["outcome"] for one in trusted.azure.requests(trusted.client_id)} == {"granted"}
    (status,) = trusted.space.get("pod", "lasting")["status"]["containerStatuses"]
    assert status["restartCount"] == 0


def test_token_service_with_another_clock(trusted: Application) -> None:
    """A token service that is ahead refuses the pod's token; the error says that clocks differ."""
    start(trusted, "wired")
    is_running(trusted, "wired")

    with trusted.azure.fault("clock-skew", trusted.client_id, shift=2 * 3600):
        status, said = trusted.explain("wired")
    assert status == 1
    assert "AADSTS700024" in said
    assert "clock" in said
    assert trusted.explain("wired")[0] == 0
