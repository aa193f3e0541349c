"""Prove: read a volume again and compare it with a backup, bit for bit; name each file that differs.

First by extent digests, which needs no data of the backup. Only units that do not match are then read from both sides
and compared member by member.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from volback.archive import ranges, tar
from volback.archive.cut import Cut, Cutter, RawFrame, UnitEnd
from volback.archive.seal import digests_of, in_order, raw_bytes
from volback.archive.walk import Signature, walk
from volback.archive.window import Buffer
from volback.catalog.model import Source
from volback.catalog.units import Member
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.operations.notes import note_proven
from volback.operations.open_backup import OpenBackup
from volback.operations.selection import Selection
from volback.operations.single_files import is_file_backup, read_source
from volback.operations.volumes import open_reader, scan, unreadable
from volback.state.runs import Run

_LOST_FOUND = b"lost+found"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing a volume with a backup; paths as text, in order."""

    different: list[str]
    missing: list[str]
    """In the backup, not in the volume."""
    extra: list[str]
    """In the volume, not in the backup."""
    lacking: dict[str, list[str]] = field(default_factory=dict)
    """Attributes that a restore could not set, and the files that are equal but for them."""

    @property
    def differs(self) -> bool:
        """Whether anything differs but for those attributes."""
        return bool(self.different or self.missing or self.extra)

    @property
    def odd(self) -> int:
        """How many paths differ, but for those attributes."""
        return len(self.different) + len(self.missing) + len(self.extra)

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return not (self.differs or self.lacking)


def prove(
    ctx: Context, engine: Engine, repository: Repository, reference: str, volume: str | None = None
) -> Comparison:
    """Compare a backup with a volume (by default its own volume). Raises NotFoundError, IntegrityError.

    Where they are equal, the notes of the backup say so. Attributes that need CAP_SYS_ADMIN, which a restore sets only
    if asked to, may be missing in the volume.
    """
    backup = OpenBackup.of(repository, repository.find(reference))
    manifest = backup.manifest
    source = manifest.source
    if volume is not None and volume != manifest.volume:
        kind = "directory" if volume.startswith("/") else "volume"
        source = Source(kind=kind, name=volume)  # type: ignore[arg-type]
    if source.kind == "volume":
        engine.volume(source.name)

    def may_lack(name: str, path: str) -> bool:
        return tar.is_privileged(name)

    with Run(ctx.settings.state, "prove", backup.name) as run:
        if source == manifest.source and is_file_backup(source):
            part = Selection.of_file(backup)
            compared = compare_part(engine, run, part, read_source(source), may_lack=may_lack, alone=False)
        else:
            compared = compare(ctx, engine, run, backup, source, excludes=manifest.excludes, may_lack=may_lack)
    if compared.identical:
        note_proven(ctx, repository, backup.key)
    return compared


MayLack = Callable[[str, str], bool]
"""Whether an attribute (by name) may be missing on a file (by path)."""


def compare(
    ctx: Context,
    engine: Engine,
    run: Run,
    backup: OpenBackup,
    source: Source,
    *,
    excludes: list[str],
    may_lack: MayLack,
) -> Comparison:
    """Compare a whole backup with a volume or directory, except what `excludes` leaves out."""
    ctx.progress.start(f"prove {source.name}", total_bytes=backup.manifest.raw_bytes, total_files=None)
    expected, odd = _expected(backup)
    changed: set[bytes] = set()
    with open_reader(engine, run, source) as reader:
        plan = scan(reader, excludes)
        for digest, paths in _found(_digests(ctx, Cutter(plan).cut(reader.read(plan.names())))):
            if expected.pop(digest, None) is None:
                changed.update(paths)
        _check_read(reader.messages())
    odd.update(expected.values())
    if not changed and not odd:
        return Comparison([], [], [])
    stream = backup.read(item for unit in backup.numbered(odd) for item in ranges.whole(unit.pieces))
    signed = signatures(chain(stream, [tar.END_OF_ARCHIVE]))
    return compare_signatures(signed, _read_again(engine, run, source, excludes, changed), may_lack)


def compare_part(
    engine: Engine, run: Run, selection: Selection, source: Source, *, may_lack: MayLack, alone: bool = True
) -> Comparison:
    """Compare a part of a backup with a volume that contains only this part, or (not `alone`) other files too."""
    expected = signatures(selection.stream())
    if not alone:
        return compare_signatures(expected, _read_again(engine, run, source, [], set(expected)), may_lack)
    return compare_signatures(expected, signatures_of(engine, run, source), may_lack)


