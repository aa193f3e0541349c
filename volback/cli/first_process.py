"""First process: what volback must do if it is a container's: pass signals on, and reap orphaned processes.

The command then runs in a child. So the guard, which outlives a killed command, stays alive too: when the
first process ends, the kernel kills all others at once.
"""

from __future__ import annotations

import os
import signal

_PASSED_ON = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}

_ALL = -1
"""For kill(2): every process but process 1 itself. So runs that outlive a killed scheduler get the signal, too."""


def take_over() -> None:
    """Return in the process that is to run the command: this one, or where this is process 1, a child of it.

    Process 1 does not return. It ends like the child, once the child and all processes that it left have ended.
    """
    if os.getpid() != 1:
        return
    watched = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os._exit(_tend(child, watched))


def _tend(child: int, watched: set[signal.Signals]) -> int:
    """Returns the child's exit code, as a shell reports it."""
    status = None
    while True:
        number = signal.sigwait(watched)
        if number != signal.SIGCHLD:
            _pass_on(number, child if status is None else _ALL)
            continue
        ended, more = _reap()
        status = ended.get(child, status)
        if status is not None and not more:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def _pass_on(number: int, process: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return  # it ended just now


def _reap() -> tuple[dict[int, int], bool]:
    """Collect all processes that have ended, with their status; and whether any are left."""
    ended: dict[int, int] = {}
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return ended, True
            ended[pid] = status
    except ChildProcessError:
        return ended, False
