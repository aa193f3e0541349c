"""Keep rules: restic's documented semantics as a table, properties over generated histories, edges of calendars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volback.errors import ConflictError, UsageError
from volback.latest import SAFETY_TAG
from volback.policy.durations import CalendarDuration
from volback.policy.invalid import InvalidValue
from volback.policy.keep import (
    UNLIMITED,
    Candidate,
    KeepRules,
    choose,
    merge,
    read_count,
)

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2040, 1, 1, tzinfo=UTC)
PERIODS: dict[str, Callable[[int], KeepRules]] = {
    "hourly": lambda count: KeepRules(hourly=count),
    "daily": lambda count: KeepRules(daily=count),
    "weekly": lambda count: KeepRules(weekly=count),
    "monthly": lambda count: KeepRules(monthly=count),
    "yearly": lambda count: KeepRules(yearly=count),
}


def at(text: str, number: int = 0, zone: ZoneInfo | None = None) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone or UTC)


def made(time: datetime, number: int = 0, **more: object) -> Candidate:
    utc = time.astimezone(UTC)
    return replace(Candidate(f"{utc:%Y%m%dT%H%M%SZ}-{number:04x}", utc), **more)  # type: ignore[arg-type]


def series(first: str, count: int, step: timedelta) -> list[Candidate]:
    begin = at(first)
    return [made(begin + number * step) for number in range(count)]


def kept(
    rules: KeepRules, backups: Sequence[Candidate], now: datetime = NOW, zone: ZoneInfo | None = None
) -> list[str]:
    """Ids of what stays, the newest first."""
    return [decision.id for decision in choose(rules, backups, now=now, zone=zone or ZoneInfo("UTC")) if decision.keep]


def reasons(rules: KeepRules, backups: Sequence[Candidate], **more: object) -> list[list[str]]:
    return [decision.reasons for decision in choose(rules, backups, now=NOW, zone=ZoneInfo("UTC"), **more)]  # type: ignore[arg-type]


def days(ids: Sequence[str]) -> list[str]:
    return [f"{id_[:4]}-{id_[4:6]}-{id_[6:8]}" for id_ in ids]


SUNDAYS = series("2019-09-01 11:00", 12, timedelta(weeks=1))
"""A backup every Sunday for twelve weeks: the example of restic's documentation."""


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (KeepRules(last=1), ["2019-11-17"]),
        (KeepRules(last=3), ["2019-11-17", "2019-11-10", "2019-11-03"]),
        (KeepRules(daily=4), ["2019-11-17", "2019-11-10", "2019-11-03", "2019-10-27"]),
        (KeepRules(hourly=2), ["2019-11-17", "2019-11-10"]),
        (KeepRules(weekly=2), ["2019-11-17", "2019-11-10"]),
        (KeepRules(monthly=2), ["2019-11-17", "2019-10-27"]),
        (KeepRules(monthly=3), ["2019-11-17", "2019-10-27", "2019-09-29"]),
        # Fewer months, or years, than asked for: the oldest backup stays too.
        (KeepRules(monthly=4), ["2019-11-17", "2019-10-27", "2019-09-29", "2019-09-01"]),
        (KeepRules(yearly=2), ["2019-11-17", "2019-09-01"]),
        (KeepRules(yearly=1), ["2019-11-17"]),
        (KeepRules(within=CalendarDuration(days=14)), ["2019-11-17", "2019-11-10"]),
        (KeepRules(within=CalendarDuration(days=14, hours=1)), ["2019-11-17", "2019-11-10", "2019-11-03"]),
        (
            KeepRules(within=CalendarDuration(months=1)),
            ["2019-11-17", "2019-11-10", "2019-11-03", "2019-10-27", "2019-10-20"],
        ),
        (KeepRules(last=1, monthly=2), ["2019-11-17", "2019-10-27"]),
        (KeepRules(last=2, monthly=2), ["2019-11-17", "2019-11-10", "2019-10-27"]),
    ],
)
def test_documented_examples(rules: KeepRules, expected: list[str]) -> None:
    assert days(kept(rules, SUNDAYS)) == expected


