"""The alerts: each fires when it should and only then, and says what to do.

One file an alert in `alerts/`, in the form of `promtool test rules`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.day import Day
from testkit.manifests import CHART, RELEASE, ROOT, rendered
from testkit.promtool import judge, with_results, without_results

CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
TROUBLE = re.compile(r', (outcome|answer|state)(=~|!=|=)"([^"]*)"')
ON = {"prometheusRule": {"enabled": True}}
TARGET = {"job": RELEASE, "instance": "10.0.0.1:8095", "pod": "operator-1"}


def groups(values: dict[str, Any] | None = None, release: str = RELEASE) -> list[dict[str, Any]]:
    """Return the groups of the PrometheusRule that the chart renders."""
    documents = yaml.safe_load_all(rendered(values or ON, release))
    (found,) = (document for document in documents if document and document["kind"] == "PrometheusRule")
    spec: list[dict[str, Any]] = found["spec"]["groups"]
    return spec


def rules(values: dict[str, Any] | None = None, release: str = RELEASE) -> list[dict[str, Any]]:
    """Return its alerts."""
    return [rule for group in groups(values, release) for rule in group["rules"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the rendered alerts, and the cases beside them."""
    path = tmp_path_factory.mktemp("alerts")
    (path / "alerts.yaml").write_text(yaml.safe_dump({"groups": groups()}), encoding="utf-8")
    for case in CASES:
        (path / case.name).write_text(case.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_prometheus_takes_them(folder: Path) -> None:
    """As rendered for the Prometheus Operator, and as the file that others load."""
    assert judge("check", "rules", "--lint=all", "--lint-fatal", folder / "alerts.yaml") == ""
    assert judge("check", "rules", "--lint=all", "--lint-fatal", CHART / "files" / "alerts.yaml") == ""


def test_they_fire_when_they_should_and_only_then(folder: Path) -> None:
    """All cases of all alerts, by Prometheus' own evaluation of the rendered rules."""
    assert judge("test", "rules", *(folder / case.name for case in CASES)) == ""


def test_every_alert_has_both_cases() -> None:
    """Each has a file of its name, with times at which it fires and such at which it is silent."""
    assert {rule["alert"] for rule in rules()} == {case.stem for case in CASES}
    for case in CASES:
        asked = [
            query
            for test in yaml.safe_load(case.read_text(encoding="utf-8"))["tests"]
            for query in test["promql_expr_test"]
        ]
        assert all(f'ALERTS{{alertname="{case.stem}"' in query["expr"] for query in asked), case.stem
        assert {bool(query["exp_samples"]) for query in asked} == {True, False}, case.stem


def selectors() -> Iterator[str]:
    """Yield the series that alerts select: without what only trouble brings, and then that for itself."""
    for rule in rules():
        for name, labels in re.findall(r"\b([a-z]\w+)\{([^}]*)\}", rule["expr"]):
            usual = TROUBLE.sub("", labels)
            yield f"{name}{{{usual}}}"
            for label, _, values in TROUBLE.findall(labels):
                for value in values.split("|"):
                    yield f'{name}{{{usual}, {label}="{value}"}}'


def test_they_name_only_what_is_there(day: Day) -> None:
    """Each series, and each outcome or answer that an alert waits for, is in a real scrape."""
    found = sorted(set(selectors()))

    assert len(found) > 10
    assert without_results(found, day.scrapes, TARGET) == ""


def test_a_healthy_operator_raises_none(day: Day, folder: Path) -> None:
    """Nor do a refused pod, two outdated ones and two repairs, in hours of what an operator shows."""
    hours = [day.scrapes[0]] * 60 + [day.scrapes[-1]] * 120
    fired = 'count_over_time(ALERTS{alertstate="firing"}[1d])'

    assert with_results([fired], hours, TARGET, folder / "alerts.yaml") == ""


def test_each_has_its_runbook() -> None:
    """Every alert links to the heading of its name; every such heading is an alert's."""
    headings = re.findall(r"^### (\w+)$", RUNBOOKS, re.MULTILINE)

    assert {rule["alert"] for rule in rules()} == set(headings)
    assert len(headings) == len(set(headings))
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_links_of_runbooks_lead_somewhere() -> None:
    """Those inside the page go to its headings."""
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", RUNBOOKS, re.MULTILINE)}

    assert set(re.findall(r"\]\(#(\w+)\)", RUNBOOKS)) <= headings


def test_they_are_this_releases() -> None:
    """Job, links and labels follow the values; what is disabled is not there."""
    values = {
        "prometheusRule": {
            "enabled": True,
            "runbookURL": "https://wiki.example.com/runbooks",
            "alertLabels": {"team": "identity", "severity": "page"},
            "disabled": ["WorkloadIdentityPeerPresent"],
        }
    }

    found = rules(values, release="a")

    assert "WorkloadIdentityPeerPresent" not in {rule["alert"] for rule in found}
    assert all('job="a-workload-identity-operator"' in rule["expr"] for rule in found)
    assert 'job="workload-identity-operator"' not in str(found)
    for rule in found:
        assert rule["labels"] == {"team": "identity", "severity": "page"}
        wanted = f"https://wiki.example.com/runbooks#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == wanted
