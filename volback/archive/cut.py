"""Cut: the tar stream of a plan into the raw frames of its units.

Members are matched against the plan in order: the fast path reads five fields of a header, the slow path reads all of
it. A planned member that the stream lacks vanished between scan and read. A unit that the parent has is not in the
stream: its frames are passed on as they are stored there. Nothing here compresses; `seal` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from volback.archive import tar
from volback.archive.parent import KnownUnit, no_unit
from volback.archive.plan import Entry, Plan, PlannedUnit
from volback.archive.window import Buffer, Window
from volback.catalog.model import FRAME_MAX_BYTES, Frame, Member, Unit, UnitKind
from volback.errors import EngineError, IntegrityError

BLOCK_BYTES = 1024 * 1024
"""Data of a file unit is cut into frames of this size."""
SPLIT_BYTES = 4 * 1024 * 1024
"""A group or header frame that grew beyond this while it was read is cut at this size."""
assert SPLIT_BYTES + BLOCK_BYTES <= FRAME_MAX_BYTES

_NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One frame's raw bytes, as pieces of the buffers that contain it."""

    pieces: list[memoryview]


@dataclass(frozen=True, slots=True)
class Reused:
    """One frame that is stored in an earlier data object."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class UnitEnd:
    """The end of a unit: the frames since the last UnitEnd belong to it."""

    kind: UnitKind
    members: list[Member]


Cut = RawFrame | Reused | UnitEnd


@dataclass(slots=True)
class PrivilegedAttribute:
    """How many members have one attribute, and the first few of them."""

    members: int = 0
    paths: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class CutReport:
    """What the cutter has found; read it after the stream has ended."""

    raw_bytes: int = 0
    """Of the whole stream as it is stored, including reused frames and the end of the archive."""
    members: int = 0
    vanished: list[bytes] = field(default_factory=list)
    privileged: dict[str, PrivilegedAttribute] = field(default_factory=dict)
    """By name: the attributes that a restore sets only with CAP_SYS_ADMIN."""


class Cutter:
    """Cuts one stream. `report` is complete once `cut` is exhausted.

    `reused` returns the parent's unit for a planned unit if that is used instead; tar must not get the names of such a
    unit (`Plan.names`).
    """

    def __init__(self, plan: Plan, reused: KnownUnit = no_unit) -> None:
        self.plan = plan
        self.report = CutReport()
        self._reused = reused
        self._next = 0
        self._links: tuple[bytes, ...] = ()

    def cut(self, stream: Iterable[Buffer]) -> Iterator[Cut]:
        """Yield the frames of each unit, then its UnitEnd; the end-of-archive unit comes last, computed.

        Raises IntegrityError if the stream ends early or holds what was not planned, EngineError if a directory
        became a symlink since the scan: tar then reads through the link.
        """
        window = Window(stream)
        for unit in self.plan.units:
            self._next = unit.start
            if (known := self._reused(unit)) is not None:
                yield from self._reuse(known)
            elif unit.kind == "file":
                yield from self._cut_file(window, unit)
            else:
                yield from self._cut_group(window, unit)
        yield from self._end_archive(window)

    def _reuse(self, unit: Unit) -> Iterator[Cut]:
        yield from map(Reused, unit.frames)
        yield UnitEnd(unit.kind, unit.members)
        self.report.members += len(unit.members)
        self.report.raw_bytes += unit.raw_bytes

    def _end_archive(self, window: Window) -> Iterator[Cut]:
        """tar's own end is checked, not kept: its padding depends on what tar wrote, which does not include reused
        units."""
        if not tar.is_end(window.peek(2 * tar.BLOCK)):
            raise IntegrityError("tar stream holds a member that was not planned")
        window.expect_zeros()
        self.report.raw_bytes += window.offset
        end = tar.end_of_archive(self.report.raw_bytes)
        yield RawFrame([memoryview(end)])
        yield UnitEnd("end", [])
        self.report.raw_bytes += len(end)

    def _cut_group(self, window: Window, unit: PlannedUnit) -> Iterator[Cut]:
        begin = window.offset
        members: list[Member] = []
        while (found := self._member(window, unit, begin)) is not None:
            member, data_bytes = found
            members.append(member)
            while window.held + data_bytes > SPLIT_BYTES:
                part = SPLIT_BYTES - min(window.held, SPLIT_BYTES)
                window.skip(part)
                data_bytes -= part
                yield RawFrame(window.take(SPLIT_BYTES))
            window.skip(data_bytes)
        yield from self._end_unit(window, unit.kind, members)

    def _cut_file(self, window: Window, unit: PlannedUnit) -> Iterator[Cut]:
        begin = window.offset
        members: list[Member] = []
        while (found := self._member(window, unit, begin)) is not None:
            member, data_bytes = found
            members.append(member)
            if not data_bytes:
                continue
            yield from _split(window)
            while data_bytes:
                part = min(data_bytes, BLOCK_BYTES)
                window.skip(part)
                data_bytes -= part
                yield RawFrame(window.take())
        yield from self._end_unit(window, unit.kind, members)

    def _end_unit(self, window: Window, kind: UnitKind, members: list[Member]) -> Iterator[Cut]:
        if window.held:
            yield from _split(window)
        if members:
            self.report.members += len(members)
            yield UnitEnd(kind, members)

    def _member(self, window: Window, unit: PlannedUnit, begin: int) -> tuple[Member, int] | None:
        """Step over the next header if it is a member of the unit; return it and its data's size."""
        if self._next >= unit.stop:
            return None
        entry = self.plan.entry(self._next)
        offset = window.offset - begin
        extended = window.peek_extended()
        buf, at = window.buffer, window.at + extended
        name = b"./" + entry.path
        if entry.type == "d" and entry.path:
            name += b"/"
        if (
            len(name) < 100
            and name.isascii()
            and buf[at + 156] == _FLAGS[entry.type]
            and buf.startswith(name + b"\0", at)
            and buf.startswith(b"%07o\0%07o\0%07o\0" % (entry.mode, entry.uid, entry.gid), at + 100)
            and (entry.type != "l" or _links_to(entry.link, buf, at, extended))
            and (entry.type != "f" or tar.number(buf[at + 124 : at + 136]) == entry.size_bytes)
            and (not extended or _BESIDE_TIME.search(buf, at - extended, at) is None)
        ):
            if entry.path.startswith(self._links):
                raise self._read_through_link(entry.path)
            if extended and buf.find(tar.SECURITY_RECORD, at - extended, at) >= 0:
                self._note_privileged(entry.path, tar.read_header(window.peek(extended + tar.BLOCK)))
            window.skip(extended + tar.BLOCK)
            self._next += 1
            return _planned(entry, offset), tar.padded(entry.size_bytes) if entry.type == "f" else 0
        return self._odd_member(window, unit, extended, offset)

    def _odd_member(self, window: Window, unit: PlannedUnit, extended: int, offset: int) -> tuple[Member, int] | None:
        block = window.peek(extended + tar.BLOCK)
        if not extended and tar.is_end(block):
            self._vanish(unit.stop)
            return None
        header = tar.read_header(block)
        number = self._find(header.path, unit)
        if number is None:
            self._vanish(unit.stop)
            return None
        if header.path.startswith(self._links):
            raise self._read_through_link(header.path)
        self._note_privileged(header.path, header)
        self._vanish(number)
        self._next = number + 1
        window.skip(header.header_bytes)
        entry = self.plan.entry(number)
        if entry.type == "d" and header.type == "l":
            self._links += (entry.path + b"/",)
        return _as_stored(entry, header, offset), header.data_bytes

    def _note_privileged(self, path: bytes, header: tar.Header) -> None:
        for name in tar.privileged_xattrs(header):
            found = self.report.privileged.setdefault(name, PrivilegedAttribute())
            found.members += 1
            if len(found.paths) < _NAMED_AT_MOST:
                found.paths.append(path)

    def _read_through_link(self, path: bytes) -> EngineError:
        link = next(link for link in self._links if path.startswith(link))[:-1].decode(errors="backslashreplace")
        return EngineError(
            f"directory {link!r} became a symbolic link while the volume was read",
            "run the command again while nothing writes to it",
        )

    def _find(self, path: bytes, unit: PlannedUnit) -> int | None:
        for number in range(self._next, unit.stop):
            if self.plan.entry(number).path == path:
                return number
        return None

    def _vanish(self, stop: int) -> None:
        self.report.vanished += [self.plan.entry(number).path for number in range(self._next, stop)]
        self._next = stop


