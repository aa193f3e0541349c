"""Crontab: scheduled jobs as lines for cron, in /etc/cron.d or in a user's own table.

Cron knows neither time zones nor jitter nor catching up; what would be lost silently is refused or causes a warning.
"""

from __future__ import annotations

import getpass
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from volback.config.times import WORDS, CronFields, take_apart, zone_of
from volback.errors import UsageError, VolbackError
from volback.schedule.table import MARK, Changes, Command, Entry, Kind, check_ours, explained, write_file

_BEGIN, _END = MARK, "# End of what volback wrote."
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STAR = re.compile(r"\*(/\d+)?")
_RUN = re.compile(r"^[^#@].* run (\S+)$", re.MULTILINE)
_BOOT_TRIES, _BOOT_PAUSE_S = 60, 5
"""How long to wait after a boot until the engine answers."""


class CronFile:
    """A file of the machine's cron, whose jobs run as root."""

    kind: Kind = "cron"

    def __init__(self, path: Path) -> None:
        self._path = path

    def install(self, entries: Sequence[Entry], command: Command) -> Changes:
        """Write the file. Raises UsageError for times that cron cannot keep."""
        if not self._path.parent.is_dir():
            raise UsageError(f"{self._path.parent} does not exist", "install cron, or use `volback scheduler`")
        settings = [f"PATH={_PATH}", *_settings(command)]
        text = "\n".join([MARK, "SHELL=/bin/sh", *settings, *_lines(entries, command, user="root ")]) + "\n"
        done = [str(self._path)]
        changed = write_file(self._path, text)
        warnings = [*_warnings(entries), *self._without_daemon()]
        return Changes("cron", done if changed else [], [] if changed else done, warnings=warnings)

    def remove(self) -> Changes:
        """Remove the file, if volback wrote it."""
        if not self._path.exists():
            return Changes("cron")
        check_ours(self._path)
        with explained(self._path):
            self._path.unlink()
        return Changes("cron", removed=[str(self._path)])

    def installed(self) -> dict[str, str]:
        """Jobs that the file names."""
        text = self._path.read_text(errors="replace") if self._path.exists() else ""
        return dict.fromkeys(_RUN.findall(text) if text.startswith(MARK) else [], str(self._path))

    def _without_daemon(self) -> Iterator[str]:
        if self._path.parent == Path("/etc/cron.d") and not (_program("cron") or _program("crond")):
            yield "the program cron is not installed on this machine: nothing runs the jobs"


class UserCrontab:
    """The table of the calling user; lines that volback did not write stay."""

    kind: Kind = "cron"

    def __init__(self) -> None:
        self._name = f"crontab of {getpass.getuser()}"

    def install(self, entries: Sequence[Entry], command: Command) -> Changes:
        """Write volback's part of the table. Raises UsageError for times that cron cannot keep."""
        # A setting in a table counts for all lines below it, the user's own too: volback's are part of the command.
        settings = [shlex.quote(f"{name}={value}") for name, value in command.environment.items()]
        command = Command(("env", *settings, *command.program), command.options) if settings else command
        table = _table()
        rest = _without_ours(table)
        text = "\n".join([*rest, _BEGIN, *_lines(entries, command), _END]) + "\n"
        if text == table:
            return Changes("cron", unchanged=[self._name], warnings=_warnings(entries))
        _crontab("-", given=text)
        return Changes("cron", [self._name], warnings=_warnings(entries))

    def remove(self) -> Changes:
        """Remove volback's part; a table without another part is removed."""
        table = _table() if shutil.which("crontab") else ""
        rest = _without_ours(table)
        if rest == table.splitlines():
            return Changes("cron")
        _crontab(*(["-"] if rest else ["-r"]), given="".join(f"{line}\n" for line in rest))
        return Changes("cron", removed=[self._name])

    def installed(self) -> dict[str, str]:
        """Jobs that volback's part names."""
        table = _table() if shutil.which("crontab") else ""
        rest = set(_without_ours(table))
        ours = "\n".join(line for line in table.splitlines() if line not in rest)
        return dict.fromkeys(_RUN.findall(ours), self._name)


