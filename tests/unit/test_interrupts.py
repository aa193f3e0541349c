"""A signal ends a run whatever the code that it meets does with errors."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from volback import interrupts
from volback.errors import WORST_FIRST, Failure, Interrupted, StoreError, VolbackError, failures, worst_first
from volback.interrupts import deferred_signals


@pytest.fixture
def installed() -> Iterator[None]:
    """The handlers of a process that has not seen a signal yet; afterwards those that were there."""
    before, state, hook = signal.getsignal(signal.SIGTERM), interrupts._process, sys.unraisablehook
    interrupts._process = interrupts._Interrupts()
    signal.signal(signal.SIGTERM, interrupts._process.handle)
    yield
    signal.signal(signal.SIGTERM, before)
    interrupts._process, sys.unraisablehook = state, hook


@pytest.fixture
def watched(installed: None) -> Iterator[None]:
    """As `install` does."""
    before = signal.getsignal(signal.SIGALRM)
    interrupts._process.watch()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(5)


def test_code_that_carries_on_after_errors_does_not_carry_on_after_a_signal(installed: None) -> None:
    carried_on = False
    with pytest.raises(Interrupted) as caught:  # noqa: PT012 - as such code is written
        try:
            terminate()
        except Exception:  # noqa: BLE001 - what is shown
            carried_on = True
    assert not carried_on
    assert (caught.value.exit_code, caught.value.message) == (143, "interrupted by signal 15")
    assert not issubclass(Interrupted, Exception)


def test_a_signal_that_does_not_wake_the_main_thread_ends_its_wait(watched: None) -> None:
    """As one that comes just before that thread sleeps: here another thread takes it."""

    def take() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    striking = threading.Timer(0.1, take)
    striking.start()
    with pytest.raises(Interrupted):
        threading.Event().wait(60)
    striking.join()


def test_a_log_handler_does_not_swallow_a_signal(installed: None) -> None:
    """logging catches whatever Exception a handler raises."""

    class Struck(logging.StreamHandler):  # type: ignore[type-arg]
        def format(self, record: logging.LogRecord) -> str:
            terminate()
            return ""

    logger = logging.getLogger("volback.tests.struck")
    logger.propagate = False
    logger.addHandler(Struck())
    with pytest.raises(Interrupted):
        logger.error("x")


def test_a_signal_waits_for_the_end_of_a_step_of_the_main_thread_alone(installed: None) -> None:
    inside, leave = threading.Event(), threading.Event()

    def step() -> None:
        with deferred_signals():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=step)
    thread.start()
    inside.wait(10)
    with pytest.raises(Interrupted):
        terminate()
    leave.set()
    thread.join()
    assert interrupts._process.depth == 0


def test_an_interruption_comes_first_among_failures_and_is_the_worst() -> None:
    full, wrong, cut = StoreError("full"), VolbackError("wrong"), Interrupted(2)
    mixed: list[Failure] = [full, cut]
    assert failures(cut, [full]) == [cut, full]
    assert failures(None, (full, wrong)) == [full, wrong]
    assert worst_first(mixed) == [cut, full]
    assert (cut.exit_code, cut.kind, cut.hint) == (WORST_FIRST[1], "interrupted", "run the command again")


def test_what_starts_the_tests_may_ignore_hangups() -> None:
    """Under nohup children would inherit that, and a test of SIGHUP would wait for nothing."""
    script = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


_STRUCK_IN_THE_LIBRARY = """
import dis, faulthandler, itertools, logging, signal, sys, threading
from contextlib import ExitStack, contextmanager
from volback import interrupts
from volback.ahead import read_ahead
from volback.errors import Interrupted
from volback.feed import Feed
from volback.operations.starting import started

LIBRARY = ("threading", "concurrent.futures._base", "concurrent.futures.thread", "contextlib", "logging")
logging.basicConfig(stream=open("/dev/null", "w"), level=logging.INFO)

def feed():
    with Feed(lambda chunks: [None for _ in chunks], "feed") as fed:
        fed.add(bytes(1000) for _ in range(3))
        fed.end()

@contextmanager
def entered(held):
    held.append(1)
    try:
        yield 1
    finally:
        held.pop()

def start():
    with started(entered([])) as starting:
        assert starting.opened() == 1

