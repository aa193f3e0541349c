"""Codec: how one frame, and the index, are kept as stored bytes. Plain zstd.

A backup and an open backup carry their codec. `check_extents` verifies the output of a codec against the index before a
byte of it is used. Foreign archives are decompressed in `decompress`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Protocol

import zstandard

from volback.catalog.model import FRAME_MAX_BYTES
from volback.catalog.units import DIGEST_BYTES, Frame, Piece
from volback.errors import DamagedFrame, IntegrityError

DEFAULT_LEVEL = 3
_FRAME_BYTES = 1024 * 1024
WINDOW_MAX_BYTES = 8 * 1024 * 1024
"""Of an index. Every reader allocates what a stream asks for, up to this."""


class FrameCodec(Protocol):
    """Turns the raw bytes of one frame into its stored bytes, and back. Called from several threads at once."""

    def seal(self, raw: bytes | memoryview) -> bytes:
        """Return the stored bytes of one frame."""

    def unseal(self, stored: bytes | memoryview, raw_bytes: int) -> bytes:
        """Return the raw bytes, not yet verified; never more than `raw_bytes` bytes. Raises IntegrityError."""


class _OfThread(threading.local):
    """What each thread makes for itself, once: a decompressor takes a sixth of the time of a frame of 512 KiB."""

    def __init__(self, level: int) -> None:
        self._level = level

    @cached_property
    def compressor(self) -> zstandard.ZstdCompressor:
        return _frame_compressor(self._level)

    @cached_property
    def decompressor(self) -> zstandard.ZstdDecompressor:
        return zstandard.ZstdDecompressor()


class ZstdCodec:
    """Each frame is one zstd frame with its size and checksum: laid end to end they are a standard zstd file."""

    def __init__(self, level: int = DEFAULT_LEVEL) -> None:
        self._own = _OfThread(level)

    def seal(self, raw: bytes | memoryview) -> bytes:
        """Compress one frame."""
        return self._own.compressor.compress(raw)

    def unseal(self, stored: bytes | memoryview, raw_bytes: int) -> bytes:
        """Decompress one frame. Raises IntegrityError, also for a frame that states another size."""
        try:
            if zstandard.frame_content_size(stored) != raw_bytes:
                raise IntegrityError("its size is not the index's")
            return self._own.decompressor.decompress(stored, max_output_size=raw_bytes, allow_extra_data=False)
        except zstandard.ZstdError as exc:
            raise IntegrityError(str(exc)) from exc


def open_frame(codec: FrameCodec, frame: Frame, stored: bytes | memoryview) -> bytes:
    """Return the raw bytes of one frame. Raises DamagedFrame unless the sizes are the index's.

    The codec is not trusted: what it returns is verified extent by extent before it is used (`check_extents`).
    """
    if len(stored) != frame.stored_bytes:
        raise _damaged(frame, f"it is cut short: {len(stored)} of {frame.stored_bytes} bytes")
    if frame.raw_bytes > FRAME_MAX_BYTES:
        raise _damaged(frame, f"it claims {frame.raw_bytes} bytes, more than a frame may have")
    try:
        raw = codec.unseal(stored, frame.raw_bytes)
    except IntegrityError as exc:
        raise _damaged(frame, exc.message) from exc
    if len(raw) != frame.raw_bytes:
        raise _damaged(frame, f"it holds {len(raw)} bytes, not {frame.raw_bytes}")
    return raw


def check_extents(piece: Piece, raw: bytes, start: int, stop: int) -> None:
    """Verify the extents of a piece that hold bytes `start` to `stop` of it, in the raw bytes of its frame.

    Raises DamagedFrame.
    """
    view, first, end = memoryview(raw), piece.start + start, piece.start + stop
    at, digests_at = piece.start, 0
    for size in piece.sizes:  # not by `Piece.extents`: in a restore each turn of this loop holds the interpreter
        if at >= end:
            return
        after, digests_to = at + size, digests_at + DIGEST_BYTES
        if after > first and hashlib.sha256(view[at:after]).digest() != piece.digests[digests_at:digests_to]:
            raise _damaged(piece.frame, "its digest is not the index's")
        at, digests_at = after, digests_to


def _damaged(frame: Frame, why: str) -> DamagedFrame:
    return DamagedFrame(frame.backup, frame.offset, why)


def compress_lines(lines: bytes, level: int = DEFAULT_LEVEL) -> bytes:
    """One segment of an index: whole lines in one zstd frame."""
    return lines_compressor(level)(lines)


def lines_compressor(level: int) -> Callable[[bytes], bytes]:
    """`compress_lines` for many segments, in one thread: making a compressor takes as long as one of them."""
    return zstandard.ZstdCompressor(level=max(level, _INDEX_LEVEL), write_checksum=True).compress


def compress_after(lines: bytes, dictionary: bytes) -> bytes:
    """One segment whose lines are much like those of an earlier one.

    Tables as long as the lines: with those of a level, a line of 1.6 MB found nothing again of its former state.
    """
    size_log = min(max(len(lines) - 1, 1).bit_length(), _AFTER_LOG_MAX)
    parameters = zstandard.ZstdCompressionParameters(
        window_log=max(size_log, zstandard.WINDOWLOG_MIN), hash_log=size_log, chain_log=size_log, min_match=5,
        strategy=zstandard.STRATEGY_DFAST, write_checksum=True, write_content_size=True,
    )  # fmt: skip
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_dictionary(dictionary)).compress(lines)


def _dictionary(lines: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(lines, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def frame_length(stored: memoryview) -> int:
    """The length of the zstd frame with which `stored` begins (RFC 8878, section 3.1.1). Raises IntegrityError."""
    try:
        at = zstandard.frame_header_size(stored)
        has_checksum = zstandard.get_frame_parameters(stored).has_checksum
    except zstandard.ZstdError as exc:
        raise IntegrityError(f"not a zstd frame: {exc}") from exc
    while True:
        block = int.from_bytes(stored[at : at + 3], "little")
        is_last = bool(block & 1)
        at += 3 + (1 if block >> 1 & 3 == _RLE_BLOCK else block >> 3) + 4 * (is_last and has_checksum)
        if at > len(stored):
            raise IntegrityError("a zstd frame is cut short")
        if is_last:
            return at


_LINES_BYTES = 64 * 1024
_RLE_BLOCK = 1
_INDEX_LEVEL = 6
_AFTER_LOG_MAX = 23
"""8 MiB, the largest window that a reader allows."""


def decompress(stored: bytes | memoryview, *, what: str, dictionary: bytes = b"") -> Iterator[bytes]:
    """Yield the lines of segments again, in buffers of at most 1 MiB. Raises IntegrityError.

    A buffer is allocated whole before it is known how little comes: it is as large as the first segment says it is.
    """
    size = min(max(_stated_size(stored), _LINES_BYTES), 16 * _LINES_BYTES)
    decompressor = zstandard.ZstdDecompressor(
        max_window_size=WINDOW_MAX_BYTES, dict_data=_dictionary(dictionary) if dictionary else None
    )
    reader = decompressor.stream_reader(stored, read_across_frames=True)
    try:
        while buffer := reader.read(size):
            yield buffer
    except zstandard.ZstdError as exc:
        raise IntegrityError(f"{what} is damaged: {exc}") from exc


def _stated_size(stored: bytes | memoryview) -> int:
    """What the first frame holds, in bytes, as it says; less where it says nothing or is none (its reader says why)."""
    try:
        return zstandard.frame_content_size(stored)
    except zstandard.ZstdError:
        return 0


def _frame_compressor(level: int) -> zstandard.ZstdCompressor:
    """For frames of 1 MiB. The default level's tables are small enough for a core's own cache.

    zstd's own for level 3 and 1 MiB (chain 16, hash 17) took 2.41 s of CPU for 300 MB of mixed files and 1.08 s for
    250 MB of a system's; with these it was 1.78 s and 1.03 s, for 0.7 % and 1.3 % more bytes (medians of 3).
    """
    if level != DEFAULT_LEVEL:
        return zstandard.ZstdCompressor(level=level, write_checksum=True)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=_FRAME_BYTES, chain_log=14, hash_log=15, write_checksum=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters)