def test_a_backup_a_day_for_a_hundred_years() -> None:
    """restic's documentation: 7 dailies, 4 more Sundays, then 11 or 12 ends of months, 75 or 74 ends of years.

    Here the newest is of Sunday, December 7th, and the end of November is a Sunday too: 7 + 4 + 10 + 74.
    """
    daily = series("1926-01-01 12:00", 36_501, timedelta(days=1))
    assert len(kept(KeepRules(daily=7, weekly=5, monthly=12, yearly=75), daily)) == 95


def test_days_without_a_backup_do_not_count() -> None:
    """May 1st, 2nd (twice), 4th and 5th: four days that have one."""
    five = [made(at(f"2023-05-{day}")) for day in ("01 08:00", "02 08:00", "02 11:00", "04 09:00", "05 10:00")]
    assert [id_[6:11] for id_ in kept(KeepRules(daily=4), five)] == ["05T10", "04T09", "02T11", "01T08"]


def test_tags_keep_what_has_them_all_and_the_empty_one_what_has_none() -> None:
    backups = [
        made(at("2026-01-04")),
        made(at("2026-01-03"), tags=("a", "b")),
        made(at("2026-01-02"), tags=("a",)),
        made(at("2026-01-01"), tags=("with,comma",)),
    ]

    def of(*tags: str) -> list[str]:
        return [id_[6:8] for id_ in kept(KeepRules(tags=tags), backups)]

    assert of("a") == ["04", "03", "02"]  # the newest stays whatever the rules say
    assert of("a,b") == ["04", "03"]
    assert of("b", "with,comma") == ["04", "03", "01"]
    assert of("") == ["04"]
    assert reasons(KeepRules(tags=("a",)), backups)[0] == ["newest good one"]


def test_rules_that_would_keep_none_are_refused() -> None:
    with pytest.raises(ConflictError, match="none of the 12 good backups of web1/db") as raised:
        choose(KeepRules(tags=("gold",)), SUNDAYS, now=NOW, what="web1/db")
    assert raised.value.hint


def test_each_line_is_judged_by_itself() -> None:
    ours, theirs = at("2026-11-01 10:00"), at("2026-11-01 11:00")
    released = made(ours, 1, line="ours", tags=("release",))
    backups = [released, made(ours, 2, line="ours"), made(theirs, 3, line="theirs")]
    assert reasons(KeepRules(tags=("release",)), backups) == [["newest good one"], ["newest good one"], ["tag release"]]
    assert reasons(KeepRules(last=1), backups) == [["last 1 of 1"], ["last 1 of 1"], ["last: past 1"]]


@pytest.mark.parametrize("rules", [KeepRules(), KeepRules(last=0), KeepRules(daily=-2), KeepRules(last=-7, daily=1)])
def test_no_rule_at_all_is_refused(rules: KeepRules) -> None:
    with pytest.raises(UsageError):
        choose(rules, SUNDAYS, now=NOW)


def test_unlimited_keeps_one_of_every_period() -> None:
    twice = series("2026-03-01 00:30", 20, timedelta(hours=12))
    assert len(kept(KeepRules(daily=UNLIMITED), twice)) == 10 + 1  # and the oldest
    assert len(kept(KeepRules(last=UNLIMITED), twice)) == 20
    assert reasons(KeepRules(last=UNLIMITED), twice)[1] == ["last 2"]


def test_each_reason_is_given() -> None:
    backups = [*series("2026-02-27 01:00", 4, timedelta(days=1)), made(at("2026-03-02 09:00"))]
    reported = reasons(KeepRules(last=1, daily=2, monthly=2, within=CalendarDuration(days=2)), backups)
    assert reported == [
        ["last 1 of 1", "daily 1 of 2", "monthly 1 of 2", "within 2d"],
        ["within 2d"],
        ["daily 2 of 2", "within 2d"],
        ["monthly 2 of 2"],
        ["last: past 1", "daily: past 2", "monthly: newer one", "within: past 2d"],
    ]


