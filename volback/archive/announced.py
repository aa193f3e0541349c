"""Announced: whether a tar stream holds the members that the index announces, and no others.

A frame's digest shows that its bytes are those of which the index speaks; it does not show that the index is right
about them: who can write to a repository can write both. So each member's header is compared with the index
before a byte of it is passed on: name, type, size, owner, mode and target of a link. Nothing may lie between members.
Digests have been checked before; nothing is decompressed here.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar
from zlib import adler32

from volback.archive import tar
from volback.archive.ranges import Slice, whole
from volback.archive.window import HEADER_MAX_BYTES, Buffer
from volback.catalog.units import Span, Unit
from volback.errors import IntegrityError

T = TypeVar("T")
Expected = Span | int
"""A member, or a number of zeros: the end of the archive."""

_USUAL_BYTES = 3 * tar.BLOCK
"""A pax header, its one record (the time), and the header."""
_ONLY_TIME = re.compile(rb"(\d\d) mtime=-?\d{1,12}(?:\.\d{1,9})?\n")
_FLAGS = {"f": 0x30, "h": 0x31, "l": 0x32, "c": 0x33, "b": 0x34, "d": 0x35, "p": 0x36}
_MAGIC = b"ustar\x0000"
_RECORDS = re.compile(
    rb"path|linkpath|size|uid|gid|uname|gname|mtime|atime|ctime|GNU\.sparse\.(?:major|minor|name|realsize)"
    rb"|SCHILY\.xattr\..+|SCHILY\.acl\.(?:access|default)|RHT\.security\.selinux",
    re.DOTALL,
)
"""What GNU tar writes with the arguments `tar.CREATE`. Others can change what a tar that reads them does."""


class Announced:
    """Compares a stream, which is fed in buffers of any size, with what is to be in it."""

    def __init__(self, what: str) -> None:
        """`what` names the backup in errors."""
        self._what = what
        self._expected = deque[Expected]()
        self._begun: list[Buffer] = []
        self._begun_bytes = self._wanted_bytes = 0
        self._left = 0
        self._has_ended = False

    def announce(self, expected: Iterable[Expected]) -> None:
        """Add what comes next, before the bytes of it are fed."""
        self._expected.extend(expected)

    def whole(self, units: Iterable[Unit]) -> Iterator[Slice]:
        """Yield every piece of the units, whole; what a unit holds is announced before its first piece."""
        for unit in units:
            self.announce(expected_of(unit))
            yield from whole(unit.pieces)

    def passed(self, pairs: Iterable[tuple[Buffer, T]]) -> Iterator[T]:
        """Yield the second of each pair once the first, the next bytes of the stream, has been compared; at last,
        compare the end.

        Raises IntegrityError; what has not been compared is not yielded.
        """
        held: list[T] = []
        for raw, item in pairs:
            held.append(item)
            if self.feed(raw):
                yield from held
                held.clear()
        self.end()

    def feed(self, buffer: Buffer) -> bool:
        """Compare the next bytes, and return whether they end with a whole header or in data: only then may they be
        passed on. Raises IntegrityError.
        """
        raw = buffer
        if self._begun:
            self._keep(buffer)
            if self._begun_bytes < self._wanted_bytes:
                return False
            raw, self._begun, self._begun_bytes = b"".join(self._begun), [], 0
        at, size = 0, len(raw)
        while at < size:
            if not self._left:
                header_bytes = self._step_in(raw, at)
                if header_bytes is None:
                    self._keep(raw[at:])
                    return False
                at += header_bytes
            step = min(self._left, size - at)
            if self._has_ended and bytes(raw[at : at + step]).count(0) != step:
                raise self._error("its end is not empty")
            self._left -= step
            at += step
        return True

    def skip(self, size: int) -> bool:
        """Step over bytes that have been compared with the same members before; False inside a header, or at the end.

        Where they end inside a member, its header is among them, or came before.
        """
        if self._begun and size:
            return False
        while size > self._left:
            size -= self._left
            if self._has_ended or not self._expected or isinstance(span := self._expected.popleft(), int):
                return False
            self._left = span.stop - span.start
        self._left -= size
        return True

    def _keep(self, begun: Buffer) -> None:
        """Keep a part of a header; the parts are joined when they are enough: a stream may consist of single bytes."""
        self._begun.append(begun)
        self._begun_bytes += len(begun)

    @property
    def is_in_header(self) -> bool:
        """Whether what was fed last ends inside a header."""
        return bool(self._begun)

    def end(self) -> None:
        """Raises IntegrityError if the stream ended before what is expected."""
        if self._begun or self._left or self._expected:
            raise self._error("it ends before the last member")

    def _step_in(self, raw: Buffer, at: int) -> int | None:
        """Step over the header at `at`, or into the zeros of the end; None where the header is not complete yet."""
        if not self._expected or self._has_ended:
            raise self._error("it holds more than that")
        expected = self._expected.popleft()
        if isinstance(expected, int):
            self._left, self._has_ended = expected, True
            return 0
        header_bytes = _usual_header(expected, raw, at) or self._unusual_header(expected, raw, at)
        if header_bytes is None:
            self._expected.appendleft(expected)
            return None
        self._left = expected.stop - expected.start - header_bytes
        return header_bytes

    def _unusual_header(self, span: Span, raw: Buffer, at: int) -> int | None:
        first = bytes(raw[at : at + tar.BLOCK])
        if len(first) < tar.BLOCK:
            self._wanted_bytes = tar.BLOCK
            return None
        size = tar.extended_size(first, 0) + tar.BLOCK
        if size > min(span.stop - span.start, HEADER_MAX_BYTES):
            raise _odd(self._what, span)
        if len(raw) - at < size:
            self._wanted_bytes = size
            return None
        check_header(span, bytes(raw[at : at + size]), self._what)
        return size

    def _error(self, why: str) -> IntegrityError:
        return IntegrityError(f"{self._what} is damaged: its data is not what its index announces: {why}", _HINT)


def expected_of(unit: Unit) -> Iterator[Expected]:
    """Yield what a whole unit holds, in stream order."""
    if unit.kind == "end":
        yield unit.raw_bytes
    else:
        yield from unit.spans()


def check_header(span: Span, block: bytes, what: str) -> tar.Header:
    """Return the header that `block` is, which belongs to a member of the index. Raises IntegrityError."""
    member = span.member
    head = block[-tar.BLOCK :]
    header = tar.read_header(block)
    announced = (member.path, member.type, member.size_bytes, member.link, member.mode, member.uid, member.gid)
    found = (header.path, header.type, header.size_bytes, header.link, header.mode, header.uid, header.gid)
    if (
        found != announced
        or header.header_bytes + header.data_bytes != span.stop - span.start
        or head[156] != _FLAGS[member.type]
        or head[257:265] != _MAGIC
        or not all(map(tar.is_header, {block[: tar.BLOCK], head}))
        or not all(map(_RECORDS.fullmatch, header.records))
        or (member.type != "f" and (b"size" in header.records or tar.number(head[124:136])))
    ):
        raise _odd(what, span)
    return header


def _odd(what: str, span: Span) -> IntegrityError:
    path = span.member.path.decode(errors="backslashreplace") or "."
    return IntegrityError(f"{what} is damaged: its data is not what its index announces at {path!r}", _HINT)


def _usual_header(span: Span, raw: Buffer, at: int) -> int | None:
    """The size of the header at `at`, if it is complete, of the form that most have, and the announced one.

    It takes a few microseconds; all others are read in full.
    """
    member, head = span.member, 0
    block = bytes(raw[at : at + _USUAL_BYTES])
    if len(block) < tar.BLOCK:
        return None
    if block[156] == 0x78:
        records = _ONLY_TIME.match(block, tar.BLOCK)
        if not records or not _is_record_header(block, records) or len(block) < _USUAL_BYTES:
            return None
        head = 2 * tar.BLOCK
    name = b"./" + member.path
    if member.type == "d" and member.path:
        name += b"/"
    link = b"./" + member.link if member.type == "h" else member.link
    size = member.size_bytes if member.type == "f" else 0
    if len(name) >= 100 or len(link) >= 100 or head + tar.BLOCK + tar.padded(size) != span.stop - span.start:
        return None
    facts = b"%07o\0%07o\0%07o\0%011o\0" % (member.mode, member.uid, member.gid, size)
    if (
        block.startswith(name.ljust(100, b"\0") + facts, head)
        and block[head + 156] == _FLAGS[member.type]
        and block.startswith(link.ljust(100, b"\0") + _MAGIC, head + 157)
        and not block[head + 345]
        and _has_its_sum(block, head)
    ):
        return head + tar.BLOCK
    return None


def _is_record_header(block: bytes, records: re.Match[bytes]) -> bool:
    """Whether the pax header before these records is for them alone."""
    size = len(records[0])
    return int(records[1]) == size and block.startswith(b"%011o\0" % size, 124) and _has_its_sum(block, 0)


def _has_its_sum(block: bytes, at: int) -> bool:
    """Whether the header at `at` has its checksum, as GNU tar writes it: the sum of its bytes.

    adler32 holds the sum of up to 257 bytes in its lower half, and is quicker than Python's sum by far.
    """
    digits = block[at + 148 : at + 156]
    halves = adler32(block[at : at + 256]) & 0xFFFF, adler32(block[at + 256 : at + tar.BLOCK]) & 0xFFFF
    return digits == b"%06o\0 " % (sum(halves) - 2 - sum(digits) + 8 * 0x20)


_HINT = "it was not made like this by volback: who can write to this repository? take an older backup"
