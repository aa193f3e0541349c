"""`schedule install|remove|show` and `scheduler`: jobs at their times, by cron, by systemd, or by volback itself."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volback.cli.call import Call, Outcome, call_of
from volback.cli.log import PlainLines
from volback.cli.render import terminal_width
from volback.cli.words import columns, count, human_age, local_time
from volback.errors import UsageError
from volback.masking import MaskingFilter
from volback.settings import absolute

if TYPE_CHECKING:
    from volback.cli.documents import keeping
    from volback.schedule.schedules import ScheduledJob
    from volback.schedule.table import Changes, Command, Kind

_EPILOG = """\b
Examples:
  volback schedule install    systemd where it runs, else cron
  volback schedule show       next, last and missed runs
  volback schedule remove     removes what install wrote
"""
_INSTALL_EPILOG = """\b
Examples:
  volback schedule install           systemd where it runs, else cron
  volback schedule install --cron    cron, also where systemd runs
  volback schedule install --user    as you: for a rootless engine
"""
_REMOVE_EPILOG = """\b
Examples:
  volback schedule remove            all that install wrote
  volback schedule remove --user     what `install --user` wrote
"""
_SHOW_EPILOG = """\b
Examples:
  volback schedule show              of the machine
  volback schedule show --user       of the user who calls
"""
_SCHEDULER_EPILOG = """\b
Examples:
  volback scheduler            until SIGTERM; SIGHUP reads the jobs again
  volback scheduler --check    whether one runs, for a health check
