"""Words for people: sizes, ages, names and tables."""

from __future__ import annotations

import pytest

from volback.cli.words import columns, first_of, human_age, human_duration, human_size, pairs, printable, read_option
from volback.errors import UsageError
from volback.policy.durations import read_seconds


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (12 * 1024 * 1024 + 300 * 1024, "12.3 MiB"),
        (5 * 1024**4, "5.0 TiB"),
        (2**63 - 1, "8.0 EiB"),
    ],
)
def test_sizes_are_in_binary_units(size_bytes: int, text: str) -> None:
    assert human_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "now"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (3 * 3600 + 100, "3 h ago"),
        (3 * 86400, "3 d ago"),
        (200 * 86400, "6 mo ago"),
        (800 * 86400, "2 y ago"),
    ],
)
def test_ages_have_one_number_and_one_unit(seconds: float, text: str) -> None:
    assert human_age(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(-600, "now"), (-630, "in 10 min"), (-400 * 86400, "in 13 mo")])
def test_what_is_still_to_come_is_not_now(seconds: float, text: str) -> None:
    assert human_age(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations_grow_coarser(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\u00e9 \U0001f433", "caf\u00e9 \U0001f433"),
        ("red\x1b[31m", "red\\x1b[31m"),
        ("new\nline\ttab", "new\\x0aline\\x09tab"),
        (b"latin-\xe9".decode(errors="surrogateescape"), "latin-\\xe9"),
        ("turn\u202eed", "turn\\u202eed"),
        ("c1\x9b31m", "c1\\x9b31m"),
    ],
)
def test_what_moves_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_columns_line_up_and_numbers_stand_right() -> None:
    lines = list(columns(["NAME", "SIZE"], [["a", "1 B"], ["long-name", "100 B"]], right="SIZE"))
    assert lines == ["NAME        SIZE", "a            1 B", "long-name  100 B"]


def test_a_table_fits_the_terminal_and_names_stay_whole() -> None:
    rows = [["f" * 64, "local", "-"], ["db", "a-plugin-with-a-long-name", "web (rw), job (ro, exited), app (rw)"]]
    assert list(columns(["VOLUME", "DRIVER", "CONTAINERS"], rows, width=42)) == [
        "VOLUME        DRIVER          CONTAINERS",
        "f" * 64,
        "              local           -",
        "db            a-plugin-with…  web (rw),",
        "                              job (ro,",
        "                              exited),",
        "                              app (rw)",
    ]
    assert len(next(columns(["VOLUME", "DRIVER", "CONTAINERS"], rows))) > 64


def test_a_list_of_backups_fits_80_columns_and_cuts_no_name_and_no_tag() -> None:
    names = ["shop_database@20261125T194828Z-ab13", "myproject_uploads-of-all-users@20261125T194828Z-ab13"]
    rows = [[name, "23 min ago", "1,222,000", "107.3 MiB", "104.8 MiB", "nightly,before-update,v2"] for name in names]
    headings = ["BACKUP", "AGE", "FILES", "SIZE", "STORED", "TAGS"]
    lines = list(columns(headings, rows, right="FILES SIZE STORED", width=80))
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if "@" in line] == names
    text = "".join(line.split("  ")[-1].strip() for line in lines if "@" not in line)
    assert text == "TAGS" + "nightly,before-update,v2" * 2


def test_long_lists_are_counted() -> None:
    paths = [f"file-{number}" for number in range(1_520)]
    lines = list(first_of(paths, "differs  "))
    assert lines[:20] == [f"differs  {path}" for path in paths[:20]]
    assert lines[20:] == ["differs  ... and 1,500 more: --json lists all"]
    assert list(first_of(paths[:20], "")) == paths[:20]


def test_pairs_keep_what_follows_the_first_equals_sign() -> None:
    assert pairs(["o=addr=nas,ro", "empty="], "--driver-opt") == {"o": "addr=nas,ro", "empty": ""}


@pytest.mark.parametrize("text", ["plain", "=value", ""])
def test_pairs_refuse_what_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="KEY=VALUE"):
        pairs([text], "--label")


def test_an_option_that_cannot_be_read_is_named_with_a_hint() -> None:
    assert read_option("--wait", "90m", read_seconds) == 5400
    with pytest.raises(UsageError) as raised:
        read_option("--wait", "soon", read_seconds)
    assert raised.value.message == "--wait 'soon' is not a duration"
    assert raised.value.hint == "write a number and a unit, such as 90s, 30m, 24h, 2d or 1h30m"
