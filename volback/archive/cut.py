"""Cut: the tar stream of a plan into the extents of its units, and these into raw frames.

An extent is what is compared with earlier backups, and what has a digest: the data of a small file, a block of a large
one (`blocks`), or the headers that lie between the data of two files. Where extents end depends on the plan and on the
content alone, not on the frames; so the same tree has the same digests, in a full backup and in an increment.

Members are matched against the plan in order: the fast path reads five fields of a header, the slow path reads all of
it. A planned member that the stream lacks vanished between scan and read. A unit that the parent has is not in the
stream: its pieces are passed on as they are stored there. Nothing here compresses; `seal` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from volback.archive import tar
from volback.archive.blocks import Blocks
from volback.archive.lookup import KnownExtent, no_extent
from volback.archive.parent import Parent, Reused
from volback.archive.plan import Entry, Plan, PlannedUnit
from volback.archive.window import Buffer, Window
from volback.catalog.model import FRAME_MAX_BYTES
from volback.catalog.units import Member, UnitKind
from volback.errors import EngineError, IntegrityError

FRAME_BYTES = 1024 * 1024
"""Extents of a file unit fill frames of at least this size."""
SPLIT_BYTES = 4 * 1024 * 1024
"""A group's frame ends with the extent that reaches this size."""
HEADERS_MAX_BYTES = 1024 * 1024
"""An extent of headers is cut at this size."""
assert SPLIT_BYTES + HEADERS_MAX_BYTES <= FRAME_MAX_BYTES

_NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class RawFrame:
    """Raw bytes of some extents, as pieces of the buffers that contain them, and the size of each extent."""

    pieces: list[memoryview]
    sizes: list[int]
    known: KnownExtent = no_extent
    """What of them is stored already."""


@dataclass(frozen=True, slots=True)
class UnitEnd:
    """The end of a unit: the extents since the last UnitEnd belong to it."""

    kind: UnitKind
    members: list[Member]
    scan: str = ""
    newest_ns: int = 0


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

    `parent` says what of a planned unit is stored already. tar must not get the names of a unit that is used
    unchanged (`Plan.names`).
    """

    def __init__(self, plan: Plan, parent: Parent | None = None) -> None:
        self.plan = plan
        self.report = CutReport()
        self._parent = parent or Parent()
        self._next = 0
        self._links: tuple[bytes, ...] = ()
        self._was_odd = False

    def cut(self, stream: Iterable[Buffer]) -> Iterator[Cut]:
        """Yield the extents of each unit in raw frames, then its UnitEnd; the end-of-archive unit comes last, computed.

        Raises IntegrityError if the stream ends early or holds what was not planned, EngineError if a directory
        became a symlink since the scan: tar then reads through the link.
        """
        window = Window(stream)
        reused_bytes = 0
        for number, unit in enumerate(self.plan.units):
            self._next = unit.start
            if (reused := self._parent.reused(number)) is not None:
                reused_bytes += reused.raw_bytes
                self.report.members += unit.stop - unit.start
                yield reused
            else:
                yield from self._cut_unit(window, unit, self._parent.known(number))
        yield from self._end_archive(window, reused_bytes)

    def _end_archive(self, window: Window, reused_bytes: int) -> Iterator[Cut]:
        """tar's own end is checked, not kept: its padding depends on what tar wrote, which does not include reused
        units."""
        if not tar.is_end(window.peek(2 * tar.BLOCK)):
            raise IntegrityError("tar stream holds a member that was not planned")
        window.expect_zeros()
        self.report.raw_bytes = window.offset + reused_bytes
        end = tar.end_of_archive(self.report.raw_bytes)
        yield RawFrame([memoryview(end)], [len(end)], self._parent.known(len(self.plan.units)))
        yield UnitEnd("end", [])
        self.report.raw_bytes += len(end)

    def _cut_unit(self, window: Window, unit: PlannedUnit, known: KnownExtent) -> Iterator[Cut]:
        begin, vanished = window.offset, len(self.report.vanished)
        held = _Held(window, FRAME_BYTES if unit.kind == "file" else SPLIT_BYTES, known)
        members: list[Member] = []
        self._was_odd = False
        while (found := self._member(window, unit, begin)) is not None:
            member, data_bytes = found
            held.add_header(window.offset - begin - member.offset)
            members.append(member)
            if data_bytes:
                yield from held.add_data(data_bytes)
        yield from held.end()
        if members:
            self.report.members += len(members)
            is_as_scanned = len(self.report.vanished) == vanished and not self._was_odd
            yield UnitEnd(unit.kind, members, *(self.plan.scan_of(unit) if is_as_scanned else ("", 0)))

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
        stored = _as_stored(entry, header, offset)
        self._was_odd |= not _is_as_scanned(_planned(entry, offset), stored)
        return stored, header.data_bytes

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


def _is_as_scanned(planned: Member, stored: Member) -> bool:
    """A further name of an inode is scanned as what it is, and stored as a hard link."""
    if stored.type == "h":
        stored = stored._replace(type=planned.type, size_bytes=planned.size_bytes, link=planned.link)
    return planned == stored


class _Held:
    """The extents of a unit that were stepped over and not yielded yet."""

    def __init__(self, window: Window, frame_bytes: int, known: KnownExtent) -> None:
        self._window = window
        self._frame_bytes = frame_bytes
        self._known = known
        self._sizes: list[int] = []
        self._bytes = 0
        self._headers = 0

    def add_header(self, size: int) -> None:
        """A header was stepped over."""
        self._headers += size

    def add_data(self, size: int) -> Iterator[RawFrame]:
        """Step over the data of a member; yield the frames that are full."""
        self._end_headers()
        blocks, left, carried = Blocks(size), size, 0
        while left:
            step = min(left, blocks.section_bytes)
            self._window.skip(step)
            left -= step
            sizes = blocks.sizes(self._window.last(carried + step), is_last=not left)
            carried += step - sum(sizes)
            self._add(sizes)
            yield from self._full()

    def end(self) -> Iterator[RawFrame]:
        """Yield what is left."""
        self._end_headers()
        yield from self._full()
        if self._sizes:
            yield RawFrame(self._window.take(), self._sizes, self._known)

    def _end_headers(self) -> None:
        count, rest = divmod(self._headers, HEADERS_MAX_BYTES)
        self._add([HEADERS_MAX_BYTES] * count + ([rest] if rest else []))
        self._headers = 0

    def _add(self, sizes: list[int]) -> None:
        self._sizes += sizes
        self._bytes += sum(sizes)

    def _full(self) -> Iterator[RawFrame]:
        """Take whole frames from the front; each ends with the extent that reaches its size."""
        while self._bytes >= self._frame_bytes:
            taken = 0
            for number, size in enumerate(self._sizes):  # noqa: B007
                taken += size
                if taken >= self._frame_bytes:
                    break
            sizes, self._sizes = self._sizes[: number + 1], self._sizes[number + 1 :]
            self._bytes -= taken
            yield RawFrame(self._window.take(taken), sizes, self._known)


_BESIDE_TIME = re.compile(rb" (?:size|uid|gid)=")
"""Records that count in place of what the header says."""
_FLAGS = {"f": 48, "l": 50, "c": 51, "b": 52, "d": 53, "p": 54}
