"""Units: scheduled jobs as systemd timers and services, of the machine or of a user, and one that recovers at boot.

Sources: systemd.time(7), systemd.timer(5), systemd.kill(5).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from volback.config.times import take_apart
from volback.errors import UsageError, VolbackError
from volback.schedule.table import MARK, Changes, Command, Entry, Kind, check_ours, explained, write_file

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_RECOVER = "volback-recover.service"
_JOB = "volback@"
_TEMPLATE = f"{_JOB}.service"
"""Of all jobs: its instance is the job's name."""
_FAILURE = "volback-failure@.service"
_FORMER = "volback-job-"
"""With which timers of earlier versions began."""
_PAGE = "https://github.com/volback/volback/blob/main/docs/how-to/schedule-jobs.md"
_HARDENED = """\
# What volback never needs. Repositories may lie anywhere, and the engine must see the pipes of helpers: so no file
# is hidden or read-only, and /tmp is not private.
NoNewPrivileges=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectHostname=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictNamespaces=yes
SystemCallArchitectures=native"""


class SystemdUnits:
    """A directory of units. Where `root` is not / nothing is started, only enabled for that root's next boot."""

    kind: Kind = "systemd"

    def __init__(self, root: Path, *, of_user: bool) -> None:
        self._root = root
        self._of_user = of_user
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        inside = base.relative_to("/") / "systemd/user" if of_user else Path("etc/systemd/system")
        self._directory = root / inside

    def install(self, entries: Sequence[Entry], command: Command) -> Changes:
        """Write and enable the units, and remove those of jobs that are gone."""
        changes = Changes("systemd", warnings=self._warnings())
        units = self._units(entries, command)
        self._check_systemd()
        former = self._ours()
        for name in former.keys() - units.keys():
            self._drop(name, changes)
        with explained(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            path = self._directory / name
            (changes.written if write_file(path, text) else changes.unchanged).append(str(path))
        try:
            self._enable([name for name in units if name.endswith(".timer")], changes)
        except VolbackError:
            for written in changes.written:  # what was not there before must not stay as if it were installed
                if Path(written).name not in former:
                    Path(written).unlink(missing_ok=True)
            raise
        return changes

    def _enable(self, timers: list[str], changes: Changes) -> None:
        if changes.written or changes.removed:
            self._reload(changes)
        self._systemctl("enable", *timers, _RECOVER)
        if self._is_live():
            changed = [name for name in timers if str(self._directory / name) in changes.written]
            self._systemctl("start", *timers)
            self._systemctl("restart", *changed)

    def remove(self) -> Changes:
        """Disable and remove all units that volback wrote; where systemd does not run, remove them all the same."""
        changes = Changes("systemd")
        for name in self._ours():
            self._drop(name, changes, anyway=True)
        if changes.removed:
            self._reload(changes)
        return changes

    def installed(self) -> dict[str, str]:
        """Jobs that have a timer."""
        timers = {name: path for name, path in self._ours().items() if name.endswith(".timer")}
        return {_job_of(name): str(path) for name, path in timers.items()}

    def _units(self, entries: Sequence[Entry], command: Command) -> dict[str, str]:
        units = {
            _RECOVER: _text(self._recover_unit(command)),
            _TEMPLATE: _text(_template_unit(command, is_hardened=not self._of_user)),
            _FAILURE: _text(_failure_unit()),
        }
        for entry in entries:
            units[f"{_JOB}{entry.job}.timer"] = _text(_timer_unit(entry))
        return units

    def _recover_unit(self, command: Command) -> Iterator[str]:
        yield from _head("volback: start again what a crash or a power cut left stopped", after="docker.service")
        yield from ("StartLimitIntervalSec=1h", "StartLimitBurst=60")
        yield from _service(command, ["--quiet", "recover"])
        yield from ("Restart=on-failure", "RestartSec=5s", "", "[Install]")
        yield f"WantedBy={'default.target' if self._of_user else 'multi-user.target docker.service'}"

    def _ours(self) -> dict[str, Path]:
        found = {path.name: path for path in sorted(self._directory.glob("volback[-@]*")) if path.suffix != ".wants"}
        return {name: path for name, path in found.items() if path.is_file() and _is_ours(path)}

    def _drop(self, name: str, changes: Changes, *, anyway: bool = False) -> None:
        path = self._directory / name
        check_ours(path)
        if name.endswith(".timer") or name == _RECOVER:
            disable = ("disable", *(["--now"] if self._is_live() else []), name)
            if anyway:
                self._ask(*disable, changes=changes)
            else:
                self._systemctl(*disable)
        with explained(path):
            for link in [wants / name for wants in self._directory.glob("*.wants")]:
                link.unlink(missing_ok=True)
            path.unlink()
        changes.removed.append(str(path))

    def _warnings(self) -> list[str]:
        if not self._of_user:
            return []
        return ["timers of a user run while that user is logged in, unless `loginctl enable-linger` was run once"]

    def _is_live(self) -> bool:
        return self._root == Path("/")

    def _check_systemd(self) -> None:
        """Raises UsageError where no systemd runs: nothing has been written yet."""
        hint = "use --cron, or `volback scheduler`"
        if not self._is_live():
            if not self._of_user and shutil.which("systemctl") is None:
                raise UsageError("the program systemctl is not installed", hint)
            return
        if not (self._root / "run/systemd/system").is_dir():
            raise UsageError("systemd does not run on this machine", hint)
        try:
            self._systemctl("daemon-reload")
        except VolbackError as exc:
            raise UsageError(exc.message, exc.hint or hint) from exc

    def _ask(self, verb: str, *arguments: str, changes: Changes) -> None:
        """Call systemctl; that it fails is a warning."""
        try:
            self._systemctl(verb, *arguments)
        except VolbackError as exc:
            if exc.message not in changes.warnings:
                changes.warnings.append(exc.message)

    def _reload(self, changes: Changes) -> None:
        if self._is_live():
            self._ask("daemon-reload", changes=changes)

    def _systemctl(self, verb: str, *arguments: str) -> None:
        if not (arguments or verb == "daemon-reload") or (self._of_user and not self._is_live()):
            return  # systemctl knows no user's units under another root
        where = ["--user"] if self._of_user else [] if self._is_live() else [f"--root={self._root}"]
        words = ["systemctl", *where, "--quiet", verb, *arguments]
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except FileNotFoundError as exc:
            raise UsageError("the program systemctl is not installed", "use --cron, or `volback scheduler`") from exc
        if done.returncode:
            raise VolbackError(f"systemctl {verb} failed: {' '.join(done.stderr.split())}")


def on_calendar(entry: Entry) -> list[str]:
    """The times as systemd writes them; any of them counts. Raises UsageError where systemd has no notation for it."""
    fields = take_apart(entry.schedule)
    if fields is None:
        raise UsageError(
            f"job {entry.job!r} cannot be run by systemd: no rule for `L` and `#`", "use `volback scheduler`"
        )
    _, _, day, _, weekday = fields.written
    days = "*" if day == "*" else _numbers(fields.days, 32)
    names = "" if weekday == "*" else ",".join(_DAYS[number] for number in fields.weekdays) + " "
    time = f"{_numbers(fields.hours, 24)}:{_numbers(fields.minutes, 60)}:00"
    months, zone = _numbers(fields.months, 13), f" {entry.timezone}" if entry.timezone else ""
    if fields.both_days:
        return [f"{names}*-{months}-{days} {time}{zone}"]
    return [f"*-{months}-{days} {time}{zone}", f"{names}*-{months}-* {time}{zone}"]


def _job_of(timer: str) -> str:
    return timer.removeprefix(_JOB).removeprefix(_FORMER).removesuffix(".timer")


def _timer_unit(entry: Entry) -> Iterator[str]:
    yield from _head(f"volback: when the job {entry.job.replace('%', '%%')} runs")
    yield from ("", "[Timer]")
    yield from (f"OnCalendar={times}" for times in on_calendar(entry))
    yield from ("# A run that was missed while the machine was down is started at boot.", "Persistent=true")
    yield "AccuracySec=1s"
    if entry.jitter_s:
        yield f"RandomizedDelaySec={entry.jitter_s:g}s"
    yield from ("", "[Install]", "WantedBy=timers.target")


def _template_unit(command: Command, *, is_hardened: bool) -> Iterator[str]:
    yield from _head("volback: the job %i", after="network-online.target docker.service")
    yield from ("Wants=network-online.target", "OnFailure=volback-failure@%i.service")
    yield from _service(command, ["--quiet", "run"], instance=True)
    yield "# Exit status 3: done with warnings."
    yield "SuccessExitStatus=3"
    yield "# The guard, which starts stopped containers again, must outlive a volback that was killed."
    yield from ("KillMode=process", "OOMPolicy=continue", "TimeoutStopSec=10min")
    yield "# After other programs, but not by much: containers may be stopped until it has read."
    yield from ("Nice=5", "IOSchedulingClass=best-effort", "IOSchedulingPriority=6")
    if is_hardened:
        yield from _HARDENED.splitlines()


def _failure_unit() -> Iterator[str]:
    """Runs also where volback itself cannot start; what it can report, the job's notifications have reported."""
    yield from _head("volback: the job %i failed")
    yield "# To send a message: systemctl edit volback-failure@.service"
    yield from ("", "[Service]", "Type=oneshot", "SyslogIdentifier=volback", "SyslogLevel=err")
    yield 'ExecStart=/bin/echo "the job %i failed: journalctl -u volback@%i"'


def _head(description: str, *, after: str | None = None) -> Iterator[str]:
    """`%i` in the description is the instance's name."""
    yield from ("[Unit]", f"Description={description}", f"Documentation={_PAGE}")
    if after:
        yield f"After={after}"


def _service(command: Command, arguments: list[str], *, instance: bool = False) -> Iterator[str]:
    """`instance`: its name is the last argument."""
    yield from ("", "[Service]", "Type=oneshot")
    yield "# Variables for volback.toml, such as passwords, one NAME=VALUE a line, readable by root alone."
    yield "EnvironmentFile=-%E/volback/environment"
    yield from (f"Environment={_quoted(f'{name}={value}')}" for name, value in command.environment.items())
    words = [_quoted(word).replace("$", "$$") for word in command.words(*arguments)]
    yield f"ExecStart={' '.join([*words, *(['%i'] if instance else [])])}"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if escaped and all(char.isalnum() or char in "/._-:=@+,%" for char in escaped) else f'"{escaped}"'


def _numbers(values: tuple[int, ...], end: int) -> str:
    """`*` for all possible numbers; months and days begin with 1."""
    return "*" if len(values) == (end if end in (24, 60) else end - 1) else ",".join(f"{value:02}" for value in values)


def _text(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in [MARK, *lines])


def _is_ours(path: Path) -> bool:
    return path.read_text(errors="replace").startswith(MARK)
