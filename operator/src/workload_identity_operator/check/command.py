"""Edge: the command line of `check`."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from workload_identity_operator.shapes import is_object_name

if TYPE_CHECKING:  # the operator's own start must not wait for what it does not need
    from workload_identity_operator.check.installation import FlagsOf

FINDINGS, CANNOT_LOOK = 1, 2
"""Exit statuses; 0 is nothing wrong."""
LOOK_AGAIN = 3.0
"""Seconds; operator and API server take note of a change within one."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option(
            "--kubeconfig",
            default="",
            help="Cluster to look at; else KUBECONFIG, ~/.kube/config, the pod's own.",
        ),
        click.option("--context", default="", help="Context of the kubeconfig; else its current one."),
        click.option("-n", "--namespace", default="", help="Only workloads of this namespace; else of all."),
        click.option(
            "-o",
            "--output",
            type=click.Choice(["table", "json", "yaml"]),
            default="table",
            show_default=True,
            help="How findings are shown.",
        ),
        click.option("--offline", is_flag=True, help="Ask nobody but the API server."),
        click.option("--no-probe", is_flag=True, help="Make no pod by server-side dry run."),
        click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def command(flags_of: "FlagsOf") -> click.Group:
    """Return the command; `flags_of` reads the arguments of the operator's Deployment."""

    @click.group(name="check", invoke_without_command=True)
    @_options
    @click.pass_context
    def check(ctx: click.Context, /, **given: Any) -> None:
        """Look at a cluster and say what is wrong and how to mend it.

        Nothing is stored: pods are made by server-side dry run only. Exit status: 0 nothing wrong,
        1 something is, 2 the cluster could not be looked at.
        """
        if ctx.invoked_subcommand is None:
            _check(flags_of, "", **given)
        else:
            ctx.obj = given

    @check.command()
    @click.argument("name", metavar="[NAMESPACE/]POD")
    @_options
    @click.pass_context
    def pod(ctx: click.Context, /, name: str, **given: Any) -> None:
        """Explain one pod, from its label to the federated credential that must exist.

        Asks the API server for a token as the kubelet does, to read its claims; the token is never shown.
        """
        merged = {key: given[key] or ctx.obj[key] for key in given}
        if given["output"] == "table":
            merged["output"] = ctx.obj["output"]
        namespace, _, bare = name.rpartition("/")
        if not is_object_name(bare) or ("/" in name and not is_object_name(namespace)):
            raise click.UsageError(f"{name!r} is no pod: wanted NAMESPACE/POD, or POD")
        if namespace and merged["namespace"] not in {"", namespace}:
            raise click.UsageError(f"{name} is not in --namespace {merged['namespace']}")
        merged["namespace"] = namespace or merged["namespace"]
        _check(flags_of, bare, **merged)

    return check


def _check(
    flags_of: "FlagsOf",
    name: str,
    *,
    kubeconfig: str,
    context: str,
    namespace: str,
    output: str,
    offline: bool,
    no_probe: bool,
    quiet: bool,
) -> None:
    """Look and tell; with the name of a pod at that, in the context's namespace unless one is given."""
    if namespace and not is_object_name(namespace):
        raise click.UsageError(f"--namespace: {namespace!r} is no namespace's name")
    try:
        from workload_identity_operator.check.gathering import CannotLook, Looking, connect, look  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        click.echo(
            f"error: check needs {missing.name}: pip install 'workload-identity-operator[check]'", err=True
        )
        sys.exit(CANNOT_LOOK)
    from workload_identity_operator.check.report import may_pass, report_on  # noqa: PLC0415 - not for --help
    from workload_identity_operator.check.terminal import progress, show  # noqa: PLC0415

    try:
        api = connect(kubeconfig, context)
        pod = None
        if name:
            namespace = namespace or api.namespace
            pod = (namespace, name)
        with progress(quiet=quiet) as tell:
            how = Looking(namespace, pod, offline, not no_probe, flags_of, tell)
            report = report_on(*look(api, how), pod)
            if may_pass(report):
                tell("all of it once more: somebody may have changed something a moment ago")
                time.sleep(LOOK_AGAIN)
                report = report_on(*look(api, how), pod)
    except (CannotLook, LookupError) as reason:
        click.echo(f"error: {reason}", err=True)
        sys.exit(CANNOT_LOOK)
    show(report, output)
    sys.exit(FINDINGS if report.wrong else 0)
