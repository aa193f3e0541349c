"""Systemd units: as systemd itself understands them."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from volback.config.times import next_run, zone_of
from volback.errors import UsageError, VolbackError
from volback.schedule.table import MARK, Command, Entry
from volback.schedule.units import SystemdUnits, on_calendar

COMMAND = Command(
    ("/opt/vol back/bin/volback",), ("--config", "/etc/100%/$HOME/v.toml"), {"VOLBACK_STATE_DIR": '/var/a "b" %n'}
)
NIGHTLY = Entry("nightly", "30 2 * * *", "Europe/Berlin", 300.0)
BASE = datetime(2026, 1, 1, tzinfo=UTC)
EXPRESSIONS = [
    "30 2 * * *", "*/15 * * * *", "@hourly", "@daily", "@weekly", "@monthly", "@yearly", "0 4 * * mon-fri",
    "5,35 1-3 1 * *", "0 0 13 * fri", "0 6 */7 * *", "0 6 */2 * 1", "15 10 1-7 * */2", "7 3 28-31 feb,dec 7",
    "59 23 31 12 *", "10/20 */5 * 2-10/4 *",
]  # fmt: skip


def elapses(times: list[str], number: int) -> list[datetime]:
    """When systemd says that these OnCalendar times are reached after BASE, in order, as UTC."""
    found = set()
    for time in times:
        said = subprocess.run(
            ["systemd-analyze", "calendar", f"--iterations={number}", "--base-time=2026-01-01 00:00:00 UTC", time],
            env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for line in re.findall(r"(?:Next elapse|Iter\. #\d+): \w{3} (\S+ \S+) UTC", said):
            found.add(datetime.fromisoformat(line).replace(tzinfo=UTC))
    return sorted(found)[:number]


@pytest.mark.programs
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_systemd_reaches_the_times_that_cron_means(expression: str) -> None:
    expected, moment = [], BASE
    for _ in range(6):
        moment = next_run(expression, UTC, moment)  # type: ignore[assignment]
        expected.append(moment)
    assert elapses(on_calendar(Entry("job", expression, "UTC")), 6) == expected


@pytest.mark.programs
def test_a_time_zone_counts_on_both_sides_of_a_change() -> None:
    times = elapses(on_calendar(NIGHTLY), 300)
    assert times[:2] == [datetime(2026, 1, day, 1, 30, tzinfo=UTC) for day in (1, 2)]
    assert datetime(2026, 7, 1, 0, 30, tzinfo=UTC) in times
    assert next_run(NIGHTLY.schedule, zone_of(NIGHTLY.timezone), BASE) == times[0]


@pytest.mark.parametrize("expression", ["0 0 L * *", "0 0 * * fri#2"])
def test_what_systemd_cannot_say_is_refused_with_a_hint(expression: str) -> None:
    with pytest.raises(UsageError) as refused:
        on_calendar(Entry("job", expression))
    assert refused.value.hint == "use `volback scheduler`"


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemdUnits:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/me/.config")
    return SystemdUnits(tmp_path, of_user=False)


def directory(root: Path) -> Path:
    return root / "etc/systemd/system"


@pytest.mark.programs
def test_systemd_finds_nothing_wrong_with_the_units(units: SystemdUnits, tmp_path: Path) -> None:
    program = tmp_path / "volback"
    program.symlink_to("/bin/true")
    units.install([NIGHTLY, Entry("a_b.c-1", "0 0 13 * fri")], Command((str(program),), (), COMMAND.environment))
    paths = [str(path) for path in directory(tmp_path).glob("volback[-@]*") if path.is_file()]
    assert len(paths) == 5
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, check=False
    )
    ours = [line for line in (said.stdout + said.stderr).splitlines() if "volback" in line]
    assert (said.returncode, ours) == (0, [])


@pytest.mark.programs
def test_a_job_is_hardened_as_far_as_nothing_is_hidden_from_it(units: SystemdUnits, tmp_path: Path) -> None:
    """As systemd counts it, in tenths; without any of these lines it is 96."""
    units.install([NIGHTLY], COMMAND)
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    service = str(directory(tmp_path) / "volback@.service")
    said = subprocess.run([*security, "--threshold=80", service], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    said = subprocess.run([*security, "--threshold=10", service], capture_output=True, text=True, check=False)
    assert said.returncode != 0, "the threshold counts"


@pytest.mark.programs
def test_systemd_finds_nothing_wrong_with_the_units_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/me/.config")
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    SystemdUnits(tmp_path, of_user=True).install([NIGHTLY], Command(("/bin/true",), (), {}))
    paths = [str(path) for path in (tmp_path / "home/me/.config/systemd/user").glob("volback[-@]*")]
    assert len(paths) == 4
    verify = ["systemd-analyze", "--user", "verify", "--man=no", *paths]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    said = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (said.returncode, [line for line in said.stderr.splitlines() if "volback" in line]) == (0, [])


@pytest.mark.programs
def test_a_job_has_a_timer_that_catches_up_and_a_service_whose_guard_is_left_alone(
    units: SystemdUnits, tmp_path: Path
) -> None:
    units.install([NIGHTLY], COMMAND)
    timer = (directory(tmp_path) / "volback@nightly.timer").read_text().splitlines()
    assert {"OnCalendar=*-*-* 02:30:00 Europe/Berlin", "Persistent=true", "RandomizedDelaySec=300s"} <= set(timer)
    service = (directory(tmp_path) / "volback@.service").read_text().splitlines()
    assert {"KillMode=process", "SuccessExitStatus=3", "Type=oneshot", "Nice=5", "NoNewPrivileges=yes"} <= set(service)
    assert {"EnvironmentFile=-%E/volback/environment", "OnFailure=volback-failure@%i.service"} <= set(service)
    assert [line for line in service if line.startswith(("PrivateTmp", "ProtectSystem", "ProtectHome"))] == []
    assert '"/opt/vol back/bin/volback" --config "/etc/100%%/$$HOME/v.toml" --quiet run %i' in "\n".join(service)
    assert 'Environment="VOLBACK_STATE_DIR=/var/a \\"b\\" %%n"' in service
    recover = (directory(tmp_path) / "volback-recover.service").read_text().splitlines()
    assert "WantedBy=multi-user.target docker.service" in recover
    assert any(line.startswith("ExecStart=") and line.endswith("--quiet recover") for line in recover)


@pytest.mark.programs
def test_timers_and_the_recovery_at_boot_are_enabled(units: SystemdUnits, tmp_path: Path) -> None:
    units.install([NIGHTLY], COMMAND)
    wants = {path.relative_to(directory(tmp_path)).as_posix() for path in directory(tmp_path).glob("*.wants/*")}
    assert wants == {
        "timers.target.wants/volback@nightly.timer", "multi-user.target.wants/volback-recover.service",
        "docker.service.wants/volback-recover.service",
    }  # fmt: skip


@pytest.mark.programs
def test_installed_twice_nothing_changes_and_a_job_that_is_gone_goes(units: SystemdUnits, tmp_path: Path) -> None:
    other = Entry("other", "@hourly")
    assert len(units.install([NIGHTLY, other], COMMAND).written) == 5
    again = units.install([NIGHTLY, other], COMMAND)
    assert (again.written, again.removed, len(again.unchanged)) == ([], [], 5)
    assert units.installed().keys() == {"nightly", "other"}
    changed = units.install([NIGHTLY], COMMAND)
    assert [Path(name).name for name in changed.removed] == ["volback@other.timer"]
    assert units.installed().keys() == {"nightly"}


@pytest.mark.programs
def test_units_of_a_version_before_are_replaced(units: SystemdUnits, tmp_path: Path) -> None:
    directory(tmp_path).mkdir(parents=True)
    for name in ("volback-job-nightly.timer", "volback-job-nightly.service"):
        (directory(tmp_path) / name).write_text(f"{MARK}\n[Install]\nWantedBy=timers.target\n")
    assert units.installed().keys() == {"nightly"}
    changes = units.install([NIGHTLY], COMMAND)
    assert sorted(Path(name).name for name in changes.removed) == [
        "volback-job-nightly.service", "volback-job-nightly.timer",
    ]  # fmt: skip
    assert units.installed() == {"nightly": str(directory(tmp_path) / "volback@nightly.timer")}


@pytest.mark.programs
def test_removed_is_what_was_written_and_no_more(units: SystemdUnits, tmp_path: Path) -> None:
    directory(tmp_path).mkdir(parents=True)
    mine = directory(tmp_path) / "volback-mine.service"
    mine.write_text("[Service]\nExecStart=/bin/true\n")
    units.install([NIGHTLY], COMMAND)
    assert len(units.remove().removed) == 4
    assert [path for path in directory(tmp_path).rglob("*") if not path.is_dir()] == [mine]
    assert units.remove().removed == []


def test_a_unit_of_somebody_else_is_not_overwritten(units: SystemdUnits, tmp_path: Path) -> None:
    directory(tmp_path).mkdir(parents=True)
    theirs = directory(tmp_path) / "volback@nightly.timer"
    theirs.write_text("[Timer]\n")
    with pytest.raises(UsageError, match="was not written by volback"):
        units.install([NIGHTLY], COMMAND)
    assert theirs.read_text() == "[Timer]\n"


def test_units_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/me/.config")
    changes = SystemdUnits(tmp_path, of_user=True).install([NIGHTLY], COMMAND)
    inside = tmp_path / "home/me/.config/systemd/user"
    assert sorted(path.name for path in inside.iterdir()) == [
        "volback-failure@.service", "volback-recover.service", "volback@.service", "volback@nightly.timer",
    ]  # fmt: skip
    assert "NoNewPrivileges" not in (inside / "volback@.service").read_text(), "a user's systemd may not be able to"
    assert "WantedBy=default.target" in (inside / "volback-recover.service").read_text()
    assert "enable-linger" in changes.warnings[0]


def test_without_systemd_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="the program systemctl is not installed") as refused:
        SystemdUnits(tmp_path, of_user=False).install([NIGHTLY], COMMAND)
    assert refused.value.hint == "use --cron, or `volback scheduler`"
    assert list(tmp_path.rglob("volback-*")) == []


@pytest.mark.programs
def test_units_that_cannot_be_enabled_do_not_stay(
    units: SystemdUnits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = tmp_path / "bin/systemctl"
    fail.parent.mkdir()
    fail.write_text("#!/bin/sh\necho no bus >&2; exit 1\n")
    fail.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fail.parent}:{os.environ['PATH']}")
    with pytest.raises(VolbackError, match="systemctl enable failed: no bus"):
        units.install([NIGHTLY], COMMAND)
    assert list(directory(tmp_path).glob("volback-*")) == []


@pytest.mark.programs
def test_all_is_removed_where_systemd_has_gone(
    units: SystemdUnits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units.install([NIGHTLY, Entry("other", "@hourly")], COMMAND)
    monkeypatch.setenv("PATH", str(tmp_path))
    changes = units.remove()
    assert len(changes.removed) == 5
    assert changes.warnings == ["the program systemctl is not installed"]
    assert [path for path in directory(tmp_path).rglob("*") if not path.is_dir()] == []