def test_the_oldest_stays_as_long_as_there_are_fewer_periods_and_says_so() -> None:
    assert reasons(KeepRules(yearly=2), SUNDAYS)[-1] == ["yearly: oldest"]


def test_within_counts_from_the_newest_backup_and_not_from_now() -> None:
    assert len(kept(KeepRules(within=CalendarDuration(days=8)), SUNDAYS, now=NOW + timedelta(days=3650))) == 2


def test_a_duration_goes_by_the_machines_own_zone_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        after = at("2026-10-25 12:00", zone=BERLIN)
        assert CalendarDuration(days=1).before(after.astimezone(UTC)) == at("2026-10-24 12:00", zone=BERLIN)
        nights = [made(at(f"2026-11-0{day} 23:30")) for day in (1, 2)] + [made(at("2026-11-03 22:30"))]
        decisions = choose(KeepRules(daily=9), nights, now=NOW)
        assert [decision.reasons for decision in decisions] == [
            ["daily 1 of 9"],
            ["daily: newer one"],
            ["daily 2 of 9"],
        ]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_weeks_begin_on_monday_and_belong_to_one_year() -> None:
    """2026 has a week 53: from Monday, December 28th, to Sunday, January 3rd, 2027."""
    winter = series("2026-12-20 12:00", 22, timedelta(days=1))
    assert days(kept(KeepRules(weekly=4), winter)) == ["2027-01-10", "2027-01-03", "2026-12-27", "2026-12-20"]


def test_days_are_those_of_the_zone() -> None:
    """01:30 and 23:30 in Berlin are two days of UTC, and one there."""
    day = [made(at("2026-07-01 01:30", zone=BERLIN)), made(at("2026-07-01 23:30", zone=BERLIN))]
    later = made(at("2026-07-02 12:00", zone=BERLIN))
    assert kept(KeepRules(daily=2), [*day, later], zone=BERLIN) == [later.id, day[1].id]
    assert kept(KeepRules(daily=3), [*day, later]) == [later.id, day[1].id, day[0].id]


def test_the_hour_that_comes_twice_when_clocks_are_put_back_is_two() -> None:
    night = [made(at("2026-10-25 00:10") + timedelta(hours=hour)) for hour in range(3)]  # 02:10, 02:10 again, 03:10
    assert len(kept(KeepRules(hourly=3), night, zone=BERLIN)) == 3
    full_day = [made(at("2026-10-24 22:05") + timedelta(hours=hour)) for hour in range(25)]
    assert len(kept(KeepRules(hourly=25), full_day, zone=BERLIN)) == 25
    assert kept(KeepRules(daily=1), full_day, zone=BERLIN) == [full_day[-1].id]


def test_the_day_on_which_an_hour_is_left_out_is_one_day() -> None:
    full_day = [made(at("2026-03-28 23:05") + timedelta(hours=hour)) for hour in range(23)]
    assert kept(KeepRules(daily=1), full_day, zone=BERLIN) == [full_day[-1].id]
    assert len(kept(KeepRules(hourly=UNLIMITED), full_day, zone=BERLIN)) == 23


def test_backups_of_one_second_are_distinguished_by_their_ids() -> None:
    same = [made(at("2026-01-01"), number) for number in (7, 2, 9)]
    assert kept(KeepRules(last=1), same) == [same[2].id]
    assert kept(KeepRules(daily=1), same) == [same[2].id]
    assert kept(KeepRules(last=2), same) == [same[2].id, same[0].id]


def test_a_backup_in_the_future_stays_and_counts_for_no_rule() -> None:
    ahead = made(at("2031-01-01"))
    backups = [*SUNDAYS, ahead]
    decisions = choose(KeepRules(last=1, within=CalendarDuration(days=1)), backups, now=at("2020-01-01"))
    assert [(decision.id, decision.reasons) for decision in decisions if decision.keep] == [
        (ahead.id, ["in the future"]),
        (SUNDAYS[-1].id, ["last 1 of 1", "within 1d"]),
    ]


