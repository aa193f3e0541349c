"""Log: what `--log-format json` writes to standard error, one line per record, for log collectors."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from volback.errors import Failure
from volback.printable import printable, printable_lines


class JsonLines(logging.Handler):
    """Writes each record as one line of JSON: time, level, logger, message, and the facts that belong to it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        facts = getattr(record, "facts", {})
        write_line(record.levelname, record.name, record.getMessage(), time_s=record.created, **facts)


class PlainLines(logging.Formatter):
    """Lines for people. A message is one line, whatever names are in it; a traceback has more."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        return "\t".join(map(printable, super().formatMessage(record).split("\t")))

    def formatException(self, ei: Any) -> str:
        """Its traceback."""
        return printable_lines(super().formatException(ei))


def write_line(level: str, logger: str, message: str, *, time_s: float | None = None, **facts: object) -> None:
    """Write one line."""
    import json

    time = datetime.now(UTC) if time_s is None else datetime.fromtimestamp(time_s, UTC)
    line = {"time": time.isoformat(timespec="milliseconds"), "level": level, "logger": logger, "message": message}
    print(json.dumps({**line, **facts}), file=sys.stderr, flush=True)


def write_error(error: Failure) -> None:
    """Write an error as one line."""
    write_line("ERROR", "volback", error.message, kind=error.kind, hint=error.hint, exit_code=error.exit_code)
