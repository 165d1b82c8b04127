"""`make demo`: the whole way of an identity, once, on a real control plane.

An annotated ServiceAccount, what the operator compiles of it, a Deployment whose pod the API server wires,
the token its kubelet would project, a program that imports the helper, and an access token for it. Azure and
the node are stood in for: a token service verifies the pod's token as Entra does, and the program runs here
with exactly the pod's environment. All the rest is real.
"""

import difflib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import yaml
from rich.syntax import Syntax
from rich.text import Text

from testkit.as_pod import SAMPLE
from testkit.binaries import CONTROL_PLANE, BinariesMissing, provide
from testkit.console import StepFailed, console, duration, step
from testkit.control_plane import ControlPlane
from testkit.entra import EntraStandIn
from testkit.installation import RELEASE, serve
from testkit.kubelet import run_container
from testkit.processes import ProcessFailed, leave_on_signals
from workload_identity_operator import contract

EXAMPLES: Final = Path(__file__).parents[4] / "manifests" / "examples"
TENANT: Final = "99999999-8888-7777-6666-555555555555"
AUDIENCE: Final = "api://AzureADTokenExchange"
PID_FILE: Final = Path(".run") / "demo.pid"
LOG_FILE: Final = Path(".run") / "demo.log"
COMPILED_WITHIN: Final = 30
"""Seconds; it takes a tenth of one."""
POD_WITHIN: Final = 30
"""Seconds that the Deployment's pod may take to appear."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs while the demo does, and what was made.

    Attributes:
        plane: The control plane.
        entra: The Entra stand-in.
        pod: The wired pod, NAMESPACE/POD.
        client_id: Its client id.
    """

    plane: ControlPlane
    entra: EntraStandIn
    pod: str
    client_id: str


def play(stack: ExitStack) -> Stage:
    """Go the whole way; what was started lasts as long as the stack.

    Raises:
        StepFailed: A step failed; its reason was shown.
    """
    with step("Start etcd, kube-apiserver and kube-controller-manager") as taken:
        plane = stack.enter_context(ControlPlane(controllers=True))
        taken.detail = plane.server
    with step("Start the Entra stand-in") as taken:
        entra = stack.enter_context(EntraStandIn(trust=[plane.ca_file], folder=plane.folder))
        taken.detail = entra.authority
    with step("helm install the chart, start the operator with the rights of its ServiceAccount") as taken:
        values = {"azureTenantID": TENANT, "azureAuthorityHost": entra.authority}
        served = stack.enter_context(serve(plane, values))
        taken.detail = f"release {RELEASE}, reviews at {served.operator.webhook}, ready"
    account, deployment = _example("serviceaccount.yaml"), _example("deployment.yaml")
    with step("Annotate a ServiceAccount") as taken:
        namespace = account["metadata"]["namespace"]
        plane.create_namespace(namespace)
        plane.kubectl("apply", "--filename=-", given=yaml.safe_dump(account))
        (annotation,) = account["metadata"]["annotations"].items()
        taken.detail = f"{namespace}/{account['metadata']['name']} {annotation[0]}={annotation[1]}"
    with step("See what the operator compiled of it for the API server") as taken:
        identities = _compiled(plane, namespace)
        taken.detail = (
            f"podwiring {namespace}/{contract.POD_WIRING_NAME}, identities of {', '.join(identities)}"
        )
    with step("Create a Deployment; its pod comes from the controller manager") as taken:
        template = deployment["spec"]["template"]["spec"]
        # A pod trusts Entra's certificate by itself; for the stand-in's it is told whom to trust.
        template["containers"][0]["env"] = [{"name": "SSL_CERT_FILE", "value": str(entra.ca_file)}]
        plane.kubectl("apply", "--filename=-", given=yaml.safe_dump(deployment))
        pod = _pod_of(plane, deployment)
        taken.detail = f"{namespace}/{pod['metadata']['name']}"
    with step("See what was added to the pod") as taken:
        added = _added(plane, pod)
        taken.detail = _who_wired(pod)
    _show_pod(added)
    with step("Register the federated credential with the application") as taken:
        subject = f"system:serviceaccount:{namespace}:{account['metadata']['name']}"
        entra.register(annotation[1], tenant_id=TENANT, issuer=plane.issuer, subject=subject)
        taken.detail = subject
    with step("Project the pod's token and run a program that imports the helper") as taken:
        claims, taken.detail = _run_sample(plane, pod)
    with step("Check what the token says") as taken:
        wanted = {"appid": annotation[1], "tid": TENANT, "aud": "https://storage.azure.com"}
        found = {claim: claims.get(claim) for claim in wanted}
        if found != wanted:
            raise RuntimeError(f"The access token should say {wanted}, it says {found}.")
        taken.detail = "application, tenant and audience are right"
    console.print("The access token's claims:")
    console.print(Syntax(json.dumps(claims, indent=2), "json", background_color="default"))
    return Stage(plane, entra, f"{namespace}/{pod['metadata']['name']}", annotation[1])