def test_a_damaged_backup_stays_and_counts_for_no_rule() -> None:
    backups = [*SUNDAYS[:-1], replace(SUNDAYS[-1], damage="cut short")]
    decisions = choose(KeepRules(last=1), backups, now=NOW)
    assert [(decision.id, decision.reasons) for decision in decisions if decision.keep] == [
        (SUNDAYS[-1].id, ["damaged"]),
        (SUNDAYS[-2].id, ["last 1 of 1"]),
    ]


def test_damaged_backups_alone_are_left_as_they_are() -> None:
    backups = [replace(backup, damage="cut short") for backup in SUNDAYS]
    assert len(kept(KeepRules(tags=("x",)), backups)) == 12


def test_a_backup_that_is_being_restored_stays() -> None:
    backups = [replace(SUNDAYS[0], is_in_use=True), *SUNDAYS[1:]]
    decisions = choose(KeepRules(last=1), backups, now=NOW)
    assert [(decision.id, decision.reasons) for decision in decisions if decision.keep] == [
        (SUNDAYS[-1].id, ["last 1 of 1"]),
        (SUNDAYS[0].id, ["being restored"]),
    ]


def test_of_no_backups_none_is_kept() -> None:
    assert choose(KeepRules(daily=1, within=CalendarDuration(days=1), tags=("a",)), [], now=NOW) == []


def test_all_stays_that_an_unreadable_backup_may_depend_on() -> None:
    backups = [*SUNDAYS[:4], replace(SUNDAYS[4], damage="garbage", is_readable=False), *SUNDAYS[5:]]
    decisions = choose(KeepRules(last=1), backups, now=NOW)
    assert all(decision.keep for decision in decisions)
    assert decisions[-1].reasons == [f"may be needed by {SUNDAYS[4].id}, whose manifest cannot be read"]


def test_a_suspiciously_small_backup_keeps_what_is_older_than_it() -> None:
    nights = series("2026-03-01 02:00", 9, timedelta(days=1))
    ordered = sorted(nights, key=lambda backup: backup.id)
    usual, *small = ordered[-4:]
    marked = [replace(backup, smaller_than=usual.id) for backup in small]
    stay = {decision.id: decision for decision in choose(KeepRules(last=1), [*ordered[:-3], *marked], now=NOW)}
    assert [backup.id for backup in ordered if stay[backup.id].keep] == [
        *(backup.id for backup in ordered[:-3]), marked[-1].id
    ]  # fmt: skip
    assert stay[usual.id].reasons == [f"{marked[-1].id} is suspiciously small"]
    assert len(kept(KeepRules(last=1), [*ordered[:-3], *marked[:-1], small[-1]])) == 1, "the new size was accepted"


def test_a_safety_backup_takes_no_others_place_and_goes_with_its_period() -> None:
    nights = series("2026-03-01 02:00", 9, timedelta(days=1))
    safety = made(at("2026-03-05 15:00"), tags=(SAFETY_TAG,))
    evening = made(at("2026-03-05 16:00"))
    for others in (nights, [*nights, evening]):
        for count in range(1, 9):
            rules = KeepRules(daily=count)
            assert set(kept(rules, [*others, safety])) - {safety.id} == set(kept(rules, others))
            assert (safety.id in kept(rules, [*others, safety])) == (count >= 5)
    assert ["safety, daily 5 of 7"] in reasons(KeepRules(daily=7), [*nights, safety])
    assert (safety.id in kept(KeepRules(last=4), [*nights, safety])) is False
    assert (safety.id in kept(KeepRules(last=5), [*nights, safety])) is True


def test_safety_backups_that_are_all_there_is_are_not_removed_for_one_another() -> None:
    safeties = [made(at(f"2026-03-0{day}"), tags=(SAFETY_TAG,)) for day in (1, 2, 3)]
    assert len(kept(KeepRules(last=1), safeties)) == 3


