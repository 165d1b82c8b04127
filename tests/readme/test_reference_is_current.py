"""The operator's reference page has every flag and every series, and none that is not there."""

import re
from pathlib import Path

import click
import pytest
import yaml

from workload_identity_operator.__main__ import cli
from workload_identity_operator.events import REASONS
from workload_identity_operator.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "operator" / "README.md").read_text(encoding="utf-8")


def column(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading, as cells without their backticks."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows[2:]]


def test_flags_and_their_defaults() -> None:
    """The table under "Flags of run" is what `run --help` knows."""
    options = [option for option in cli.commands["run"].params if isinstance(option, click.Option)]
    known = {option.opts[0]: option.default for option in options}

    rows = {row[0]: row[1] for row in column("Flags of `run`")}

    assert rows.keys() == known.keys()
    for flag, written in rows.items():
        if written != "the cloud's":
            assert written == ("" if known[flag] in ("", False) else str(known[flag])), flag


def test_series() -> None:
    """The table under "Metrics" is what a scrape shows."""
    metrics = Metrics()
    metrics.watch(lambda: 0, lambda: False)
    exposed = {
        match[1] + ("_total" if match[2] == "counter" and not match[1].endswith("_total") else "")
        for match in re.finditer(r"^# TYPE (\S+) (\S+)$", metrics.exposition().decode(), re.MULTILINE)
        if not match[1].endswith("_created")
    }

    assert {row[0] for row in column("Metrics")} == exposed


def test_reasons_of_events() -> None:
    """The table under "Events" is what is told, and no other."""
    written = {row[0] for row in column("Events")}

    assert written == {reason.name for reason in REASONS}


@pytest.mark.parametrize("role", ["clusterrole", "role"])
def test_rights(role: str) -> None:
    """The rights that the page names are all that the rendered chart grants."""
    text = (Path(__file__).parents[2] / "manifests" / "install.yaml").read_text(encoding="utf-8")
    (found,) = (d for d in yaml.safe_load_all(text) if d and d["kind"].lower() == role)
    granted = {
        (rule["resources"][0], tuple(rule["verbs"]), "resourceNames" in rule) for rule in found["rules"]
    }

    wanted = {
        "clusterrole": {
            ("serviceaccounts", ("get", "list", "watch"), False),
            ("podwirings", ("get", "list", "watch", "create", "patch", "delete"), False),
            ("podwirings/status", ("get", "patch"), False),
            ("mutatingwebhookconfigurations", ("get", "list", "watch"), False),
            ("mutatingwebhookconfigurations", ("patch",), True),
            ("mutatingadmissionpolicybindings", ("get", "list", "watch"), True),
            ("events", ("create",), False),
        },
        "role": {("secrets", ("get", "patch"), True), ("configmaps", ("get", "list", "watch"), True)},
    }
    assert granted == wanted[role]
