"""What the operator writes: one JSON object a line, and at `debug` a line for each pod it was asked about."""

import re
from datetime import datetime, timedelta
from typing import Any

from testkit.day import PLANTED, Day
from testkit.workloads import CLIENT

SAME = ("level", "timestamp", "logger", "caller", "uid")
"""Members that say nothing of the pod."""


def audited(day: Day, pod: str) -> list[dict[str, Any]]:
    """Return what the log says of a pod of the day, but for what every line says."""
    lines = [line for line in day.lines() if line.get("pod") == pod and line["namespace"] == day.inside.name]
    assert all(line["level"] == ("info" if line["reason"] else "debug") for line in lines)
    assert all(line["uid"] for line in lines)
    return [{key: value for key, value in line.items() if key not in SAME} for line in lines]


def test_every_line_says_when_where_and_what(day: Day) -> None:
    """Level, UTC time, logger, place in the source and message; kopf's and aiohttp's lines too."""
    for line in day.lines():
        assert line["level"] in {"debug", "info", "warning", "error"}
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
        assert re.fullmatch(r"\w+\.py:\d+", line["caller"])
        assert line["logger"]
        assert line["message"]


def test_a_wired_pod_has_a_line(day: Day) -> None:
    """Whose it is, what it was given, by whom, and what its author was warned of."""
    wired, *asked_again = audited(day, "proxied")

    assert wired == {
        "message": "pod wired",
        "pod": "proxied",
        "namespace": day.inside.name,
        "service-account": "billing",
        "client-id": CLIENT,
        "reason": "",
        "engine": "webhook",
        "dry-run": False,
        "warnings": [],
    }
    assert all(line["message"] == "pod unchanged" for line in asked_again)


def test_a_rehearsal_is_called_one(day: Day) -> None:
    """Who counts pods by the log does not count those that were never stored."""
    assert {line["dry-run"] for line in audited(day, "rehearsed")} == {True}


def test_a_refused_pod_has_its_reason(day: Day) -> None:
    """At `info` already: that is what people look for."""
    (line,) = audited(day, "odd")

    assert line["message"] == "pod refused"
    assert "invalid syntax, not a whole number; wanted 3600 to 86400 seconds" in line["reason"]


def test_a_pod_wired_by_the_api_server_has_none(day: Day) -> None:
    """The operator is not asked."""
    assert audited(day, "plain") == []


def test_a_pasted_secret_is_not_written(day: Day) -> None:
    """The author is warned, the log says so; what was in the annotation is in no line, and in no metric."""
    warned = audited(day, "careless")[0]

    assert warned["client-id"] == ""
    assert warned["warnings"] == ['ServiceAccount annotation client-id is no GUID: "…"']
    assert PLANTED not in day.served.operator.child.log.read_text(encoding="utf-8")
    assert PLANTED not in "".join(day.scrapes)
