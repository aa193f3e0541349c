"""Complete: the index of a copied increment, and which frames have to be copied so that nothing is missing.

A backup at the target (its base) may have much of it, at other places: a line that says the same of a unit is used as
it is, and extents are found by their digests. All else comes into the data object of the copy, in whole frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from volback.archive import ranges
from volback.archive.frames import CopiedFrames, MovedIndex, joined
from volback.archive.lookup import KnownExtent, Line, Place, StoredExtents, sort_key
from volback.archive.parent import Reused
from volback.catalog.index import is_same_but_for_places
from volback.catalog.units import Frame, Piece, Unit


class CompleteIndex:
    """Composes the index of a copy, unit by unit, while its data is copied."""

    def __init__(
        self,
        backup: str,
        units: list[Reused],
        base: Iterable[Reused] = (),
        *,
        is_damaged: Callable[[Frame], bool] = lambda _: False,
    ) -> None:
        """`units` are those of the backup to copy, `base` those of one at the target (`parent.begins_of`).

        Nothing is taken from frames of the base that are damaged. Raises FormatError where the base's index is.
        """
        self.frames = CopiedFrames(backup)
        self.index = MovedIndex(backup)
        self._units = units
        wanted = {unit.begin.digest for unit in units}
        self._same: dict[bytes, Reused] = {}
        lines: list[Line] = []
        for unit in base:
            if unit.begin.digest in wanted and not any(map(is_damaged, unit.begin.frames)):
                self._same.setdefault(unit.begin.digest, unit)
            else:
                lines.append(Line.of(unit.segment, unit.number))
        self._stored = StoredExtents(lines, is_damaged)

    def slices(self) -> Iterator[ranges.Slice]:
        """Yield what has to be read of the backup's frames, in stream order. Raises FormatError."""
        for unit in self._units:
            same = self._same.get(unit.begin.digest)
            if same is not None and is_same_but_for_places(_line(unit), _line(same)):
                self.index.add_unchanged(same)
            else:
                yield from self._composed(unit.segment.unit(unit.number), same)

    def _composed(self, unit: Unit, same: Reused | None) -> Iterator[ranges.Slice]:
        known, pieces = self._stored.known(self._near(unit, same)), list[Piece]()
        for piece in unit.pieces:
            there = _there(piece, known)
            if there is not None:
                pieces += joined(there)
            else:
                pieces.append(piece._replace(frame=self.frames.place(piece.frame)))
                yield ranges.Slice(piece, 0, piece.raw_bytes)
        self.index.add(unit._replace(pieces=pieces))

    def _near(self, unit: Unit, same: Reused | None) -> list[Line]:
        """Lines of the base that can hold the unit's extents; of one with the same data that line alone."""
        if same is not None:
            return [Line.of(same.segment, same.number)]
        if not unit.members:
            return []
        return self._stored.near(sort_key(unit.members[0].path), sort_key(unit.members[-1].path))


def _line(unit: Reused) -> bytes:
    return unit.segment.line(unit.number)


def _there(piece: Piece, known: KnownExtent) -> list[tuple[Place, int, bytes]] | None:
    """The places of all extents of a piece; None where one of them is not known, so that its frame is copied."""
    found = []
    for _, size, digest in piece.extents():
        place = known(digest)
        if place is None or place.start + size > place.frame.raw_bytes:
            return None
        found.append((place, size, digest))
    return found