def _planned(entry: Entry, offset: int) -> Member:
    return Member(
        entry.path, entry.type, entry.size_bytes if entry.type == "f" else 0, entry.mtime_ns, entry.ctime_ns,
        entry.inode, entry.mode, entry.uid, entry.gid, entry.link, offset,
    )  # fmt: skip


def _links_to(target: bytes, buf: bytearray, at: int, extended: int) -> bool:
    """Whether the header holds a symlink to `target`; a long or unusual one is in a pax record and is read in full."""
    short = len(target) < 100 and target.isascii() and buf.startswith(target + b"\0", at + 157)
    return short and (not extended or buf.find(b" linkpath=", at - extended, at) < 0)


def _as_stored(entry: Entry, header: tar.Header, offset: int) -> Member:
    """The scan's facts, but what the stream has too is from the stream: the file may have changed since."""
    return _planned(entry, offset)._replace(
        type=header.type,
        size_bytes=header.size_bytes,
        link=header.link,
        mode=header.mode,
        uid=header.uid,
        gid=header.gid,
    )


def _split(window: Window) -> Iterator[RawFrame]:
    while window.held > SPLIT_BYTES:
        yield RawFrame(window.take(SPLIT_BYTES))
    yield RawFrame(window.take())


_BESIDE_TIME = re.compile(rb" (?:size|uid|gid)=")
"""Records that count in place of what the header says."""
_FLAGS = {"f": 48, "l": 50, "c": 51, "b": 52, "d": 53, "p": 54}
