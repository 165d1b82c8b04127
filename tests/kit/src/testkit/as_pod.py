"""`python -m testkit.as_pod NAMESPACE/POD [COMMAND …]`: run a program as a container of a stored pod.

What its kubelet would do: the pod's projected tokens are asked for and found at their paths, and the program
has exactly the container's environment. Without a command it is the sample, which shows what its access token
says.
"""

import os
import shutil
import sys
from pathlib import Path

import click

from testkit.control_plane import NAMED_KUBECONFIG, ClusterUnusable, ControlPlane
from testkit.kubelet import NeedsNode, run_container
from testkit.processes import ProcessFailed

SAMPLE = Path(__file__).with_name("sample.py")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--container", help="Which one; the first when there are several.")
@click.argument("where", metavar="NAMESPACE/POD")
@click.argument("command", nargs=-1)
def main(where: str, command: tuple[str, ...], container: str | None) -> None:
    """Run COMMAND, or the sample, as a container of the pod; KUBECONFIG names the cluster."""
    if not (kubeconfig := os.environ.get("KUBECONFIG")):
        raise click.ClickException("KUBECONFIG is not set: set it to the cluster that has the pod.")
    os.environ[NAMED_KUBECONFIG] = kubeconfig
    namespace, slash, name = where.partition("/")
    if not slash:
        raise click.ClickException(f"{where!r} names no pod: wanted NAMESPACE/POD.")
    program = shutil.which(command[0]) if command else sys.executable
    if program is None:
        raise click.ClickException(f"there is no program {command[0]!r} on the PATH.")
    try:
        with ControlPlane() as plane:
            pod = plane.get("pod", name, f"--namespace={namespace}")
            chosen = container or pod["spec"]["containers"][0]["name"]
            run = run_container(plane, pod, chosen, [program, *(command[1:] if command else (SAMPLE,))])
    except (ClusterUnusable, NeedsNode, ProcessFailed) as failure:
        raise click.ClickException(str(failure)) from failure
    if not run.in_place:
        click.echo(
            "This machine permits no mount namespace: the token is elsewhere than its path says.", err=True
        )
    click.echo(run.output, nl=False)
    click.echo(run.errors, nl=False, err=True)
    sys.exit(run.status)


if __name__ == "__main__":
    main()
