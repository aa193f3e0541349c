"""Times: when a cron expression is due, in a time zone and across its changes of the clock. The only import of cronsim.

As in Debian's cron: a time that a change skips is due right after it, a time that occurs twice is due once;
expressions with `*` in the minute or the hour follow elapsed time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CronFields:
    """An expression, taken apart: as it was written, and what each field allows, in order."""

    written: tuple[str, ...]
    """Minute, hour, day of the month, month, day of the week."""
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    """0 is Sunday, 6 Saturday."""
    both_days: bool
    """Whether a day has to be in both `days` and `weekdays`; else one of them is enough."""


def check_cron(expression: str) -> None:
    """Raises ValueError, which says what is wrong, for an expression that is not valid or never due."""
    if next_run(expression, UTC, _SOME_TIME) is None:
        raise ValueError("is never due")


def next_run(expression: str, zone: tzinfo, after: datetime) -> datetime | None:
    """Return when the expression is next due after that moment; None: not in 50 years. Raises ValueError."""
    times = (time.astimezone(UTC) for time in _simulate(expression, after.astimezone(zone)))
    # The library ignores the second of two equal hours: its result can lie before `after` there.
    return next((time for time in times if time > after.astimezone(UTC)), None)


def missed_runs(expression: str, zone: tzinfo, since: datetime, now: datetime, *, most: int = 1000) -> list[datetime]:
    """Return when it was due after `since` and until `now`, `most` times at the most. Raises ValueError."""
    found: list[datetime] = []
    due = next_run(expression, zone, since)
    while due is not None and due <= now and len(found) < most:
        found.append(due)
        due = next_run(expression, zone, due)
    return found


def take_apart(expression: str) -> CronFields | None:
    """Return its fields; None where the days are counted in a way that cron does not know (`L`, `#`)."""
    simulation = _simulate(expression, _SOME_TIME)
    days, weekdays = simulation.days, simulation.weekdays
    if min(days) < 0 or any(isinstance(day, tuple) for day in weekdays):
        return None
    return CronFields(
        tuple(WORDS.get(expression, expression).split()),
        tuple(sorted(simulation.minutes)),
        tuple(sorted(simulation.hours)),
        tuple(sorted(days)),
        tuple(sorted(simulation.months)),
        tuple(sorted({day % 7 for day in weekdays if isinstance(day, int)})),
        simulation.day_and,
    )


def zone_of(name: str | None, environment: Mapping[str, str] | None = None) -> tzinfo:
    """Return the zone of that name, or for None the machine's own. Raises ValueError where it does not exist."""
    if name is None:
        return _own_zone(os.environ if environment is None else environment)
    try:
        return ZoneInfo(name)
    except (OSError, KeyError) as exc:
        raise ValueError(f"there is no time zone {name!r}") from exc


def _own_zone(environment: Mapping[str, str]) -> tzinfo:
    """$TZ, where it is a name, else what /etc/localtime holds, else UTC."""
    try:
        return ZoneInfo(environment.get("TZ", "").removeprefix(":"))
    except (OSError, KeyError, ValueError):
        pass
    try:
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return UTC


def _simulate(expression: str, after: datetime) -> CronSim:
    expression = WORDS.get(expression, expression)
    if len(expression.split()) != 5:
        raise ValueError("does not have the five fields minute, hour, day, month, day of the week")
    try:
        return CronSim(expression, after)
    except CronSimError as exc:
        raise ValueError(f"{str(exc)[:1].lower()}{str(exc)[1:]}") from exc
