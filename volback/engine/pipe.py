"""Pipe: the transport between a client and an engine that share a kernel, 530-640 MB/s in named pipes.

The pipes lie in a host directory that is bind-mounted as `/io`; where volback itself runs in a container, in a volume
or host directory that both mount (`own`). Whether the engine's host has that directory, and whether its kernel is the
same, is found out by using them: the first pipe's opening is the handshake.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager

import docker.types

from volback.engine.connect import explained
from volback.engine.helper import BUFFER_BYTES, SETTLE_S, WRITE_LIMIT_S, Helper
from volback.engine.inner_pipes import F_SETPIPE_SZ, PIPE_BYTES, widen_inner_pipes
from volback.engine.mounts import is_about_path, is_denied
from volback.engine.streams import HelperStreams, Place, ReadCommands, WriteCommands, no_action, read_look
from volback.errors import EngineError, VolbackError
from volback.feed import Feed

log = logging.getLogger(__name__)

HANDSHAKE_S = 5.0
_BUFFERS_MAX = 256
"""In one call; a system takes 1,024 at least."""
_SCAN_BYTES = 512 * 1024
"""Of a scan: what has come is read while more is found."""


class PipeUnusableError(EngineError):
    """The helper cannot be reached through named pipes; the transport `attach` remains."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the engine's helpers do not reach this machine's named pipes: {why}", "leave VOLBACK_TRANSPORT unset"
        )


