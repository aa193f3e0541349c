"""Window: a stream of buffers with lookahead, for the cutter."""

from __future__ import annotations

from collections.abc import Iterable

from volback.archive import tar
from volback.errors import IntegrityError

Buffer = bytes | bytearray | memoryview
HEADER_MAX_BYTES = 64 * 1024 * 1024


class Window:
    """A stream of buffers with lookahead, from which pieces are taken without copying.

    `buffer[at:]` is what has been read and not yet stepped over; `held` bytes before it belong to the
    frame that `take` will return.
    """

    def __init__(self, stream: Iterable[Buffer]) -> None:
        self._stream = iter(stream)
        self._pieces: list[memoryview] = []
        self._mark = 0
        self.buffer = bytearray()
        self.at = 0
        self.offset = 0
        self.held = 0

    def peek(self, size: int) -> bytearray:
        """Return the next `size` bytes without stepping. Raises IntegrityError if the stream ends before."""
        self._reach(size)
        return self.buffer[self.at : self.at + size]

    def peek_extended(self) -> int:
        """Make the next member's whole header available at `buffer[at]`; return its pax part's size (or 0)."""
        if len(self.buffer) - self.at < tar.BLOCK:
            self._reach(tar.BLOCK)
        extended = tar.extended_size(self.buffer, self.at)
        if extended > HEADER_MAX_BYTES:
            raise IntegrityError("tar stream is damaged: a header of more than 64 MiB")
        if len(self.buffer) - self.at < extended + tar.BLOCK:
            self._reach(extended + tar.BLOCK)
        return extended

    def skip(self, size: int) -> None:
        """Step over `size` bytes; they belong to the next `take`."""
        self.offset += size
        self.held += size
        while (here := len(self.buffer) - self.at) < size:
            size -= here
            self.at = len(self.buffer)
            if not self._pull():
                raise IntegrityError("tar stream ended in the middle of a member", "see the messages of the helper")
        self.at += size

    def expect_zeros(self) -> None:
        """Read all that is left, and drop it. Raises IntegrityError unless it is zeros."""
        while True:
            if self.buffer.count(0, self.at) != len(self.buffer) - self.at:
                raise IntegrityError("tar stream continues after its end")
            self.at = self._mark = len(self.buffer)
            if not self._pull():
                return

    def take(self, size: int | None = None) -> list[memoryview]:
        """Return what was stepped over since the last take, or its first `size` bytes."""
        self._keep()
        pieces, self._pieces = self._pieces, []
        if size is not None:
            pieces, self._pieces = _divide(pieces, size)
        self.held -= sum(len(piece) for piece in pieces)
        return pieces

    def last(self, size: int) -> memoryview:
        """The last `size` bytes that were stepped over and not taken, in one piece."""
        if size <= self.at:
            return memoryview(self.buffer)[self.at - size : self.at]
        self._keep()
        pieces, left = list[memoryview](), size
        for piece in reversed(self._pieces):
            pieces.append(piece[max(len(piece) - left, 0) :])
            left -= len(pieces[-1])
            if not left:
                break
        return memoryview(b"".join(reversed(pieces)))

    def _keep(self) -> None:
        if self._mark < self.at:
            self._pieces.append(memoryview(self.buffer)[self._mark : self.at])
        self._mark = self.at

    def _pull(self) -> bool:
        """Move to the next buffer; all of this one has been stepped over."""
        self._keep()
        buffer = next(self._stream, None)
        while buffer is not None and not len(buffer):
            buffer = next(self._stream, None)
        if buffer is None:
            return False
        self.buffer = buffer if isinstance(buffer, bytearray) else bytearray(buffer)
        self.at = self._mark = 0
        return True

    def _reach(self, size: int) -> None:
        while len(self.buffer) - self.at < size:
            self._keep()
            rest = self.buffer[self.at :]
            buffer = next(self._stream, None)
            if buffer is None:
                raise IntegrityError("tar stream ended before its end-of-archive blocks", "see the helper's messages")
            self.buffer = rest + buffer
            self.at = self._mark = 0


def _divide(pieces: list[memoryview], size: int) -> tuple[list[memoryview], list[memoryview]]:
    first: list[memoryview] = []
    for number, piece in enumerate(pieces):
        if len(piece) >= size:
            return [*first, piece[:size]], [piece[size:], *pieces[number + 1 :]]
        first.append(piece)
        size -= len(piece)
    return first, []