def ahead():
    assert list(read_ahead(lambda number, stop: number, iter(range(4)), ahead=2)) == [0, 1, 2, 3]

def stack():
    held = []
    try:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(entered(held))
    finally:
        assert held == []

def log():
    logging.getLogger("volback.test").info("x")

def looks(code, known={}):
    '''Where Python looks for signals: after calls, at begins and loops.'''
    if code not in known:
        made = list(dis.get_instructions(code))
        asks = ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD")
        known[code] = {after.offset for before, after in zip(made, made[1:]) if before.opname in asks}
    return known[code]

def struck(scenario, at):
    '''Whether there was such a place.'''
    interrupts._process.__init__()
    left = at

    def trace(frame, event, arg):
        nonlocal left
        if frame.f_globals.get("__name__") in LIBRARY:
            frame.f_trace_opcodes = True
            if event == "opcode" and frame.f_lasti in looks(frame.f_code):
                left -= 1
                if left == 0:
                    sys.settrace(None)  # the timer's signal is not to meet this function
                    interrupts._process.handle(signal.SIGTERM, frame)
        return trace

    faulthandler.dump_traceback_later(50, exit=True)
    before = set(threading.enumerate())
    try:
        try:
            sys.settrace(trace)
            scenario()
        finally:
            sys.settrace(None)
        while left <= 0:  # the end came before the timer
            threading.Event().wait(60)
    except Interrupted:
        pass
    for thread in set(threading.enumerate()) - before:
        thread.join()
    sys.stderr.flush()
    logging.root.handlers[0].acquire()
    logging.root.handlers[0].release()
    return left <= 0

interrupts.install()
for scenario in (feed, start, ahead, stack, log):
    count = next(at for at in itertools.count(1) if not struck(scenario, at))
    print(scenario.__name__, count > 10)
"""


def test_wherever_it_strikes_in_pythons_library_nothing_hangs_and_all_is_left() -> None:
    """Raised there, it left locks taken, for which the threads of the run waited without end, or RuntimeErrors."""
    done = subprocess.run([sys.executable, "-c", _STRUCK_IN_THE_LIBRARY], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == [f"{name} True" for name in ("feed", "start", "ahead", "stack", "log")]


_STRUCK_WHERE_C_DROPS_IT = """
import ctypes, os, signal, sys, threading
from volback import interrupts
from volback.errors import Interrupted

struck = []

def strike():
    if not struck:
        struck.append(os.kill(os.getpid(), signal.SIGTERM))
        sum(range(10_000))  # Python looks for signals here
    return 1

class Key:
    def __hash__(self):
        return strike()

class Same:
    def __hash__(self):
        return 1

    def __eq__(self, other):
        return bool(strike())

class Attributed:
    def __getattr__(self, name):
        return strike()

api = ctypes.pythonapi
api.PyDict_GetItem.restype = ctypes.c_void_p
CALLS = {
    "__hash__": lambda: api.PyDict_GetItem(ctypes.py_object({}), ctypes.py_object(Key())),
    "__eq__": lambda: api.PyDict_GetItem(ctypes.py_object({Same(): 1}), ctypes.py_object(Same())),
    "__getattr__": lambda: api.PyObject_HasAttrString(ctypes.py_object(Attributed()), b"x"),
}
interrupts.install()
try:
    CALLS[sys.argv[1]]()
    threading.Event().wait(60)
except Interrupted as exc:
    print(len(struck), exc.exit_code)
"""


@pytest.mark.parametrize("method", ["__hash__", "__eq__", "__getattr__"])
def test_a_signal_whose_exception_c_code_drops_comes_again(method: str) -> None:
    """msgspec looks types up in a dict by a call that drops all errors: a backup that was ended went on, and ended
    with 0."""
    command = [sys.executable, "-c", _STRUCK_WHERE_C_DROPS_IT, method]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1 143\n", "")


def test_no_timer_strikes_once_the_handlers_are_gone() -> None:
    """Python gives signals back their default before it exits: a timer would kill it then."""
    script = (
        "import signal, sys\n"
        "from volback.cli.main import main\n"
        "sys.argv[1:] = ['list', '--no-such-option']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as exc:\n"
        "    print(exc.code, signal.getitimer(signal.ITIMER_REAL))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "2 (0.0, 0.0)\n"