def signatures_of(engine: Engine, run: Run, source: Source, *, read: Iterable[str] = ()) -> dict[bytes, Signature]:
    """Read a volume or directory, and return the signature of each member by its path. Raises EngineError.

    `read` are more arguments of its tar.
    """
    with open_reader(engine, run, source, read=read) as reader:
        plan = scan(reader, [])
        found = signatures(reader.read(plan.names()))
        _check_read(reader.messages())
    return found


def _read_again(
    engine: Engine, run: Run, source: Source, excludes: list[str], paths: set[bytes]
) -> dict[bytes, Signature]:
    """Signatures of some members of the volume, all names of an inode among them."""
    with open_reader(engine, run, source) as reader:
        plan = scan(reader, excludes)
        names = plan.names(lambda unit: not paths.isdisjoint(plan.paths(unit)))
        found = signatures(reader.read(names))
        _check_read(reader.messages())
    return {path: signature for path, signature in found.items() if path in paths}


def signatures(stream: Iterable[Buffer]) -> dict[bytes, Signature]:
    """Signature of each member of a tar stream, by path."""
    shared: dict[tuple[tuple[str, bytes], ...], tuple[tuple[str, bytes], ...]] = {}  # many files have equal attributes
    return {
        header.path: signature._replace(attributes=shared.setdefault(signature.attributes, signature.attributes))
        for header, signature in walk(stream)
    }


def compare_signatures(
    expected: dict[bytes, Signature], found: dict[bytes, Signature], may_lack: MayLack
) -> Comparison:
    """Compare signatures by path."""
    different: list[bytes] = []
    lacking: dict[str, list[str]] = {}
    for path in sorted(expected.keys() & found.keys()):
        if expected[path] == found[path]:
            continue
        names, text = found[path].lacks(expected[path]), _as_text(path)
        if not names or not all(may_lack(name, text) for name in names):
            different.append(path)
            continue
        for name in names:
            lacking.setdefault(name, []).append(text)
    return Comparison(
        different=_text(different),
        missing=_text(expected.keys() - found.keys()),
        extra=_text(_extra(expected, found)),
        lacking=lacking,
    )


def _extra(expected: dict[bytes, Signature], found: dict[bytes, Signature]) -> set[bytes]:
    """What only the volume has; an empty lost+found came with its filesystem."""
    extra = found.keys() - expected.keys()
    if _LOST_FOUND in extra and found[_LOST_FOUND].type == "d":
        is_empty = not any(path.startswith(_LOST_FOUND + b"/") for path in extra)
        return extra - {_LOST_FOUND} if is_empty else extra
    return extra


def _expected(backup: OpenBackup) -> tuple[dict[bytes, int], set[int]]:
    """The numbers of the backup's units by their digest; and the numbers of those that repeat another's digest."""
    numbers: dict[bytes, int] = {}
    repeated: set[int] = set()
    for number, unit in enumerate(backup.units()):
        digest = _unit_digest((piece.digests for piece in unit.pieces), unit.members)
        if numbers.setdefault(digest, number) != number:
            repeated.add(number)
    return numbers, repeated


def _unit_digest(extents: Iterable[bytes], members: Iterable[Member]) -> bytes:
    """Over the digests of its extents, and the names that the index gives to what is in them."""
    digest = hashlib.sha256(b"".join(extents))
    for member in members:
        digest.update(b"%s\0%s\0%s\0" % (member.type.encode(), member.path, member.link))
    return digest.digest()


def _digests(ctx: Context, cuts: Iterable[Cut]) -> Iterator[bytes | UnitEnd]:
    """The SHA-256 of the extents of each raw frame, and each UnitEnd, in order."""

    def digest(cut: Cut) -> bytes | UnitEnd:
        if isinstance(cut, UnitEnd):
            return cut
        assert isinstance(cut, RawFrame), "nothing is reused without a parent"
        return b"".join(digests_of(cut))

    def counted() -> Iterator[Cut]:
        for cut in cuts:
            if isinstance(cut, RawFrame):
                ctx.progress.advance(raw_bytes=sum(cut.sizes))
            yield cut

    return in_order(digest, counted(), size=raw_bytes)


def _found(items: Iterable[bytes | UnitEnd]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Digest and paths of each unit of the volume, as it is read."""
    extents: list[bytes] = []
    for item in items:
        if isinstance(item, UnitEnd):
            yield _unit_digest(extents, item.members), [member.path for member in item.members]
            extents = []
        else:
            extents.append(item)


def _check_read(messages: bytes) -> None:
    _, failures = tar.read_warnings(messages)
    if failures:
        raise unreadable(failures)


def _as_text(path: bytes) -> str:
    return path.decode(errors="backslashreplace") or "."


def _text(paths: Iterable[bytes]) -> list[str]:
    return [_as_text(path) for path in sorted(paths)]
