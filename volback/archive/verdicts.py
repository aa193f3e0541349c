"""Verdicts: which paths of a volume its exclude patterns leave out, remembered from one scan for the next.

The first scan is made while containers run, the second one while they are down: only paths that are new then are
matched. Called by `plan`; nothing here knows of scans.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from volback.policy.excludes import exclusion

REMEMBERED_AT_MOST = 16_000_000
"""Paths, of 8 bytes each. What a scan finds beyond is matched again."""
_EXCLUDED = 1
_BITS = 0xFFFF_FFFF_FFFF_FFFE


class Verdicts:
    """What the patterns say of each path. Raises UsageError for a pattern that is not valid."""

    def __init__(self, patterns: Iterable[str] = (), *, limit: int = REMEMBERED_AT_MOST) -> None:
        self.matched = 0
        """How many paths were matched against the patterns."""
        self._pattern = exclusion(patterns)
        self._left = limit
        self._known = [array("Q") for _ in range(256)]
        """By a hash's first byte. A hash has 63 bits and a key of this process, and its last bit is the verdict: two
        paths of ten million have the same one once in a hundred thousand volumes, and no name can be made for it."""

    @property
    def has_patterns(self) -> bool:
        """Whether any path can be excluded."""
        return self._pattern is not None

    def learn(self, path: bytes) -> bool:
        """Return whether the path is excluded, and remember it; call `end_learning` before asking for what is known."""
        excluded = self._match(path)
        if self._pattern is not None and self._left:
            self._left -= 1
            hashed = _hash(path)
            self._known[hashed >> 56].append(hashed | excluded)
        return excluded

    def end_learning(self) -> None:
        """What was learned is known now."""
        self._known = [array("Q", sorted(hashes)) for hashes in self._known]

    def excludes(self, path: bytes) -> bool:
        """Return whether the path is excluded; it is matched if it is not known."""
        if self._pattern is None:
            return False
        hashed = _hash(path)
        hashes = self._known[hashed >> 56]
        at = bisect_left(hashes, hashed)
        if at < len(hashes) and hashes[at] & _BITS == hashed:
            return bool(hashes[at] & _EXCLUDED)
        return self._match(path)

    def _match(self, path: bytes) -> bool:
        if self._pattern is None:
            return False
        self.matched += 1
        return self._pattern.match(path) is not None


def _hash(path: bytes) -> int:
    return hash(path) & _BITS
