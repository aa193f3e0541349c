"""A real cron daemon has a job run, from what `volback schedule install` wrote."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.support.cron import cron_daemon
from tests.support.engine import Volback
from volback.schedule.crontab import CronFile
from volback.schedule.table import Command, Entry

CONFIG = """
[repositories.main]
url = "{repository}"

[jobs.minutely]
repository = "main"
volumes = ["{volume}"]
schedule = "* * * * *"
"""


def test_cron_backs_up_a_volume_and_recovers_at_boot(
    run_volback: Volback, volume_factory: Callable[..., str], tmp_path: Path
) -> None:
    name = volume_factory("cron", fill=lambda path: (path / "file").write_text("text"))
    config = tmp_path / "volback.toml"
    config.write_text(CONFIG.format(repository=run_volback.repository, volume=name))
    (tmp_path / "etc/cron.d").mkdir(parents=True)
    run_volback("--config", config, "schedule", "install", "--cron", "--root", tmp_path)
    noted = tmp_path / "noted"
    recorder = tmp_path / "re%corder"  # a percent sign is special to cron
    recorder.write_text(f'#!/bin/sh\necho "$(id -un) $VOLBACK_STATE_DIR $*" >>{noted}\n')
    recorder.chmod(0o755)
    table = CronFile(tmp_path / "etc/cron.d/recorder")
    table.install([Entry("other", "* * * * *")], Command((str(recorder),), (), {"VOLBACK_STATE_DIR": "/x y"}))
    history = run_volback.state / "jobs/minutely.json"
    with cron_daemon(tmp_path):
        until = time.monotonic() + 240
        while not (history.exists() and noted.exists() and "other" in noted.read_text()):
            assert time.monotonic() < until, "no run came"
            time.sleep(0.2)
        (tmp_path / "etc/cron.d/volback").unlink()  # or the next minute's run would be at work when cron is ended
        while '"running"' in history.read_text():
            assert time.monotonic() < until, "the run does not end"
            time.sleep(0.2)
    assert sorted(set(noted.read_text().splitlines())) == ["root /x y --quiet recover", "root /x y --quiet run other"]
    run_volback.note_client_id()
    (job,) = run_volback("--config", config, "jobs", "--json").json["result"]["jobs"]
    assert job["runs"][0]["status"] == "success"
    assert len(list(run_volback.repository.rglob("manifest.json"))) == 1
