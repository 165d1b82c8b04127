"""JSON lines on stderr: level, timestamp, logger, caller, message, then what the line is about."""

import json
import logging
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEVELS: Final = {
    "": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
    "all": logging.DEBUG,
}
_LIBRARIES: Final = ("kopf", "aiohttp", "asyncio")


class JsonLines(logging.Formatter):
    """A record as one line of JSON; what a call gave as `extra` becomes further members."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "logger": record.name,
            "caller": f"{record.filename}:{record.lineno}",
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD and _is_plain(v)}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _is_plain(value: object) -> bool:
    """Whether a member says something by itself; libraries attach whole objects to their records."""
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    if isinstance(value, dict):  # counts
        return all(isinstance(item, int) for item in value.values())
    return isinstance(value, str | int | float)


def start_logging(level: str) -> None:
    """Log to stderr from that level on; libraries a step quieter, but for `trace` and `all`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    if level not in {"trace", "all"}:
        for library in _LIBRARIES:
            logging.getLogger(library).setLevel(_LEVELS[level] + 10)
