"""Edge: a report as a table for people, as JSON or YAML for programs; progress while there is none yet.

`rich` draws where it is installed; without it the same is told in plain lines.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
import yaml

from workload_identity_operator.check.findings import Finding, Report

FORMATS: Final = ("table", "json", "yaml")
_MARKS: Final = {"ok": "ok", "wrong": "WRONG", "unseen": "not looked at"}
_STYLES: Final = {"ok": "green", "wrong": "red", "unseen": "yellow", "error": "red", "warning": "yellow"}
_NARROW: Final = 120
"""Columns of the table where nobody looks at it, in a file or a pipe."""


def show(report: Report, form: str) -> None:
    """Write the report to stdout in one of `FORMATS`."""
    if form == "json":
        click.echo(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(yaml.safe_dump(report.as_json(), sort_keys=False, allow_unicode=True), nl=False)
    else:
        _show_table(report)


def _show_table(report: Report) -> None:
    try:
        import rich  # noqa: F401, PLC0415 - an extra
    except ImportError:
        _show_plainly(report)
    else:
        _show_richly(report)
    _show_rest(report)


def _show_richly(report: Report) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - an extra
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _NARROW)
    if report.steps:
        chain = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for heading in ("link", "", "found"):
            chain.add_column(heading, overflow="fold")
        for step in report.steps:
            state = f"[{_STYLES[step.state]}]{_MARKS[step.state]}[/]"
            chain.add_row(escape(step.what), state, escape(_printable(step.told)))
        console.print(chain)
    if report.findings:
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, show_lines=True)
        for heading in ("finding", "about", "what is wrong and how to mend it"):
            table.add_column(heading, overflow="fold")
        for one in report.findings:
            code = f"[{_STYLES[one.severity]}]{one.severity}[/]\n{one.code}"
            lines = "\n".join(f"[dim]{word}[/] {escape(text)}" for word, text in _lines(one))
            table.add_row(code, escape(str(one.object)), lines)
        console.print(table)


def _show_plainly(report: Report) -> None:
    for step in report.steps:
        click.echo(_printable(f"{step.what}: {_MARKS[step.state]}: {step.told}"))
    for one in report.findings:
        click.echo(f"{one.severity}: {one.code}: {one.object}")
        for word, text in _lines(one):
            click.echo(f"  {word} {text}")


def _lines(finding: Finding) -> Iterator[tuple[str, str]]:
    yield "wanted", _printable(finding.wanted)
    yield "found ", _printable(finding.found)
    yield "change", _printable(finding.change)


def _printable(text: str) -> str:
    """Return a text in which nothing is left that a terminal would obey: others have a say in it."""
    return "".join(one if one.isprintable() else " " for one in text)


def _show_rest(report: Report) -> None:
    if report.credential is not None:
        click.echo("\nThe federated credential that must exist at the identity, byte for byte:")
        for name in ("issuer", "subject"):
            click.echo(f"  {name:9}{report.credential[name]}")
        click.echo(f"  audience {', '.join(report.credential['audiences'])}")
        click.echo("To make it, at a managed identity or at an application:")
        for command in report.commands:
            click.echo(f"  {command}")
    if report.unseen:
        click.echo("\nNot looked at:")
        for unseen in report.unseen:
            click.echo(_printable(f"  {unseen.what}: {unseen.why}"))
    errors = sum(one.severity == "error" for one in report.findings)
    warnings = len(report.findings) - errors
    nothing = "No other fault was found" if report.wrong else "Nothing wrong was found"
    told = f"{errors} error(s), {warnings} warning(s)" if report.findings else nothing
    click.echo(f"\n{told}. Looked at: {'; '.join(report.seen)}.")


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield what is told what is looked at; it is shown on stderr."""
    status: Any = None
    if not quiet and sys.stderr.isatty():
        try:
            from rich.console import Console  # noqa: PLC0415 - an extra
        except ImportError:
            pass
        else:
            status = Console(stderr=True).status("looking")

    def tell(what: str) -> None:
        if status is not None:
            status.update(f"looking at {what}")
        elif not quiet:
            click.echo(f"… looking at {what}", err=True)

    if status is None:
        yield tell
        return
    with status:
        yield tell