class Pipes(HelperStreams):
    """A helper with its named pipes, the first of which is the handshake; a context manager that removes both."""

    def __init__(
        self, place: Place, script: str, pipes: tuple[str, ...], *, write: bool, look: str | None = None
    ) -> None:
        """`look` is a script that runs first."""
        if look is not None:
            script, pipes = f"{{ printf .; {look}; }} >/io/look; {script}", ("look", *pipes)
        if place.host_directory is None:
            raise PipeUnusableError("their directory is not in a volume of volback's own container")
        self._directory = place.directory
        self._host_directory = place.host_directory
        self._names = pipes
        self._is_written_first = write and look is None
        mount = docker.types.Mount("/io", place.host_directory, type="bind")
        spec = place.spec(script=script, write=write, mounts=[mount])
        self._helper = Helper(place.client, spec, self.messages)
        self._first: int | None = None

    def look(self) -> tuple[int, bytes]:
        """See VolumeWriter."""
        return read_look(self._helper, b"".join(self.drain("look")))

    def drain(
        self,
        pipe: str,
        at_end: Callable[[], None] = no_action,
        *,
        at_once: bool = False,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> Generator[bytearray, None, None]:
        """Yield what the helper writes into `pipe`, in buffers of that size (the last is shorter), until it closes it.

        `at_end` is called before the last buffer. `at_once`: little comes, and is yielded as it arrives; `at_end` is
        called after it. Raises EngineError if the helper ends before it opens the pipe.
        """
        fd = self._take_first()
        if fd is None:
            with _usable():
                fd = os.open(self._directory / pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            _widen(fd)
            if not self._await(fd, select.POLLIN | select.POLLHUP):
                self._helper.raise_if_ended(pipe)
            os.set_blocking(fd, True)
            yield from _pieces(fd, at_end) if at_once else _buffers(fd, at_end, buffer_bytes)
        finally:
            os.close(fd)

    def fill(self, pipe: str, buffers: Iterable[list[bytes | memoryview]]) -> None:
        """Write all buffers into `pipe`, those of a list with few calls: a deep increment comes in a great many.

        Raises EngineError if the helper ends before it has read them.
        """
        fd = self._take_first()
        if fd is None:
            fd = self._open_for_writing(pipe)
        try:
            _widen(fd)
            for some in buffers:
                self._write_all(fd, some, pipe)
        except BrokenPipeError:
            raise self._helper.ended_early("stopped reading") from None
        finally:
            os.close(fd)

    def settle(self, *, limit_s: float = SETTLE_S) -> int:
        """Wait for the helper's end and return its exit status. Raises EngineError, EngineUnreachable."""
        return self._helper.settle(limit_s=limit_s)

    def messages(self) -> bytes:
        """What the helper's programs said on standard error so far."""
        with _usable():
            return (self._directory / "messages").read_bytes()

    def check(self) -> None:
        """Raises EngineError if the helper has ended already."""
        self._helper.raise_if_ended("what it waits for")

    def _open(self) -> None:
        self._make_pipes()
        self._start()
        self._shake_hands(self._names[0])

    def _make_pipes(self) -> None:
        with _usable():
            self._make_files()

    def _make_files(self) -> None:
        self._directory.mkdir(mode=0o711)
        self._directory.chmod(0o711)
        for pipe in self._names:
            os.mkfifo(self._directory / pipe)
            (self._directory / pipe).chmod(0o666)  # the directory's unguessable name and 0700 parent keep others out
        (self._directory / "messages").touch()
        (self._directory / "messages").chmod(0o666)

    def _start(self) -> None:
        try:
            self._helper.create()
            self._helper.start()
        except EngineError as exc:
            if is_about_path(exc, self._host_directory):
                raise PipeUnusableError("its host does not have their directory") from exc
            if is_denied(exc, self._host_directory):
                raise PipeUnusableError("its user may not open their directory") from exc
            raise

    def _shake_hands(self, pipe: str) -> None:
        """Wait until the helper has opened `pipe`, and keep this side's end of it. Raises PipeUnusableError."""
        if self._is_written_first:
            self._first = self._open_for_writing(pipe, limit_s=HANDSHAKE_S)
            return
        with _usable():
            self._first = fd = os.open(self._directory / pipe, os.O_RDONLY | os.O_NONBLOCK)
        if not self._await(fd, select.POLLIN, timeout_s=HANDSHAKE_S) or os.read(fd, 1) != b".":
            raise PipeUnusableError("one was not opened")

    def _close(self, *, failed: bool) -> None:
        try:
            self._helper.close(failed=failed)
        finally:
            first = self._take_first()
            if first is not None:
                os.close(first)
            # In the run's directory, which is removed whole: an error here must not hide the first one.
            shutil.rmtree(self._directory, ignore_errors=True)

    def _take_first(self) -> int | None:
        first, self._first = self._first, None
        return first

    def _write_all(self, fd: int, buffers: list[bytes | memoryview], pipe: str) -> None:
        """Write them, and take them from the list."""
        buffers.reverse()
        while buffers:
            some = buffers[: -_BUFFERS_MAX - 1 : -1]
            try:
                written = os.writev(fd, some)
            except BlockingIOError:
                if not self._await(fd, select.POLLOUT):
                    self._helper.raise_if_ended(f"all of {pipe}")
                continue
            while buffers and written >= len(buffers[-1]):
                written -= len(buffers.pop())
            if written:
                buffers[-1] = memoryview(buffers[-1])[written:]

    def _open_for_writing(self, pipe: str, *, limit_s: float | None = None) -> int:
        """A pipe without a reader refuses a non-blocking open: so the helper's end is noticed here at once."""
        deadline = None if limit_s is None else time.monotonic() + limit_s
        while True:
            try:
                return os.open(self._directory / pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as exc:
                if exc.errno != errno.ENXIO:
                    raise explained(exc, "named pipe of a helper") from exc
            if deadline is None:
                self._helper.raise_if_ended(pipe)
            elif self._helper.has_ended() or time.monotonic() > deadline:
                raise PipeUnusableError("one was not opened")
            time.sleep(0.002)

    def _await(self, fd: int, event: int, *, timeout_s: float | None = None) -> bool:
        """Whether the pipe is ready; False once the helper has ended and it still is not, or after the time-out."""
        poll = select.poll()
        poll.register(fd, event)
        poll.register(self._helper.ended, select.POLLIN)
        timeout_ms = None if timeout_s is None else timeout_s * 1000
        return fd in dict(poll.poll(timeout_ms))


class PipeReader(Pipes):
    """Scan and read in one container: tar must be PID 1 (sparse members' names hold its PID), so the shell execs it."""

    def __init__(self, place: Place, commands: ReadCommands) -> None:
        # find's status 1: something vanished while it ran, which its messages name
        scan = f"{shlex.join(commands.scan)}; [ $? -le 1 ] && printf %s {shlex.quote(commands.scan_end)}"
        # the shell waits for this side to open the pipe, and only then empties the file of messages
        again = f"{{ {scan}; }} >/io/rescan 2>/io/messages; " if commands.rescan else ""
        dot = "printf .; " if commands.look is None else ""  # the handshake
        script = (
            f"{{ {dot}{scan}; }} >/io/scan 2>>/io/messages; {again}"
            f"exec {shlex.join(commands.read)} --files-from=/io/names --file=- >/io/data 2>>/io/messages"
        )
        pipes = ("scan", "rescan", "names", "data")
        super().__init__(place, script, pipes, write=False, look=commands.look_script)
        self._client = place.client
        self._scans = iter(("scan", "rescan"))
        self._is_report = commands.is_report

    def scan(self) -> Iterator[bytes | bytearray]:
        """See VolumeReader."""
        return self.drain(next(self._scans), buffer_bytes=_SCAN_BYTES)

    def read(self, names: Iterable[bytes], at_end: Callable[[], None] = no_action) -> Iterator[bytes | bytearray]:
        """See VolumeReader."""
        failure: list[VolbackError] = []

        def feed() -> None:
            try:
                self.fill("names", ([some] for some in names))
            except VolbackError as exc:
                failure.append(exc)
                self._helper.give_up(exc)  # it waits for the rest of the names, and its data would be waited for

        feeder = threading.Thread(target=feed, name="helper-names", daemon=True)
        feeder.start()
        with closing(self.drain("data", at_end, at_once=self._is_report)) as buffers:
            for number, buffer in enumerate(buffers):
                if number == 0 and self._is_report and self._helper.id is not None:
                    widen_inner_pipes(self._client, self._helper.id)
                yield buffer
        feeder.join()
        if failure:
            raise failure[0]
        self.settle()


class PipeWriter(Pipes):
    """Runs one command in a container that has the target mounted writable, and gives it a stream."""

    is_wire = False

    def __init__(self, place: Place, commands: WriteCommands) -> None:
        script = f"exec {shlex.join(commands.write)} </io/data 2>>/io/messages"
        super().__init__(place, script, ("data",), write=True, look=commands.look_script)

    def write(self, buffers: Iterable[bytes | memoryview]) -> int:
        """See VolumeWriter. The pipe is written in a thread: who makes the buffers does not wait for the command, nor
        the command for them, as long as some are ahead."""
        with Feed[bytes | memoryview].in_lists(lambda taken: self.fill("data", taken), "helper-data") as feed:
            try:
                feed.add(buffers)
                feed.end()
            except BaseException:
                self._helper.give_up(EngineError("the data was given up"))  # the thread may wait for the command
                raise
        return self.settle(limit_s=WRITE_LIMIT_S)


@contextmanager
def _usable() -> Iterator[None]:
    """Translate an OSError of the block. Raises EngineError."""
    try:
        yield
    except OSError as exc:
        raise explained(exc, "named pipe of a helper") from exc


def _buffers(fd: int, at_end: Callable[[], None], buffer_bytes: int) -> Iterator[bytearray]:
    while True:
        buffer = bytearray(buffer_bytes)
        view = memoryview(buffer)
        size = 0
        while size < buffer_bytes and (got := os.readv(fd, [view[size:]])):
            size += got
        view.release()
        if size < buffer_bytes:
            at_end()
            del buffer[size:]
            if buffer:
                yield buffer
            return
        yield buffer


def _pieces(fd: int, at_end: Callable[[], None]) -> Iterator[bytearray]:
    while piece := os.read(fd, PIPE_BYTES):
        yield bytearray(piece)
    at_end()


def _widen(fd: int) -> None:
    """Ask for a 1 MiB pipe; an unprivileged user's limit (pipe-user-pages-soft) may refuse, which only makes it
    slower."""
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        log.debug("pipe stays at its default size")
