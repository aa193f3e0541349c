"""Log tail: the end of a run's log, kept in memory for notifications of the run."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from volback.masking import MaskingFilter

_LINES = 200
_LINE_CHARS = 500


class LogTail(logging.Handler):
    """Keeps the last lines."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=_LINES)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S%z"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self._lines.append(self.format(record)[:_LINE_CHARS])

    @property
    def text(self) -> str:
        """The lines, the oldest first."""
        return "\n".join(self._lines)


@contextmanager
def log_tail() -> Iterator[LogTail]:
    """Keep what volback logs, from INFO on, whatever level is shown elsewhere."""
    logger = logging.getLogger("volback")
    tail, level = LogTail(), logger.level
    tail.addFilter(MaskingFilter())
    logger.addHandler(tail)
    logger.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield tail
    finally:
        logger.setLevel(level)
        logger.removeHandler(tail)
