"""Decompress: a foreign archive - tar, or tar in gzip, zstd, xz or bzip2, recognized by its first bytes - as a tar
stream.

It is not trusted: memory stays bounded whatever it claims, an input that ends early is refused, and an input that does
not begin like a tar archive never reaches tar. Import calls this; volback's own frames are handled in `seal`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Protocol

import zstandard

from volback.archive.tar import BLOCK, is_header
from volback.errors import FormatError, IntegrityError

BUFFER_BYTES = 1024 * 1024
STEP_BYTES = 1024
"""zstd makes 128 KiB of 4 bytes: with so little input at once it returns 32 MiB at most (and is no slower, as
measured)."""
WINDOW_MAX_BYTES = 128 * 1024 * 1024
"""The limit of `zstd -d` without options, too."""
XZ_MEMORY_BYTES = 256 * 1024 * 1024
"""`xz -9` needs 65 MiB to be decompressed."""

_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


class ForeignArchive:
    """One archive being read; `has_end` says, after the stream has ended, whether two blocks of zeros ended it.
    Without them an archive that was cut between two members looks complete, also to tar.
    """

    def __init__(self, source: BinaryIO, name: str) -> None:
        """Read the bytes that show the format. Raises FormatError if `source` is not an archive."""
        self.name = name
        self.has_end = False
        head = _read(source, BUFFER_BYTES)
        self.compression, decoder = _decoder(head)
        self._plain = decoder(io.BufferedReader(_Rest(head, source), BUFFER_BYTES))
        self._first = self._begin()

    def stream(self) -> Iterator[bytes]:
        """Yield the tar stream. Raises IntegrityError where the compressed stream is damaged or ends early."""
        tail = b""
        buffer = self._first
        while buffer:
            yield buffer
            tail = (tail + buffer)[-2 * BLOCK :]
            buffer = self._next()
        self.has_end = len(tail) == 2 * BLOCK and not any(tail)

    def _begin(self) -> bytes:
        first = b""
        while len(first) < BLOCK and (buffer := self._next()):
            first += buffer
        if not is_header(first[:BLOCK]) and (len(first) < BLOCK or any(first[:BLOCK])):
            inside = f"what its {self.compression} holds" if self.compression else "this"
            raise FormatError(
                f"{self.name} cannot be imported: {inside} is not a tar archive",
                "give a file that `tar -tf` can list: tar, plain or in gzip, zstd, xz or bzip2",
            )
        return first

    def _next(self) -> bytes:
        try:
            return next(self._plain, b"")
        except _ERRORS as exc:
            raise IntegrityError(f"{self.name} is damaged or cut short: {exc}", "download or create it again") from exc


class _Rest(io.RawIOBase):
    """The source, beginning with the bytes that have been examined already."""

    def __init__(self, head: bytes, source: BinaryIO) -> None:
        self._head = head
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        data = self._head[: len(view)] or self._source.read(len(view))
        self._head = self._head[len(view) :]
        view[: len(data)] = data
        return len(data)


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _decoder(head: bytes) -> tuple[str, Callable[[BinaryIO], Iterator[bytes]]]:
    for magic, name, decoder in _FORMATS:
        if head.startswith(magic):
            return name, decoder
    if head[:4] in _SKIPPABLE:
        return "zstd", _zstd
    return "", _buffers


def _buffers(source: BinaryIO | gzip.GzipFile | bz2.BZ2File) -> Iterator[bytes]:
    while buffer := source.read(BUFFER_BYTES):
        yield buffer


def _gzip(source: BinaryIO) -> Iterator[bytes]:
    return _buffers(gzip.GzipFile(fileobj=source, mode="rb"))


def _bzip2(source: BinaryIO) -> Iterator[bytes]:
    return _buffers(bz2.BZ2File(source))


def _xz(source: BinaryIO) -> Iterator[bytes]:
    return _steps(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES))


def _zstd(source: BinaryIO) -> Iterator[bytes]:
    return _steps(source, lambda: zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES).decompressobj())


def _steps(source: BinaryIO, make: Callable[[], _Decoder]) -> Iterator[bytes]:
    """Decompress streams laid end to end, in small steps; zeros between and after them are padding."""
    decoder: _Decoder | None = None
    for step in _small(_buffers(source)):
        rest = step
        while rest:
            if decoder is None:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                decoder = make()
            if out := decoder.decompress(rest):
                yield out
            rest = b""
            if decoder.eof:
                rest, decoder = decoder.unused_data, None
    if decoder is not None:
        raise EOFError("it ends in the middle of a compressed stream")


def _small(buffers: Iterable[bytes]) -> Iterator[bytes]:
    for buffer in buffers:
        for at in range(0, len(buffer), STEP_BYTES):
            yield buffer[at : at + STEP_BYTES]


def _read(source: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end: a single read of a pipe can return fewer."""
    parts: list[bytes] = []
    while size and (part := source.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


_FORMATS = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"BZh", "bzip2", _bzip2),
)
_SKIPPABLE = frozenset(bytes([number]) + b"\x2a\x4d\x18" for number in range(0x50, 0x60))
"""A zstd file may begin with a frame that holds no data (RFC 8878, section 3.1.2)."""
