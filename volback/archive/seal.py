"""Seal raw frames, unseal stored ones: digests both ways, in threads, in order. The codec converts the bytes.

SHA-256 and zstd release the interpreter lock, so a small thread pool uses every core.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from volback.archive.codec import FrameCodec, open_frame
from volback.archive.cut import Cut, RawFrame, Reused, UnitEnd
from volback.archive.parent import KnownFrame, no_frame
from volback.archive.ranges import Slice
from volback.workers import Workers

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class SealedFrame:
    """One new frame: its stored bytes, and the size and digest of its raw bytes."""

    stored: bytes
    raw_bytes: int
    sha256: str
    """Of the raw bytes, hex."""


Sealed = SealedFrame | Reused | UnitEnd


def seal(
    cuts: Iterable[Cut], codec: FrameCodec, *, known: KnownFrame = no_frame, threads: int | None = None
) -> Generator[Sealed, None, None]:
    """Yield each raw frame sealed, or as the known frame that has its digest; Reused and UnitEnd unchanged.

    The digest comes before the codec, so a known frame costs no compression. Order is kept; works ahead by a bounded
    number of frames. The threads call `known`.
    """

    def seal_one(cut: Cut) -> Sealed:
        if not isinstance(cut, RawFrame):
            return cut
        raw = cut.pieces[0] if len(cut.pieces) == 1 else b"".join(cut.pieces)
        sha256 = hashlib.sha256(raw).hexdigest()
        frame = known(sha256)
        if frame is not None and (frame.raw_bytes, frame.sha256) == (len(raw), sha256):
            return Reused(frame)
        return SealedFrame(codec.seal(raw), len(raw), sha256)

    return in_order(seal_one, cuts, threads=threads, inline=lambda cut: not isinstance(cut, RawFrame))


def unseal(
    fetched: Iterable[tuple[Slice, bytes | memoryview]], codec: FrameCodec, *, threads: int | None = None
) -> Generator[tuple[Slice, bytes], None, None]:
    """Yield each slice with its frame's raw bytes, in order, each digest verified. Raises IntegrityError."""

    def unseal_one(pair: tuple[Slice, bytes | memoryview]) -> tuple[Slice, bytes]:
        return pair[0], open_frame(codec, pair[0].frame, pair[1])

    return in_order(unseal_one, fetched, threads=threads)


def in_order(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    threads: int | None = None,
    inline: Callable[[_Item], bool] | None = None,
) -> Generator[_Result, None, None]:
    """Map `work` over `items` in threads; results in order, at most 4 frames a thread in flight.

    Items for which `inline` returns true are processed without a thread.
    """
    count = threads or len(os.sched_getaffinity(0))
    flight: deque[Future[_Result]] = deque()
    with Workers(count, thread_name_prefix="frames") as pool:
        try:
            for item in items:
                flight.append(_done(work(item)) if inline is not None and inline(item) else pool.submit(work, item))
                while flight and (len(flight) > 4 * count or flight[0].done()):
                    yield flight.popleft().result()
            while flight:
                yield flight.popleft().result()
        finally:
            for future in flight:
                future.cancel()
            if isinstance(items, Generator):
                items.close()  # its reads in progress end with this generator, not when it is garbage-collected


def _done(result: _Result) -> Future[_Result]:
    future: Future[_Result] = Future()
    future.set_result(result)
    return future
