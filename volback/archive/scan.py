"""Scan: what the helper writes about a volume (`tar.FIND`), read into facts and records.

`plan` calls it. A record is one `bytes` object, made by two calls for a whole buffer: `/` and NUL change places, so
that NUL separates the parts of a record, sorts before every byte of a name, and no record contains a `/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

from volback.archive.tar import SCAN_END
from volback.errors import EngineError

_SWAP = bytes.maketrans(b"/\0", b"\0/")
_FACTS = 4
"""Fields before the records: mounts, working directory, time and device of /proc/self/, and of the root."""
_CIFS = (b"cifs", b"smb3")
_ESCAPED = re.compile(rb"\\([0-7]{3})")

kind_of = itemgetter(slice(-37, -33))
"""Of a record: the last two digits of its link count, and its type: b" 1 f". If a number behind them is wider than its
field (a size of 10 GB, a time after 2286), a digit or a blank has the type's place; see `links_type_size`."""
size_of = itemgetter(slice(-33, -22))
"""The size, if `kind_of` names a type."""
_ctime_of = itemgetter(slice(-22, None))
"""With the blank before it, in whose place a time that is wider has a digit or its sign."""


class Entry(NamedTuple):
    """One record of the scan; sizes in bytes, times in ns."""

    path: bytes
    type: str
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    """0 on the root's own; other filesystems are numbered by their first path: st_dev may change at a reboot."""
    links: int
    link: bytes


class Scan:
    """One scan; its facts are complete once `records` is exhausted."""

    def __init__(self, buffers: Iterable[bytes | bytearray]) -> None:
        self.started_ns = 0
        """By the clock of the kernel that the helper runs on, which stamps files of local filesystems."""
        self.filesystem = ""
        """Type of the root's, as the kernel names it; cifs.noserverino: a CIFS that numbers inodes by itself."""
        self.mounted: frozenset[str] = frozenset()
        """Types of those that are mounted below the root."""
        self.holes: dict[bytes, int] = {}
        """Of large files: how many bytes less than their size they occupy; by the key of the path."""
        self.is_mixed = False
        """Whether records of other filesystems than the root's are among them."""
        self._device = b""
        self._buffers = buffers

    def records(self) -> Iterator[list[bytes]]:
        """Yield records in lists, in find's order. Raises EngineError if the scan was cut off or is garbled."""
        rest, is_begun = b"", False
        for buffer in self._buffers:
            fields = (rest + buffer.translate(_SWAP)).split(b"/")
            if not is_begun and len(fields) > _FACTS:
                self._begin(fields[:_FACTS])
                del fields[:_FACTS]
                is_begun = True
            whole = (len(fields) - 1) // 2 * 2 if is_begun else 0
            rest = b"/".join(fields[whole:])
            records = fields[0:whole:2]
            for at, place in enumerate(fields[1:whole:2]):
                if place != self._device:
                    records[at] = self._placed(records[at], place)
            yield records
        if rest != SCAN_END.encode():
            raise EngineError("the scan of the volume was cut off", "run the command again")

    def numbered(self, records: list[bytes]) -> list[bytes]:
        """Number the filesystems other than the root's, in the order of `records`."""
        if not self.is_mixed:
            return records
        numbers: dict[bytes, bytes] = {}
        return [_numbered(record, numbers) for record in records]

    def _begin(self, facts: list[bytes]) -> None:
        mounts, directory, clock, root = (fact.translate(_SWAP) for fact in facts)
        try:
            self.started_ns = _nanoseconds(clock.split()[0])
            self._device = root.split()[1]
            self.filesystem, self.mounted = _filesystems(mounts, directory.removesuffix(b"\n"))
        except (ValueError, LookupError) as exc:
            raise garbled() from exc

    def _placed(self, record: bytes, place: bytes) -> bytes:
        """Note a large file's blocks, which are not part of its record; put another filesystem's device into it."""
        device, _, blocks = place.partition(b" ")
        try:
            if blocks:
                hole_bytes = links_type_size(record)[2] - int(blocks) * 512
                if hole_bytes > 0:
                    self.holes[key_of(record)] = hole_bytes
            if device != self._device:
                self.is_mixed = True
                at = record.rindex(b"\0") + 1
                record = b"%s%d:%s" % (record[:at], int(device), record[at:])
        except ValueError as exc:
            raise garbled() from exc
        return record


