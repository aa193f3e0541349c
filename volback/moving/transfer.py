"""Transfer: one pass over a volume: read by a helper, through this process, written by another helper.

At most a few buffers are in memory at any time. No file and no repository lies between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from volback.archive import tar
from volback.context import Context
from volback.engine.streams import VolumeReader, VolumeWriter
from volback.errors import EngineError
from volback.moving.sides import Side
from volback.operations.noticed import odd
from volback.operations.volumes import check_extracted, scan, unset_warnings, unwritten_bytes
from volback.state.runs import Run


@dataclass(frozen=True, slots=True)
class Transferred:
    """What one pass has brought to the other side."""

    files: int
    """Entries of the volume, its root included."""
    raw_bytes: int
    """Of the tar stream."""
    sockets: int
    """Skipped, as an archive cannot hold them."""
    digest: bytes
    """SHA-256 of the stream: a reading of the target gives the same. Empty where it was not wanted."""
    unset: frozenset[tuple[str, str]] = frozenset()
    """Name of an attribute that could not be set, and path of the file, as text."""
    warnings: list[str] = field(default_factory=list)
    """What does not arrive as it was."""


def transfer(
    ctx: Context, run: Run, source: Side, target: Side, reader: VolumeReader, writer: VolumeWriter, *, digested: bool
) -> Transferred:
    """Copy all files. Raises EngineError where not all could be read or written."""
    plan = scan(reader, [])
    ctx.progress.start(f"move {source.volume.name}", total_bytes=plan.total_bytes, total_files=len(plan.records))
    passing = Passing(lambda size: ctx.progress.advance(raw_bytes=size), digested=digested)
    status = writer.write(passing.through(reader.read(plan.names())))
    changed, failures = tar.read_warnings(reader.messages())
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise EngineError(f"{source.what} cannot be read completely: {failures[0]}{more}")
    missing = partial(unwritten_bytes, target.engine, run, target.volume, plan.total_bytes)
    said = check_extracted(target.volume, writer, status, missing)
    return Transferred(
        len(plan.records),
        passing.size_bytes,
        plan.sockets,
        passing.digest,
        frozenset((name, path) for (name, _), paths in said.unset.items() for path in paths),
        changed + odd(plan) + unset_warnings(said, privileged_xattrs=None),
    )


class Passing:
    """A stream on its way: counted, and digested if wanted."""

    def __init__(self, count: Callable[[int], None], *, digested: bool = True) -> None:
        self.size_bytes = 0
        self._count = count
        self._sha256 = hashlib.sha256() if digested else None

    @property
    def digest(self) -> bytes:
        """Of what has passed; empty where that was not wanted."""
        return self._sha256.digest() if self._sha256 is not None else b""

    def through(self, buffers: Iterable[bytes | bytearray]) -> Iterator[bytes | memoryview]:
        """Yield the same buffers."""
        for buffer in buffers:
            if self._sha256 is not None:
                self._sha256.update(buffer)
            self.size_bytes += len(buffer)
            self._count(len(buffer))
            yield memoryview(buffer)
