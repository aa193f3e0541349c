"""Durations: how a length of time is written on the command line, in labels and in `volback.toml`. Pure.

A duration is one or more numbers with units, with or without white space between them: `90s`, `1h30m`, `1y 6mo`.
Time-outs, waits and ages are read in seconds; `keep-within` counts in the calendar:

    unit   read_seconds, read_age               read_calendar
    s      1 second                             refused: the shortest unit is the hour
    min    1 minute                             refused: the shortest unit is the hour
    m      1 minute; refused right after y      1 month; refused after w, d, h, and beside mo
    h      1 hour                               1 hour
    d      24 hours                             1 day
    w      7 days of 24 hours                   7 days
    mo     refused: months differ in length     1 month
    y      365 days                             1 year
    none   seconds; refused for an age          refused

`m` is the only unit with two meanings: minutes as docker and Go write them, months as in restic's `--keep-within`
(https://restic.readthedocs.io/en/stable/060_forget.html). It is refused where the units next to it suggest the other
meaning.
"""

from __future__ import annotations

import calendar
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import NoReturn

from volback.policy.invalid import InvalidValue

LONGEST_S = 100 * 365 * 86_400
"""The longest time-out, wait or age: 100 years."""
_LONGEST_GRACE_S = 10 * 365 * 86_400

_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_UNITS = {*_SECONDS, "mo"}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([a-z]*)\s*", re.ASCII)
_DAYS_OF_A_MONTH = 365.2425 / 12

_SECONDS_HINT = "write a number and a unit, such as 90s, 30m, 24h, 2d or 1h30m"
_CALENDAR_HINT = "write years, months, weeks, days and hours, such as 30d, 12h or 1y6m14d"

Part = tuple[str, str]
"""A number and its unit, as written."""


