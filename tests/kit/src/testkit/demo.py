"""`make demo`: the whole way of an identity, once, on a real cluster.

An annotated ServiceAccount, what the operator compiles of it, a Deployment whose pod the API server wires, a
program that imports the helper, and what it is given for the pod's token. Azure is stood in for: a token
service verifies that token as Entra does. Where this machine can have a node, all of it runs in pods; where
it cannot, `testkit.stages` stands in for the node too. All the rest is real.
"""

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

from testkit.binaries import BinariesMissing
from testkit.console import StepFailed, console, duration, step
from testkit.control_plane import ControlPlane
from testkit.processes import ProcessFailed, leave_on_signals
from testkit.stages import TENANT, Stage, set_up
from workload_identity_operator import contract

EXAMPLES: Final = Path(__file__).parents[4] / "manifests" / "examples"
PID_FILE: Final = Path(".run") / "demo.pid"
LOG_FILE: Final = Path(".run") / "demo.log"
COMPILED_WITHIN: Final = 30
"""Seconds; it takes a tenth of one."""
POD_WITHIN: Final = 30
"""Seconds that the Deployment's pod may take to appear."""


@dataclass(frozen=True, slots=True)
class Played:
    """What a play leaves.

    Attributes:
        stage: Where it was.
        pod: The wired pod, NAMESPACE/POD.
        client_id: Its client id.
    """

    stage: Stage
    pod: str
    client_id: str


def play(stack: ExitStack, *, alone: bool) -> Played:
    """Go the whole way; what was started lasts as long as the stack.

    Args:
        stack: What ends it.
        alone: Whether to do without a node even where one can be had.

    Raises:
        StepFailed: A step failed; its reason was shown.
    """
    stage = set_up(stack, alone=alone)
    plane = stage.plane
    account, deployment = _example("serviceaccount.yaml"), _example("deployment.yaml")
    with step("Annotate a ServiceAccount") as taken:
        namespace = account["metadata"]["namespace"]
        plane.create_namespace(namespace)
        stage.prepare(namespace)
        plane.kubectl("apply", "--filename=-", given=yaml.safe_dump(account))
        (annotation,) = account["metadata"]["annotations"].items()
        taken.detail = f"{namespace}/{account['metadata']['name']} {annotation[0]}={annotation[1]}"
    with step("See what the operator compiled of it for the API server") as taken:
        identities = _compiled(plane, namespace)
        taken.detail = (
            f"podwiring {namespace}/{contract.POD_WIRING_NAME}, identities of {', '.join(identities)}"
        )
    with step("Register the federated credential with the application") as taken:
        stage.register(annotation[1], f"{namespace}/{account['metadata']['name']}")
        taken.detail = f"system:serviceaccount:{namespace}:{account['metadata']['name']}"
    with step("Create a Deployment; its pod comes from the controller manager") as taken:
        stage.dress(deployment["spec"]["template"]["spec"])
        plane.kubectl("apply", "--filename=-", given=yaml.safe_dump(deployment))
        pod = _pod_of(plane, deployment)
        taken.detail = f"{namespace}/{pod['metadata']['name']}"
    with step("See what was added to the pod") as taken:
        added = _added(plane, pod, deployment["spec"]["template"]["spec"])
        taken.detail = _who_wired(pod)
    _show_pod(added)
    with step("Run a program that imports the helper, with the pod's projected token") as taken:
        claims, taken.detail = stage.run(pod)
    with step("Check what the token says") as taken:
        wanted = {"appid": annotation[1], "tid": TENANT, "aud": "https://storage.azure.com"}
        found = {claim: claims.get(claim) for claim in wanted}
        if found != wanted:
            raise RuntimeError(f"The access token should say {wanted}, it says {found}.")
        taken.detail = "application, tenant and audience are right"
    console.print("The access token's claims:")
    console.print(Syntax(json.dumps(claims, indent=2), "json", background_color="default"))
    return Played(stage, f"{namespace}/{pod['metadata']['name']}", annotation[1])


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


