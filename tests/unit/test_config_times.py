"""When cron expressions are due, across both changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volback.config.times import check_cron, missed_runs, next_run, take_apart, zone_of

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def due(expression: str, zone: ZoneInfo, first: str, last: str) -> list[str]:
    """When it is due from the first day's start to the last day's, in local time, with the zone's offset."""
    since, until = (datetime.fromisoformat(day).replace(tzinfo=zone) for day in (first, last))
    times = missed_runs(expression, zone, since - timedelta(seconds=1), until - timedelta(seconds=1))
    return [f"{time.astimezone(zone):%m-%d %H:%M %z}" for time in times]


@pytest.mark.parametrize(
    ("zone", "first", "last", "expected"),
    [
        (BERLIN, "2026-03-28", "2026-03-31", ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"]),
        (BERLIN, "2026-10-24", "2026-10-27", ["10-24 02:30 +0200", "10-25 02:30 +0200", "10-26 02:30 +0100"]),
        (NEW_YORK, "2026-03-07", "2026-03-10", ["03-07 02:30 -0500", "03-08 03:00 -0400", "03-09 02:30 -0400"]),
        (NEW_YORK, "2026-10-31", "2026-11-03", ["10-31 02:30 -0400", "11-01 02:30 -0500", "11-02 02:30 -0500"]),
    ],
)  # fmt: skip
def test_a_job_at_half_past_two_runs_once_each_night(
    zone: ZoneInfo, first: str, last: str, expected: list[str]
) -> None:
    assert due("30 2 * * *", zone, first, last) == expected


def test_a_job_in_the_hour_that_comes_twice_runs_once() -> None:
    expected = ["10-31 01:30 -0400", "11-01 01:30 -0400", "11-02 01:30 -0500"]
    assert due("30 1 * * *", NEW_YORK, "2026-10-31", "2026-11-03") == expected


def test_reckoned_from_within_the_second_of_two_equal_hours_it_is_not_due_again() -> None:
    after = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=BERLIN)
    assert next_run("30 2 * * *", BERLIN, after) == datetime(2026, 10, 26, 2, 30, tzinfo=BERLIN)


def test_an_hourly_job_goes_by_elapsed_time() -> None:
    times = missed_runs(
        "@hourly", BERLIN, datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 3, tzinfo=UTC)
    )
    assert [time.hour for time in times] == [23, 0, 1, 2, 3]


@given(st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)), st.sampled_from([BERLIN, NEW_YORK]))
def test_the_next_run_is_always_later_and_a_nightly_job_is_due_within_a_day(at: datetime, zone: ZoneInfo) -> None:
    after = at.replace(tzinfo=UTC)
    then = next_run("30 2 * * *", zone, after)
    assert then is not None
    assert timedelta(0) < then - after <= timedelta(hours=25)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("@daily", "2026-01-02 00:00"),
        ("@weekly", "2026-01-04 00:00"),
        ("15 3 L * *", "2026-01-31 03:15"),
        ("0 0 * * MON#2", "2026-01-12 00:00"),
        ("0 0 13 * FRI", "2026-01-02 00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("*/20 12 * * *", "2026-01-01 12:20"),
    ],
)
def test_what_is_next(expression: str, expected: str) -> None:
    then = next_run(expression, UTC, NOON)
    assert f"{then:%Y-%m-%d %H:%M}" == expected


@pytest.mark.parametrize(
    "expression", ["", "* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "0 0 30 2 *", "x x x x x"]
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        check_cron(expression)
    assert str(refused.value)


def test_taken_apart() -> None:
    fields = take_apart("*/30 2,4 1-3 jan sun,mon")
    assert fields is not None
    assert (fields.minutes, fields.hours, fields.days) == ((0, 30), (2, 4), (1, 2, 3))
    assert (fields.months, fields.weekdays, fields.both_days) == ((1,), (0, 1), False)
    assert take_apart("0 0 L * *") is None
    assert take_apart("0 0 * * FRI#1") is None


def test_zones() -> None:
    assert zone_of("Europe/Berlin") == BERLIN
    assert zone_of(None, {"TZ": ":America/New_York"}) == NEW_YORK
    assert str(zone_of(None, {"TZ": "CET-1CEST"})) == str(zone_of(None, {}))
    with pytest.raises(ValueError, match="no time zone"):
        zone_of("Nowhere/Nothing")
