"""What Prometheus itself says of metrics, alerts and expressions, by its own `promtool`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml
from prometheus_client.parser import text_string_to_metric_families

from testkit.binaries import provide
from testkit.processes import finish

_ESCAPED: Final = re.compile(r'[\\"]')


def judge(*arguments: str | Path, given: str | None = None) -> str:
    """Run promtool; return "" where it has nothing to object, else what it says."""
    promtool = provide(["promtool"])["promtool"].path
    ended = finish([promtool, *arguments], given=given)
    # `check metrics` ends with 0 even where it objects.
    said = ended.errors.strip()
    return said or (ended.output.strip() if ended.status else "")


def without_results(expressions: Iterable[str], scrapes: Sequence[str], target: Mapping[str, str]) -> str:
    """Return what promtool says of expressions that find nothing, or are none, at the last of the scrapes.

    Args:
        expressions: In PromQL.
        scrapes: Of a target, a minute apart.
        target: Labels that Prometheus adds to its series, unless they have them.
    """
    return _evaluate([f"count({one}) > bool 0" for one in expressions], scrapes, target, found=True)


def with_results(
    expressions: Iterable[str], scrapes: Sequence[str], target: Mapping[str, str], rules: Path
) -> str:
    """Return likewise what promtool says of expressions that find something, rules having been evaluated."""
    return _evaluate(expressions, scrapes, target, found=False, rules=[str(rules)])


def _evaluate(
    expressions: Iterable[str],
    scrapes: Sequence[str],
    target: Mapping[str, str],
    *,
    found: bool,
    rules: Sequence[str] = (),
) -> str:
    samples = [{"labels": "{}", "value": 1}] if found else []
    at = f"{len(scrapes) - 1}m"
    case = {
        "interval": "1m",
        "input_series": _series(scrapes, target),
        "promql_expr_test": [{"expr": one, "eval_time": at, "exp_samples": samples} for one in expressions],
    }
    tests = {"rule_files": [*rules], "evaluation_interval": "1m", "tests": [case]}
    return judge("test", "rules", "/dev/stdin", given=yaml.safe_dump(tests))


def _series(scrapes: Sequence[str], target: Mapping[str, str]) -> list[dict[str, str]]:
    """Return scrapes as promtool's tests want them; what one lacks was not there at that time."""
    values: dict[str, list[str]] = {}
    for index, scrape in enumerate(scrapes):
        for family in text_string_to_metric_families(scrape):
            for sample in family.samples:
                labels = sorted({**target, **sample.labels}.items())
                inside = ", ".join(f"{key}={_quoted(value)}" for key, value in labels)
                found = values.setdefault(f"{sample.name}{{{inside}}}", ["_"] * len(scrapes))
                found[index] = f"{sample.value:.17g}"
    return [{"series": series, "values": " ".join(found)} for series, found in values.items()]


def _quoted(value: str) -> str:
    return '"' + _ESCAPED.sub(r"\\\g<0>", value) + '"'
