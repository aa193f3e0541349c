"""Main: the process's entry point, and the only place that turns errors into text and exit codes.

It installs the signal handlers before anything slow is imported; the commands themselves are in `app`.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading

from volback import interrupts
from volback.cli import first_process
from volback.errors import EXIT_DONE, Interrupted
from volback.streams import OutputClosed, end_standard_streams, take_standard_streams

_SWITCH_INTERVAL_S = 0.0005
"""How long a thread that has compressed a frame may wait for the interpreter: Python's 5 ms is as long as one frame
takes."""


def main() -> None:
    """Run the command line and exit."""
    gc.set_threshold(100_000, 20, 20)
    take_standard_streams()
    first_process.take_over()
    try:
        interrupts.install()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        code = run(sys.argv[1:])
        if code == EXIT_DONE:
            _end()
        sys.exit(code)
    except Interrupted as exc:
        # A signal before `run` could handle it: nothing has been begun yet.
        print(f"error: {exc.message}", file=sys.stderr)
        sys.exit(exc.exit_code)
    finally:
        interrupts.end()
        end_standard_streams()


def _end() -> None:
    """End the process, but leave what was imported as it is: Python would take it apart, for 25 ms.

    Only after a success, and where no thread is left. What is in cycles ends, so each generator's `finally` has run.
    """
    gc.collect()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        return
    logging.shutdown()
    end_standard_streams()
    os._exit(EXIT_DONE)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; only SystemExit and a late signal pass through."""
    from volback.cli import render
    from volback.cli.app import invoke
    from volback.cli.call import Call, global_options_first

    if arguments[:1] == ["__complete"]:
        return _complete(arguments[1:])
    arguments = global_options_first(arguments)
    call = Call(json="--json" in arguments, debug="--debug" in arguments)
    try:
        return render.outcome(call, invoke(arguments, call))
    except OutputClosed:  # by a command whose output is its work, as of `cat`: others end in render.outcome
        return render.EXIT_OUTPUT_CLOSED
    except (Interrupted, Exception) as exc:  # noqa: BLE001 - the one place where an error becomes text
        return render.failure(call, exc)


def _complete(words: list[str]) -> int:
    """Answer the completion of a shell: whatever goes wrong, nothing is offered, and nothing is said."""
    from volback.cli.completion import answer

    try:
        for line in answer(words):
            print(line)
    except (Interrupted, Exception):  # noqa: BLE001 - a person is typing
        return 1
    return EXIT_DONE
