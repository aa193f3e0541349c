"""Selection: a part of a backup, as a tar stream of its own."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator

from volback.archive import ranges, tar
from volback.archive.announced import Announced, check_header
from volback.catalog.units import Member, Span, Unit
from volback.errors import IntegrityError
from volback.operations.open_backup import OpenBackup
from volback.operations.read_index import VERIFY_HINT

_HEADER_ROOM = 3 * tar.BLOCK


class Selection:
    """The members at and below some paths, with the directories above them."""

    def __init__(
        self,
        backup: OpenBackup,
        paths: list[bytes],
        *,
        left_out: frozenset[bytes] = frozenset(),
        below: bool = True,
    ) -> None:
        """`left_out` are directories above the paths; `below` is whether what is below the paths is selected too."""
        self._backup = backup
        self._left_out = left_out
        self._exact = set(paths)
        self._is_below = below
        self._below = tuple(path + b"/" for path in paths if path and below)
        self._everything = below and b"" in self._exact
        self._above = {path[:at] for path in paths for at in _slashes(path)} | {b""}
        found = {member.path for unit in self._units() for member in unit.members if member.path in self._exact}
        if missing := self._exact - found:
            raise backup.lacks(min(missing))

    @classmethod
    def of(cls, backup: OpenBackup, paths: Iterable[bytes]) -> Selection:
        """The part of a backup at and below `paths`. Raises NotFoundError for a path that it lacks."""
        return cls(backup, list(paths))

    @classmethod
    def only(cls, backup: OpenBackup, paths: Collection[bytes]) -> Selection:
        """These members alone, as far as the backup has them, and the directories above them."""
        known = [path for unit in backup.around(paths) for member in unit.members if (path := member.path) in paths]
        return cls(backup, known, below=False)

    @classmethod
    def of_file(cls, backup: OpenBackup) -> Selection:
        """What a backup of a single file holds, without the directory above. Raises IntegrityError."""
        name = os.fsencode(posixpath.basename(backup.manifest.volume))
        if [(member.path, member.type) for member in backup.members() if member.path] != [(name, "f")]:
            raise IntegrityError(f"backup {backup.name} is not one of a single file", "restore it with --to DIR")
        found = cls.of(backup, [name])
        return found.without(found.above)

    @property
    def above(self) -> set[bytes]:
        """The directories above the paths, which are selected only for what is in them; the root is one."""
        below = self._below
        return set() if self._everything else {path for path in self._above - self._exact if not path.startswith(below)}

    def without(self, directories: Iterable[bytes]) -> Selection:
        """Return the same selection without some of `above`."""
        return Selection(self._backup, list(self._exact), left_out=frozenset(directories), below=self._is_below)

    def holds(self, member: Member) -> bool:
        """Whether the member is selected."""
        path = member.path
        return path not in self._left_out and (
            self._everything
            or path in self._exact
            or path.startswith(self._below)
            or (member.type == "d" and path in self._above)
        )

    def members(self) -> Iterator[Member]:
        """Yield the selected members in stream order."""
        return (member for unit in self._units() for member in unit.members if self.holds(member))

    def stream(self, count: Callable[[int], None] = lambda _: None) -> Iterator[bytes | memoryview]:
        """Yield a tar stream of the selected members; a hard link whose first name is not selected becomes a file."""
        announced = Announced(f"backup {self._backup.name}")
        buffers = self._backup.read(self._slices(announced), count)
        yield from announced.passed((buffer, buffer) for buffer in buffers)
        yield tar.END_OF_ARCHIVE

    def _units(self) -> Iterator[Unit]:
        if not self._is_below:
            return self._backup.around(self._above | self._exact)
        return self._backup.around(self._above, below=self._exact)

    def _slices(self, announced: Announced) -> Iterator[ranges.Slice]:
        for unit in self._units():
            spans, starts = {span.member.path: span for span in unit.spans()}, list(unit.starts())
            first_names: dict[bytes, bytes] = {}
            for span in spans.values():
                if not self.holds(span.member):
                    continue
                target = spans.get(span.member.link) if span.member.type == "h" else None
                if target is None or self.holds(target.member):
                    announced.announce([span])
                    yield from ranges.part(unit, span.start, span.stop, starts=starts)
                else:
                    yield from self._instead(unit, span, target, first_names, announced)

    def _instead(
        self,
        unit: Unit,
        span: Span,
        target: Span,
        first_names: dict[bytes, bytes],
        announced: Announced,
    ) -> Iterator[ranges.Slice]:
        """A hard link without its first name: the data under its own name, or a link to the name that carries it
        now."""
        path, first = span.member.path, target.member.path
        origin = span if first in first_names else target
        header = read_member_header(self._backup, unit, origin)
        link = first_names.get(first)
        renamed = tar.build_header(header, path=path, link=link)
        first_names.setdefault(first, path)
        data = target.start + len(header)
        stop = data if link is not None else target.stop
        member = origin.member._replace(path=path, link=origin.member.link if link is None else link)
        announced.announce([Span(member, 0, len(renamed) + stop - data)])
        if data == stop:
            yield ranges.Slice(unit.pieces[0], 0, 0, renamed)
            return
        yield from ranges.part(unit, data, stop, before=renamed)


def read_member_header(backup: OpenBackup, unit: Unit, span: Span) -> bytes:
    """Return a member's header bytes: pax header, its records, ustar header.

    Raises IntegrityError where they do not lie within the span, or are not what the index announces.
    """
    size = _HEADER_ROOM
    while True:
        stop = min(span.start + size, span.stop)
        data = b"".join(backup.read(ranges.part(unit, span.start, stop)))
        size = tar.BLOCK + (tar.extended_size(data, 0) if len(data) >= tar.BLOCK else 0)
        if size <= len(data):
            check_header(span, data[:size], f"backup {backup.name}")
            return data[:size]
        if stop == span.stop:
            path = span.member.path.decode(errors="backslashreplace")
            raise IntegrityError(f"index of {backup.name} does not fit its data at {path!r}", VERIFY_HINT)


def _slashes(path: bytes) -> Iterator[int]:
    at = path.find(b"/")
    while at >= 0:
        yield at
        at = path.find(b"/", at + 1)
