"""Lookup: where an extent is stored already, by its digest.

What lies in units near the same paths is looked up first, so that memory does not grow with the volume; then all
others, so that what was renamed is found too, and unchanged large files, of which something may be a copy.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from volback.archive.segments import Segment
from volback.catalog.index import first_path_of
from volback.catalog.units import Frame, Unit
from volback.errors import FormatError

log = logging.getLogger(__name__)

_PATH_BYTES = 4096
"""So much of a path is kept to find what lies near another one."""
WIDE_EXTENTS_MAX = 1_000_000
"""So many extents are looked up by digest alone; each takes about 200 bytes."""
COPIED_EXTENTS_MAX = 250_000
"""So many of unchanged files: 16 GB of blocks, which take 50 MB. Not of groups: to decode the lines of 58,000 small
files takes 0.9 s."""


class Place(NamedTuple):
    """Where an extent is stored: in a frame, from `start` of its raw bytes on."""

    frame: Frame
    start: int


KnownExtent = Callable[[bytes], Place | None]
"""The place of the extent with this SHA-256 (binary), if there is one; called from several threads at once."""


def no_extent(_digest: bytes) -> Place | None:
    """No extent is known."""
    return None


class Line(NamedTuple):
    """One line of an index, and what it is sorted by: the first path of its unit; empty for the end of the archive."""

    segment: Segment
    number: int
    path: bytes

    @classmethod
    def of(cls, segment: Segment, number: int) -> Line:
        """Raises FormatError."""
        return cls(segment, number, sort_key(first_path_of(segment.line(number)) or b""))


def sort_key(path: bytes) -> bytes:
    """What the units of an index are sorted by."""
    return path[:_PATH_BYTES].replace(b"/", b"\0")


def places_of(unit: Unit, is_damaged: Callable[[Frame], bool]) -> Iterator[tuple[bytes, Place]]:
    """Digest and place of each extent of a unit, but of those in damaged frames."""
    for piece in unit.pieces:
        if is_damaged(piece.frame):
            continue
        for start, _, digest in piece.extents():
            yield digest, Place(piece.frame, start)


class StoredExtents:
    """The extents of some lines of an index."""

    def __init__(
        self, lines: Iterable[Line], is_damaged: Callable[[Frame], bool], unchanged_files: Iterable[Line] = ()
    ) -> None:
        """Nothing is taken from damaged frames. `unchanged_files`: large ones, which are looked up by digest alone."""
        self.lines = sorted(lines, key=_path)
        """In the order of their paths."""
        self._unchanged_files = unchanged_files
        self._is_damaged = is_damaged
        self._wide: dict[bytes, Place] | None = None
        self._lock = threading.Lock()

    def known(self, near: Iterable[Line]) -> KnownExtent:
        """The lookup for the extents of one unit: first in the lines that lie near it, then in all."""
        found: dict[bytes, Place] = {}
        for line in near:
            found.update(self._places(line))

        def known(digest: bytes) -> Place | None:
            return found.get(digest) or self._everywhere().get(digest)

        return known

    def near(self, first: bytes, last: bytes) -> list[Line]:
        """The lines that can hold the paths from `first` to `last` (as `sort_key` returns them)."""
        at = max(bisect_right(self.lines, first, key=_path) - 1, 0)
        return self.lines[at : bisect_right(self.lines, last, key=_path)]

    def _everywhere(self) -> dict[bytes, Place]:
        with self._lock:
            if self._wide is None:
                self._wide = self._by_digest(self._unchanged_files, COPIED_EXTENTS_MAX)
                self._wide |= self._by_digest(self.lines, WIDE_EXTENTS_MAX)
            return self._wide

    def _by_digest(self, lines: Iterable[Line], at_most: int) -> dict[bytes, Place]:
        found: dict[bytes, Place] = {}
        for line in lines:
            if len(found) > at_most:
                break
            found.update(self._places(line))
        return found

    def _places(self, line: Line) -> Iterator[tuple[bytes, Place]]:
        try:
            unit = line.segment.unit(line.number)
        except FormatError as exc:
            log.info("nothing of a unit of backup %s is used again: %s", line.segment.backup, exc.message)
            return
        yield from places_of(unit, self._is_damaged)


def _path(line: Line) -> bytes:
    return line.path
