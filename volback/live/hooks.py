"""Hooks: commands that run in a container before and after its volumes are read, like a dump of a database.

Their output goes to the log, line by line; the command does not: it may contain a password.
"""

from __future__ import annotations

import logging
import re

from volback.engine.engine import Engine
from volback.errors import EngineError
from volback.policy.hooks import Hook

log = logging.getLogger("volback.hooks")
"""A logger of its own: readers of the log can distinguish the output of hooks from volback's messages."""

_LOGGED_CHARS = 1000
_QUOTED_CHARS = 200
_CONTROL = re.compile(r"[^\t -~\xa0-\U0010ffff]|[\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def run_hook(engine: Engine, hook: Hook, *, what: str) -> None:
    """Run a hook to its end; `what` it is (`pre-hook`) begins each error.

    Raises NotRunningError where the container does not run, NotFoundError where it does not exist, EngineError if the
    command cannot be run, fails, or does not end in time: then it is ended, with what it started.
    """
    with engine.execute(hook.container, hook.command, user=hook.user, limit_s=hook.timeout_s, what=what) as execution:
        for line in execution.lines():
            log.info("%s: %s", execution.container, _printable(line, _LOGGED_CHARS))
    if execution.status:
        message = _printable(execution.last_words, _QUOTED_CHARS) or "it wrote no message"
        raise EngineError(
            f"{execution.what} failed with status {execution.status}: {message}",
            f"see its full output with --verbose; try it: docker exec {execution.container} sh",
        )


def _printable(line: str, most_chars: int) -> str:
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", line[:most_chars])
    return text if len(line) <= most_chars else f"{text}… ({len(line):,} characters)"
