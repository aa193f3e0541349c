"""Labels: each is read, what is unknown or malformed is named, and no text whatever makes reading fail."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from volback.policy.durations import CalendarDuration
from volback.policy.hooks import Hook
from volback.policy.inherited import RESTORE_LABEL
from volback.policy.keep import UNLIMITED, KeepRules
from volback.policy.labels import OWN_LABELS, LabelPolicy, hooks_of, policy_of, read_labels

KNOWN = [
    "enable", "quiesce", "exec-pre", "exec-post", "exec-user", "exclude", "stop-timeout", "keep-last", "keep-hourly",
    "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly", "keep-within", "keep-tag", "job",
]  # fmt: skip


def policy(**labels: str) -> LabelPolicy:
    """What labels ask for that are all in order."""
    read, complaints = read_labels({f"volback.{key.replace('_', '-')}": text for key, text in labels.items()}, "it")
    assert complaints == []
    return read


def complaint(label: str, value: str) -> str:
    read, complaints = read_labels({label: value}, "container 'pg'")
    assert (read, len(complaints)) == (LabelPolicy(), 1)
    return complaints[0]


def test_every_label_is_read() -> None:
    read, complaints = read_labels(
        {
            "volback.enable": "true", "volback.quiesce": "pause", "volback.exec-pre": "redis-cli SAVE",
            "volback.exec-post": "rm -f /tmp/dump", "volback.exec-user": "999:999", "volback.exclude": "*.log, cache",
            "volback.stop-timeout": "2m", "volback.keep-last": "3", "volback.keep-hourly": "1",
            "volback.keep-daily": "7", "volback.keep-weekly": "4", "volback.keep-monthly": "12",
            "volback.keep-yearly": "unlimited", "volback.keep-within": "1y6m",
            "volback.keep-tag": "a,b", "volback.job": "db",
            "com.example.other": "x", "volback": "x", "volbackup.enable": "x",
        },
        "container 'redis'",
    )  # fmt: skip
    assert complaints == []
    assert read == LabelPolicy(
        enable=True, quiesce="pause", exec_pre="redis-cli SAVE", exec_post="rm -f /tmp/dump", exec_user="999:999",
        excludes=("*.log", "cache"), stop_timeout_s=120.0, job="db",
        keep=KeepRules(3, 1, 7, 4, 12, UNLIMITED, CalendarDuration(1, 6), ("a,b",)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("*.log", ("*.log",)),
        ("*.log,cache/tmp , x y", ("*.log", "cache/tmp", "x y")),
        ("a,b\n/c\n\n", ("a,b", "/c")),
    ],
)
def test_patterns_come_one_a_line_or_parted_by_commas(text: str, patterns: tuple[str, ...]) -> None:
    assert policy(exclude=text).excludes == patterns


@pytest.mark.parametrize(
    ("label", "value", "expected"),
    [
        ("volback.enable", "maybe", "label volback.enable='maybe' of container 'pg': expected true or false"),
        ("volback.quiesce", "Stop", "label volback.quiesce='Stop' of container 'pg': expected stop, pause or none"),
        (
            "volback.stop-timeout",
            "-1",
            "label volback.stop-timeout='-1' of container 'pg' is not a duration: write a number and a unit",
        ),
        ("volback.exclude", " , ", "expected patterns"),
        ("volback.exclude", "/", "expected patterns"),
        ("volback.exclude", "[z-a]", "expected patterns"),
        ("volback.exec-pre", " ", "label volback.exec-pre of container 'pg': expected a command"),
        ("volback.exec-user", "a b", "expected a user's name or number"),
        ("volback.keep-last", "-3", "is not a number of backups: write 0 or more, or unlimited"),
        ("volback.keep-daily", "seven", "is not a number of backups"),
        ("volback.keep-within", "14", "has no unit: write one, such as 14d"),
        ("volback.keep-tag", "", "expected tags"),
        ("volback.job", "", "expected the name of a job"),
        ("volback.quiesce", "x" * 500, "…'"),
    ],
)
def test_a_malformed_label_is_named_with_what_was_expected(label: str, value: str, expected: str) -> None:
    assert expected in complaint(label, value)
    assert len(complaint(label, value)) < 250


@pytest.mark.parametrize(
    ("label", "nearest"),
    [("volback.quiese", "volback.quiesce"), ("volback.exec_pre", "volback.exec-pre"),
     ("volback.keep-dayly", "volback.keep-daily")],
)  # fmt: skip
def test_an_unknown_label_is_named_with_the_nearest(label: str, nearest: str) -> None:
    assert f"label {label} of container 'pg' is unknown: did you mean {nearest}" in complaint(label, "x")


def test_an_unknown_label_that_resembles_none_names_what_there_is() -> None:
    reported = complaint("volback.xxxxxxxx", "x")
    assert all(f"volback.{word}" in reported for word in KNOWN)


def test_labels_that_volback_sets_itself_cause_no_complaint() -> None:
    from volback.engine import helper

    own = {helper.LABEL, helper.RUN_LABEL, helper.CLIENT_LABEL, helper.MADE_LABEL}
    assert own < OWN_LABELS
    assert read_labels(dict.fromkeys([*OWN_LABELS, RESTORE_LABEL], "x"), "it") == (LabelPolicy(), [])


TEXT = st.text(max_size=80)
LABEL = st.one_of(st.sampled_from(KNOWN), TEXT).map(lambda word: f"volback.{word}") | TEXT
LABELS = st.dictionaries(LABEL, st.one_of(TEXT, st.sampled_from(["true", "stop", "3", "1y", "a,b", "\n", "[", "**/"])))


@given(LABELS, st.lists(st.tuples(TEXT, LABELS), max_size=3))
@example({"volback.exclude": "[b-a]", "volback.\ud800": "\ud800"}, [("\0", {"volback.keep-within": "9" * 80})])
def test_no_label_makes_reading_fail(labels: dict[str, str], containers: list[tuple[str, dict[str, str]]]) -> None:
    read, complaints = policy_of("db", labels, containers)
    assert read.keep is None or isinstance(read.keep, KeepRules)
    assert read.quiesce in (None, "stop", "pause", "none")
    assert all(len(line) < 1500 and "\n" not in line for line in complaints)


def test_a_volumes_label_counts_before_its_containers() -> None:
    volume = {
        "volback.enable": "false", "volback.quiesce": "none", "volback.exclude": "a", "volback.stop-timeout": "0",
        "volback.keep-last": "1", "volback.job": "nightly",
    }  # fmt: skip
    container = {
        "volback.enable": "true", "volback.quiesce": "stop", "volback.exclude": "b", "volback.stop-timeout": "9",
        "volback.keep-daily": "5", "volback.job": "hourly",
    }  # fmt: skip
    read, complaints = policy_of("db", volume, [("pg", container)])
    assert (read, complaints) == (read_labels(volume, "it")[0], [])
    assert policy_of("db", {}, [("pg", container)]) == (read_labels(container, "it")[0], [])


def test_of_containers_that_disagree_the_safer_word_counts() -> None:
    one = {
        "volback.quiesce": "pause", "volback.enable": "false", "volback.exclude": "a,b", "volback.stop-timeout": "5",
        "volback.keep-last": "unlimited", "volback.keep-within": "1y", "volback.keep-tag": "a,x", "volback.job": "one",
    }  # fmt: skip
    two = {
        "volback.quiesce": "stop", "volback.enable": "true", "volback.exclude": "b,c", "volback.stop-timeout": "30",
        "volback.keep-last": "9", "volback.keep-within": "13m", "volback.keep-tag": "b\na,x", "volback.job": "two",
        "volback.keep-daily": "2",
    }  # fmt: skip
    for containers in ([("a", one), ("b", two), ("c", {})], [("b", two), ("c", {}), ("a", one)]):
        read, complaints = policy_of("db", {}, containers)
        assert read == LabelPolicy(
            enable=True, quiesce="stop", excludes=("a", "b", "c"), stop_timeout_s=30.0, job="one",
            keep=KeepRules(last=UNLIMITED, daily=2, within=CalendarDuration(months=13), tags=("a,x", "b")),
        )  # fmt: skip
        assert complaints == [
            "label volback.job='two' of container 'b': expected 'one', as another container of volume 'db' has it"
        ]


def test_commands_belong_on_containers() -> None:
    read, complaints = policy_of("db", {"volback.exec-pre": "x"}, [("pg", {"volback.exec-post": "y"})])
    assert (read, len(complaints)) == (LabelPolicy(), 1)
    assert complaints[0].startswith("label volback.exec-pre of volume 'db': expected on a container")


def test_a_label_that_keeps_none_counts_before_what_a_container_keeps() -> None:
    """Rules that keep nothing are refused when they are used: they must not turn into somebody else's."""
    own = {"volback.keep-last": "0"}
    assert policy_of("db", own, [("pg", {"volback.keep-last": "9"})])[0].keep == KeepRules()
    assert policy_of("db", {}, [("a", own), ("b", {})])[0].keep == KeepRules()
    assert policy_of("db", {}, [("a", {}), ("b", {})])[0].keep is None


@pytest.mark.parametrize(("text", "enabled"), [("TRUE", True), ("on", True), ("1", True), ("No", False), ("0", False)])
def test_true_and_false_have_several_words(text: str, enabled: bool) -> None:
    assert policy(enable=text).enable is enabled


def test_hooks_are_those_of_each_container_in_order() -> None:
    policies = [
        ("pg", policy(exec_pre="dump", exec_user="postgres")),
        ("web", policy(exec_pre="sync", exec_post="clean")),
        ("idle", LabelPolicy()),
    ]
    assert hooks_of(policies) == ((Hook("pg", "dump", "postgres"), Hook("web", "sync")), (Hook("web", "clean"),))
    assert "dump" not in repr(hooks_of(policies)), "a command may hold a password"
