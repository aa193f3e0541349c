"""Durations: one grammar for the command line, labels and `volback.toml`, as tables that go over all three."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volback.cli.main import run
from volback.config.loading import load_config
from volback.config.model import Config
from volback.errors import EngineUnreachable, NoRepository, UsageError
from volback.policy.durations import LONGEST_S, CalendarDuration, read_age, read_calendar, read_grace, read_seconds
from volback.policy.invalid import InvalidValue
from volback.policy.labels import read_labels
from volback.store.locate import keys_of

BERLIN = ZoneInfo("Europe/Berlin")
HOUR_S, DAY_S = 3600, 86_400

SECONDS = [
    ("0", 0), ("0s", 0), ("90", 90), ("1.5", 1.5), ("90s", 90), ("0.5s", 0.5), ("30m", 1800), ("90m", 5400),
    ("30min", 1800), ("24h", DAY_S), ("1.5h", 5400), ("2d", 2 * DAY_S), ("1w", 7 * DAY_S), ("1y", 365 * DAY_S),
    ("1h30m", 5400), ("1h 30m", 5400), (" 1 h  30 min ", 5400), ("30m1h", 5400), ("1d12h30m15s", 131_415),
    ("1w30m", 7 * DAY_S + 1800), ("1y2d6m", 367 * DAY_S + 360), ("1y6min", 365 * DAY_S + 360), ("9999999s", 9_999_999),
]  # fmt: skip
NOT_SECONDS = [
    ("soon", "is not a duration: write a number and a unit, such as 90s, 30m, 24h, 2d or 1h30m"),
    ("-1", "is not a duration"), ("-5m", "is not a duration"), ("h", "is not a duration"),
    ("1,5h", "is not a duration"), ("1.5.5h", "is not a duration"), ("\u0661h", "is not a duration"),
    ("1h!", "is not a duration"), ("P1D", "is not a duration"), ("1D", "is not a duration"),
    ("1e3s", "has the unknown unit 'e'"),
    ("5x", "has the unknown unit 'x'"), ("2hours", "has the unknown unit 'hours'"),
    ("5ms", "has the unknown unit 'ms'"), ("1h30", "has a number without a unit"),
    ("1 30m", "has a number without a unit"),
    ("6mo", "has months, which differ in length: write days, such as 30d"),
    ("1y6m", "has m after y, which could be minutes or months: write 6min for minutes"),
    ("1y 6m 3h", "has m after y"),
    ("101y", "is longer than 100 years"), ("999999999w", "is longer than 100 years"),
    ("9" * 80, "has a number without a unit"),
]  # fmt: skip
CALENDAR = [
    ("30d", CalendarDuration(days=30)), ("12h", CalendarDuration(hours=12)), ("2w", CalendarDuration(days=14)),
    ("6m", CalendarDuration(months=6)), ("6mo", CalendarDuration(months=6)), ("13m", CalendarDuration(months=13)),
    ("1y", CalendarDuration(years=1)), ("1y6m14d", CalendarDuration(1, 6, 14)),
    ("1y6mo14d", CalendarDuration(1, 6, 14)),
    ("1y5m7d2h", CalendarDuration(1, 5, 7, 2)),  # the example of restic's documentation
    ("1m2h", CalendarDuration(months=1, hours=2)), ("6m1y", CalendarDuration(1, 6)),
    ("1y 6mo", CalendarDuration(1, 6)), ("3 d", CalendarDuration(days=3)),
    (" 3h7d ", CalendarDuration(days=7, hours=3)),
    ("2w1d1d", CalendarDuration(days=16)), ("1h30mo", CalendarDuration(months=30, hours=1)),
]  # fmt: skip
NOT_CALENDAR = [
    ("1h30m",
     "has m after h, which could be minutes or months: write 30mo for months; the shortest unit here is the hour"),
    ("1d 12h 30m", "has m after d"), ("7d1m", "has m after d"), ("1w6m", "has m after w"), ("1y7d6m", "has m after d"),
    ("6mo30m", "has m beside mo, which could be minutes or months"), ("30m6mo", "has m beside mo"),
    ("30min", "has min, but the shortest unit here is the hour: write years, months, weeks, days and hours"),
    ("90s", "has s, but the shortest unit here is the hour"), ("5m30s", "has s"),
    ("14", "has no unit: write one, such as 14d"), ("1.5d", "has a fraction: write whole numbers, such as 36h"),
    ("0d", "is zero, which keeps nothing"), ("0y0h", "is zero, which keeps nothing"), ("-3d", "is not a duration"),
    ("d", "is not a duration"), ("30d!", "is not a duration"), ("\u0663d", "is not a duration"),
    ("1y6", "has a number without a unit"),
    ("6months", "has the unknown unit 'months'"), ("1Y", "is not a duration"),
]  # fmt: skip

SECONDS_OPTIONS = ("--wait", "--stop-timeout", "--health-timeout")

Load = Callable[[str], Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads one job with the given lines."""

    def load(lines: str) -> Config:
        file = tmp_path / "volback.toml"
        file.write_text(
            f'[repositories.main]\nurl = "/srv"\n[jobs.n]\nrepository = "main"\nschedule = "@daily"\n{lines}'
        )
        return load_config([file], {}, keys_of=keys_of)

    return load