def _example(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))


def _compiled(plane: ControlPlane, namespace: str) -> Sequence[str]:
    """Return the ServiceAccounts in a namespace's PodWiring, once there is one."""
    deadline = time.monotonic() + COMPILED_WITHIN
    while time.monotonic() < deadline:
        if found := plane.get("podwirings", "--namespace", namespace)["items"]:
            return list(found[0]["spec"]["identities"])
        time.sleep(0.1)
    raise RuntimeError(f"No PodWiring appeared within {COMPILED_WITHIN} s.")


def _who_wired(pod: Mapping[str, Any]) -> str:
    if any(volume["name"] == contract.POLICY_VOLUME for volume in pod["spec"]["volumes"]):
        return "by the API server itself, with the chart's policy"
    return "by the operator's webhook"


def _pod_of(plane: ControlPlane, deployment: Mapping[str, Any]) -> Mapping[str, Any]:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    namespace, selector = deployment["metadata"]["namespace"], f"app={labels['app']}"
    deadline = time.monotonic() + POD_WITHIN
    while time.monotonic() < deadline:
        if found := plane.get("pods", "--namespace", namespace, "--selector", selector)["items"]:
            pod: Mapping[str, Any] = found[0]
            return pod
        time.sleep(0.1)
    events = plane.kubectl("get", "events", "--namespace", namespace)
    raise RuntimeError(f"No pod appeared within {POD_WITHIN} s. Events:\n{events}")


def _added(plane: ControlPlane, pod: Mapping[str, Any]) -> Sequence[str]:
    """Return the pod's spec as YAML lines, those that the operator added marked with "+".

    The other side is the same pod as the API server makes it when its label opts out: a dry run.
    """
    container = pod["spec"]["containers"][0]
    ours = [
        volume for volume in pod["spec"]["volumes"] if volume["name"].startswith("azure-workload-identity-")
    ]
    plain = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "opted-out",
            "namespace": pod["metadata"]["namespace"],
            "labels": {contract.USE_LABEL: "false"},
        },
        "spec": {
            "serviceAccountName": pod["spec"]["serviceAccountName"],
            "containers": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "env": [v for v in container["env"] if v["name"] == "SSL_CERT_FILE"],
                }
            ],
        },
    }
    answer = plane.kubectl(
        "create", "--dry-run=server", "--output=json", "--filename=-", given=json.dumps(plain)
    )
    before, after = _shown(json.loads(answer)), _shown(pod)
    if not ours or before == after:
        raise RuntimeError("The pod was not wired: it equals one that opted out.")
    lines = list(difflib.ndiff(before, after))
    if removed := [line for line in lines if line.startswith("- ")]:
        raise RuntimeError(f"More than additions: {removed}")
    return [line for line in lines if not line.startswith("? ")]


def _shown(pod: Mapping[str, Any]) -> list[str]:
    """Return the parts of a pod that wiring touches; what the API server fills in by chance left out."""
    spec = pod["spec"]
    random = {v["name"] for v in spec["volumes"] if v["name"].startswith("kube-api-access-")}
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "env": container["env"],
            "volumeMounts": [m for m in container["volumeMounts"] if m["name"] not in random],
        }
        for container in spec["containers"]
    ]
    shown = {
        "serviceAccountName": spec["serviceAccountName"],
        "containers": containers,
        "volumes": [volume for volume in spec["volumes"] if volume["name"] not in random],
    }
    trimmed = _without_empty({"spec": shown})
    return yaml.safe_dump(trimmed, sort_keys=False).splitlines()


def _without_empty(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_empty(inner) for key, inner in value.items() if inner not in ([], {})}
        case list():
            return [_without_empty(inner) for inner in value]
        case _:
            return value


def _show_pod(lines: Sequence[str]) -> None:
    console.print("The pod; everything in green, marked +, was added to what its author wrote:")
    for line in lines:
        console.print(Text(f"  {line}", style="green" if line.startswith("+ ") else "dim"))


