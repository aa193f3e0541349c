"""Repacked frames: what is used of the frames of old data objects goes into a new one.

A frame that is mostly used is copied byte for byte. Of any other, the extents that are used are packed, with those of
others, into new frames. Every extent is verified before it is written anew; what reads the frames does that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from volback.archive.codec import FrameCodec
from volback.archive.frames import Verified
from volback.catalog.model import ObjectDigest
from volback.catalog.units import DIGEST_BYTES, Frame, Piece, Unit

PACK_BYTES = 1024 * 1024
"""Raw bytes of a frame of packed extents: larger ones compress better, and are read whole for one extent."""
MOSTLY = 0.9
"""A frame of which less is used is not copied as it is: who restores the backup would read the rest of it too."""


@dataclass(slots=True)
class FrameUse:
    """One frame, and which of its extents are used; 512 bytes of the frame are one bit."""

    frame: Frame
    raw_bytes: int = 0
    """Of the extents that are used."""
    extents: int = 0
    """How many they are."""
    is_scattered: bool = False
    """Whether its extents lie far from one another in the stream: copied as it is, it would stay so."""
    _seen: int = 0

    def note(self, piece: Piece) -> None:
        """Count the extents of a piece in this frame, each once: none is smaller than 512 bytes."""
        start = piece.start
        for size in piece.sizes:
            bit = 1 << (start >> 9)
            if not self._seen & bit:
                self._seen |= bit
                self.raw_bytes += size
                self.extents += 1
            start += size

    @property
    def share(self) -> float:
        """How much of it is used, of 1."""
        return min(self.raw_bytes / max(self.frame.raw_bytes, 1), 1.0)

    @property
    def is_copied(self) -> bool:
        """Whether it is copied as it is."""
        return self.share >= MOSTLY and not self.is_scattered

    @property
    def used_bytes(self) -> int:
        """What is written of it where it is repacked: all, or its stored bytes in proportion to what is used."""
        return self.frame.stored_bytes if self.is_copied else round(self.frame.stored_bytes * self.share)


Uses = Mapping[str, Mapping[int, FrameUse]]
"""Frames by object id and offset."""


@dataclass(slots=True)
class _Packing:
    """The frame that is being filled."""

    number: int = 0
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class RepackedFrames:
    """Where the extents of old data objects lie in a new one. Slices may come in any order."""

    def __init__(self, object_id: str, uses: Uses, codec: FrameCodec) -> None:
        """`uses` has the frames of all objects that are repacked into the new one."""
        self._object_id = object_id
        self._uses = uses
        self._codec = codec
        self._copied: dict[tuple[str, int], Frame] = {}
        self._packed: dict[tuple[str, int], dict[int, tuple[int, int]]] = {}
        """Of each old frame, by the start of an extent: the number of the new frame, and the start there."""
        self._frames: list[Frame] = []
        """Those of packed extents, by their numbers."""
        self._packing = _Packing()
        self._written = 0
        self._data = hashlib.sha256()

    def lacks(self, piece: Piece) -> bool:
        """Whether extents of this piece belong into the new object, and were not given to it yet."""
        frame = piece.frame
        place = frame.backup, frame.offset
        if frame.backup not in self._uses or place in self._copied:
            return False
        starts = self._packed.get(place, {})
        return any(start not in starts for start, _, _ in piece.extents())

    def data(self, verified: Verified) -> Iterator[bytes | memoryview]:
        """Yield the new object's bytes, from pieces that have been verified, whole; closes `verified`."""
        with closing(verified):
            for fetched, raw in verified:
                held, piece = fetched.frame, fetched.slice.piece
                if self._is_copied(held.frame):
                    if (place := (held.frame.backup, held.frame.offset)) not in self._copied:
                        self._copied[place] = self._placed(len(held.stored), held.frame.raw_bytes)
                        yield self._hashed(held.stored)
                else:
                    self._pack(piece, raw)
                    if self._packing.size >= PACK_BYTES:
                        yield self._end_frame()
            if self._packing.parts:
                yield self._end_frame()

    def digest(self) -> ObjectDigest:
        """Size and SHA-256 of the new object, once `data` has ended."""
        return ObjectDigest(size_bytes=self._written, sha256=self._data.hexdigest())

    def moved(self, piece: Piece) -> Iterator[Piece]:
        """Yield the same extents where they lie in the new object, once `data` has ended."""
        place = piece.frame.backup, piece.frame.offset
        if (copied := self._copied.get(place)) is not None:
            yield piece._replace(frame=copied)
            return
        places, number = self._packed[place], 0
        while number < len(piece.sizes):
            yield (joined := self._joined(piece, number, places))
            number += len(joined.sizes)

    def _joined(self, piece: Piece, first: int, places: Mapping[int, tuple[int, int]]) -> Piece:
        """As many extents of a piece, from that number on, as follow one another in the new object too."""
        at = piece.start + sum(piece.sizes[:first])
        frame, start = places[at]
        stop, last = start, first
        while last < len(piece.sizes) and places[at] == (frame, stop):
            stop += piece.sizes[last]
            at += piece.sizes[last]
            last += 1
        digests = piece.digests[first * DIGEST_BYTES : last * DIGEST_BYTES]
        return Piece(self._frames[frame], start, piece.sizes[first:last], digests)

    def _is_copied(self, frame: Frame) -> bool:
        return self._uses[frame.backup][frame.offset].is_copied

    def _pack(self, piece: Piece, raw: memoryview) -> None:
        places = self._packed.setdefault((piece.frame.backup, piece.frame.offset), {})
        packing = self._packing
        for start, size, _ in piece.extents():
            if start not in places:
                places[start] = packing.number, packing.size
                at = start - piece.start
                packing.parts.append(bytes(raw[at : at + size]))
                packing.size += size

    def _end_frame(self) -> bytes | memoryview:
        packing = self._packing
        stored = self._codec.seal(b"".join(packing.parts))
        self._frames.append(self._placed(len(stored), packing.size))
        self._packing = _Packing(packing.number + 1)
        return self._hashed(stored)

    def _placed(self, stored_bytes: int, raw_bytes: int) -> Frame:
        return Frame(self._object_id, self._written, stored_bytes, raw_bytes)

    def _hashed(self, stored: bytes | memoryview) -> bytes | memoryview:
        self._data.update(stored)
        self._written += len(stored)
        return stored


def moved(unit: Unit, places: Mapping[str, RepackedFrames]) -> Unit:
    """Return a unit whose extents lie in new objects, by the object ids of the old ones; they are the same."""
    pieces: list[Piece] = []
    for piece in unit.pieces:
        for new in [piece] if (place := places.get(piece.frame.backup)) is None else place.moved(piece):
            before = pieces[-1] if pieces else None
            if before is not None and before.frame == new.frame and before.start + before.raw_bytes == new.start:
                pieces[-1] = Piece(new.frame, before.start, before.sizes + new.sizes, before.digests + new.digests)
            else:
                pieces.append(new)
    return unit._replace(pieces=pieces)