"""

Systemd = Annotated[bool, typer.Option("--systemd", help="Timers and services.")]
Cron = Annotated[bool, typer.Option("--cron", help="/etc/cron.d/volback, with --user the crontab.")]
OfUser = Annotated[bool, typer.Option("--user", help="For the calling user, not for the machine.")]
Root = Annotated[Path, typer.Option("--root", metavar="DIR", hidden=True)]


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    family = typer.Typer(help="Let cron or systemd run the jobs.", epilog=_EPILOG, rich_markup_mode=None)
    family.command(epilog=_INSTALL_EPILOG)(install)
    family.command(epilog=_REMOVE_EPILOG)(remove)
    family.command(epilog=_SHOW_EPILOG)(show)
    app.add_typer(family, name="schedule")
    app.command(epilog=_SCHEDULER_EPILOG)(scheduler)


def install(
    context: typer.Context,
    *,
    systemd: Systemd = False,
    cron: Cron = False,
    user: OfUser = False,
    root: Root = Path("/"),
) -> Outcome:
    """Run each job at its time, and `recover` when the machine boots.

    Call it again after a change of the configuration: what was installed is replaced.
    """
    from volback.jobs.open_config import open_config
    from volback.schedule import install as operation
    from volback.schedule.table import entries_of

    call = _begin(context, "install")
    entries = entries_of(open_config(call.config))
    kind = _kind(systemd, cron, root)
    changes = operation.install(kind, root, entries, _command(call), of_user=user)
    return _changed(changes, f"{count(len(entries), 'job')}, run by {changes.kind}")


def remove(
    context: typer.Context,
    *,
    systemd: Systemd = False,
    cron: Cron = False,
    user: OfUser = False,
    root: Root = Path("/"),
) -> Outcome:
    """Remove what `install` wrote, from systemd and from cron."""
    from volback.schedule.install import kinds_present, open_scheduler

    _begin(context, "remove")
    kinds: list[Kind] = [_kind(systemd, cron, root)] if systemd or cron else kinds_present(root)
    done = [open_scheduler(kind, root, of_user=user).remove() for kind in kinds]
    removed = [name for changes in done for name in changes.removed]
    text = [f"removed {name}" for name in removed] or ["nothing is installed"]
    result: keeping.ScheduleRemoved = {"removed": removed}
    return Outcome(result, text, [warning for changes in done for warning in changes.warnings])


def show(context: typer.Context, *, user: OfUser = False, root: Root = Path("/")) -> Outcome:
    """Show when each job runs next and last ran, and who runs it.

    It counts the runs that were missed, too.
    """
    from volback.jobs.open_config import open_config
    from volback.schedule import schedules
    from volback.settings import load_settings

    call = _begin(context, "show")
    now = datetime.now(UTC)
    config = open_config(call.config)
    found = schedules.scheduled_jobs(config, load_settings().state, root, now=now, of_user=user)
    text = _table(found, now) if found else ["no job has a schedule"]
    late = [job for job in found if job.listed.missed]
    warnings = [f"job {job.listed.name!r} has missed {count(len(job.listed.missed), 'run')}" for job in late]
    warnings += [f"job {job.listed.name!r} has a schedule that nothing runs" for job in found if not job.run_by]
    result: keeping.Schedule = {"jobs": [_facts(job) for job in found]}
    return Outcome(result, text, warnings)


def scheduler(
    context: typer.Context,
    *,
    check: Annotated[bool, typer.Option("--check", help="Only show whether a scheduler is running.")] = False,
) -> Outcome:
    """Run the jobs at their times, in the foreground.

    If runs of a job were missed while it was stopped, it starts one run. It ends on SIGTERM, after the runs in
    progress.
    """
    from volback.schedule import scheduler as operation
    from volback.schedule import schedules
    from volback.settings import load_settings

    call = call_of(context)
    state = load_settings().state
    if check:
        age_s = operation.check(state, datetime.now(UTC))
        alive: keeping.SchedulerEnded = {"age_s": age_s}
        return Outcome(alive, [f"the scheduler is running, seen {human_age(age_s)}"])
    _log_to_stderr(call)
    number = operation.ForegroundScheduler(
        lambda: schedules.read_plan(call.config), _command(call), state,
        last_run=lambda job: schedules.last_start(state, job),
        note_skipped=lambda job, due: schedules.note_skipped(state, job, due),
    ).run()  # fmt: skip
    ended: keeping.SchedulerEnded = {"signal": number}
    return Outcome(ended)


def _begin(context: typer.Context, command: str) -> Call:
    call = call_of(context)
    call.command = f"schedule {command}"
    return call


def _kind(systemd: bool, cron: bool, root: Path) -> Kind:
    from volback.schedule.install import kind_of_machine

    if systemd and cron:
        raise UsageError("--systemd and --cron exclude each other")
    return "systemd" if systemd else "cron" if cron else kind_of_machine(root)


def _command(call: Call) -> Command:
    """How volback was called, with absolute paths."""
    from volback.schedule.table import Command, environment_passed_on

    called = shutil.which(sys.argv[0])
    is_program = called is not None and Path(called).name == "volback"
    program = (os.path.abspath(called),) if called and is_program else (sys.executable, "-m", "volback")
    options = [word for path in call.config for word in ("--config", str(absolute(Path(path), "--config")))]
    options += ["--host", call.engine] if call.engine else []
    return Command(program, tuple(options), environment_passed_on(os.environ))


def _changed(changes: Changes, what: str) -> Outcome:
    result: keeping.ScheduleInstalled = {
        "kind": changes.kind, "written": changes.written, "unchanged": changes.unchanged, "removed": changes.removed
    }  # fmt: skip
    text = [f"wrote {name}" for name in changes.written] + [f"removed {name}" for name in changes.removed]
    return Outcome(result, [*text, what], changes.warnings)


def _table(found: list[ScheduledJob], now: datetime) -> list[str]:
    rows = [
        [
            job.listed.name,
            job.schedule if job.timezone is None else f"{job.schedule} {job.timezone}",
            "never" if job.listed.next_at is None else local_time(job.listed.next_at),
            "never" if job.last is None else f"{_age(job.last.started_at, now)}, {job.last.status}",
            f"{len(job.listed.missed):,}",
            job.run_by or "nothing",
        ]
        for job in found
    ]
    headings = ["JOB", "SCHEDULE", "NEXT RUN", "LAST RUN", "MISSED", "RUN BY"]
    return list(columns(headings, rows, right="MISSED", width=terminal_width()))


def _age(started_at: str, now: datetime) -> str:
    return human_age((now - datetime.fromisoformat(started_at)).total_seconds())


def _facts(job: ScheduledJob) -> keeping.ScheduledJob:
    return {
        "job": job.listed.name,
        "schedule": job.schedule,
        "timezone": job.timezone,
        "next_at": job.listed.next_at.isoformat() if job.listed.next_at else None,
        "last_at": job.last.started_at if job.last else None,
        "last_status": job.last.status if job.last else None,
        "missed": [due.isoformat() for due in job.listed.missed],
        "run_by": job.run_by,
    }


def _log_to_stderr(call: Call) -> None:
    """Log at once what it does: kept until the end, as other warnings are, it would fill the memory."""
    logger = logging.getLogger("volback.schedule.scheduler")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainLines("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S%z"))
    handler.addFilter(MaskingFilter())
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING if call.quiet else logging.INFO)
