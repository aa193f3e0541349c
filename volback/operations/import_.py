"""Import: any tar, plain or compressed, as a new volume. The archive is considered hostile.

It is unpacked in a helper that has only the new volume mounted, by a tar that strips `/`, refuses `..` and
writes through no symlink; what it strips or refuses is reported. A failed import removes its volume.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from volback.archive import tar
from volback.archive.decompress import ForeignArchive
from volback.archive.plan import Plan
from volback.catalog.model import Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.engine.streams import VolumeWriter
from volback.errors import EngineError, IntegrityError, NotFoundError, UsageError
from volback.operations.locks import volume_lock
from volback.operations.recover import sweep
from volback.operations.volumes import (
    full_target,
    new_volume,
    open_extractor,
    open_reader,
    scan,
    unset_warnings,
    unwritten_bytes,
)
from volback.state.runs import Run

WARNINGS_MAX = 50


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The result of an import."""

    target: Source
    compression: str
    """gzip, zstd, xz, bzip2; empty for a plain tar."""
    files: int
    """Entries of the volume now, its root included."""
    raw_bytes: int
    """Of the tar stream."""
    warnings: list[str] = field(default_factory=list)


def import_tar(
    ctx: Context,
    engine: Engine,
    repository: Repository,
    source: BinaryIO | Path,
    name: str,
    *,
    labels: dict[str, str] | None = None,
    driver: str = "local",
    driver_options: dict[str, str] | None = None,
) -> ImportResult:
    """Unpack the archive `source` into the new volume `name`.

    Raises FormatError for what is not a tar archive, IntegrityError for one that is damaged or cut short, ConflictError
    if the volume exists, NotFoundError, EngineError. After any of them the volume does not exist.
    """
    given = {key: value for key, value in (driver_options or {}).items() if value}
    target = Source(kind="volume", name=name, driver=driver, options=given, labels=labels or {})
    with _opened(source) as file:
        archive = ForeignArchive(file, _name_of(source))
        sweep(ctx, engine, repository)

        def writer(look: Sequence[str]) -> AbstractContextManager[VolumeWriter]:
            return open_extractor(engine, run, target, tar.IMPORT, look=look)

        with (
            volume_lock(ctx, engine.info.id, name),
            Run(ctx.settings.state, "import", name) as run,
            new_volume(engine, run, target, writer) as starting,
        ):
            return _unpack(ctx, engine, run, archive, target, starting.opened())


def _unpack(
    ctx: Context, engine: Engine, run: Run, archive: ForeignArchive, target: Source, writer: VolumeWriter
) -> ImportResult:
    ctx.progress.start(f"import {target.name}", total_bytes=None, total_files=None)
    counted = _Counted(ctx, archive)
    status = writer.write(counted.stream())
    said = tar.read_extract_messages(writer.messages(), status)
    warnings = said.warnings + unset_warnings(said, privileged_xattrs=None)
    if said.is_full:
        raise full_target(target, lambda: unwritten_bytes(engine, run, target, counted.size_bytes))
    if said.failures or (status and not warnings):
        raise _failed(archive, target, said, status)
    if not archive.has_end:
        warnings.append(f"{archive.name} does not end as tar archives do: it may be cut short")
    with open_reader(engine, run, target) as reader:
        plan = scan(reader, [])
    warnings += _devices(plan)
    return ImportResult(target, archive.compression, len(plan.records), counted.size_bytes, _shortened(warnings))


class _Counted:
    """A stream that reports progress, and its size at the end."""

    def __init__(self, ctx: Context, archive: ForeignArchive) -> None:
        self._ctx = ctx
        self._archive = archive
        self.size_bytes = 0

    def stream(self) -> Iterator[bytes]:
        for buffer in self._archive.stream():
            self.size_bytes += len(buffer)
            self._ctx.progress.advance(raw_bytes=len(buffer))
            yield buffer


def _opened(source: BinaryIO | Path) -> nullcontext[BinaryIO] | BinaryIO:
    if not isinstance(source, Path):
        return nullcontext(source)
    try:
        return source.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"archive {source} does not exist", "check the path") from None
    except OSError as exc:
        raise UsageError(f"archive {source} cannot be read: {exc.strerror}") from exc


def _name_of(source: BinaryIO | Path) -> str:
    return f"archive {source}" if isinstance(source, Path) else "the archive"


def _failed(
    archive: ForeignArchive, target: Source, said: tar.ExtractMessages, status: int
) -> EngineError | IntegrityError:
    failures = said.failures
    message = failures[0] if failures else f"tar ended with status {status}"
    if said.is_cut_short:
        return IntegrityError(f"{archive.name} is cut short", "download or create it again")
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return EngineError(f"{archive.name} could not be imported into volume {target.name!r}: {message}{more}")


def _devices(plan: Plan) -> list[str]:
    found = Counter(plan.entry(number).type for number in range(len(plan.records)))
    devices = found["b"] + found["c"]
    return [f"the volume now contains {devices} device nodes from the archive"] if devices else []


def _shortened(warnings: list[str]) -> list[str]:
    if len(warnings) <= WARNINGS_MAX:
        return warnings
    return [*warnings[:WARNINGS_MAX], f"and {len(warnings) - WARNINGS_MAX} more warnings"]
