"""`make image`: build images into dist/, and tell how large they are, and what of."""

import json
import statistics
import sys
from pathlib import Path

import click
from rich.table import Table

from testkit.azurite import AzuriteMissing
from testkit.console import StepFailed, console, step
from testkit.images import OPERATOR, RECIPES, REGISTRY, build, lay, start_measured
from testkit.images.debian import PackagesMissing
from testkit.processes import ProcessFailed

LARGEST = 12
"""Parts that are named."""
STARTS = 5
"""How often a start is measured; the median is told."""


@click.command()
@click.argument("names", metavar="[IMAGE ...]", nargs=-1, type=click.Choice(list(RECIPES)))
@click.option(
    "--to", type=click.Path(path_type=Path), default=Path("dist"), show_default=True, help="Where to."
)
@click.option("--registry", default=REGISTRY, show_default=True, help="What the names start with.")
@click.option("--files", type=click.Path(path_type=Path), help="Lay the files of one image there instead.")
def main(names: tuple[str, ...], to: Path, registry: str, files: Path | None) -> None:
    """Build images, the operator's where none is named."""
    chosen = names or (OPERATOR.name,)
    try:
        for name in chosen:
            if files:
                lay(RECIPES[name], files)
            else:
                _build(name, to, registry)
    except StepFailed:
        sys.exit(1)
    except (PackagesMissing, ProcessFailed, AzuriteMissing) as failure:
        raise click.ClickException(str(failure)) from failure


def _build(name: str, to: Path, registry: str) -> None:
    with step(f"Build {name}") as taken:
        built = build(RECIPES[name], to, registry=registry)
        bill = built.archive.with_name(built.archive.name.removesuffix(".oci.tar") + ".cdx.json")
        bill.write_text(json.dumps(built.bill, indent=2) + "\n", encoding="utf-8")
        taken.detail = built.reference
    size = built.archive.stat().st_size
    console.print(
        f"{built.archive}  {_megabytes(size)}  {built.digest}\n{bill}  what it is made of, CycloneDX"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("largest parts")
    table.add_column("MB", justify="right")
    table.add_column("share", justify="right")
    total = sum(built.parts.values())
    named = list(built.parts.items())[:LARGEST]
    rest = total - sum(bytes_ for _, bytes_ in named)
    for part, bytes_ in [*named, (f"{len(built.parts) - len(named)} others", rest)]:
        table.add_row(part, f"{bytes_ / 1e6:.1f}", f"{bytes_ / total:.0%}")
    console.print(table)
    if name == OPERATOR.name:
        _measure()


def _measure() -> None:
    """Tell how long a start takes here: until it answers at all, and until all of it is imported."""
    with start_measured(OPERATOR) as start:
        for what, args in {
            "--version": ["-m", "workload_identity_operator", "--version"],
            "all imported": ["-c", "import workload_identity_operator.run"],
        }.items():
            times = [start(*args) for _ in range(STARTS)]
            console.print(f"start, {what}: {statistics.median(times):.2f} s")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