@pytest.fixture
def volback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs volback where no engine answers and a repository is empty; checks the exit code and returns stderr."""
    monkeypatch.setenv("VOLBACK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")

    def volback(*arguments: str, code: int) -> str:
        assert run([*arguments, "--repo", str(tmp_path / "repository")]) == code
        return capsys.readouterr().err

    return volback


@pytest.mark.parametrize(("text", "seconds"), SECONDS)
def test_seconds_are_the_same_in_labels_and_files(load: Load, text: str, seconds: float) -> None:
    assert read_seconds(text) == seconds
    policy, complaints = read_labels({"volback.stop-timeout": text}, "volume 'db'")
    assert (policy.stop_timeout_s, complaints) == (seconds, [])
    config = load(f"wait = '{text}'\njitter = '{text}'\nstop_timeout = '{text}'\n")
    assert config.problems == ()
    job = config.jobs["n"]
    assert (job.wait_s, job.jitter_s, job.stop_timeout_s) == (seconds, seconds, seconds)


@pytest.mark.parametrize(("text", "reason"), NOT_SECONDS)
def test_what_is_not_a_number_of_seconds_is_refused_alike(load: Load, text: str, reason: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        read_seconds(text)
    assert str(raised.value).startswith(reason)
    shown = repr(text) if len(text) < 60 else f"'{text[:59]}…'"
    assert read_labels({"volback.stop-timeout": text}, "volume 'db'")[1] == [
        f"label volback.stop-timeout={shown} of volume 'db' {raised.value}"
    ]
    shown = shown.replace("'", '"')
    assert [str(problem).split(": ", 1)[1] for problem in load(f'wait = "{text}"').problems] == [
        f"jobs.n.wait: {shown} {raised.value}"
    ]


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [("--wait", *row) for row in NOT_SECONDS] + [(option, *NOT_SECONDS[0]) for option in SECONDS_OPTIONS[1:]],
)
def test_options_refuse_what_labels_and_files_refuse(
    volback: Callable[..., str], option: str, text: str, reason: str
) -> None:
    said = volback("backup", "db", f"{option}={text}", code=UsageError.exit_code)
    assert f"{option} {text!r} {reason.partition(': ')[0]}" in said
    assert f"hint: {reason.partition(': ')[2]}" in said


@pytest.mark.parametrize(("text", "seconds"), SECONDS)
def test_options_take_what_labels_and_files_take(volback: Callable[..., str], text: str, seconds: float) -> None:
    """The engine is asked only after the options have been read."""
    options = [f"{option}={text}" for option in SECONDS_OPTIONS]
    volback("backup", "db", *options, code=EngineUnreachable.exit_code)


@pytest.mark.parametrize("number", [0, 30, 1.5, LONGEST_S])
def test_a_number_in_a_file_is_seconds(load: Load, number: float) -> None:
    assert load(f"stop_timeout = {number}").jobs["n"].stop_timeout_s == number


@pytest.mark.parametrize("value", ["-1", "true", "inf", "nan", str(LONGEST_S + 1), "[]", "{}", "1979-05-27"])
def test_other_values_in_a_file_are_refused(load: Load, value: str) -> None:
    [problem] = load(f"wait = {value}").problems
    assert "jobs.n.wait: " in str(problem)
    assert "is not a duration" in str(problem) or "is longer than 100 years" in str(problem)


@pytest.mark.parametrize(("text", "duration"), CALENDAR)
def test_keep_within_is_the_same_on_the_command_line_in_labels_and_in_files(
    load: Load, volback: Callable[..., str], text: str, duration: CalendarDuration
) -> None:
    assert read_calendar(text) == duration
    policy, complaints = read_labels({"volback.keep-within": text}, "volume 'db'")
    assert policy.keep is not None
    assert (policy.keep.within, complaints) == (duration, [])
    config = load(f"keep.within = '{text}'")
    assert config.problems == ()
    assert config.jobs["n"].keep is not None
    assert config.jobs["n"].keep.within == duration
    volback("prune", f"--keep-within={text}", code=NoRepository.exit_code)  # there is no repository


@pytest.mark.parametrize(("text", "reason"), NOT_CALENDAR)
def test_what_is_not_a_time_of_the_calendar_is_refused_alike(
    load: Load, volback: Callable[..., str], text: str, reason: str
) -> None:
    with pytest.raises(InvalidValue) as raised:
        read_calendar(text)
    assert str(raised.value).startswith(reason)
    assert read_labels({"volback.keep-within": text}, "volume 'db'")[1] == [
        f"label volback.keep-within={text!r} of volume 'db' {raised.value}"
    ]
    assert [
        str(problem).split(": ", 1)[1] for problem in load(f"keep = {{ last = 1, within = '{text}' }}").problems
    ] == [f'jobs.n.keep.within: "{text}" {raised.value}']
    said = volback("prune", f"--keep-within={text}", code=UsageError.exit_code)
    assert f"--keep-within {text!r} {raised.value.reason}\nhint: {raised.value.hint}" in said


@pytest.mark.parametrize("value", ["14", "true", "1.5", "[]"])
def test_keep_within_in_a_file_is_a_text(load: Load, value: str) -> None:
    [problem] = load(f"keep.within = {value}\nkeep.last = 1").problems
    assert "jobs.n.keep.within: " in str(problem)


@pytest.mark.parametrize(("text", "seconds"), [("2h", 7200), ("1w", 7 * DAY_S), ("0s", 0), ("1h30m", 5400)])
def test_an_age_is_read_in_seconds(volback: Callable[..., str], text: str, seconds: float) -> None:
    assert read_age(text) == seconds
    volback("prune", "--keep-last=1", f"--older-than={text}", code=NoRepository.exit_code)


@pytest.mark.parametrize("command", [("prune", "--keep-last=1"), ("doctor", "--fix")])
def test_an_age_needs_a_unit(volback: Callable[..., str], command: tuple[str, ...]) -> None:
    """Two days is what people mean by 2: read as seconds, it would remove the uploads of runs that are alive."""
    said = volback(*command, "--older-than=2", code=UsageError.exit_code)
    assert "--older-than '2' has no unit\nhint: write one, such as 2h" in said
    assert "is not a duration" in volback(*command, "--older-than=x", code=UsageError.exit_code)


PARTS = st.lists(
    st.tuples(st.integers(0, 20), st.sampled_from(["s", "m", "min", "h", "d", "w", "mo", "y"])), min_size=1, max_size=4
)


@given(PARTS)
def test_the_two_readings_never_contradict_one_another(parts: list[tuple[int, str]]) -> None:
    """Where both take a text, both see the same time in it; only `m` on its own is minutes here and months there."""
    text = "".join(f"{number}{unit}" for number, unit in parts)
    try:
        seconds, duration = read_seconds(text), read_calendar(text)
    except InvalidValue:
        return
    units = [unit for _, unit in parts]
    if "m" in units:
        assert not {"w", "d", "h", "mo"} & set(units[: units.index("m")])
        return
    newest = datetime(2026, 3, 1, tzinfo=UTC)
    difference = newest - duration.before(newest, UTC) - timedelta(seconds=seconds)
    assert timedelta(0) <= difference <= timedelta(days=duration.years)  # leap years


@given(st.text(max_size=30) | st.from_regex(r"\A[0-9. smhdwyo]{0,20}\Z"))
def test_no_text_makes_reading_fail_in_another_way(text: str) -> None:
    problems = []
    for read in (read_seconds, read_age, read_calendar):
        try:
            read(text)
        except InvalidValue as exc:
            problems.append(exc)
    assert all(problem.hint and "\n" not in str(problem) for problem in problems)


@pytest.mark.parametrize(
    ("duration", "time", "expected"),
    [
        (CalendarDuration(years=1, months=6, days=14), "2026-11-24 12:00", "2025-05-10 12:00"),
        (CalendarDuration(months=1), "2026-03-31 12:00", "2026-02-28 12:00"),
        (CalendarDuration(years=1), "2024-02-29 12:00", "2023-02-28 12:00"),
        (CalendarDuration(months=25), "2026-01-15 00:00", "2023-12-15 00:00"),
        (CalendarDuration(hours=36), "2026-01-01 06:00", "2025-12-30 18:00"),
        (CalendarDuration(years=999_999_999), "2026-01-01 06:00", "0001-01-01 00:00"),
        (CalendarDuration(months=999_999_999), "2026-01-01 06:00", "0001-01-01 00:00"),
        (CalendarDuration(days=7 * 999_999_999), "2026-01-01 06:00", "0001-01-01 00:00"),
        (CalendarDuration(hours=8 * 999_999_999), "2026-01-01 06:00", "0001-01-01 00:00"),
    ],
)
def test_durations_go_by_the_calendar(duration: CalendarDuration, time: str, expected: str) -> None:
    assert duration.before(at(time), ZoneInfo("UTC")) == at(expected)


def test_a_day_of_a_duration_is_one_of_the_zone_though_it_has_25_hours() -> None:
    after = at("2026-10-25 12:00", BERLIN)
    assert CalendarDuration(days=1).before(after, BERLIN) == at("2026-10-24 12:00", BERLIN)
    assert CalendarDuration(hours=24).before(after, BERLIN) == after.astimezone(UTC) - timedelta(hours=24)


@pytest.mark.parametrize(
    ("text", "shown"), [("1y6m14d12h", "1y6mo14d12h"), ("2w", "14d"), ("18mo", "18mo"), ("1h", "1h")]
)
def test_a_duration_is_shown_in_units_of_one_meaning(text: str, shown: str) -> None:
    assert str(read_calendar(text)) == shown
    assert read_calendar(shown) == read_calendar(text)


def test_the_longer_of_two_durations_is_known() -> None:
    hours = [read_calendar(text).mean_hours for text in ("30d", "1m", "31d", "11m", "1y", "366d", "13m", "57w", "2y")]
    assert hours == sorted(set(hours))


def at(text: str, zone: ZoneInfo | None = None) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone or UTC)


def test_a_grace_time_is_in_whole_seconds() -> None:
    assert [read_grace(value) for value in ("24h", "0s", "1.5s", 90, 0)] == [86_400, 0, 2, 90, 0]
    for value in ("11y", 400_000_000, "5", True):
        with pytest.raises(InvalidValue):
            read_grace(value)
