"""Streams: standard output and standard error of this process, made so that no write to them stops work halfway.

Who reads them may go away (`| head`, a log collector that ends), be closed from the start (`>&-`), or be a full disk.
Messages to standard error are then dropped: what they are about goes on, and the exit code says how it ended. A result
that cannot be written to standard output raises OutputClosed or StoreError, never an OSError that could be mistaken for
one of an engine, a store or a file. Both are so below Python's buffers: whatever prints (logging, rich, typer) is
covered.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TextIO, cast

from volback.errors import StoreError


class OutputClosed(Exception):
    """Nobody reads standard output any more."""


def is_readable(descriptor: int, limit_s: float) -> bool:
    """Whether there is something to read, or the other side is gone, within that time. Of any descriptor: `select`
    takes none above 1023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(limit_s * 1000))


def take_standard_streams() -> None:
    """Replace sys.stdout and sys.stderr; those that are closed are opened on /dev/null, as no file of volback may get
    their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = _text(_Output(1), sys.stdout, errors="surrogateescape")
    sys.stderr = _text(_Messages(2), sys.stderr, errors="backslashreplace")


def end_standard_streams() -> None:
    """Flush what can be written, and drop the rest: Python would try it again at exit, and change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(stream.buffer, "raw", None)
        try:
            stream.flush()
        except (OutputClosed, StoreError):
            assert isinstance(raw, _Descriptor)
            raw.is_dropping = True


class _Descriptor(io.FileIO):
    """A descriptor that stays open."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.is_dropping = False

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]  # all that a BufferedWriter gives it
        """Write a part of `data`, and return its size."""
        while not self.is_dropping:
            try:
                size = super().write(data)
            except OSError as exc:
                self._fail(exc)
            else:
                if size is not None:
                    return size
                self._wait()
        return memoryview(data).nbytes

    def _fail(self, exc: OSError) -> None:
        raise NotImplementedError

    def _wait(self) -> None:
        """Another program made it non-blocking, and its reader is slow: wait as for one that blocks."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        poll.poll()


class _Messages(_Descriptor):
    """Standard error: what cannot be written, and all after it, is dropped."""

    def _fail(self, exc: OSError) -> None:
        self.is_dropping = True


class _Output(_Descriptor):
    """Standard output. A write raises OutputClosed, StoreError."""

    def _fail(self, exc: OSError) -> None:
        if isinstance(exc, BrokenPipeError):
            raise OutputClosed from exc
        raise StoreError(f"standard output cannot be written: {exc.strerror}") from exc


def _text(raw: _Descriptor, before: TextIO | None, *, errors: str) -> io.TextIOWrapper:
    """The same text stream as Python makes, around another descriptor."""
    encoding = (before.encoding if before is not None else None) or "utf-8"
    buffered = io.BufferedWriter(cast(io.RawIOBase, raw))
    return io.TextIOWrapper(buffered, encoding, errors, line_buffering=raw.isatty() or raw.fileno() == 2)