def _lines(entries: Sequence[Entry], command: Command, *, user: str = "") -> Iterator[str]:
    yield f"@reboot {user}{_boot(command)}"
    for entry in entries:
        yield f"{_times(entry)} {user}{_shell(command.words('--quiet', 'run', entry.job))}"


def _settings(command: Command) -> Iterator[str]:
    for name, value in command.environment.items():
        yield f'{name}="{value}"'


def _boot(command: Command) -> str:
    recover = _shell(command.words("--quiet", "recover"))
    again = (
        f"n=0; until {recover} >/dev/null 2>&1 || [ $n -ge {_BOOT_TRIES} ]; do n=$((n+1)); sleep {_BOOT_PAUSE_S}; done"
    )
    return f"{again}; [ $n -lt {_BOOT_TRIES} ] || {recover}"


def _shell(words: Sequence[str]) -> str:
    """In a cron table an unescaped `%` is the end of the line."""
    return shlex.join(words).replace("%", "\\%")


def _times(entry: Entry) -> str:
    _check_zone(entry)
    fields = take_apart(entry.schedule)
    if fields is None:
        raise _cannot(entry, "cron does not know `L` and `#`")
    if entry.schedule in WORDS:
        return WORDS[entry.schedule]
    allowed = (fields.minutes, fields.hours, fields.days, fields.months, fields.weekdays)
    written = zip(fields.written, allowed, strict=True)
    return " ".join(_field(entry, text, values, fields) for text, values in written)


def _field(entry: Entry, text: str, values: tuple[int, ...], fields: CronFields) -> str:
    """A field as every cron reads it: without names, and steps only after `*`."""
    if _STAR.fullmatch(text):
        return text
    if text.startswith("*") and text in (fields.written[2], fields.written[4]):
        raise _cannot(entry, f"cron cannot express the days {text!r}")
    return ",".join(str(value) for value in values)


def _check_zone(entry: Entry) -> None:
    """Cron uses the machine's time zone: times of another zone would be an hour off for half the year."""
    if entry.timezone is None:
        return
    theirs, own = zone_of(entry.timezone), zone_of(None, {})
    now = datetime.now(UTC)
    for hours in range(0, 24 * 366, 6):
        moment = now + timedelta(hours=hours)
        if moment.astimezone(theirs).utcoffset() != moment.astimezone(own).utcoffset():
            raise _cannot(entry, f"cron knows only the machine's time zone, not {entry.timezone}")


def _cannot(entry: Entry, why: str) -> UsageError:
    return UsageError(f"job {entry.job!r} cannot be run by cron: {why}", "use --systemd, or `volback scheduler`")


def _warnings(entries: Sequence[Entry]) -> list[str]:
    return [f"job {entry.job!r}: cron has no jitter" for entry in entries if entry.jitter_s]


def _without_ours(table: str) -> list[str]:
    lines = table.splitlines()
    if _BEGIN not in lines:
        return lines
    begin = lines.index(_BEGIN)
    end = lines.index(_END, begin) if _END in lines[begin:] else len(lines) - 1
    return lines[:begin] + lines[end + 1 :]


def _program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def _table() -> str:
    done = _run(["crontab", "-l"])
    if done.returncode and "no crontab for" not in done.stderr:
        raise VolbackError(f"crontab cannot be read: {done.stderr.strip()}")
    return done.stdout if done.returncode == 0 else ""


def _crontab(*arguments: str, given: str) -> None:
    done = _run(["crontab", *arguments], given)
    if done.returncode:
        raise VolbackError(f"crontab cannot be written: {done.stderr.strip()}")


def _run(words: list[str], given: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words, input=given, stdin=None if given is not None else subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError as exc:
        raise UsageError("the program crontab is not installed", "install cron, or use `volback scheduler`") from exc
