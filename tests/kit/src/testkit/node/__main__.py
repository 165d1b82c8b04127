"""`make node`: keep a node running for people until Ctrl-C. `--prepare`: only have what it takes ready."""

import os
import sys
import time
from contextlib import ExitStack

import click

from testkit.binaries import BinariesMissing, provide
from testkit.console import StepFailed, console, step
from testkit.node import PROGRAMS, Node, NodeImpossible, pause, requirements
from testkit.processes import ProcessFailed, leave_on_signals


@click.command()
@click.option("--prepare", is_flag=True, help="Have packages and programs ready where there can be a node.")
@click.option("--wanted", is_flag=True, help="With --prepare: fail where there cannot be one.")
def main(*, prepare: bool, wanted: bool) -> None:
    """Run until a signal ends it with status 0; end with 1 if there is no node, or it ends earlier."""
    leave_on_signals()
    try:
        requirements.install()
        if reason := requirements.lacking():
            if wanted or not prepare:
                raise NodeImpossible(reason)
            console.print(f"Tests with pods that run will be skipped. {reason}", markup=False)
            return
        provide(PROGRAMS)
        pause.archive()
        if not prepare:
            _keep()
    except StepFailed:
        sys.exit(1)
    except (BinariesMissing, NodeImpossible, ProcessFailed) as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)


def _keep() -> None:
    with ExitStack() as stack:
        with step("Starting the node") as taken:
            node = stack.enter_context(Node())
            taken.detail = node.plane.server
        console.print(
            f"\nexport KUBECONFIG={node.plane.kubeconfig}",
            f"export PATH={node.plane.folder / 'bin'}{os.pathsep}$PATH  # its kubectl and helm",
            "\nGive it an image, from an OCI archive, and be in its network:",
            f"\n  {' '.join(map(str, node.importing('ARCHIVE')))}",
            f"  {' '.join(map(str, node.inside(['COMMAND'], network=True)))}",
            f"\nLogs are in {node.folder}. Ctrl-C ends it and removes everything.",
            sep="\n",
            markup=False,
        )
        while True:
            node.plane.check()
            time.sleep(0.5)


if __name__ == "__main__":
    main()
