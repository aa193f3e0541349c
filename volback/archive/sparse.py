"""Sparse: a sparse member's data, as tar keeps it, converted back into the file's bytes, with zeros in its holes.

Source of the format: GNU tar manual, "Storing Sparse Files", PAX format version 1.0: the data begins with a map of
decimal numbers, a line each - how many pieces there are, then offset and size of each - filled up to a block.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from volback.archive import tar
from volback.errors import IntegrityError

_ZEROS = memoryview(bytes(1024 * 1024))
_DIGITS_MAX = 20
_NUMBER_MAX = 2**63
PIECES_MAX = 1 << 23
"""Of a file: 16 bytes of memory each, however well its map is compressed."""


def is_sparse(header: tar.Header) -> bool:
    """Whether the member's data begins with a map. Raises IntegrityError for a map that tar keeps in another way."""
    if b"GNU.sparse.realsize" not in header.records:
        return False
    version = header.records.get(b"GNU.sparse.major"), header.records.get(b"GNU.sparse.minor")
    if version != (b"1", b"0"):
        raise IntegrityError(f"sparse file in an unknown tar format: {version}")
    return True


def expand(data: Iterable[bytes | memoryview], size_bytes: int) -> Iterator[bytes | memoryview]:
    """Yield the file's `size_bytes` bytes from a sparse member's data. Raises IntegrityError for a map that is not
    valid."""
    source = _Source(data)
    at = 0
    for offset, length in source.read_map():
        if not at <= offset <= offset + length <= size_bytes:
            raise IntegrityError("tar stream is damaged: a sparse map's pieces are not in order")
        yield from _hole(offset - at)
        yield from source.take(length)
        at = offset + length
    yield from _hole(size_bytes - at)


def _hole(length: int) -> Iterator[memoryview]:
    while length:
        step = min(length, len(_ZEROS))
        yield _ZEROS[:step]
        length -= step


class _Source:
    """A stream that is read by lines first, then by lengths."""

    def __init__(self, data: Iterable[bytes | memoryview]) -> None:
        self._buffers = iter(data)
        self._rest = memoryview(b"")
        self._read_bytes = 0

    def read_map(self) -> Iterator[tuple[int, int]]:
        """Read the map, and what fills its last block up; return offset and size of each piece, in order."""
        count = self._number()
        if count > PIECES_MAX:
            raise IntegrityError(f"tar stream is damaged: a sparse file of {count} pieces")
        numbers = array("Q")
        for _ in range(2 * count):
            numbers.append(min(self._number(), _NUMBER_MAX))
        for _ in self.take(tar.padded(self._read_bytes) - self._read_bytes):
            pass
        return zip(numbers[::2], numbers[1::2], strict=True)

    def take(self, length: int) -> Iterator[memoryview]:
        """Yield the next `length` bytes. Raises IntegrityError where there are fewer."""
        while length:
            if not self._rest:
                self._rest = self._next_buffer()
            piece, self._rest = self._rest[:length], self._rest[length:]
            length -= len(piece)
            yield piece

    def _number(self) -> int:
        digits = b""
        while not digits.endswith(b"\n"):
            if len(digits) > _DIGITS_MAX:
                raise IntegrityError("tar stream is damaged: a sparse map's number is malformed")
            digits += b"".join(self.take(1))
        self._read_bytes += len(digits)
        if not digits[:-1].isdigit():
            raise IntegrityError("tar stream is damaged: a sparse map's number is malformed")
        return int(digits)

    def _next_buffer(self) -> memoryview:
        buffer = next(self._buffers, None)
        if buffer is None:
            raise IntegrityError("tar stream is damaged: a sparse file's data ends early")
        return memoryview(buffer)
