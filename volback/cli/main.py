"""Main: the process's entry point, and the only place that turns errors into text and exit codes.

It installs the signal handlers before anything slow is imported; the commands themselves are in `app`.
"""

from __future__ import annotations

import os
import signal
import sys

from volback import interrupts
from volback.cli import first_process
from volback.errors import Interrupted

_SWITCH_INTERVAL_S = 0.0005
"""How long a thread that has compressed a frame may wait for the interpreter: Python's 5 ms is as long as one frame
takes."""


def main() -> None:
    """Run the command line and exit."""
    _open_standard_streams()
    first_process.take_over()
    try:
        interrupts.install()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        sys.exit(run(sys.argv[1:]))
    except Interrupted as exc:
        # A signal before `run` could handle it: nothing has been begun yet.
        print(f"error: {exc.message}", file=sys.stderr)
        sys.exit(exc.exit_code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; only SystemExit and a late signal pass through."""
    from volback.cli import render
    from volback.cli.app import invoke
    from volback.cli.call import Call, OutputClosed, global_options_first

    arguments = global_options_first(arguments)
    call = Call(json="--json" in arguments, debug="--debug" in arguments)
    try:
        try:
            return render.outcome(call, invoke(arguments, call))
        except OutputClosed:
            raise
        except (Interrupted, Exception) as exc:  # noqa: BLE001 - the one place where an error becomes text
            return render.failure(call, exc)
    except OutputClosed:
        return _end_quietly()


def _open_standard_streams() -> None:
    """Open those that are closed, as after `>&-`, on /dev/null: no file of volback may get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _end_quietly() -> int:
    """Nobody reads standard output any more: print nothing, also at exit. Returns the status that a shell shows
    then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