def parse_record(record: bytes) -> Entry:
    """Parse one record. Raises EngineError if it is garbled."""
    try:
        key, _, rest = record.partition(b"\0\0")
        facts, _, rest = rest.partition(b"\0")
        link, _, rest = rest.rpartition(b"\0")
        mode, uid, gid, mtime = facts.split(b" ")
        inode, links, kind, size, ctime = rest.split()
        device, _, inode = inode.rpartition(b":")
        return Entry(
            key.replace(b"\0", b"/"),
            chr(kind[0]),
            int(mode, 8),
            int(uid),
            int(gid),
            int(size),
            _nanoseconds(mtime),
            _nanoseconds(ctime),
            int(inode),
            int(device or b"0"),
            int(links),
            link.replace(b"\0", b"/"),
        )
    except (ValueError, LookupError) as exc:
        raise garbled() from exc


def key_of(record: bytes) -> bytes:
    """The path's parts with NUL between them. Raises EngineError."""
    try:
        return record[: record.index(b"\0\0")]
    except ValueError as exc:
        raise garbled() from exc


def path_of(record: bytes) -> bytes:
    """The path. Raises EngineError."""
    return key_of(record).replace(b"\0", b"/")


def inode_of(record: bytes) -> bytes:
    """What all names of one inode have in common, and no other record: its number, and its filesystem's."""
    at = record.rindex(b"\0") + 1
    return record[at : record.index(b" ", at)]


def links_type_size(record: bytes) -> tuple[int, int, int]:
    """Link count, letter of the type, and size of any record. Raises ValueError."""
    _, links, kind, size, _ = record[record.rindex(b"\0") + 1 :].split()
    return int(links), kind[0], int(size)


def newest_ctime_ns(records: list[bytes]) -> int:
    """The latest ctime of some records. Raises ValueError for garbled ones.

    Of right-aligned numbers the greatest text is the greatest number, unless one is negative or wider than its field.
    """
    newest = max(map(_ctime_of, records))
    if newest.startswith(b" ") and b"-" not in newest:
        return _nanoseconds(newest)
    return max(_nanoseconds(record[record.rindex(b" ") + 1 :]) for record in records)


def newest_mtime_ns(records: list[bytes]) -> int:
    """The latest mtime of some records."""
    return max(parse_record(record).mtime_ns for record in records)


def is_mounted(record: bytes) -> bool:
    """Whether it is of another filesystem than the root's; of a numbered record."""
    return b":" in inode_of(record)


def without_inode(record: bytes) -> bytes:
    """The record without its inode's and filesystem's number."""
    at = record.rindex(b"\0") + 1
    return record[:at] + record[record.index(b" ", at) :]


def without_ctime(record: bytes) -> bytes:
    """The record without its ctime."""
    return record[: record.rindex(b" ")].rstrip(b" ")


def garbled() -> EngineError:
    """The error for what find does not write."""
    return EngineError("the scan of the volume is garbled: a record is not what find writes", "run the command again")


def _numbered(record: bytes, numbers: dict[bytes, bytes]) -> bytes:
    at = record.rindex(b"\0") + 1
    device, colon, rest = record[at:].partition(b":")
    if not colon:
        return record
    return b"%s%s:%s" % (record[:at], numbers.setdefault(device, b"%d" % (len(numbers) + 1)), rest)


def _filesystems(mounts: bytes, directory: bytes) -> tuple[str, frozenset[str]]:
    """The type of the filesystem that `directory` lies in, and of those below, from /proc/self/mountinfo (proc(5)).

    Neither find's %F nor device numbers: a file's st_dev on btrfs is not the one that its mount has.
    """
    depth, found, below = -1, b"", set()
    for line in mounts.splitlines():
        before, _, after = line.partition(b" - ")
        point = _ESCAPED.sub(lambda octal: bytes([int(octal[1], 8)]), before.split(b" ")[4]).rstrip(b"/")
        if len(point) >= depth and (directory + b"/").startswith(point + b"/"):  # of several in one place the last
            depth, found = len(point), _type(after)
        elif point.startswith(directory.rstrip(b"/") + b"/"):
            below.add(_type(after))
    return _text(found), frozenset(map(_text, below))


def _text(kind: bytes) -> str:
    return kind.decode(errors="backslashreplace")


def _type(after: bytes) -> bytes:
    """From the end of a line (type, source, options): cifs says `serverino` as long as it uses the server's inodes."""
    kind = after.split(b" ", 1)[0]
    numbers_itself = kind in _CIFS and b"serverino" not in after.rsplit(b" ", 1)[-1].split(b",")
    return kind + b".noserverino" if numbers_itself else kind


def _nanoseconds(text: bytes) -> int:
    """find prints whole seconds, rounded down, and the rest with ten digits: -1.9999999990 is -1 ns."""
    return int(text[:-11]) * 1_000_000_000 + int(text[-10:-1])
