"""Prove: read a volume again and compare it with a backup, bit for bit; name each file that differs.

First by frame digests, which needs no data of the backup. Only units that do not match are then read from both sides
and compared member by member.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from volback.archive import ranges, tar
from volback.archive.cut import Cut, Cutter, RawFrame, Reused, UnitEnd
from volback.archive.seal import in_order
from volback.archive.walk import walk
from volback.archive.window import Buffer
from volback.catalog.model import Source
from volback.context import Context, Repository
from volback.engine.engine import Engine
from volback.operations.open_backup import OpenBackup, Selection
from volback.operations.volumes import open_reader, scan, unreadable
from volback.state.runs import Run


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing a volume with a backup; paths as text, in order."""

    different: list[str]
    missing: list[str]
    """In the backup, not in the volume."""
    extra: list[str]
    """In the volume, not in the backup."""

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return not (self.different or self.missing or self.extra)


def prove(
    ctx: Context, engine: Engine, repository: Repository, reference: str, volume: str | None = None
) -> Comparison:
    """Compare a backup with a volume (by default its own volume). Raises NotFoundError, IntegrityError."""
    manifest = repository.find(reference)
    backup = OpenBackup(repository.store, manifest)
    source = manifest.source
    if volume is not None:
        kind = "directory" if volume.startswith("/") else "volume"
        source = Source(kind=kind, name=volume)  # type: ignore[arg-type]
    if source.kind == "volume":
        engine.volume(source.name)
    with Run(ctx.settings.state, "prove", backup.name) as run:
        return compare(ctx, engine, run, backup, source, excludes=manifest.excludes)


def compare(
    ctx: Context, engine: Engine, run: Run, backup: OpenBackup, source: Source, *, excludes: list[str]
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
    stream = backup.read(item for unit in backup.numbered(odd) for item in ranges.whole(unit.frames))
    signed = signatures(chain(stream, [tar.END_OF_ARCHIVE]))
    return _compared(signed, _read_again(engine, run, source, excludes, changed))


def compare_part(engine: Engine, run: Run, selection: Selection, source: Source, *, alone: bool = True) -> Comparison:
    """Compare a part of a backup with a volume that contains only this part, or (not `alone`) other files too."""
    expected = signatures(selection.stream())
    if not alone:
        return _compared(expected, _read_again(engine, run, source, [], set(expected)))
    with open_reader(engine, run, source) as reader:
        plan = scan(reader, [])
        found = signatures(reader.read(plan.names()))
        _check_read(reader.messages())
    return _compared(expected, found)


def _read_again(engine: Engine, run: Run, source: Source, excludes: list[str], paths: set[bytes]) -> dict[bytes, bytes]:
    """Signatures of some members of the volume, all names of an inode among them."""
    with open_reader(engine, run, source) as reader:
        plan = scan(reader, excludes)
        names = plan.names(lambda unit: not paths.isdisjoint(plan.paths(unit)))
        found = signatures(reader.read(names))
        _check_read(reader.messages())
    return {path: signature for path, signature in found.items() if path in paths}


def signatures(stream: Iterable[Buffer]) -> dict[bytes, bytes]:
    """Signature of each member of a tar stream, by path."""
    return {header.path: signature for header, signature in walk(stream)}


def _compared(expected: dict[bytes, bytes], found: dict[bytes, bytes]) -> Comparison:
    """Compare signatures by path."""
    return Comparison(
        different=_text(path for path in expected.keys() & found.keys() if expected[path] != found[path]),
        missing=_text(expected.keys() - found.keys()),
        extra=_text(found.keys() - expected.keys()),
    )


def _expected(backup: OpenBackup) -> tuple[dict[bytes, int], set[int]]:
    """The numbers of the backup's units by their digest; and the numbers of those that repeat another's digest."""
    numbers: dict[bytes, int] = {}
    repeated: set[int] = set()
    for number, unit in enumerate(backup.units()):
        digest = hashlib.sha256(b"".join(bytes.fromhex(frame.sha256) for frame in unit.frames)).digest()
        if numbers.setdefault(digest, number) != number:
            repeated.add(number)
    return numbers, repeated


def _digests(ctx: Context, cuts: Iterable[Cut]) -> Iterator[bytes | UnitEnd]:
    """SHA-256 of each frame, and each UnitEnd, in order."""

    def digest(cut: Cut) -> bytes | UnitEnd:
        if isinstance(cut, UnitEnd):
            return cut
        if isinstance(cut, Reused):
            return bytes.fromhex(cut.frame.sha256)
        value = hashlib.sha256()
        for piece in cut.pieces:
            value.update(piece)
            ctx.progress.advance(raw_bytes=len(piece))
        return value.digest()

    return in_order(digest, cuts, inline=lambda cut: not isinstance(cut, RawFrame))


def _found(items: Iterable[bytes | UnitEnd]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Digest and paths of each unit of the volume, as it is read."""
    digest = hashlib.sha256()
    for item in items:
        if isinstance(item, UnitEnd):
            yield digest.digest(), [member.path for member in item.members]
            digest = hashlib.sha256()
        else:
            digest.update(item)


def _check_read(messages: bytes) -> None:
    _, failures = tar.read_warnings(messages)
    if failures:
        raise unreadable(failures)


def _text(paths: Iterable[bytes]) -> list[str]:
    return [path.decode(errors="backslashreplace") or "." for path in sorted(paths)]
