"""Cron tables: their lines, and the real `crontab` on them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cron import words_apart
from volback.errors import UsageError, VolbackError
from volback.schedule.crontab import CronFile
from volback.schedule.table import MARK, Command, Entry

COMMAND = Command(("/opt/vol back/volback",), ("--config", "/etc/100%/v.toml"), {"VOLBACK_STATE_DIR": "/var/state"})
NIGHTLY = Entry("nightly", "30 2 * * *")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "etc/cron.d").mkdir(parents=True)
    return tmp_path / "etc/cron.d/volback"


def line_of(table: Path, job: str) -> str:
    return next(line for line in table.read_text().splitlines() if line.endswith(f" run {job}"))


def test_a_job_is_a_line_that_root_runs(table: Path) -> None:
    changes = CronFile(table).install([NIGHTLY], COMMAND)
    assert (changes.written, changes.warnings) == ([str(table)], [])
    lines = table.read_text().splitlines()
    assert lines[0] == MARK
    assert 'VOLBACK_STATE_DIR="/var/state"' in lines
    assert any(line.startswith("PATH=") for line in lines)
    assert lines[-1] == ("30 2 * * * root '/opt/vol back/volback' --config /etc/100\\%/v.toml --quiet run nightly")
    assert lines[-2].startswith("@reboot root ")
    assert " --quiet recover" in lines[-2]


@pytest.mark.parametrize(
    ("schedule", "written"),
    [
        ("@daily", "0 0 * * *"),
        ("*/15 * * * *", "*/15 * * * *"),
        ("5/20 1-3 1 jan,dec *", "5,25,45 1,2,3 1 1,12 *"),
        ("0 4 * * mon-fri", "0 4 * * 1,2,3,4,5"),
        ("0 4 */2 * 7", "0 4 */2 * 0"),
        ("0 0 13 * fri", "0 0 13 * 5"),
    ],
)
def test_times_are_written_as_any_cron_reads_them(table: Path, schedule: str, written: str) -> None:
    CronFile(table).install([Entry("job", schedule)], COMMAND)
    assert line_of(table, "job").startswith(f"{written} root ")


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (Entry("job", "0 0 L * *"), "cron does not know `L` and `#`"),
        (Entry("job", "0 0 *,5 * 1"), "cron cannot express the days '*,5'"),
        (Entry("job", "30 2 * * *", "Asia/Kathmandu"), "cron knows only the machine's time zone, not Asia/Kathmandu"),
    ],
)
def test_what_cron_cannot_keep_is_refused_and_nothing_is_written(table: Path, entry: Entry, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        CronFile(table).install([NIGHTLY, entry], COMMAND)
    assert refused.value.message == f"job 'job' cannot be run by cron: {why}"
    assert refused.value.hint == "use --systemd, or `volback scheduler`"
    assert not table.exists()


def test_jitter_is_warned_of(table: Path) -> None:
    changes = CronFile(table).install([Entry("job", "@daily", jitter_s=60.0)], COMMAND)
    assert changes.warnings == ["job 'job': cron has no jitter"]


def test_installed_twice_and_removed(table: Path) -> None:
    cron = CronFile(table)
    cron.install([NIGHTLY, Entry("b", "@hourly")], COMMAND)
    assert cron.installed() == {"nightly": str(table), "b": str(table)}
    assert cron.install([NIGHTLY, Entry("b", "@hourly")], COMMAND).unchanged == [str(table)]
    cron.install([NIGHTLY], COMMAND)
    assert cron.installed().keys() == {"nightly"}
    assert cron.remove().removed == [str(table)]
    assert not table.exists()
    assert cron.remove().removed == []


def test_a_file_of_somebody_else_is_left_alone(table: Path) -> None:
    table.write_text("* * * * * root something\n")
    calls: list[Callable[[], object]] = [lambda: CronFile(table).install([NIGHTLY], COMMAND), CronFile(table).remove]
    for call in calls:
        with pytest.raises(UsageError, match="was not written by volback"):
            call()
    assert table.read_text() == "* * * * * root something\n"


def test_a_place_that_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        CronFile(tmp_path / "etc/cron.d/volback").install([NIGHTLY], COMMAND)
    table = tmp_path / "volback"
    table.mkdir()
    with pytest.raises(VolbackError, match="cannot be written: Is a directory"):
        CronFile(table).install([NIGHTLY], COMMAND)


@pytest.mark.root
def test_a_user_table_keeps_what_the_user_wrote(tmp_path: Path) -> None:
    """Through the real `crontab`, on a spool of the test's own."""
    script = """if True:
        import subprocess
        from volback.schedule.crontab import UserCrontab
        from tests.schedule.test_crontab import COMMAND, NIGHTLY
        def table(): return subprocess.run(["crontab", "-l"], capture_output=True, text=True).stdout
        subprocess.run(["crontab", "-"], input="1 2 3 4 5 mine\\n", text=True, check=True)
        cron = UserCrontab()
        assert cron.installed() == {} and not cron.remove().removed
        for _ in range(2):
            changes = cron.install([NIGHTLY], COMMAND)
        assert not changes.written and list(cron.installed()) == ["nightly"]
        lines = table().splitlines()
        assert lines[0] == "1 2 3 4 5 mine" and lines[2].startswith("@reboot n=0;") and len(lines) == 5, lines
        assert lines[3].startswith("30 2 * * * env VOLBACK_STATE_DIR=/var/state '/opt/vol back/volback' "), lines
        assert cron.remove().removed
        assert table() == "1 2 3 4 5 mine\\n"
        subprocess.run(["crontab", "-r"], check=True)
        cron.install([NIGHTLY], COMMAND)
        cron.remove()
        assert table() == ""
        print("all well")
    """
    done = subprocess.run(
        words_apart(tmp_path, sys.executable, "-c", script), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "all well\n", "")
