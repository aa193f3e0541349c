"""Guard: a process that outlives a killed volback, and starts the containers again that it stopped or paused.

It is started before the first stop, holds the run's lock, and waits at a pipe: a byte means that the run has ended
normally; a close without a byte means that the run has died, by SIGKILL or from lack of memory. It then does what the
run would have done, and keeps trying while an engine does not answer. What it cannot do stays in the journal for
`volback recover`.

Run as `python -P -m volback.live.guard`; -P keeps the current directory out of the imports.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from volback.context import Context, open_engine
from volback.errors import EngineError, StoreError, VolbackError
from volback.interrupts import deferred_signals
from volback.live.post_hooks import run_pending
from volback.live.resuming import Resumer
from volback.printable import printable
from volback.settings import Settings, load_settings
from volback.state.runs import Run, open_run
from volback.streams import is_readable

log = logging.getLogger(__name__)

READY_S = 60.0
TIME_LIMIT_S = 900.0
"""How long it keeps trying: an engine's restart takes less."""
_PAUSE_S = 0.5
_LEAST_LIKELY = "-1000"
"""For the kernel's choice of the process to kill when memory runs out (proc(5), oom_score_adj)."""


class Guard:
    """The guard of one run, seen from the run."""

    def __init__(self, settings: Settings, run: Run) -> None:
        """Start it. Raises StoreError."""
        self._run = run
        watched, self._word = os.pipe()
        self._ready, says_ready = os.pipe()
        engine = [settings.engine] if settings.engine else []
        command = [
            sys.executable, "-P", "-m", "volback.live.guard",
            str(settings.state), run.id, str(watched), str(says_ready), *engine,
        ]  # fmt: skip
        try:
            with (run.directory / "guard.log").open("wb") as log_file:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    pass_fds=(watched, says_ready, run.lock_fd),
                    start_new_session=True,  # Ctrl-C in the terminal, or closing it, must not end the guard
                    cwd="/",
                )
        except OSError as exc:
            raise StoreError(f"the guard process cannot be started: {exc.strerror}", "see `volback doctor`") from exc
        finally:
            os.close(watched)
            os.close(says_ready)

    def await_ready(self) -> None:
        """Wait until it watches. Raises EngineError if it does not: nothing must be stopped then."""
        word = os.read(self._ready, 1) if is_readable(self._ready, READY_S) else b""
        os.close(self._ready)
        if word != b".":
            lines = (self._run.directory / "guard.log").read_text(errors="backslashreplace").strip().splitlines()
            raise EngineError(
                f"the guard process does not watch: {lines[-1] if lines else 'it wrote no message'}",
                "nothing was stopped; see `volback doctor`",
            )

    def dismiss(self) -> None:
        """Dismiss the guard: all containers run again. A guard that was killed is not an error."""
        with suppress(BrokenPipeError):
            os.write(self._word, b".")
        os.close(self._word)
        self._process.wait()


@contextmanager
def guarded(ctx: Context, run: Run, *, needed: bool = True) -> Iterator[None]:
    """Run a guard for the block; it is dismissed if nothing is left in the journal, else it continues after the run.

    Raises EngineError, StoreError if it cannot be started: nothing may be stopped then.
    """
    if not needed:
        yield
        return
    with deferred_signals():
        guard = Guard(ctx.settings, run)
    try:
        guard.await_ready()
        yield
    finally:
        if not run.journal.quiescing:
            guard.dismiss()


def main(arguments: list[str]) -> int:
    """Watch the run that the arguments name, as `Guard` passes them; return the exit code."""
    state, run_id, watched, says_ready, *engine = arguments
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_LEAST_LIKELY)
    settings = replace(load_settings(engine=engine[0] if engine else None), state=Path(state))
    try:
        _load(settings)
    except VolbackError as exc:
        print(f"error: {printable(exc.message)}", file=sys.stderr)  # noqa: T201 - the run reads it, and puts it into its own error
        return exc.exit_code
    os.write(int(says_ready), b".")
    os.close(int(says_ready))
    if os.read(int(watched), 1):
        return 0
    return _take_over(settings, run_id)


def _load(settings: Settings) -> None:
    """Import and connect now: when the run dies, every tenth of a second matters. Raises EngineUnreachable."""
    _ = open_engine(Context(settings)).info


def _take_over(settings: Settings, run_id: str) -> int:
    """Start the containers again; try until all run, or until the time limit."""
    deadline = time.monotonic() + TIME_LIMIT_S
    while True:
        try:
            if _resume(settings, run_id):
                return 0
        except VolbackError as exc:
            _say(exc)
        if time.monotonic() > deadline:
            return 1
        time.sleep(_PAUSE_S)


def _resume(settings: Settings, run_id: str) -> bool:
    """Return whether nothing is left to do."""
    run = open_run(settings.state, run_id)
    if run is None:
        return True
    engine = open_engine(Context(settings))
    resumer = Resumer(engine, settings.state, run)
    resumer.resume_all()
    errors = resumer.errors
    if not run.journal.held:
        errors += run_pending(engine, run)[0]
    for entry in run.journal.quiescing:
        if entry.engine != engine.info.id:
            errors.append(EngineError(f"{entry.what} is {entry.where}, and this is another one"))
    for error in errors:
        _say(error)
    if not run.is_open:
        run.forget()
    return not run.journal.quiescing


def _say(error: VolbackError) -> None:
    with suppress(OSError):  # a full disk must not stop the guard
        print(f"error: {printable(error.message)}", file=sys.stderr, flush=True)  # noqa: T201 - into the run's guard.log


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
