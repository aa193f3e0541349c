"""A process that has imported all of volback and forks runs of it: a start costs milliseconds in place of 0.4 s.

    python -m tests.support.fork_server DESCRIPTOR

tests.support.forked starts one for each process of tests and sends requests through the socket DESCRIPTOR. A child is
what `python -m MODULE ARGUMENT...` would be: it has the environment, directory, standard streams, signals and process
group of the request, and no other descriptor. Where the environment changes what only a start reads (the linker, the
locale, Python's own variables), the child executes a new interpreter.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import os
import pkgutil
import re
import runpy
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import msgspec

import volback

STATUS = struct.Struct("q")
"""What a run's socket brings: first its process id, then each wait status, the last one of its end."""
REQUEST_BYTES = 200_000
"""The largest request: the kernel's limit for one message is 212,992 bytes."""
DESCRIPTORS = 4
"""That come with a request: standard input, output and error, and the run's socket."""

_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_", "FAKETIME", "OPENSSL_")
_OF_PYTHON: dict[int, Callable[[int, FrameType | None], None] | signal.Handlers] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGPIPE: signal.SIG_IGN,
    signal.SIGXFSZ: signal.SIG_IGN,
}
"""What Python's own start makes of a signal that was not ignored: pylifecycle.c, init_signals; signalmodule.c."""

_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([a-z][\w.]*)[ \t]+)?import[ \t]+(\([^)]*\)|.+)$", re.MULTILINE)


class Request(msgspec.Struct):
    """One run: `python -m module argument...`."""

    module: str
    arguments: list[bytes]
    environment: dict[bytes, bytes]
    directory: bytes
    umask: int
    process_group: int
    """The group to join; 0: one of its own."""
    ignored: list[int]
    """Signals that the requester ignores, as a child of it would."""


