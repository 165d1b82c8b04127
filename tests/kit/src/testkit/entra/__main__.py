"""Run the stand-in until SIGTERM or SIGINT: `python -m testkit.entra --help`."""

import signal
from pathlib import Path

import click

from testkit.entra import EntraStandIn

_ENDING = {signal.SIGTERM, signal.SIGINT}


@click.command()
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Port 0: a free one."
)
@click.option(
    "--trust",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CA.pem",
    help="Authorities behind issuers' TLS certificates; repeatable.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where its own CA file is written; by default a temporary folder.",
)
@click.option("--known-as", metavar="URL", help="Its address for clients; by default where it listens.")
@click.option("--issuing", metavar="URL", help="Whom its tokens name as issuer; by default itself.")
@click.option(
    "--certificate",
    nargs=2,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CERT.pem KEY.pem",
    help="Its TLS certificate and key; by default of an authority of its own.",
)
def main(
    listen: str,
    trust: tuple[Path, ...],
    folder: Path | None,
    known_as: str | None,
    issuing: str | None,
    certificate: tuple[Path, Path] | None,
) -> None:
    """Run an Entra stand-in. It prints its address and the CA file that clients must trust."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise click.BadParameter(f"HOST:PORT wanted, {listen!r} found", param_hint="--listen")
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # before threads start: they inherit it
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        standin = EntraStandIn(
            host=host.strip("[]"),
            port=int(port),
            folder=folder,
            trust=trust,
            known_as=known_as,
            issuing=issuing,
            certificate=certificate,
        )
        with standin as entra:
            click.echo(f"authority {entra.authority}")
            click.echo(f"ca_file {entra.ca_file}")
            signal.sigwait(_ENDING)
    except (OSError, ValueError) as failure:
        raise click.ClickException(str(failure)) from failure


if __name__ == "__main__":
    main()
