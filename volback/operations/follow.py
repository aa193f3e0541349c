"""Follow: a backup that was opened before it was repacked is read on, from the places that its newest revision names.

The extents of a backup are the same in each revision, in the same order: only where they lie is another thing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from volback.archive.parent import begins_of
from volback.archive.ranges import Slice
from volback.archive.segments import Segment
from volback.catalog.listing import key_of
from volback.catalog.model import Manifest
from volback.catalog.units import Extent, Frame, Piece
from volback.context.repository import Repository
from volback.errors import IntegrityError, NotFoundError

log = logging.getLogger(__name__)


def newer_revision(repository: Repository, manifest: Manifest) -> Manifest | None:
    """The newest revision of a backup, opened, if it is a later one of the same backup.

    Raises IdentityNeeded.
    """
    try:
        newest = repository.catalog.read(key_of(manifest))
    except (NotFoundError, IntegrityError) as exc:
        log.debug("%s has no later revision: %s", manifest.name, exc.message)
        return None
    newest = repository.opened(newest)
    is_later = newest.revision > manifest.revision and newest.digest == manifest.digest
    return newest if is_later else None


class _Place(NamedTuple):
    frame: Frame
    extent: Extent


class Moved:
    """Where the extents lie now that were in data objects which a later revision does not use any more."""

    def __init__(self, before: Iterable[Segment], after: Iterable[Segment], gone: Collection[str]) -> None:
        """The indexes of both revisions, and the object ids of these data objects. Raises IntegrityError."""
        self._gone = gone
        self._places: dict[tuple[str, int, int], _Place] = {}
        for old, new in zip(begins_of(before), begins_of(after), strict=True):
            if any(frame.backup in gone for frame in old.begin.frames):
                self._note(_extents(old.segment, old.number), _extents(new.segment, new.number))

    def _note(self, before: Iterator[_Place], after: Iterator[_Place]) -> None:
        for old, new in zip(before, after, strict=True):
            if old.frame.backup in self._gone:
                self._places[old.frame.backup, old.frame.offset, old.extent.start] = new

    def all(self, slices: Iterable[Slice]) -> Iterator[Slice]:
        """Yield the same bytes from where they lie now."""
        return (moved for item in slices for moved in self._slices(item))

    def _slices(self, item: Slice) -> Iterator[Slice]:
        piece, before = item.piece, item.before
        if piece.frame.backup not in self._gone or item.start == item.stop:
            yield item
            return
        for start, size, _ in piece.extents():
            at = start - piece.start
            first, last = max(item.start - at, 0), min(item.stop - at, size)
            if first < last:
                new = self._places[piece.frame.backup, piece.frame.offset, start]
                yield Slice(Piece(new.frame, new.extent.start, [size], new.extent.digest), first, last, before)
                before = b""


def _extents(segment: Segment, number: int) -> Iterator[_Place]:
    return (_Place(piece.frame, extent) for piece in segment.unit(number).pieces for extent in piece.extents())