def send_request(
    control: socket.socket, module: str, arguments: list[bytes], environment: dict[bytes, bytes], *,
    directory: bytes, process_group: int, descriptors: tuple[int, int, int],
) -> socket.socket:  # fmt: skip
    """Ask the server at `control` for a run with these standard streams, as a child of this process would be.

    Returns the run's socket, which brings its process id and then each STATUS.
    """
    request = Request(
        module=module,
        arguments=arguments,
        environment=environment,
        directory=directory,
        umask=_umask(),
        process_group=process_group,
        ignored=_ignored_signals(),
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        socket.send_fds(control, [msgspec.msgpack.encode(request)], [*descriptors, theirs.fileno()])
    return ours


def _umask() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask:"))
    return int(line.split()[1], 8)


def _ignored_signals() -> list[int]:
    """Those that a child keeps: Python ignores some for itself, and subprocess gives them back their default."""
    restored = {signal.SIGPIPE, signal.SIGXFSZ}
    return [int(each) for each in signal.valid_signals() - restored if signal.getsignal(each) is signal.SIG_IGN]


def main() -> None:
    """Serve until the requester closes its end; in a child: become the run."""
    control = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    _import_what_runs_import()
    _check_that_a_child_inherits_nothing(control)
    gc.collect()
    gc.freeze()  # a child's collections do not touch the pages that it shares
    request = _serve(control)
    if request is not None:
        _run(request)


def import_all() -> None:
    """Import volback's modules, and all that any line of them imports."""
    for module in pkgutil.walk_packages(volback.__path__, "volback."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    lines = {line for path in Path(volback.__path__[0]).rglob("*.py") for line in _IMPORT.findall(path.read_text())}
    for module, names in sorted(lines):
        with suppress(ModuleNotFoundError):  # one that is for types alone, or a sentence of a docstring
            for name in re.findall(r"[\w.]+", names if not module else ""):
                importlib.import_module(name)
            if module and hasattr(importlib.import_module(module), "__path__"):
                _import_below(module, names)


def _import_below(package: str, names: str) -> None:
    for name in re.findall(r"\w+", names):
        with suppress(ModuleNotFoundError):  # a name in the package itself
            importlib.import_module(f"{package}.{name}")


def _import_what_runs_import() -> None:
    """Other libraries import lazily, too: in a child, run commands that fail early, and see what that has imported."""
    from volback.cli.main import run

    reads, writes = os.pipe()
    if os.fork() == 0:
        os.environ["VOLBACK_STATE_DIR"] = "/nonexistent/state"
        run(["--repo", "/nonexistent", "list"])
        run(["--repo", "/nonexistent", "--host", "unix:///nonexistent", "backup", "none"])
        os.write(writes, "\n".join(sys.modules).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as lines:
        names = lines.read().split()
    assert names, "the child failed"
    os.wait()
    for name in names:
        with suppress(ModuleNotFoundError):  # made at run time
            importlib.import_module(name)


def _check_that_a_child_inherits_nothing(control: socket.socket) -> None:
    """A thread would be missing in a child, and a descriptor may hold somebody's lock."""
    threads = [thread.name for thread in threading.enumerate()]
    assert len(threads) == len(os.listdir("/proc/self/task")) == 1, threads
    held = {number for number in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{number}")}
    assert held == {0, 1, 2, control.fileno()}, held


def _serve(control: socket.socket) -> Request | None:
    """Returns the request in the process that is to run it, and None where there are no more."""
    channels: dict[int, int] = {}
    woken, wakes = os.pipe2(os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    waiting.register(woken, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in waiting.poll()}
        if woken in ready:
            os.read(woken, 4096)
            _note_ends(channels)
        if control.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, DESCRIPTORS)
        if not message:
            return None
        request = msgspec.msgpack.decode(message, type=Request)
        run = os.fork()
        if run == 0:
            signal.set_wakeup_fd(-1)
            control.detach()
            _take_over(request, descriptors)
            return request
        channels[run] = descriptors[-1]
        _send(channels[run], run)
        for descriptor in descriptors[:-1]:
            os.close(descriptor)


def _note_ends(channels: dict[int, int]) -> None:
    """Say of each run that it has stopped, or ended."""
    while channels:
        run, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if run == 0:
            return
        _send(channels[run], status)
        if not os.WIFSTOPPED(status):
            os.close(channels.pop(run))


def _send(channel: int, number: int) -> None:
    with suppress(BrokenPipeError):  # who asked for the run is gone
        os.write(channel, STATUS.pack(number))


def _take_over(request: Request, descriptors: list[int]) -> None:
    """Give this process all that a new one would have from its parent."""
    os.setpgid(0, request.process_group)
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.umask(request.umask)
    os.chdir(request.directory)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number in request.ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if _at_start(request.environment) != _at_start(dict(os.environb)):
        command = [os.fsencode(sys.executable), b"-m", os.fsencode(request.module), *request.arguments]
        os.execve(sys.executable, command, request.environment)
    os.environb.clear()
    os.environb.update(request.environment)


def _at_start(environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in environment.items() if os.fsdecode(name).startswith(_READ_AT_START)}


def _run(request: Request) -> None:
    """What Python does between its start and the module; the module's end is this interpreter's."""
    for number, handler in _OF_PYTHON.items():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, handler)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        stream = _standard_stream(descriptor, getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.path[0] = os.fsdecode(request.directory)
    sys.argv[1:] = [os.fsdecode(argument) for argument in request.arguments]
    exit_code = 0
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as exc:
        if not isinstance(exc.code, int | None):
            raise
        exit_code = exc.code or 0
    _end(exit_code)


def _end(exit_code: int) -> None:
    """What Python does at an end (pylifecycle.c, Py_FinalizeEx), but for what would free all that was ever imported.

    That would write to each page that this process shares with the server, in more time than most commands take.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # what is in cycles ends too: a file is flushed, a generator's `finally` runs
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(exit_code)  # for Python itself to say so
    os._exit(exit_code & 0xFF)


def _standard_stream(descriptor: int, like: io.TextIOWrapper) -> io.TextIOWrapper:
    """As Python's start makes them (pylifecycle.c, create_stdio): what `descriptor` is counts for their buffers."""
    unbuffered = like.write_through
    binary = open(  # noqa: SIM115 - as long as the process
        descriptor, "wb" if descriptor else "rb", 0 if unbuffered and descriptor else -1, closefd=False
    )
    lines = not unbuffered and (descriptor == 2 or binary.isatty())
    return io.TextIOWrapper(binary, like.encoding, like.errors, "\n", line_buffering=lines, write_through=unbuffered)


if __name__ == "__main__":
    main()
