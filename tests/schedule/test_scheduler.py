"""The foreground scheduler: real processes and signals; the clock is moved by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.foreground import Driven
from volback.errors import VolbackError
from volback.schedule.scheduler import check

EVENING = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
NIGHT = datetime(2026, 11, 25, 2, 30, tzinfo=UTC)
NIGHTLY = ("nightly", "30 2 * * *", "UTC", 0.0)
RUN = "--quiet run nightly"
DAY = timedelta(days=1)


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    scheduler = Driven(tmp_path)
    scheduler.set_clock(EVENING)
    scheduler.set_plan(NIGHTLY)
    return scheduler


def test_it_recovers_first_and_runs_a_job_at_its_time_each_day(driven: Driven) -> None:
    with driven.running():
        driven.move_clock(NIGHT - timedelta(seconds=1))
        driven.move_clock(NIGHT)
        driven.wait_for(f"end {RUN}")
        driven.move_clock(NIGHT + DAY)
        driven.wait_for(f"end {RUN}", 2)
        code, log = driven.end()
    assert code == 0
    assert driven.noted() == ["begin --quiet recover", "end --quiet recover", *[f"begin {RUN}", f"end {RUN}"] * 2]
    assert log.count("job nightly ended with exit code 0") == 2
    assert os.listdir(driven.directory / "state") == ["locks"]


def test_what_was_due_while_it_did_not_run_is_caught_up_with_once(driven: Driven) -> None:
    driven.set_last({"nightly": NIGHT - 5 * DAY})
    with driven.running():
        driven.wait_for(f"end {RUN}")
        driven.set_last({"nightly": EVENING})
        driven.move_clock(EVENING + timedelta(hours=1))
        _, log = driven.end()
    assert driven.noted().count(f"begin {RUN}") == 1
    assert "job nightly catches up at" in log


def test_what_ran_in_time_is_not_run_again(driven: Driven) -> None:
    driven.set_last({"nightly": NIGHT - DAY})
    with driven.running():
        driven.wake()
        driven.end()
    assert f"begin {RUN}" not in driven.noted()


def test_a_machine_that_slept_catches_up_once(driven: Driven) -> None:
    with driven.running():
        driven.move_clock(NIGHT + 3 * DAY + timedelta(hours=1))
        driven.wait_for(f"end {RUN}")
        driven.wake()
        driven.end()
    assert driven.noted().count(f"begin {RUN}") == 1


def test_runs_of_one_job_never_overlap_and_the_one_skipped_is_noted(driven: Driven) -> None:
    driven.behave("nightly", f"while [ ! -e {driven.directory}/go ]; do sleep 0.01; done")
    driven.set_plan(NIGHTLY, ("other", "30 2 * * *", "UTC", 0.0))
    with driven.running():
        driven.move_clock(NIGHT)
        driven.wait_for(f"begin {RUN}")
        driven.wait_for("end --quiet run other")
        driven.move_clock(NIGHT + DAY)
        driven.wait_for("skipped nightly 02:30")
        driven.wait_for("end --quiet run other", 2)
        (driven.directory / "go").touch()
        driven.wait_for(f"end {RUN}")
        driven.move_clock(NIGHT + 2 * DAY)
        driven.wait_for(f"end {RUN}", 2)


def test_jitter_comes_on_top_of_the_time(driven: Driven) -> None:
    driven.set_plan(("nightly", "30 2 * * *", "UTC", 600.0))
    with driven.running():
        driven.move_clock(NIGHT + timedelta(seconds=599))
        driven.move_clock(NIGHT + timedelta(seconds=599))
        assert f"begin {RUN}" not in driven.noted()
        driven.move_clock(NIGHT + timedelta(seconds=600))
        driven.wait_for(f"end {RUN}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_waits_for_the_run_to_end(driven: Driven, number: signal.Signals) -> None:
    noted = driven.directory / "noted"
    trap = f"trap 'echo signalled >>{noted}; sleep 0.3; echo down >>{noted}; exit 1' TERM INT; echo ready >>{noted}"
    driven.behave("nightly", f"{trap}\nwhile :; do sleep 0.01; done")
    with driven.running() as process:
        driven.move_clock(NIGHT)
        driven.wait_for("ready")  # before, the signal would just end it
        process.send_signal(number)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert driven.noted()[-2:] == ["signalled", "down"]
    assert "job nightly ended with exit code 1" in log


def test_a_run_that_crashes_does_not_end_it(driven: Driven) -> None:
    driven.behave("nightly", f"trap '' TERM; echo ready >>{driven.directory}/noted; kill -KILL $$")
    with driven.running():
        for day in range(2):
            driven.move_clock(NIGHT + day * DAY)
            driven.wait_for("ready", day + 1)  # the scheduler's end does not come before its own
        _, log = driven.end()
    assert log.count("job nightly ended with exit code 137") == 2


def test_sighup_reads_the_configuration_again_and_keeps_the_old_one_if_it_cannot(driven: Driven) -> None:
    with driven.running():
        driven.set_plan(("hourly", "@hourly", None, 0.0))
        driven.move_clock(EVENING + timedelta(minutes=1))
        (driven.directory / "plan.json").write_text("nonsense")
        driven.move_clock(EVENING + timedelta(hours=1))
        driven.wait_for("end --quiet run hourly")
        driven.move_clock(NIGHT)
        driven.wait_for("end --quiet run hourly", 2)
        _, log = driven.end()
    assert f"begin {RUN}" not in driven.noted()
    assert "ERROR the configuration is not read again: plan.json cannot be read" in log


def test_a_job_that_cannot_run_is_run_at_once_as_that_tells_of_it(driven: Driven) -> None:
    driven.set_plan(NIGHTLY, broken={"bad": "v.toml:3: jobs.bad.schedule: expected a cron expression"})
    with driven.running():
        driven.wait_for("end --quiet run bad")
        _, log = driven.end()
    assert "job bad cannot run: v.toml:3" in log


def test_there_is_one_at_a_time_and_its_health_can_be_asked(driven: Driven) -> None:
    state = driven.directory / "state"
    with pytest.raises(VolbackError, match="does not run"):
        check(state, EVENING)
    with driven.running():
        assert check(state, EVENING) == 0
        assert check(state, EVENING + timedelta(seconds=100)) == 100
        with pytest.raises(VolbackError, match="has not moved for 500 s"):
            check(state, EVENING + timedelta(seconds=500))
        words = [sys.executable, "-m", "tests.support.foreground", str(driven.directory)]
        second = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert (second.returncode, second.stderr.partition(" by process")[0]) == (6, "the scheduler is locked")
        assert check(state, EVENING) == 0
        driven.end()
    with pytest.raises(VolbackError, match="does not run"):
        check(state, EVENING)


def test_a_killed_one_is_not_at_work(driven: Driven) -> None:
    with driven.running() as process:
        process.kill()
        process.wait()
        with pytest.raises(VolbackError, match="does not run"):
            check(driven.directory / "state", EVENING)
    assert json.loads((driven.directory / "state/scheduler.json").read_text())["pid"] == process.pid
