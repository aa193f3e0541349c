"""Paths: which units of an index can hold a path, so that a lookup decodes those and skips the others.

A stream is sorted by path, except for hard links, which come where the first name of their inode comes. So the lowest
and the highest path of each unit are kept, and no order of the units is relied on: two paths per unit, not one per
member. Seen with a million files in 1,000 units: the first lookup takes as long as decoding the index (8 s on a loaded
core), a later one 0.05 to 0.1 s; 180 bytes a unit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection

from volback.catalog.units import Unit


class PathRanges:
    """The lowest and highest path of each unit decoded so far; units are numbered from 0, in stream order."""

    def __init__(self) -> None:
        self._ranges: list[tuple[bytes, bytes] | None] = []

    def note(self, number: int, unit: Unit) -> None:
        """Keep the unit's range, if it is the first one not known yet."""
        if number == len(self._ranges):
            keys = [_key(member.path) for member in unit.members]
            self._ranges.append((min(keys), max(keys)) if keys else None)

    def around(self, paths: Collection[bytes], *, below: Collection[bytes] = ()) -> Callable[[int], bool]:
        """Return whether a unit, by its number, can hold one of `paths`, or a path at or below one of `below`.

        True for a unit that is not known yet.
        """
        points = sorted({_key(path) for path in (*paths, *below)})
        trees = tuple(_key(path) + b"\0" for path in below)
        everything = b"" in below

        def can_hold(number: int) -> bool:
            if everything or number >= len(self._ranges):
                return True
            found = self._ranges[number]
            if found is None:
                return False
            low, high = found
            at = bisect_left(points, low)
            return (at < len(points) and points[at] <= high) or low.startswith(trees)

        return can_hold


def _key(path: bytes) -> bytes:
    """What lies below a directory comes right after it: `/` sorts before every byte of a name."""
    return path.replace(b"/", b"\0")
