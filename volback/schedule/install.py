"""Install: makes the machine's own scheduler, cron or systemd, run the jobs that have a schedule.

`install` writes what the configuration says; `remove` removes what volback wrote, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from volback.schedule.crontab import CronFile, UserCrontab
from volback.schedule.table import Changes, Command, Entry, Kind, Scheduler
from volback.schedule.units import SystemdUnits


def kind_of_machine(root: Path) -> Kind:
    """systemd where it runs, else cron."""
    return "systemd" if (root / "run/systemd/system").is_dir() else "cron"


def kinds_present(root: Path) -> list[Kind]:
    """Those that the machine has, or had once: files written for them may exist."""
    return ["systemd", "cron"] if (root / "etc/systemd").is_dir() or kind_of_machine(root) == "systemd" else ["cron"]


def open_scheduler(kind: Kind, root: Path, *, of_user: bool) -> Scheduler:
    """The scheduler of that kind. `root` is / except for an image or a test: under another root, files are only
    written."""
    if kind == "systemd":
        return SystemdUnits(root, of_user=of_user)
    return UserCrontab() if of_user else CronFile(root / "etc/cron.d/volback")


def install(kind: Kind, root: Path, entries: Sequence[Entry], command: Command, *, of_user: bool) -> Changes:
    """Make one scheduler run these entries, and no other one: a job must not run twice. Raises UsageError."""
    changes = open_scheduler(kind, root, of_user=of_user).install(entries, command)
    for other in kinds_present(root):
        scheduler = open_scheduler(other, root, of_user=of_user)
        if other != kind and scheduler.installed():
            changes.removed.extend(scheduler.remove().removed)
    return changes
