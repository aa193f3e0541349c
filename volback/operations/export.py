"""Export: a whole backup as its tar stream, or as its concatenated frames, a standard .tar.zst."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from volback.archive import ranges
from volback.archive.announced import Announced
from volback.archive.codec import ZstdCodec
from volback.archive.seal import in_order
from volback.archive.window import Buffer
from volback.context import Context
from volback.durable import write_new
from volback.errors import ConflictError, StoreError
from volback.operations.open_backup import OpenBackup


def export(ctx: Context, backup: OpenBackup, *, zstd: bool = False) -> Iterator[bytes | memoryview]:
    """Yield the backup as a tar, or with `zstd` as a tar.zst; each frame is verified before a byte of it is written.

    The tar.zst of a full backup is its data object, byte for byte. Raises IntegrityError.
    """
    total = backup.manifest.raw_bytes
    ctx.progress.start(f"export {backup.manifest.volume}", total_bytes=total, total_files=None)
    return _frames(ctx, backup) if zstd else _stream(ctx, backup)


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
    codec = ZstdCodec()

    def prove(fetched: ranges.Fetched) -> tuple[memoryview, bytes | memoryview]:
        stored, piece = fetched.frame.stored, fetched.slice.piece
        raw = backup.open_slice(fetched)
        return raw, stored if stored and piece.raw_bytes == piece.frame.raw_bytes else codec.seal(raw)

    def counted(proven: Iterable[tuple[memoryview, bytes | memoryview]]) -> Iterator[tuple[Buffer, bytes | memoryview]]:
        for raw, stored in proven:
            ctx.progress.advance(raw_bytes=len(raw), stored_bytes=len(stored))
            yield raw, stored

    announced = Announced(f"backup {backup.name}")
    with closing(in_order(prove, backup.fetch(announced.whole(backup.units())))) as proven:
        yield from announced.passed(counted(proven))


def _exists(path: Path) -> ConflictError:
    return ConflictError(f"file {path} exists already", "name another, or remove it first")
