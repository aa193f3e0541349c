"""Transfer: one pass over a volume: read by a helper, through this process, written by another helper.

At most a few buffers are in memory at any time. No file and no repository lies between. Between hosts it goes as zstd:
a helper on another host compresses, or decompresses, there; for a helper on this host this process does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from volback.archive import tar, wire
from volback.archive.attributes import Kind
from volback.archive.plan import Plan
from volback.catalog.model import Source
from volback.context import Context
from volback.engine.engine import Engine
from volback.engine.streams import VolumeCopier, VolumeReader, VolumeWriter
from volback.errors import EngineError, EngineUnreachable
from volback.feed import Feed
from volback.moving.connections import Traffic
from volback.moving.copier import Report, can_copy, open_copier, read_report
from volback.moving.delta import Delta
from volback.moving.sides import Side
from volback.operations.noticed import odd
from volback.operations.single_files import part_arguments, part_of, single_file
from volback.operations.volumes import check_extracted, open_extractor, open_reader, unset_warnings, unwritten_bytes
from volback.pace import Pace
from volback.state.runs import Run

Buffer = bytes | bytearray | memoryview

_END_BYTES = 2 * tar.BLOCK


@dataclass(frozen=True, slots=True)
class Wires:
    """How the stream goes from one host to another."""

    compress_from: bool = False
    """Whether the source's helper compresses, where it is on another host."""
    compress_to: bool = False
    """Whether the target's helper decompresses, where it is on another host."""
    pace: Pace | None = None

    @classmethod
    def between(cls, source: Engine, target: Engine, *, compress: bool, bytes_s: float | None) -> Wires:
        """For two engines; what is on a pipe of this host goes as it is all the same."""
        pace = None if bytes_s is None else Pace(bytes_s)
        return cls(compress and source.has_program("zstd"), compress and target.has_program("zstd"), pace)

    @property
    def of_reader(self) -> list[str]:
        """More arguments of the source's tar, where it is on another host."""
        return [f"--use-compress-program={wire.COMPRESS}"] if self.compress_from else []

    @property
    def of_writer(self) -> str | None:
        """The program before the target's tar, where it is on another host."""
        return wire.DECOMPRESS if self.compress_to else None


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
    sent_bytes: int = 0
    """What the target's helper was given."""
    unset: frozenset[tuple[str, str]] = frozenset()
    """Name of an attribute that could not be set, and path of the file, as text."""
    read_warnings: list[str] = field(default_factory=list)
    """What changed or vanished while it was read, or cannot be in an archive."""
    unset_warnings: list[str] = field(default_factory=list)
    """What the target did not take."""


@dataclass(frozen=True, slots=True)
class Route:
    """From one side to the other, in one run."""

    ctx: Context
    run: Run
    source: Side
    target: Side
    wires: Wires = Wires()
    drop: tuple[Kind, ...] = ()
    """Kinds of attributes that are left out, and not compared."""
    traffic: Traffic = field(default_factory=Traffic)

    def transfer(
        self,
        reader: VolumeReader,
        writer: VolumeWriter | None,
        plan: Plan,
        changed: Delta | None = None,
        *,
        digested: bool,
    ) -> Transferred:
        """Copy all files of the plan, or those that have changed. `writer` is None where the reader is a copier.

        Raises EngineError where not all could be read or written.
        """
        names, total = (plan.names(), plan.total_bytes) if changed is None else (changed.names(plan), changed.raw_bytes)
        progress = self.ctx.progress
        progress.start(f"move {self.source.volume.name}", total_bytes=total, total_files=None)
        if writer is None:
            report = read_report(reader.read(names), lambda size: progress.advance(raw_bytes=size))
            self.traffic.raw_bytes += report.raw_bytes
            self.traffic.sent_bytes += report.sent_bytes
        else:
            report = self._through(reader, writer, names, digested=digested)
        written = self.target.volume
        if written.kind == "file":
            written = single_file(part_of(written.name))
        missing = partial(unwritten_bytes, self.target.engine, self.run, written, plan.total_bytes)
        said = check_extracted(self.target.volume, report.messages, report.status, missing)
        warnings = _check_read(self.source, reader)  # of a copier it may be an echo of what the writing tar met
        return Transferred(
            len(plan.records),
            report.raw_bytes,
            plan.sockets,
            report.digest,
            report.sent_bytes,
            frozenset((name, path) for (name, _), paths in said.unset.items() for path in paths),
            warnings + odd(plan),
            unset_warnings(said, privileged_xattrs=None),
        )

    def _through(self, reader: VolumeReader, writer: VolumeWriter, names: Iterable[bytes], *, digested: bool) -> Report:
        """Copy from one helper into another, through this process."""
        passing = Passing(self._counted, digested=digested)
        sent = Passing(self._count_sent, digested=False)
        status = writer.write(sent.through(self._sent(reader.read(names), passing, writer)))
        _check_read(self.source, reader)
        if not passing.is_complete:
            raise EngineUnreachable(f"{self.source.what}: the connection to its helper broke")
        return Report(status, writer.messages(), passing.size_bytes, passing.digest, sent.size_bytes)

    def _counted(self, size: int) -> None:
        self.traffic.raw_bytes += size
        self.ctx.progress.advance(raw_bytes=size)

    def _count_sent(self, size: int) -> None:
        self.traffic.sent_bytes += size
        self.ctx.progress.advance(sent_bytes=size)

    def copier(self, *, digested: bool) -> Callable[[Sequence[str]], AbstractContextManager[VolumeCopier]] | None:
        """What starts a copier, where one helper can do it all: on one engine, and as fast as it goes.

        It is given the command by which that helper looks into the target.
        """
        if self.wires.pace is not None or not can_copy(self.source, self.target, digested=digested):
            return None
        return partial(open_copier, self.source, self.target, self.run, digested=digested, drop=self.drop)

    def opened_reader(self, *, rescan: bool = False) -> AbstractContextManager[VolumeReader]:
        """Start a helper that reads the source."""
        source = self.source
        read, on_wire = read_arguments(source.volume, self.drop), self.wires.of_reader
        return open_reader(source.engine, self.run, source.volume, rescan=rescan, read=read, on_wire=on_wire)

    def opened_writer(self) -> AbstractContextManager[VolumeWriter]:
        """Start another helper that fills the target."""
        target = self.target
        more = part_arguments(target.volume.name) if target.volume.kind == "file" else []
        extract = [*tar.EXTRACT, *more]
        return open_extractor(target.engine, self.run, target.volume, extract, on_wire=self.wires.of_writer)

    def _sent(
        self, stream: Iterable[bytes | bytearray], passing: Passing, writer: VolumeWriter
    ) -> Iterator[bytes | memoryview]:
        converted = _converted(stream, passing, compress=writer.is_wire and self.wires.compress_to)
        return converted if self.wires.pace is None else self.wires.pace.slowed(converted)


