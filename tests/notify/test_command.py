"""`volback notify`, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.listener import listening


def volback(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "volback", "--config", str(config), *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_a_test_reaches_all_and_what_fails_is_reported(tmp_path: Path) -> None:
    config = tmp_path / "volback.toml"
    with listening() as server, listening(404) as gone:
        config.write_text(
            f'[notifications.admins]\nurls = ["json://{server.address}/hook"]\non = ["failure"]\n'
            f'ping = "{server.url}/uuid"\n'
            f'[notifications.gone]\nping = "{gone.url}/s3cret"\n'
        )
        said = volback(config, "notify", "admins")
        assert (said.returncode, said.stdout, said.stderr) == (0, "notified admins\n", "")
        assert sorted(heard.path for heard in server.heard) == ["/hook", "/uuid", "/uuid/start"]
        said = volback(config, "notify", "--as", "failure", "--json")
    assert said.returncode == 1
    document = json.loads(said.stdout)
    assert document["result"]["told"] == ["admins", "gone"]
    assert [failure.partition(" failed: ")[0] for failure in document["result"]["failed"]] == [
        "ping 'gone' (start)", "ping 'gone' (fail)",
    ]  # fmt: skip
    assert "s3cret" not in said.stdout
    sent = [heard for heard in server.heard if heard.path == "/hook"][-1]
    assert "volback: job test on" in json.loads(sent.body)["title"]


def test_the_check_of_the_configuration_names_what_cannot_be_notified(tmp_path: Path) -> None:
    config = tmp_path / "volback.toml"
    config.write_text(
        f'[notifications.admins]\nurls = ["json://localhost", "slack://s3cret"]\nping_file = "{tmp_path}/ping"\n'
        'title = "$nobody"\nbody = "5 $"\n'
    )
    (tmp_path / "ping").write_text("ftp://host/s3cret")
    said = volback(config, "config", "check")
    assert said.returncode == 2
    assert [line.partition(": ")[2] for line in said.stdout.splitlines()] == [
        "notifications.admins.urls[1]: is not a URL that apprise knows (slack://...): Could not load Slack URL: ***",
        "notifications.admins.ping_file: is not an http:// or https:// URL",
        "notifications.admins.title: names `$nobody`, which is not among job, host, status, outcome, started, ended, "
        "duration, summary, volumes, errors, warnings, log, report",
        "notifications.admins.body: has a `$` that no name follows (a dollar sign itself is `$$`)",
    ]
    assert "s3cret" not in said.stdout + said.stderr


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    config = tmp_path / "volback.toml"
    config.write_text('[notifications.admins]\nurls = ["json://localhost"]\n')
    said = volback(config, "notify", "nobody")
    assert said.returncode == 4
    assert said.stderr.startswith("error: there is no notification 'nobody'\nhint: there are: admins")
    assert volback(config, "notify", "--as", "bad").returncode == 2
