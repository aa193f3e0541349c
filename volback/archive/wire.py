"""Wire: a tar stream compressed for its way between two hosts, and plain again. Nothing of it is stored.

Helpers on other hosts do it with the program zstd; this is the same for the end that is on this host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, cast

import zstandard

from volback.errors import EngineError

COMPRESS = "zstd -q -1 -T0"
"""As tar's compress program. Level 1: 2 cores give it 500 MB/s or more, and few wires take that."""
DECOMPRESS = "zstd -q -dc"
_LEVEL = 1
_THREADS = 2
_MAGIC = b"\x28\xb5\x2f\xfd"
_STEP_BYTES = 1024 * 1024
_WINDOW_MAX_BYTES = 128 * 1024 * 1024


def compressed(buffers: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytes]:
    """Yield one zstd frame of them all."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=_THREADS).compressobj()
    for buffer in buffers:
        if out := compressor.compress(buffer):
            yield out
    yield compressor.flush()


def plain(buffers: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytes]:
    """Yield what is in zstd frames, in steps of 1 MiB at most. One that is cut off ends early, as the tar in it shows.

    Raises EngineError where they are damaged.
    """
    source = cast(IO[bytes], _Source(buffers))  # of a file, it is only read
    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX_BYTES).stream_reader(
        source, read_across_frames=True
    )
    try:
        while out := reader.read(_STEP_BYTES):
            yield out
    except zstandard.ZstdError as exc:
        raise EngineError(f"what came from the other host is damaged: {exc}", "run the command again") from exc


def is_compressed(first: bytes | bytearray | memoryview) -> bool:
    """Whether a stream that begins so is zstd, and not a tar."""
    return bytes(first[: len(_MAGIC)]) == _MAGIC


class _Source:
    """Buffers as a file that is read."""

    def __init__(self, buffers: Iterable[bytes | bytearray | memoryview]) -> None:
        self._buffers = iter(buffers)
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> memoryview:
        while not self._rest:
            try:
                self._rest = memoryview(next(self._buffers))
            except StopIteration:
                return memoryview(b"")
        step = len(self._rest) if size < 0 else min(size, len(self._rest))
        part, self._rest = self._rest[:step], self._rest[step:]
        return part
