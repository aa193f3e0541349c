"""Test notification: a message to the targets of jobs, to check whether it arrives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from volback.config.model import Config
from volback.errors import NotFoundError
from volback.jobs.notify_targets import targets_of
from volback.notify.announce import announce, announce_start
from volback.notify.report import Report, Status

_WORDS = "this is a test of volback's notifications; nothing has been backed up"


@dataclass(frozen=True, slots=True)
class Trial:
    """Who was notified, and what failed: one line each."""

    notified: tuple[str, ...]
    failures: list[str]


def try_notifications(config: Config, names: Sequence[str], status: Status, *, host: str, now: datetime) -> Trial:
    """Notify them (none named: all) as for a job with this result, whatever results they want; without metrics.

    Raises NotFoundError for a name that is not in the configuration.
    """
    for name in names:
        if name not in config.notifications:
            known = ", ".join(config.notifications) or "none"
            raise NotFoundError(f"there is no notification {name!r}", f"there are: {known}; see `volback config check`")
    named = tuple(names) or tuple(config.notifications)
    targets, failures = targets_of(config, named)
    everything: frozenset[Status] = frozenset({"success", "warning", "failure"})
    messages = tuple(replace(target, on=everything) for target in targets.messages)
    targets = replace(targets, messages=messages, metrics=None)
    report = Report("test", host, status, now, now, errors=(_WORDS,), log_tail=_WORDS)
    return Trial(named, failures + announce_start(targets) + announce(targets, report))