def _run_sample(plane: ControlPlane, pod: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    container = pod["spec"]["containers"][0]["name"]
    run = run_container(plane, pod, container, [sys.executable, SAMPLE])
    if run.status:
        raise RuntimeError(f"The program ended with status {run.status}:\n{run.errors.strip()}")
    where = "its environment is exactly the pod's"
    if not run.in_place:
        where += ", but for the token's path: this machine permits no mount namespace"
    claims: Mapping[str, Any] = json.loads(run.output)
    return claims, where


def _how_to_play(stage: Stage) -> None:
    """Tell what one can do with what was left running."""
    plane, entra = stage.plane, stage.entra
    curl = f"curl --cacert {entra.ca_file}"
    credential = {
        "tenant": TENANT,
        "client_id": stage.client_id,
        "name": "mine",
        "issuer": plane.issuer,
        "subject": "system:serviceaccount:NAMESPACE:SERVICEACCOUNT",
        "audience": AUDIENCE,
    }
    as_pod = f"{sys.executable} -m testkit.as_pod"
    console.print(
        "\nEverything is still running; `make stop` ends it. To play with it:",
        f"\n  export KUBECONFIG={plane.kubeconfig}",
        f"  export PATH={plane.folder / 'bin'}{os.pathsep}$PATH    # its kubectl and helm",
        "\nRun the sample as the demo's pod, or any program as any pod:",
        f"\n  {as_pod} {stage.pod}",
        f"  {as_pod} NAMESPACE/POD [--container NAME] PROGRAM [ARGUMENT ...]",
        f"\nA pod must trust the stand-in: give it the variable SSL_CERT_FILE={entra.ca_file}",
        f"\nThe Entra stand-in is {entra.authority}, the tenant {TENANT}.",
        "Register a federated credential, see them all, remove the demo's, see the requests so far:",
        f"\n  {curl} {entra.authority}/standin/federated-credentials \\",
        f"    --header 'Content-Type: application/json' --data '{json.dumps(credential)}'",
        f"  {curl} {entra.authority}/standin/applications",
        f"  {curl} --request DELETE \\",
        f"    '{entra.authority}/standin/federated-credentials?tenant={TENANT}&client_id={stage.client_id}'",
        f"  {curl} {entra.authority}/standin/requests",
        f"\nLogs are in {plane.folder} and {LOG_FILE.resolve()}.",
        sep="\n",
        markup=False,
    )


def perform() -> None:
    """Play, then end everything. Ends with status 1 when a step failed."""
    started = time.monotonic()
    with _failure_told(started):
        provide(CONTROL_PLANE)
        with ExitStack() as stack:
            play(stack)
    _close("passed", started)


@contextmanager
def _failure_told(started: float) -> Iterator[None]:
    """Tell why what is inside failed, and end with status 1."""
    try:
        yield
    except (StepFailed, BinariesMissing, ProcessFailed) as failure:
        if not isinstance(failure, StepFailed):  # which has told already
            console.print(str(failure), style="red", markup=False)
        _close("failed", started)
        sys.exit(1)


def _close(verdict: str, started: float) -> None:
    console.print(f"\nDemo {verdict} in {duration(time.monotonic() - started)}.")


def keep() -> int:
    """Play in a process of its own that goes on; return when it has told how to play with it."""
    if _running():
        console.print("A demo is still running: `make stop` ends it.", style="red")
        return 1
    PID_FILE.parent.mkdir(exist_ok=True)
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "testkit.demo", "--keeper", str(theirs)]
    keeper = subprocess.Popen(command, pass_fds=[theirs], start_new_session=True)
    os.close(theirs)
    PID_FILE.write_text(str(keeper.pid), encoding="ascii")
    try:
        with os.fdopen(ours, "rb") as verdict:
            kept = verdict.read() == b"kept"
    except KeyboardInterrupt:
        keeper.send_signal(signal.SIGTERM)
        kept = False
    if kept:
        return 0
    status = keeper.wait()
    PID_FILE.unlink(missing_ok=True)
    return status or 1


def keep_running(verdict: int) -> None:
    """Be the process that goes on: play, say so through the pipe, wait for the end."""
    leave_on_signals()
    started = time.monotonic()
    with _failure_told(started):
        provide(CONTROL_PLANE)
        with ExitStack() as stack:
            stage = play(stack)
            _close("passed", started)
            _how_to_play(stage)
            _leave_terminal()
            os.write(verdict, b"kept")
            os.close(verdict)
            while True:
                stage.plane.check()
                time.sleep(1)


def _leave_terminal() -> None:
    """Write to a file from now on: whoever reads our output must see it end."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nowhere, 0), (log, 1), (log, 2)):
        os.dup2(source, target)


def stop() -> int:
    """End what `keep` left running."""
    pid = _running()
    if pid is None:
        console.print("No demo is running.")
        return 0
    os.kill(pid, signal.SIGTERM)
    while _running():
        time.sleep(0.1)
    PID_FILE.unlink(missing_ok=True)
    console.print("The demo has ended, everything of it is gone.")
    return 0


def _running() -> int | None:
    """Return the process that `keep` left, if it is still there."""
    try:
        pid = int(PID_FILE.read_text(encoding="ascii"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"testkit.demo" in command else None


@click.command()
@click.option("--keep", "keeps", is_flag=True, help="Leave everything running and tell how to play with it.")
@click.option("--stop", "stops", is_flag=True, help="End what --keep left running.")
@click.option("--keeper", "verdict", type=int, hidden=True)
def main(*, keeps: bool, stops: bool, verdict: int | None) -> None:
    """Show the whole way of an identity on a real control plane."""
    if verdict is not None:
        keep_running(verdict)
    elif stops:
        sys.exit(stop())
    elif keeps:
        sys.exit(keep())
    else:
        perform()


if __name__ == "__main__":
    main()
