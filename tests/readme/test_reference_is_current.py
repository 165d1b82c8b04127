"""The operator's reference page has every flag and every series, and none that is not there."""

import re
from pathlib import Path

import click
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from workload_identity_operator.__main__ import cli
from workload_identity_operator.audit import Audit
from workload_identity_operator.events import REASONS
from workload_identity_operator.health import Health
from workload_identity_operator.metrics import PATHS, Metrics, Tables

ROW = re.compile(r"^\| (`[^|]*) \| [^|]* \| ([^|]*)\|$", re.MULTILINE)
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


def families() -> list[Metric]:
    """Return what a scrape shows once everything has happened that can."""
    metrics = Metrics()
    conditions = Health().conditions()
    metrics.watch(lambda: 0, lambda: conditions, lambda: False, lambda: Tables(True, 1, 0, 0))
    metrics.reviewed(PATHS[0], "shop", "wired", 0.001)
    metrics.asked("api.example:443", "GET", 200)
    metrics.listed(1.0)
    metrics.certificate_loaded(1.0)
    metrics.policy_states({"MutatingAdmissionPolicy": "declared"})
    metrics.policy_repaired("MutatingAdmissionPolicy")
    metrics.pods_are(Audit(0, []).by_state())
    return list(text_string_to_metric_families(metrics.exposition().decode()))


def test_series() -> None:
    """The table under "Metrics" is what a scrape shows."""
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in families()}

    assert {name for row in column("Metrics") for name in row[0].split(", ")} == exposed


def test_labels_of_series() -> None:
    """So are the labels, and the values of each where the table lists them."""
    wanted = {}
    for family in families():
        found: dict[str, set[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                found.setdefault(label, set()).add(value)
        found.pop("le", None)
        wanted[family.name + ("_total" if family.type == "counter" else "")] = found

    rows = ROW.findall(PAGE.split("## Metrics\n")[1].split("\n## ")[0])

    assert rows
    for names, labels in rows:
        for name in re.findall(r"`(\w+)`", names):
            told = re.sub(r"\([^)]*\)", "", labels)
            assert set(re.findall(r"`(\w+)`", told)) == wanted[name].keys(), name
            if ": " in told:
                (label, values) = re.findall(r"`(\w+)`: (.*)", told)[-1]
                assert set(values.strip().split(", ")) == wanted[name][label], name


def test_an_outcome_has_been_documented_when_it_is_counted() -> None:
    """Nobody can count an outcome or an answer that the table does not have."""
    metrics = Metrics()

    with pytest.raises(KeyError):
        metrics.reviewed(PATHS[0], "shop", "else", 0.001)
    with pytest.raises(KeyError):
        metrics.looked_up("else")
    with pytest.raises(KeyError):
        metrics.audited("else")
    with pytest.raises(KeyError):
        metrics.healed("else")


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
            ("podwirings", ("list", "watch", "create", "patch", "delete"), False),
            ("podwirings/status", ("patch",), False),
            ("mutatingwebhookconfigurations", ("get", "list", "watch"), False),
            ("mutatingwebhookconfigurations", ("patch",), True),
            ("mutatingadmissionpolicybindings", ("list", "watch"), True),
            ("events", ("create",), False),
            ("pods", ("list",), False),
            ("namespaces", ("get",), False),
            ("replicationcontrollers", ("get",), False),
            ("deployments", ("get",), False),
            ("jobs", ("get",), False),
        },
        "role": {
            ("leases", ("get", "create", "patch"), True),
            ("secrets", ("get", "list", "watch", "create", "patch"), True),
            ("configmaps", ("get", "list", "watch"), True),
        },
    }
    assert granted == wanted[role]
