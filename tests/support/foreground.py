"""A foreground scheduler as a process, whose clock stands still until the test moves it, and whose runs are a script's.

    python -m tests.support.foreground DIRECTORY

DIRECTORY holds `clock` (a time), `plan.json` ({"entries": [[job, schedule, timezone, jitter_s]], "broken": {}}),
`last.json` ({job: time}), `program` (what is run), and `state/`.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from volback import interrupts
from volback.errors import Interrupted, UsageError, VolbackError
from volback.schedule.scheduler import ForegroundScheduler, Plan
from volback.schedule.table import Command, Entry

_PROGRAM = """#!/bin/sh
echo "begin $*" >>{directory}/noted
job=$3
[ ! -e {directory}/behaviour.$job ] || . {directory}/behaviour.$job
echo "end $*" >>{directory}/noted
"""
_WAIT_S = 60


class Driven:
    """A scheduler under test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None
        program = directory / "program"
        program.write_text(_PROGRAM.format(directory=directory))
        program.chmod(0o755)
        self.set_last({})

    def set_clock(self, at: datetime) -> None:
        self._write("clock", at.isoformat())

    def set_plan(self, *entries: tuple[str, str, str | None, float], broken: dict[str, str] | None = None) -> None:
        self._write("plan.json", json.dumps({"entries": entries, "broken": broken or {}}))

    def set_last(self, last: dict[str, datetime]) -> None:
        self._write("last.json", json.dumps({job: at.isoformat() for job, at in last.items()}))

    def behave(self, job: str, script: str) -> None:
        """What a run of the job does between its begin and its end."""
        (self.directory / f"behaviour.{job}").write_text(script)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """Start it; it is at work inside, and killed at the end if it still is."""
        words = [sys.executable, "-m", "tests.support.foreground", str(self.directory)]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        try:
            self.wait_for("end --quiet recover")
            while not (self.directory / "state/scheduler.json").exists():
                assert self.process.poll() is None
                time.sleep(0.01)
            yield self.process
        finally:
            self.process.kill()
            self.process.communicate()

    def wake(self) -> None:
        """Have it look at the clock and the plan."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def move_clock(self, at: datetime) -> None:
        """Returns when the scheduler has seen it."""
        self.set_clock(at)
        self.wake()
        until = time.monotonic() + _WAIT_S
        while json.loads((self.directory / "state/scheduler.json").read_text())["at"] != at.timestamp():
            assert time.monotonic() < until, "the scheduler does not move"
            time.sleep(0.01)

    def noted(self) -> list[str]:
        path = self.directory / "noted"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, line: str, times: int = 1) -> None:
        until = time.monotonic() + _WAIT_S
        while self.noted().count(line) < times:
            assert time.monotonic() < until, f"{line!r} did not come {times} times: {self.noted()}"
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def end(self) -> tuple[int, str]:
        """Terminate it; its exit code and what it logged."""
        assert self.process is not None
        self.process.terminate()
        _, log = self.process.communicate(timeout=_WAIT_S)
        return self.process.returncode, log

    def _write(self, name: str, text: str) -> None:
        draft = self.directory / f"{name}.new"
        draft.write_text(text)
        draft.rename(self.directory / name)


def main(directory: Path) -> None:
    """Run the scheduler until a signal ends it."""

    def plan() -> Plan:
        try:
            read = json.loads((directory / "plan.json").read_text())
        except ValueError as exc:
            raise UsageError("plan.json cannot be read") from exc
        return Plan([Entry(*entry) for entry in read["entries"]], read["broken"])

    def last_run(job: str) -> datetime | None:
        at = json.loads((directory / "last.json").read_text()).get(job)
        return datetime.fromisoformat(at) if at else None

    def note_skipped(job: str, due: datetime) -> None:
        with (directory / "noted").open("a") as file:
            print(f"skipped {job} {due:%H:%M}", file=file)

    interrupts.install()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    scheduler = ForegroundScheduler(
        plan, Command((str(directory / "program"),)), directory / "state", last_run=last_run, note_skipped=note_skipped,
        now=lambda: datetime.fromisoformat((directory / "clock").read_text()), delay=lambda most_s: most_s,
    )  # fmt: skip
    try:
        scheduler.run()
    except (VolbackError, Interrupted) as exc:
        print(exc.message, file=sys.stderr)
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
