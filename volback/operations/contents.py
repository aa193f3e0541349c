"""Contents: what is in a backup, told from its index alone, and one file's bytes, from its frames alone."""

from __future__ import annotations

from collections.abc import Iterator

from volback.archive import ranges, sparse, tar
from volback.catalog.model import Member, Unit
from volback.context import Session
from volback.errors import IntegrityError, NotFoundError, UsageError
from volback.operations.open_backup import OpenBackup, read_member_header

_KINDS = {"d": "a directory", "l": "a symbolic link", "p": "a FIFO", "b": "a block device", "c": "a character device"}


def open_backup(session: Session, reference: str) -> OpenBackup:
    """Open the backup that `reference` names. Raises NotFoundError, IntegrityError."""
    return OpenBackup(session.store, session.find(reference))


def members(backup: OpenBackup, path: bytes = b"") -> Iterator[Member]:
    """Yield the members at and below `path`, in stream order. Raises NotFoundError if there is none, at once."""
    if not path:
        return backup.members()
    below = path + b"/"
    found = (member for member in backup.members() if member.path == path or member.path.startswith(below))
    first = next(found, None)
    if first is None:
        raise _not_there(backup, path)
    return _chain(first, found)


def read_file(backup: OpenBackup, path: bytes) -> Iterator[bytes | memoryview]:
    """Yield one regular file's bytes, each frame proven before a byte of it leaves; only its frames are fetched.

    A hard link gives the data of its inode, a sparse file zeros for its holes.
    Raises NotFoundError, UsageError for what is no file: both from the call itself.
    """
    unit, member, stop = _find(backup, path)
    if member.type == "h":
        unit, member, stop = _find(backup, member.link)
    if member.type in _KINDS:
        what = f"{_text(path)} in backup {backup.name} is {_KINDS[member.type]}, not a file"
        raise UsageError(what, f"see `volback ls {backup.name}`, or restore it with --path")
    header_bytes = read_member_header(backup, unit, member, stop)
    header = tar.read_header(header_bytes)
    begin = member.offset + len(header_bytes)
    if header.type != "f" or header.path != member.path or begin + header.data_bytes > stop:
        raise IntegrityError(f"index of {backup.name} does not fit its data at {_text(path)}")
    if sparse.is_sparse(header):
        return sparse.expand(backup.read(ranges.part(unit, begin, stop)), header.size_bytes)
    return backup.read(ranges.part(unit, begin, begin + header.size_bytes))


def member_path(text: str) -> bytes:
    """A path as people type it, as the index has it. Raises UsageError for one that leads out of the volume."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"path {text!r} leads out of the volume")
    return "/".join(parts).encode("utf-8", "surrogateescape")


def _find(backup: OpenBackup, path: bytes) -> tuple[Unit, Member, int]:
    """The member, its unit, and where in the unit it ends."""
    for unit in backup.units():
        for at, member in enumerate(unit.members):
            if member.path == path:
                following = unit.members[at + 1 : at + 2]
                return unit, member, following[0].offset if following else ranges.unit_bytes(unit)
    raise _not_there(backup, path)


def _chain(first: Member, others: Iterator[Member]) -> Iterator[Member]:
    yield first
    yield from others


def _not_there(backup: OpenBackup, path: bytes) -> NotFoundError:
    return NotFoundError(f"path {_text(path)} is not in backup {backup.name}", f"see `volback ls {backup.name}`")


def _text(path: bytes) -> str:
    return repr(path.decode(errors="backslashreplace") or ".")
