"""Reports in words, and the templates for them."""

from __future__ import annotations

import pytest

from tests.support.report import failed, report, volume
from volback.notify.text import DEFAULT_BODY, DEFAULT_TITLE, NAMES, complaint_of_template, render, summary_of


def test_the_default_message_of_a_success() -> None:
    assert render(DEFAULT_TITLE, report()) == "volback: job nightly on web1 is done"
    assert render(DEFAULT_BODY, report()) == (
        "1 volume backed up: 1,222 files, 7.3 MiB -> 4.8 MiB, in 1 min 20 s\n"
        "\n"
        "db: 1,222 files, 7.3 MiB -> 4.8 MiB, in 4.2 s, stopped, down for 1.5 s"
    )


def test_the_default_message_of_a_failure_says_what_failed_and_why_once() -> None:
    run = failed(volumes=(volume("web"), *failed().volumes), errors=("volume 'db' does not exist",))
    assert render(DEFAULT_TITLE, run) == "volback: job nightly on web1 FAILED"
    assert render(DEFAULT_BODY, run).splitlines() == [
        "1 of 2 volumes backed up: 1,222 files, 7.3 MiB -> 4.8 MiB, in 1 min 20 s",
        "",
        "error: db: volume 'db' does not exist",
        "",
        "web: 1,222 files, 7.3 MiB -> 4.8 MiB, in 4.2 s, stopped, down for 1.5 s",
        "db: FAILED",
    ]


def test_a_run_without_volumes_says_why() -> None:
    run = failed(volumes=(), errors=("volume 'db' is locked by process 7",))
    assert summary_of(run) == "volume 'db' is locked by process 7, in 1 min 20 s"
    assert render("$errors", run) == "volume 'db' is locked by process 7"


def test_a_template_can_name_all_that_is_documented() -> None:
    run = report("warning", warnings=("one file changed",), log_tail="the log")
    text = render("\n".join(f"{name}=${{{name}}}" for name in NAMES), run)
    assert "warnings=one file changed\n" in text
    assert "started=2026-11-24 02:30:00 UTC\nended=2026-11-24 02:31:20 UTC\nduration=1 min 20 s\n" in text
    assert "log=the log\n" in text
    assert render("$$5 for ${job}s", run) == "$5 for nightlys"


@pytest.mark.parametrize("template", ["costs 5 $", "${job", "$nobody", "${job.__class__}", "$Job", "${0}"])
def test_a_template_that_cannot_be_used_has_a_complaint(template: str) -> None:
    assert complaint_of_template(template)


def test_a_value_is_never_taken_for_a_template() -> None:
    assert render("$errors", failed(volumes=(), errors=("no such thing: $log ${job}",))) == "no such thing: $log ${job}"


def test_names_of_others_fake_no_line_and_move_no_cursor() -> None:
    evil = "a\x1b[2J\x9b\u202e\nerror: fake"
    run = failed(volumes=(volume(evil),), errors=(evil,), warnings=(evil,), log_tail=f"one\n{evil}")
    for name in NAMES:
        text = render(f"${name}", run)
        assert not any(char in text for char in "\x1b\x9b\u202e")
        assert name == "log" or "\nerror: fake" not in text


def test_a_long_list_is_cut() -> None:
    run = report(volumes=tuple(volume(f"v{number}") for number in range(100)))
    lines = render("$volumes", run).splitlines()
    assert (len(lines), lines[-1]) == (31, "and 70 more")
