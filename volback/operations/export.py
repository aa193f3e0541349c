"""Export: a whole backup as its tar stream, packed with gzip too, or as its frames end to end, a standard .tar.zst."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

from volback.archive import ranges
from volback.archive.announced import Announced
from volback.archive.codec import ZstdCodec
from volback.archive.gzipped import gzipped
from volback.context import Context
from volback.durable import write_new
from volback.errors import ConflictError, StoreError, UsageError
from volback.operations.open_backup import OpenBackup

Form = Literal["tar", "zstd", "gzip"]
_ENDINGS: dict[str, Form] = {
    ".tar": "tar", ".tar.zst": "zstd", ".tzst": "zstd", ".zst": "zstd", ".tar.gz": "gzip", ".tgz": "gzip",
}  # fmt: skip
_OTHERS = (".gz", ".xz", ".txz", ".bz2", ".tbz", ".tbz2", ".lz4", ".br", ".zip", ".7z", ".rar", ".age", ".gpg")
"""Endings that promise what is not written."""


def form_of(path: Path, *, zstd: bool = False) -> Form:
    """What is written to a file of that name: its ending says so, and never lies; a tar where it says nothing.

    With `zstd` that is asked for. Raises UsageError where the ending promises something else.
    """
    name = path.name.lower()
    if other := next(
        (ending for ending in _OTHERS if name.endswith(ending) and not name.endswith(tuple(_ENDINGS))), ""
    ):
        known = ".tar, .tar.zst or .tar.gz"
        raise UsageError(
            f"{path.name}: a backup is exported as {known}, not as {other}",
            f"name it {known}, or give it to another program: volback export BACKUP | ... > FILE",
        )
    form = next((form for ending, form in _ENDINGS.items() if name.endswith(ending)), "zstd" if zstd else "tar")
    if zstd and form != "zstd":
        raise UsageError(f"{path.name} would not be what its ending says", "name it .tar.zst, or leave out --zstd")
    return form


def export(ctx: Context, backup: OpenBackup, form: Form = "tar") -> Iterator[bytes | memoryview]:
    """Yield the backup as a tar, plain, packed with gzip, or as a .tar.zst.

    Each frame is verified before a byte of it is written. The tar.zst of a full backup is its data object, byte
    for byte. Raises IntegrityError.
    """
    total = backup.manifest.raw_bytes
    ctx.progress.start(f"export {backup.manifest.volume}", total_bytes=total, total_files=None)
    if form == "zstd":
        return _frames(ctx, backup)
    return gzipped(_stream(ctx, backup)) if form == "gzip" else _stream(ctx, backup)


def write_file(path: Path, buffers: Iterable[bytes | memoryview]) -> int:
    """Write a new file, completely or not at all, readable by its owner only; return its size.

    Raises ConflictError if there is one of that name, StoreError.
    """
    if os.path.lexists(path):
        raise _exists(path)
    try:
        return write_new(path, buffers)
    except FileExistsError as exc:
        raise _exists(path) from exc
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}") from exc


def _stream(ctx: Context, backup: OpenBackup) -> Iterator[bytes | memoryview]:
    for buffer in backup.stream(lambda size: ctx.progress.advance(stored_bytes=size)):
        ctx.progress.advance(raw_bytes=len(buffer))
        yield buffer


def _frames(ctx: Context, backup: OpenBackup) -> Iterator[bytes | memoryview]:
    """The stored frames, and where only a part of a frame belongs to the backup, that part compressed anew.

    Each extent has been verified, and what it holds compared with the index, before it is yielded.
    """
    codec, announced = ZstdCodec(), Announced(f"backup {backup.name}")
    with closing(backup.unsealed(announced.whole(backup.units()))) as unsealed:
        for run in _by_frame(announced.passed((raw, (raw, fetched)) for fetched, raw in unsealed)):
            stored, raw = _stored(run), b"".join(raw for raw, _ in run)
            out = codec.seal(raw) if stored is None else stored
            ctx.progress.advance(raw_bytes=len(raw), stored_bytes=len(out))
            yield out


_Proven = tuple[memoryview, ranges.Fetched]


def _by_frame(proven: Iterable[_Proven]) -> Iterator[list[_Proven]]:
    """Slices that follow one another in one frame, together."""
    run: list[_Proven] = []
    for item in proven:
        fetched = item[1]
        if run and (run[-1][1].frame is not fetched.frame or _stop(run[-1][1]) != fetched.slice.piece.start):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _stop(fetched: ranges.Fetched) -> int:
    return fetched.slice.piece.start + fetched.slice.piece.raw_bytes


def _stored(run: list[_Proven]) -> bytes | memoryview | None:
    """The stored bytes of the frame that a run is, from its first byte to its last; None where it is a part."""
    first, last = run[0][1], run[-1][1]
    is_whole = first.slice.piece.start == 0 and _stop(last) == first.frame.frame.raw_bytes
    return first.frame.stored if is_whole else None


def _exists(path: Path) -> ConflictError:
    return ConflictError(f"file {path} exists already", "name another, or remove it first")
