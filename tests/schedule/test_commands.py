"""`volback schedule` and `volback scheduler`, from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from volback.errors import EXIT_DONE
from volback.schedule import schedules
from volback.state.history import JobRun, note_run, read_history

CONFIG = """
[repositories.local]
url = "{root}/repository"

[jobs.nightly]
repository = "local"
volumes = ["db"]
schedule = "30 2 * * *"
timezone = "UTC"

[jobs.by-hand]
repository = "local"
volumes = ["db"]
"""


class Cli:
    """Runs volback on a configuration and a root of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "volback.toml"
        self.config.write_text(CONFIG.format(root=root))
        (root / "etc/cron.d").mkdir(parents=True)
        self.environment = {**os.environ, "VOLBACK_STATE_DIR": str(root / "state")}

    def words(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "volback", "--config", str(self.config), *arguments]

    def __call__(self, *arguments: str, code: int = EXIT_DONE) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.words(*arguments), env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr
        return done

    def schedule(self, *arguments: str, code: int = EXIT_DONE) -> subprocess.CompletedProcess[str]:
        return self("schedule", *arguments, "--root", str(self.root), code=code)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_installed_shown_and_removed(cli: Cli) -> None:
    table = cli.root / "etc/cron.d/volback"
    assert cli.schedule("install", "--cron").stdout == f"wrote {table}\n1 job, run by cron\n"
    line = table.read_text().splitlines()[-1]
    assert line == f"30 2 * * * root {sys.executable} -m volback --config {cli.config} --quiet run nightly"
    assert f'VOLBACK_STATE_DIR="{cli.root}/state"' in table.read_text()
    (job,) = json.loads(cli.schedule("show", "--json").stdout)["result"]["jobs"]
    assert (job["job"], job["schedule"], job["run_by"]) == ("nightly", "30 2 * * *", str(table))
    assert job["next_at"].endswith("T02:30:00+00:00")
    assert cli.schedule("remove").stdout == f"removed {table}\n"
    note_run(cli.root / "state", "nightly", JobRun(id="1", started_at="2026-01-01T02:30:00+00:00", status="success"))
    shown = cli.schedule("show")
    assert "nothing" in shown.stdout.splitlines()[1]
    missed, idle = shown.stderr.splitlines()
    assert missed.startswith("warning: job 'nightly' has missed ")
    assert idle == "warning: job 'nightly' has a schedule that nothing runs"
    (job,) = json.loads(cli.schedule("show", "--json").stdout)["result"]["jobs"]
    assert list(job) == [
        "job", "schedule", "timezone", "next_at", "last_at", "last_status", "missed", "run_by"
    ]  # fmt: skip
    assert (job["last_at"], job["last_status"]) == ("2026-01-01T02:30:00+00:00", "success")
    assert job["missed"][0] == "2026-01-02T02:30:00+00:00"


@pytest.mark.programs
def test_systemd_is_chosen_where_it_runs(cli: Cli) -> None:
    (cli.root / "run/systemd/system").mkdir(parents=True)
    result = json.loads(cli.schedule("install", "--json").stdout)["result"]
    assert result["kind"] == "systemd"
    assert cli.schedule("install", "--systemd").stdout == "1 job, run by systemd\n"
    assert len(json.loads(cli.schedule("remove", "--json").stdout)["result"]["removed"]) == 4


@pytest.mark.programs
def test_a_job_is_run_by_one_scheduler_alone(cli: Cli) -> None:
    (cli.root / "etc/systemd/system").mkdir(parents=True)
    table = cli.root / "etc/cron.d/volback"
    cli.schedule("install", "--cron")
    assert f"removed {table}\n" in cli.schedule("install", "--systemd").stdout
    assert not table.exists()
    assert cli.schedule("install", "--cron").stdout.count("removed ") == 4


def test_what_cannot_be_is_a_line_with_a_hint(cli: Cli) -> None:
    assert "exclude each other" in cli.schedule("install", "--cron", "--systemd", code=2).stderr
    cli.environment["VOLBACK_HOSTNAME"] = "web\n* * * * * root true"
    assert "VOLBACK_HOSTNAME='web\\n" in cli.schedule("install", "--cron", code=2).stderr
    del cli.environment["VOLBACK_HOSTNAME"]
    cli.config.write_text(cli.config.read_text().replace("30 2 * * *", "30 25 * * *"))
    said = cli.schedule("install", "--cron", code=2).stderr
    assert f"error: {cli.config}:8" in said
    assert "hint: see `volback config check`" in said
    cli.config.write_text(CONFIG.format(root=cli.root).replace('schedule = "30 2 * * *"\ntimezone = "UTC"\n', ""))
    assert cli.schedule("install", "--cron", code=2).stderr.startswith("error: no job has a schedule\nhint: ")
    assert list((cli.root / "etc/cron.d").iterdir()) == []


def test_a_skipped_run_is_noted_and_counts_for_no_run(cli: Cli) -> None:
    begun, due = datetime(2026, 1, 1, 2, 30, tzinfo=UTC), datetime(2026, 1, 2, 2, 30, tzinfo=UTC)
    state = cli.root / "state"
    assert schedules.last_start(state, "nightly") is None
    note_run(state, "nightly", JobRun(id="1", started_at=begun.isoformat()))
    schedules.note_skipped(state, "nightly", due)
    assert [run.status for run in read_history(state, "nightly")] == ["running", "skipped"]
    assert schedules.last_start(state, "nightly") == begun


def test_the_scheduler_is_at_work_until_it_is_terminated(cli: Cli) -> None:
    assert "does not run" in cli("scheduler", "--check", code=1).stderr
    by_hand, nightly, advice = cli("jobs").stdout.splitlines()[1:]
    assert "not installed" in nightly
    assert "not installed" not in by_hand
    assert advice == "nothing runs at its time: nightly; install that: volback schedule install"
    process = subprocess.Popen(cli.words("scheduler"), env=cli.environment, stderr=subprocess.PIPE, text=True)
    try:
        while not (cli.root / "state/scheduler.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        assert cli("scheduler", "--check").stdout.startswith("the scheduler is running, seen ")
        (running,) = cli("jobs").stdout.splitlines()[2:]
        assert running.startswith("nightly ")
        assert " 02:30:00" in running
        (_, job) = json.loads(cli("jobs", "--json").stdout)["result"]["jobs"]
        assert job["run_by"] == "scheduler"
        assert cli("scheduler", code=6).stderr.startswith("error: the scheduler is locked by process ")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "INFO job nightly runs next at " in log
