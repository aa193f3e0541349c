"""Scheduler: runs jobs at their times in the foreground, for containers and for machines without cron or systemd.

Each run is a process of its own, so that no run can crash the scheduler, and memory does not grow. Runs of one job
never overlap. Runs that were missed while the scheduler was stopped are replaced by one run. Used by `volback
scheduler` only.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from volback.config.times import missed_runs, next_run, zone_of
from volback.errors import VolbackError
from volback.schedule.table import Command, Entry
from volback.state.locks import lock

log = logging.getLogger(__name__)

_BEAT_S = 30.0
"""The longest time between two looks at the clock: it can be set, and a machine can sleep."""
_DEAD_S = 4 * _BEAT_S
_ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
_WATCHED = frozenset({*_ENDING, signal.SIGHUP, signal.SIGCHLD})


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of reading the configuration."""

    entries: list[Entry]
    broken: Mapping[str, str] = field(default_factory=dict)
    """Jobs that cannot run as they are written, and why: they are run at once, because that run reports it."""


@dataclass(slots=True)
class _Slot:
    """A job, and its next run."""

    entry: Entry
    due: datetime | None = None
    """By its expression."""
    start: datetime | None = None
    """With its jitter."""
    pid: int | None = None
    """The process of the run in progress."""


class ForegroundScheduler:
    """`plan` reads the configuration, `last_run` returns when a job last began; clock and randomness are passed in."""

    def __init__(
        self,
        plan: Callable[[], Plan],
        command: Command,
        state: Path,
        *,
        last_run: Callable[[str], datetime | None],
        note_skipped: Callable[[str, datetime], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        delay: Callable[[float], float] = lambda most_s: random.uniform(0, most_s),
    ) -> None:
        self._plan = plan
        self._command = command
        self._state = state
        self._last_run = last_run
        self._note_skipped = note_skipped
        self._now = now
        self._delay = delay
        self._slots: dict[str, _Slot] = {}
        self._others: set[int] = set()
        """Runs that belong to no schedule: the recovery at the start, broken jobs."""

    def run(self) -> int:
        """Run jobs until a signal ends it; returns the signal, once the runs have ended. Raises LockedError."""
        with lock(self._state, "scheduler", "the scheduler"), _watched():
            try:
                self._read(self._plan())
                self._others.add(self._spawn("--quiet", "recover"))
                return self._loop()
            finally:
                _beat_file(self._state).unlink(missing_ok=True)

    def _loop(self) -> int:
        while True:
            self._start_due()
            self._beat()
            number = _wait(self._pause_s())
            self._reap()
            if number in _ENDING:
                return self._end(number)
            if number == signal.SIGHUP:
                self._reread()

    def _reread(self) -> None:
        """Apply the current configuration; one that cannot be read changes nothing."""
        try:
            self._read(self._plan())
        except VolbackError as exc:
            log.error("the configuration is not read again: %s", exc.message)
        else:
            log.info("the configuration is read again")

    def _read(self, plan: Plan) -> None:
        former, self._slots = self._slots, {}
        for entry in plan.entries:
            slot = former.pop(entry.job, None)
            if slot is None:
                slot = _Slot(entry)
                self._schedule(slot, catch_up=True)
            elif slot.entry != entry:
                slot.entry = entry
                self._schedule(slot)
            self._slots[entry.job] = slot
        self._others.update(slot.pid for slot in former.values() if slot.pid is not None)
        for job, reason in plan.broken.items():
            log.error("job %s cannot run: %s", job, reason)
            self._others.add(self._spawn("--quiet", "run", job))

    def _schedule(self, slot: _Slot, *, catch_up: bool = False) -> None:
        entry, now = slot.entry, self._now()
        zone = zone_of(entry.timezone)
        last = self._last(entry.job) if catch_up else None
        missed = missed_runs(entry.schedule, zone, last, now, most=1) if last else []
        slot.due = missed[0] if missed else next_run(entry.schedule, zone, now)
        if slot.due is None:
            slot.start = None
            return
        slot.start = max(slot.due, now) + timedelta(seconds=self._delay(entry.jitter_s))
        log.info("job %s %s %s", entry.job, "catches up at" if missed else "runs next at", _time(slot.start))

    def _last(self, job: str) -> datetime | None:
        try:
            return self._last_run(job)
        except VolbackError as exc:
            log.error("job %s: nothing is caught up with: %s", job, exc.message)
            return None

    def _start_due(self) -> None:
        now = self._now()
        for slot in self._slots.values():
            if slot.start is None or slot.start > now:
                continue
            if slot.pid is None:
                slot.pid = self._spawn("--quiet", "run", slot.entry.job)
                log.info("job %s begins", slot.entry.job)
            else:
                log.warning("job %s is still running: the run of %s is skipped", slot.entry.job, _time(slot.start))
                self._skip(slot.entry.job, slot.start)
            self._schedule(slot)

    def _skip(self, job: str, due: datetime) -> None:
        """Record it in the history; if that fails, the jobs run anyway."""
        try:
            self._note_skipped(job, due)
        except VolbackError as exc:
            log.error("job %s: its skipped run cannot be noted: %s", job, exc.message)

    def _spawn(self, *arguments: str) -> int:
        words = self._command.words(*arguments)
        environment = {**os.environ, **self._command.environment}
        # In a process group of its own, so that it gets a signal only from here, and once.
        return os.posix_spawn(words[0], words, environment, setpgroup=0, setsigmask=[])

    def _reap(self) -> None:
        running = {slot.pid: slot for slot in self._slots.values() if slot.pid is not None}
        for pid in [*running, *self._others]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            self._others.discard(pid)
            if pid in running:
                running[pid].pid = None
                log.info("job %s ended with exit code %d", running[pid].entry.job, _exit_code(status))

    def _pause_s(self) -> float:
        starts = [slot.start for slot in self._slots.values() if slot.start is not None]
        left_s = min(((start - self._now()).total_seconds() for start in starts), default=_BEAT_S)
        return min(max(left_s, 0.0), _BEAT_S)

    def _end(self, number: int) -> int:
        """Pass the signal on and wait for all runs: they start stopped containers again."""
        while running := self._running():
            log.info("ending: %d runs get the signal", len(running))
            for pid in running:
                os.kill(pid, number)
            while self._running() and _wait(_BEAT_S) not in _ENDING:
                self._beat()
                self._reap()
        return number

    def _running(self) -> list[int]:
        return [*(slot.pid for slot in self._slots.values() if slot.pid is not None), *self._others]

    def _beat(self) -> None:
        """Write a heartbeat, for `check`."""
        path = _beat_file(self._state)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps({"pid": os.getpid(), "at": self._now().timestamp()}))
        draft.rename(path)


def check(state: Path, now: datetime) -> float:
    """How many seconds ago the scheduler wrote its last heartbeat. Raises VolbackError if that is too long."""
    try:
        beat = json.loads(_beat_file(state).read_bytes())
        os.kill(int(beat["pid"]), 0)
        age_s = now.timestamp() - float(beat["at"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise VolbackError("the scheduler does not run", "start it: volback scheduler") from exc
    if age_s > _DEAD_S:
        raise VolbackError(f"the scheduler has not moved for {age_s:.0f} s", "see its log, then start it again")
    return max(age_s, 0.0)


@contextmanager
def _watched() -> Iterator[None]:
    """Signals wait until `next` takes them. One that the parent had ignored is not watched."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(most_s: float) -> int | None:
    """The next signal; None where none came in that time."""
    heard = [number for number in _WATCHED if signal.getsignal(number) is not signal.SIG_IGN]
    info = signal.sigtimedwait(heard, most_s)
    return info.si_signo if info is not None else None


def _beat_file(state: Path) -> Path:
    return state / "scheduler.json"


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _time(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %z}"