def _added(plane: ControlPlane, pod: Mapping[str, Any], written: Mapping[str, Any]) -> Sequence[str]:
    """Return the pod's spec as YAML lines, those that the operator added marked with "+".

    The other side is what its author `written` has, as the API server makes it when its label opts out: a dry
    run.
    """
    plain = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "opted-out",
            "namespace": pod["metadata"]["namespace"],
            "labels": {contract.USE_LABEL: "false"},
        },
        "spec": written,
    }
    answer = plane.kubectl(
        "create", "--dry-run=server", "--output=json", "--filename=-", given=json.dumps(plain)
    )
    before, after = _shown(json.loads(answer)), _shown(pod)
    if before == after:
        raise RuntimeError("The pod was not wired: it equals one that opted out.")
    # What is added comes behind what was there, so the first line that fits is the same one.
    lines, there = [], list(before)
    for line in after:
        same = bool(there) and line == there[0]
        lines.append(f"{' ' if same else '+'} {line}")
        there = there[1:] if same else there
    if there:
        raise RuntimeError(f"More than additions: {there[0]!r} is no longer there.")
    return lines


def _shown(pod: Mapping[str, Any]) -> list[str]:
    """Return the parts of a pod that wiring touches; what the API server fills in by chance left out."""
    spec = pod["spec"]
    random = {v["name"] for v in spec["volumes"] if v["name"].startswith("kube-api-access-")}
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "env": _ordered(container["env"]),
            "volumeMounts": _ordered([m for m in container["volumeMounts"] if m["name"] not in random]),
        }
        for container in spec["containers"]
    ]
    shown = {
        "serviceAccountName": spec["serviceAccountName"],
        "containers": containers,
        "volumes": _ordered([volume for volume in spec["volumes"] if volume["name"] not in random]),
    }
    trimmed = _without_empty({"spec": shown})
    return yaml.safe_dump(trimmed, sort_keys=False).splitlines()


def _ordered(value: Any) -> Any:
    """Return a value with the members of its objects in one order, whoever wrote them: `name` first."""
    match value:
        case dict():
            return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: (key != "name", key))}
        case list():
            return [_ordered(inner) for inner in value]
        case _:
            return value


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


def _how_to_play(played: Played) -> None:
    """Tell what one can do with what was left running."""
    plane = played.stage.plane
    console.print(
        "\nEverything is still running; `make stop` ends it. To play with it:",
        f"\n  export KUBECONFIG={plane.kubeconfig}",
        f"  export PATH={plane.folder / 'bin'}{os.pathsep}$PATH    # its kubectl and helm",
        *played.stage.ways_to_play(played.pod, played.client_id),
        f"\nLogs are in {plane.folder} and {LOG_FILE.resolve()}.",
        sep="\n",
        markup=False,
    )


def perform(*, alone: bool) -> None:
    """Play, then end everything. Ends with status 1 when a step failed."""
    started = time.monotonic()
    with _failure_told(started), ExitStack() as stack:
        play(stack, alone=alone)
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


def keep(*, alone: bool) -> int:
    """Play in a process of its own that goes on; return when it has told how to play with it."""
    if _running():
        console.print("A demo is still running: `make stop` ends it.", style="red")
        return 1
    PID_FILE.parent.mkdir(exist_ok=True)
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "testkit.demo", "--keeper", str(theirs), *(["--alone"] if alone else [])]
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


def keep_running(verdict: int, *, alone: bool) -> None:
    """Be the process that goes on: play, say so through the pipe, wait for the end."""
    leave_on_signals()
    started = time.monotonic()
    with _failure_told(started), ExitStack() as stack:
        played = play(stack, alone=alone)
        _close("passed", started)
        _how_to_play(played)
        _leave_terminal()
        os.write(verdict, b"kept")
        os.close(verdict)
        while True:
            played.stage.plane.check()
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
@click.option("--alone", is_flag=True, help="Do without a node, on which pods would run.")
@click.option("--keeper", "verdict", type=int, hidden=True)
def main(*, keeps: bool, stops: bool, alone: bool, verdict: int | None) -> None:
    """Show the whole way of an identity on a real control plane."""
    if verdict is not None:
        keep_running(verdict, alone=alone)
    elif stops:
        sys.exit(stop())
    elif keeps:
        sys.exit(keep(alone=alone))
    else:
        perform(alone=alone)


if __name__ == "__main__":
    main()