def test_counts_are_read() -> None:
    assert [read_count(value) for value in ("7", 7, "0", "unlimited", "-1", -1, " 3 ")] == [7, 7, 0, -1, -1, -1, 3]


@pytest.mark.parametrize("value", ["", "x", "-2", "1.5", True, "\u00b2", 10**10, 1.0, None, [7]])
def test_what_is_not_a_number_of_backups_is_refused(value: object) -> None:
    with pytest.raises(InvalidValue, match="is not a number of backups: write 0 or more, or unlimited"):
        read_count(value)


def test_two_sets_of_rules_are_merged_to_one_that_keeps_what_either_keeps() -> None:
    one = KeepRules(last=3, daily=UNLIMITED, within=CalendarDuration(months=1), tags=("a", "b,c"))
    other = KeepRules(last=5, daily=7, yearly=1, within=CalendarDuration(days=31), tags=("b,c", "d"))
    both = KeepRules(last=5, daily=UNLIMITED, yearly=1, within=CalendarDuration(days=31), tags=("a", "b,c", "d"))
    assert (merge(one, other), merge(one, KeepRules()), merge(KeepRules(), one)) == (both, one, one)


HISTORIES = st.lists(
    st.tuples(st.integers(0, 6 * 365 * 24 * 3600), st.integers(0, 3), st.sampled_from([(), ("a",), (SAFETY_TAG,)])),
    min_size=1,
    max_size=60,
    unique_by=lambda made: made[:2],
).map(
    lambda drawn: [
        made(at("2030-06-01") + timedelta(seconds=seconds), number, tags=tags) for seconds, number, tags in drawn
    ]
)
RULES = st.builds(
    KeepRules,
    **dict.fromkeys(("last", *PERIODS), st.integers(-1, 6)),
    within=st.none()
    | st.builds(CalendarDuration, st.integers(0, 2), st.integers(0, 12), st.integers(0, 40), st.integers(1, 9)),
    tags=st.sampled_from([(), ("a",), ("",)]),
).filter(bool)
ZONES = st.sampled_from([ZoneInfo("UTC"), BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")])
many = settings(max_examples=150, deadline=None)


def single_rules(rules: KeepRules) -> list[KeepRules]:
    counts = [KeepRules(**{name: getattr(rules, name)}) for name in ("last", *PERIODS) if getattr(rules, name)]
    return (
        counts
        + [KeepRules(within=rules.within)] * (rules.within is not None)
        + [KeepRules(tags=(tag,)) for tag in rules.tags]
    )


def kept_or_refused(rules: KeepRules, backups: Sequence[Candidate], zone: ZoneInfo) -> set[str]:
    try:
        return set(kept(rules, backups, zone=zone, now=datetime(2050, 1, 1, tzinfo=UTC)))
    except ConflictError:
        return set()


def newest(backups: Sequence[Candidate]) -> str:
    regular = [backup for backup in backups if SAFETY_TAG not in backup.tags] or backups
    return max(backup.id for backup in regular)


@many
@given(HISTORIES, RULES, ZONES)
def test_rules_are_ored(backups: list[Candidate], rules: KeepRules, zone: ZoneInfo) -> None:
    union = set().union(*(kept_or_refused(rule, backups, zone) for rule in single_rules(rules)))
    together = kept_or_refused(rules, backups, zone)
    assert together == union | ({newest(backups)} if together else set())


@many
@given(HISTORIES, RULES, ZONES, st.sampled_from(("last", *PERIODS)))
def test_a_greater_number_keeps_no_fewer(backups: list[Candidate], rules: KeepRules, zone: ZoneInfo, name: str) -> None:
    before: set[str] = set()
    for count in (*range(8), UNLIMITED):
        more = replace(rules, **{name: count})
        after = kept_or_refused(more, backups, zone) if more else before
        assert before <= after
        before = after


@many
@given(HISTORIES, RULES, ZONES)
def test_the_newest_stays_and_pruning_twice_changes_nothing(
    backups: list[Candidate], rules: KeepRules, zone: ZoneInfo
) -> None:
    ids = kept_or_refused(rules, backups, zone)
    if not ids:
        assert not any((rules.last, *(getattr(rules, name) for name in PERIODS), rules.within))
        return
    assert newest(backups) in ids
    assert kept_or_refused(rules, [backup for backup in backups if backup.id in ids], zone) == ids


PERIOD_OF: dict[str, Callable[[datetime], object]] = {
    "hourly": lambda time: time.astimezone(UTC).replace(
        minute=0, second=0
    ),  # all zones here but one are of whole hours
    "daily": lambda time: time.date(),
    "weekly": lambda time: time.date() - timedelta(days=time.weekday()),
    "monthly": lambda time: f"{time:%Y-%m}",
    "yearly": lambda time: time.year,
}


@many
@given(HISTORIES, st.integers(1, 8), st.sampled_from(list(PERIODS)), st.sampled_from([ZoneInfo("UTC"), BERLIN]))
def test_each_period_has_its_newest_and_nothing_else_but_the_oldest(
    backups: list[Candidate], count: int, name: str, zone: ZoneInfo
) -> None:
    regular = sorted((backup for backup in backups if SAFETY_TAG not in backup.tags), key=lambda backup: backup.id)
    if not regular:
        return
    last_in = {PERIOD_OF[name](backup.created_at.astimezone(zone)): backup.id for backup in regular}
    expected = set(sorted(last_in.values())[-count:])
    if len(last_in) < count:
        expected.add(regular[0].id)
    assert set(kept(PERIODS[name](count), regular, zone=zone)) == expected


@pytest.mark.parametrize("zone", [ZoneInfo("UTC"), BERLIN])
def test_a_backup_and_a_prune_every_night_for_three_years_leave_what_is_expected(zone: ZoneInfo) -> None:
    """Until Sunday, December 31st, 2028: 7 days, 3 more weeks and 11 more months, whose newest is in none of these."""
    rules = KeepRules(daily=7, weekly=4, monthly=12)
    backups: list[Candidate] = []
    most = 0
    for night in range(3 * 365 + 1):
        time = (at("2026-01-01 02:30") + timedelta(days=night)).replace(tzinfo=zone)
        backups.append(made(time))
        ids = set(kept(rules, backups, now=time, zone=zone))
        backups = [backup for backup in backups if backup.id in ids]
        most = max(most, len(backups))
    assert days(sorted((backup.id for backup in backups), reverse=True)) == [
        "2028-12-31", "2028-12-30", "2028-12-29", "2028-12-28", "2028-12-27", "2028-12-26", "2028-12-25",
        "2028-12-24", "2028-12-17", "2028-12-10",
        "2028-11-30", "2028-10-31", "2028-09-30", "2028-08-31", "2028-07-31", "2028-06-30", "2028-05-31",
        "2028-04-30", "2028-03-31", "2028-02-29", "2028-01-31",
    ]  # fmt: skip
    assert most == 7 + 3 + 11


def test_a_volume_that_is_not_backed_up_any_more_is_forgotten() -> None:
    backups = series("2039-01-01T00:00", 3, timedelta(days=1))
    last = backups[-1].created_at
    rules = KeepRules(last=1, tags=("release", ""))

    def stays(before: datetime | None, changed: Sequence[Candidate] = backups) -> list[str]:
        decisions = choose(rules, changed, now=NOW, zone=BERLIN, forget_before=before)
        return [decision.id for decision in decisions if decision.keep]

    later = last + timedelta(seconds=1)
    assert stays(later) == []
    assert stays(last) == stays(None) != []
    changes: list[dict[str, Any]] = [
        {"is_held": True}, {"damage": "cut"}, {"is_ours": False}, {"is_in_use": True}, {"tags": ("release",)},
    ]  # fmt: skip
    for change in changes:
        other = replace(backups[0], **change)
        assert stays(later, [other, *backups[1:]]) == [other.id], change
    unreadable = replace(backups[0], damage="cut", is_readable=False)
    assert len(stays(later, [unreadable, *backups[1:]])) == 3