def read_arguments(volume: Source, drop: Collection[Kind]) -> list[str]:
    """More arguments of the tar that reads one side: a single file has one name in both streams."""
    return [*tar.without(drop), *(tar.AS_FILE if volume.kind == "file" else [])]


def _check_read(source: Side, reader: VolumeReader) -> list[str]:
    """Return what changed or vanished meanwhile. Raises EngineError for what could not be read."""
    warnings, failures = tar.read_warnings(reader.messages())
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise EngineError(f"{source.what} cannot be read completely: {failures[0]}{more}")
    return warnings


class Passing:
    """A stream on its way: counted, and digested if wanted."""

    def __init__(self, count: Callable[[int], None], *, digested: bool = True) -> None:
        self.size_bytes = 0
        self._count = count
        self._sha256 = hashlib.sha256() if digested else None
        self._end = b""

    @property
    def is_complete(self) -> bool:
        """Whether what has passed ends as a tar does, with zeros: one that was cut off would do so by chance only."""
        return self.size_bytes % tar.BLOCK == 0 and self._end == bytes(_END_BYTES)

    @property
    def digest(self) -> bytes:
        """Of what has passed; empty where that was not wanted."""
        return self._sha256.digest() if self._sha256 is not None else b""

    def through(self, buffers: Iterable[Buffer]) -> Iterator[bytes | memoryview]:
        """Yield the same buffers."""
        for buffer in buffers:
            self.take(buffer)
            yield memoryview(buffer)

    def take(self, buffer: Buffer) -> None:
        """Count and digest one buffer."""
        if self._sha256 is not None:
            self._sha256.update(buffer)
        self.size_bytes += len(buffer)
        self._end = (self._end + bytes(buffer[-_END_BYTES:]))[-_END_BYTES:]
        self._count(len(buffer))


def _converted(
    stream: Iterable[bytes | bytearray], passing: Passing, *, compress: bool
) -> Iterator[bytes | memoryview]:
    """Yield what the target's helper takes of what the source's helper gives; `passing` sees it in its plain form."""
    buffers = iter(stream)
    first = next(buffers, b"")
    everything = chain([first], buffers)
    if not wire.is_compressed(first):
        plain = passing.through(everything)
        return wire.compressed(plain) if compress else plain
    return _watched(everything, passing) if compress else passing.through(wire.plain(everything))


def _watched(stream: Iterable[bytes | bytearray], passing: Passing) -> Iterator[memoryview]:
    """Yield a compressed stream as it is; a thread looks into it."""

    def look(taken: Iterable[bytes | bytearray]) -> None:
        for buffer in wire.plain(taken):
            passing.take(buffer)

    with Feed[bytes | bytearray](look, "wire-digest") as looking:
        for buffer in stream:
            looking.add([buffer])
            yield memoryview(buffer)
        looking.end()