@dataclass(frozen=True, slots=True)
class CalendarDuration:
    """Years, months and days of the calendar, and hours."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def __str__(self) -> str:
        parts = ((self.years, "y"), (self.months, "mo"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{number}{unit}" for number, unit in parts if number) or "0h"

    @property
    def mean_hours(self) -> float:
        """Its length on average, to compare two of them."""
        return ((self.years * 12 + self.months) * _DAYS_OF_A_MONTH + self.days) * 24 + self.hours

    def before(self, time: datetime, zone: tzinfo | None = None) -> datetime:
        """Return the moment that long before `time`: the same time of day in `zone`, then the hours.

        In a month without such a day it is the last day. A result before the year 1 is the first moment of that year.
        """
        local = time.astimezone(zone)
        month = local.year * 12 + local.month - 1 - self.years * 12 - self.months
        year, month = month // 12, month % 12 + 1
        try:
            day = min(local.day, calendar.monthrange(year, month)[1])
            wall = local.replace(year=year, month=month, day=day, tzinfo=None) - timedelta(days=self.days)
            # Without a zone, a wall time is one of this machine's zone: astimezone then finds the offset of that day.
            moment = wall.astimezone() if zone is None else wall.replace(tzinfo=zone)
            return moment.astimezone(UTC) - timedelta(hours=self.hours)
        except (ValueError, OverflowError, OSError):
            return datetime.min.replace(tzinfo=UTC)


def read_seconds(value: object) -> float:
    """Read a duration in seconds; a number, or a text without a unit, is seconds. Raises InvalidValue."""
    match value:
        case str():
            seconds = _sum_of_seconds(_parts(value, _SECONDS_HINT))
        case int() | float() if not isinstance(value, bool) and value >= 0:
            seconds = value
        case _:
            raise InvalidValue("is not a duration", _SECONDS_HINT)
    if seconds > LONGEST_S:
        raise InvalidValue("is longer than 100 years", _SECONDS_HINT)
    return float(seconds)


def read_age(text: str) -> float:
    """Read an age in seconds. A number without a unit is refused, as people count ages in hours or days. Raises
    InvalidValue."""
    number, unit = _parts(text, _SECONDS_HINT)[0]
    if not unit:
        _refuse_bare_number(number, "h")
    return read_seconds(text)


def read_since(text: str, now: datetime) -> datetime:
    """Read since when: a day (`2026-11-25`, `today`, `yesterday`) of this machine's calendar, from its beginning; or an
    age (`7d`, `12h`). Raises InvalidValue."""
    if re.match(r"[0-9]{4}-|today$|yesterday$", text):
        day = now.astimezone().date() - timedelta(days=text == "yesterday")
        try:
            day = day if text in ("today", "yesterday") else date.fromisoformat(text)
        except ValueError as exc:
            raise InvalidValue("is not a day", "write YEAR-MONTH-DAY, like 2026-11-25") from exc
        return datetime(day.year, day.month, day.day).astimezone()
    return now - timedelta(seconds=read_age(text))


def read_grace(value: object) -> int:
    """Read how long condemned objects stay, in whole seconds. Raises InvalidValue."""
    seconds = read_age(value) if isinstance(value, str) else read_seconds(value)
    if seconds > _LONGEST_GRACE_S:
        raise InvalidValue("is longer than 10 years", _SECONDS_HINT)
    return math.ceil(seconds)


def read_calendar(value: object) -> CalendarDuration:
    """Read a duration of the calendar; a week is seven days. Raises InvalidValue, also for one of length zero."""
    parts = _parts(str(value) if isinstance(value, int | str) and not isinstance(value, bool) else "", _CALENDAR_HINT)
    _check_calendar(parts)
    sums = dict.fromkeys(_UNITS, 0)
    for number, unit in parts:
        sums[unit] += int(number)
    if not any(sums.values()):
        raise InvalidValue("is zero, which keeps nothing", _CALENDAR_HINT)
    return CalendarDuration(sums["y"], sums["m"] + sums["mo"], sums["w"] * 7 + sums["d"], sums["h"])


def _parts(text: str, hint: str) -> list[Part]:
    """The numbers with their units, in order. A number without a unit stands alone."""
    plain = text.strip()
    parts = _PART.findall(plain)
    if not parts or _PART.sub("", plain):
        raise InvalidValue("is not a duration", hint)
    for _, unit in parts:
        if unit not in _UNITS:
            raise InvalidValue(f"has the unknown unit {unit[:20]!r}", hint)
        if not unit and len(parts) > 1:
            raise InvalidValue("has a number without a unit", hint)
    return parts


def _sum_of_seconds(parts: list[Part]) -> float:
    for (_, before), (number, unit) in pairwise(parts):
        if (before, unit) == ("y", "m"):
            raise InvalidValue("has m after y, which could be minutes or months", f"write {number}min for minutes")
    if any(unit == "mo" for _, unit in parts):
        raise InvalidValue("has months, which differ in length", "write days, such as 30d")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _check_calendar(parts: list[Part]) -> None:
    units = [unit for _, unit in parts]
    for position, (number, unit) in enumerate(parts):
        if not unit:
            _refuse_bare_number(number, "d")
        if unit in ("s", "min"):
            raise InvalidValue(f"has {unit}, but the shortest unit here is the hour", _CALENDAR_HINT)
        if "." in number:
            raise InvalidValue("has a fraction", "write whole numbers, such as 36h")
        if unit == "m":
            _check_month(number, units, position)


def _check_month(number: str, units: list[str], position: int) -> None:
    """`m` is months where it stands in their place, before weeks, days and hours: `1h30m` says minutes."""
    other = next((unit for unit in units[:position] if unit in ("w", "d", "h")), "mo" if "mo" in units else None)
    if other is not None:
        raise InvalidValue(
            f"has m {'beside' if other == 'mo' else 'after'} {other}, which could be minutes or months",
            f"write {number}mo for months; the shortest unit here is the hour",
        )


def _refuse_bare_number(number: str, unit: str) -> NoReturn:
    raise InvalidValue("has no unit", f"write one, such as {number}{unit}")
