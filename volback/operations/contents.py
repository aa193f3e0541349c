"""Contents: what is in a backup, from its index only, and one file's bytes, from its frames only."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

from volback.archive import ranges, sparse, tar
from volback.catalog.units import Member
from volback.context.repository import Repository
from volback.errors import IntegrityError, UsageError
from volback.operations.open_backup import OpenBackup
from volback.operations.selection import Selection, read_member_header

_KINDS = {"d": "a directory", "l": "a symbolic link", "p": "a FIFO", "b": "a block device", "c": "a character device"}


def open_backup(repository: Repository, reference: str) -> OpenBackup:
    """Open the backup that `reference` names. Raises NotFoundError, IntegrityError."""
    return OpenBackup.of(repository, repository.find(reference))


def members(backup: OpenBackup, path: bytes = b"") -> Iterator[Member]:
    """Yield the members at and below `path`, in stream order. Raises NotFoundError if there is none, at once."""
    if not path:
        return backup.members()
    below = path + b"/"
    found = (
        member
        for unit in backup.around([], below=[path])
        for member in unit.members
        if member.path == path or member.path.startswith(below)
    )
    first = next(found, None)
    if first is None:
        raise backup.lacks(path)
    return chain([first], found)


def check(backup: OpenBackup, path: bytes = b"") -> None:
    """Read the data at and below `path`. Raises IntegrityError unless it is intact, and what the index announces."""
    deque(Selection.of(backup, [path]).stream() if path else backup.stream(), maxlen=0)


def read_file(backup: OpenBackup, path: bytes) -> Iterator[bytes | memoryview]:
    """Yield one regular file's bytes, each frame verified before a byte of it is used; only its frames are fetched.

    A hard link gives the data of its inode, a sparse file zeros for its holes.
    Raises NotFoundError, UsageError for what is not a file: both from the call itself.
    """
    unit, span = backup.find(path)
    if span.member.type == "h":
        unit, span = backup.find(span.member.link)
    member = span.member
    if member.type in _KINDS:
        what = f"{_text(path)} in backup {backup.name} is {_KINDS[member.type]}, not a file"
        raise UsageError(what, f"see `volback ls {backup.name}`, or restore it with --path")
    header_bytes = read_member_header(backup, unit, span)
    header = tar.read_header(header_bytes)
    begin = span.start + len(header_bytes)
    if header.type != "f" or header.path != member.path or begin + header.data_bytes > span.stop:
        raise IntegrityError(f"index of {backup.name} does not fit its data at {_text(path)}")
    if sparse.is_sparse(header):
        return sparse.expand(backup.read(ranges.part(unit, begin, span.stop)), header.size_bytes)
    return backup.read(ranges.part(unit, begin, begin + header.size_bytes))


def member_path(text: str) -> bytes:
    """A path as people type it, in the form of the index. Raises UsageError for one that leads out of the volume."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"path {text!r} leads out of the volume")
    return "/".join(parts).encode("utf-8", "surrogateescape")


def _text(path: bytes) -> str:
    return repr(path.decode(errors="backslashreplace") or ".")
