"""The command line."""

import json
import logging
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import click

from workload_identity_operator import __version__, contract
from workload_identity_operator.check.command import command as check_command
from workload_identity_operator.errors import SettingsInvalid
from workload_identity_operator.settings import LOG_LEVELS, TLS_VERSIONS, Flags, read_settings
from workload_identity_operator.shapes import is_object_name

_DEFAULTS: Final = {field.name: field.default for field in fields(Flags)}
_ONE_DASH: Final = re.compile(r"-[a-z][a-z-]+(=.*)?", re.DOTALL)
_TRUE, _FALSE = ("true", "1", "t"), ("false", "0", "f")
_INTERRUPTED: Final = 130
"""Exit status, as shells have it."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Gives the pods of annotated Kubernetes ServiceAccounts an Azure identity without a secret."""


def _option(name: str, text: str, **more: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    default = _DEFAULTS[name.lstrip("-").replace("-", "_")]
    return click.option(name, default=default, show_default=bool(default), help=text, **more)


@cli.command()
@_option("--listen", "Where reviews are answered over TLS, HOST:PORT.")
@_option("--health-addr", "Where /healthz and /readyz are answered.")
@_option("--metrics-addr", "Where /metrics is answered.")
@_option("--metrics-backend", "How metrics are offered: prometheus.")
@_option("--kubeconfig", "Cluster to work in; else KUBECONFIG, the pod's own, ~/.kube/config.")
@_option("--audience", "Audience of projected tokens; else what the cloud wants.")
@_option("--authority-host", "AZURE_AUTHORITY_HOST of pods; else the cloud's.")
@_option("--custom-token-endpoint-annotation-suffix", "What follows use- in the annotation that asks for it.")
@_option("--custom-token-endpoint-audience", "Audience of tokens for the custom token endpoint.")
@_option(
    "--webhook-configuration",
    "MutatingWebhookConfiguration that is kept; without azure- it names the policy's binding and the Lease.",
)
@_option("--certificate-secret", "Secret through which replicas share the serving certificate.")
@_option(
    "--declaration",
    "ConfigMap with the policy as the chart declares it; what differs is put right.",
)
@_option("--settings-checksum", "PodWirings are written while the declaration has the same one, or none.")
@_option("--disable-cert-rotation", "Take tls.crt and tls.key as someone else keeps them.", is_flag=True)
@_option("--webhook-cert-dir", "Where they are then.")
@_option("--tls-min-version", f"Oldest TLS version spoken: {', '.join(TLS_VERSIONS)}.")
@_option("--log-level", f"{', '.join(LOG_LEVELS[1:])}; warnings only when empty.")
@_option("--drain-seconds", "How long reviews are still answered after SIGTERM.", type=float)
@_option(
    "--legacy-token-path",
    f"Mount the token at {contract.LEGACY_PATH} too; a pod may say otherwise.",
    is_flag=True,
)
def run(**flags: Any) -> None:
    """Watch ServiceAccounts and wire pods, until stopped.

    AZURE_TENANT_ID must be set; AZURE_ENVIRONMENT names another cloud than the public one,
    POD_NAMESPACE another namespace than azure-workload-identity-system.
    """
    try:
        settings = read_settings(Flags(**flags), os.environ)
        _leave_out_kubernetes_client()
        from workload_identity_operator.kube import find_cluster  # noqa: PLC0415 - imports kopf

        cluster = find_cluster(settings.kubeconfig)
    except SettingsInvalid as invalid:
        for fault in invalid.faults:
            click.echo(f"error: {fault}", err=True)
        sys.exit(2)
    import asyncio  # noqa: PLC0415 - not for --help

    import uvloop  # noqa: PLC0415

    from workload_identity_operator import allocator  # noqa: PLC0415
    from workload_identity_operator.logs import start_logging  # noqa: PLC0415
    from workload_identity_operator.run import operate  # noqa: PLC0415
    from workload_identity_operator.serving import AddressTaken  # noqa: PLC0415

    allocator.keep_bounds()
    start_logging(settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(operate(settings, cluster))
    except AddressTaken as taken:
        click.echo(f"error: {taken}: give --listen, --health-addr and --metrics-addr free ones", err=True)
        sys.exit(1)
    except Exception:
        logging.getLogger(__name__).exception("the operator broke; a restart may mend it")
        sys.exit(1)


@cli.command()
@click.option("--namespace", default="default", show_default=True, help="Where the pod would be.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Of the pod, beside the one that opts in."
)
@click.option(
    "--deployment", default="", metavar="NAMESPACE/NAME", help="The operator's, which must be ready first."
)
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for what is not yet so.")
@_option("--kubeconfig", "Cluster to ask; else KUBECONFIG, the pod's own, ~/.kube/config.")
def rehearse(namespace: str, labels: Sequence[str], deployment: str, timeout: float, kubeconfig: str) -> None:
    """Have a labelled pod made in a dry run, and say whether it would be wired.

    Nothing is stored. This is what `helm test` runs. Exit status 1: it would not be wired.
    """
    pairs = [label.partition("=") for label in labels]
    whose = deployment.partition("/")
    if wrong := [label for label, (_, equals, _) in zip(labels, pairs, strict=True) if not equals]:
        raise click.BadParameter(f"--label: {wrong[0]!r} is none: wanted KEY=VALUE")
    if not is_object_name(namespace):
        raise click.BadParameter(f"--namespace: {namespace!r} is no namespace's name")
    if deployment and not (is_object_name(whose[0]) and is_object_name(whose[2])):
        raise click.BadParameter(f"--deployment: {deployment!r} is none: wanted NAMESPACE/NAME")
    _leave_out_kubernetes_client()
    import asyncio  # noqa: PLC0415 - not for --help

    from workload_identity_operator import rehearsal  # noqa: PLC0415
    from workload_identity_operator.kube import find_cluster  # noqa: PLC0415 - imports kopf

    try:
        asyncio.run(
            rehearsal.rehearse(
                find_cluster(Path(kubeconfig) if kubeconfig else None),
                namespace=namespace,
                labels={key: value for key, _, value in pairs},
                deployment=(whose[0], whose[2]) if deployment else None,
                patience=timeout,
                tell=lambda line: click.echo(f"ok: {line}"),
            )
        )
    except SettingsInvalid as invalid:
        for fault in invalid.faults:
            click.echo(f"error: {fault}", err=True)
        sys.exit(2)
    except rehearsal.RehearsalFailed as failure:
        click.echo(f"error: {failure}", err=True)
        sys.exit(1)


def flags_of(arguments: Sequence[str]) -> Flags:
    """Return the flags that arguments of `run` give.

    Raises:
        ValueError: They are none; the message says which is not.
    """
    try:
        context = run.make_context("run", _as_click_reads(arguments))
    except click.ClickException as wrong:
        raise ValueError(wrong.format_message()) from wrong
    return Flags(**context.params)


cli.add_command(check_command(flags_of))


def _leave_out_kubernetes_client() -> None:
    """Keep kopf from importing the official client, which it does wherever that is installed.

    It would only recognise that client's objects, of which there are none here, for 18 MB and
    half a second. None in `sys.modules` is Python's way to say "not importable".
    """
    sys.modules.setdefault("kubernetes", None)  # type: ignore[arg-type]


def _version() -> str:
    return json.dumps(
        {
            "buildVersion": __version__,
            "gitCommit": os.environ.get("GIT_COMMIT", ""),
            "buildDate": os.environ.get("BUILD_DATE", ""),
            "pythonVersion": platform.python_version(),
            "platform": f"{platform.system().lower()}/{platform.machine()}",
        }
    )


def _as_click_reads(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as click wants them.

    The peer's flags may be written with one dash, and its switches with `=true` or `=false`.
    """
    normal = []
    for argument in arguments:
        one_dash = _ONE_DASH.fullmatch(argument)
        flag, equals, value = (f"-{argument}" if one_dash else argument).partition("=")
        if (
            flag in {"--disable-cert-rotation", "--legacy-token-path", "--version"}
            and equals
            and value.lower() in _TRUE + _FALSE
        ):
            normal += [flag] if value.lower() in _TRUE else []
        else:
            normal.append(flag + equals + value)
    return normal


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    if arguments[:1] != ["check"]:  # which has no peer, and short options
        arguments = _as_click_reads(arguments)
    if "--version" in arguments:
        click.echo(_version())
        return
    try:
        status = cli(arguments, standalone_mode=False)
    except click.Abort:  # Ctrl-C
        sys.exit(_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as wrong:
        click.echo(wrong.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as wrong:
        known = arguments[:1] if arguments[0] in cli.commands else []
        help_of = " ".join(["workload-identity-operator", *known, "--help"])
        click.echo(f"error: {wrong.format_message()} (see {help_of})", err=True)
        sys.exit(2)
    sys.exit(status)


if __name__ == "__main__":
    main()
