"""Proof: the target is read again on its own host, and compared with what was read of the source.

The digest of the stream that was copied is known, so only the target is read. A helper on another host computes it
there. Where it is another one, both are read and compared path by path, so each file that differs is named.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Set
from contextlib import AbstractContextManager
from itertools import chain

from volback.archive import tar, wire
from volback.archive.plan import Plan
from volback.context import Context
from volback.engine.engine import Engine
from volback.engine.streams import VolumeReader
from volback.moving.delta import Delta, are_same
from volback.moving.sides import Side
from volback.moving.transfer import Passing, Route, Transferred, read_arguments
from volback.operations.prove import Comparison, compare_signatures, signatures_of
from volback.operations.volumes import open_reader, scan, unreadable

log = logging.getLogger(__name__)

_SHA256SUM = re.compile(rb"([0-9a-f]{64})  -\n")
"""What the program writes of its standard input."""


def prove_transfer(route: Route, moved: Transferred) -> Comparison:
    """Compare, and name each file that differs. Attributes that could not be set may be missing. Raises EngineError."""
    progress = route.ctx.progress
    progress.start(f"prove {route.target.volume.name}", total_bytes=moved.raw_bytes, total_files=moved.files)
    if digest_of_all(route) == moved.digest:
        return Comparison([], [], [])
    return compare_whole(route, moved.unset)


def compare_whole(route: Route, unset: Set[tuple[str, str]]) -> Comparison:
    """Compare both sides path by path; `unset`: attributes (name, path) that could not be set. Raises EngineError."""
    log.debug("%s gives another stream: compared path by path", route.target.what)

    def may_lack(name: str, path: str) -> bool:
        return (name, path) in unset

    sides = (route.source, route.target)
    read = tar.without(route.drop)
    expected, found = (signatures_of(side.engine, route.run, side.volume, read=read) for side in sides)
    return compare_signatures(expected, found, may_lack)


def opened_proof(route: Route) -> AbstractContextManager[VolumeReader]:
    """Start a helper that reads the target; for `prove_delta`, before the containers are stopped."""
    return opened_digest(route, route.target, rescan=True)


def prove_delta(route: Route, reader: VolumeReader, plan: Plan, changed: Delta, moved: Transferred) -> bool:
    """Whether the target is what the plan says of the source, and holds the content that was sent last.

    What it held before that was proven. `reader` has scanned it once. Raises EngineError.
    """
    there = scan(reader, [])
    if not are_same(plan, there):
        return False
    if not changed.sent:
        return True
    return digest_read(route.ctx, reader, changed.names(there)) == moved.digest


def digest_of_all(route: Route) -> bytes:
    """SHA-256 of the tar stream of all that the target holds. Raises EngineError."""
    with opened_digest(route, route.target) as reader:
        return digest_read(route.ctx, reader, scan(reader, []).names())


def same_there(route: Route) -> Plan | None:
    """The plan of the source if the target, which exists, holds the same bit for bit; else None. Raises EngineError.

    Content is read only where the scans say the same of all files.
    """
    with opened_digest(route, route.source) as reader, opened_digest(route, route.target) as there:
        plan, found = scan(reader, []), scan(there, [])
        if not are_same(plan, found):
            return None
        same = digest_read(route.ctx, reader, plan.names()) == digest_read(route.ctx, there, found.names())
    return plan if same else None


def opened_digest(route: Route, side: Side, *, rescan: bool = False) -> AbstractContextManager[VolumeReader]:
    """Start a helper that reads one side, for its digest alone."""
    read, on_wire = read_arguments(side.volume, route.drop), _on_wire(side.engine)
    return open_reader(side.engine, route.run, side.volume, rescan=rescan, read=read, on_wire=on_wire)


def digest_read(ctx: Context | None, reader: VolumeReader, names: Iterable[bytes]) -> bytes:
    """SHA-256 of the tar stream of these names; without a context no progress is shown. Raises EngineError.

    `reader` has scanned all, and was opened for this.
    """
    found = _found(ctx, reader.read(names))
    _check_read(reader)
    return found


def _check_read(reader: VolumeReader) -> None:
    _, failures = tar.read_warnings(reader.messages())
    if failures:
        raise unreadable(failures)


def _on_wire(engine: Engine) -> list[str]:
    """More arguments of tar on another host, where it stays process 1 and writes the same stream."""
    for program, command in (("sha256sum", "sha256sum"), ("zstd", wire.COMPRESS)):
        if engine.has_program(program):
            return [f"--use-compress-program={command}"]
    return []


def _found(ctx: Context | None, stream: Iterable[bytes | bytearray]) -> bytes:
    """The digest that a helper has computed, or that of the stream which it sends."""
    buffers = iter(stream)
    first = bytes(next(buffers, b""))
    if computed := _SHA256SUM.fullmatch(first):
        for _ in buffers:
            continue
        return bytes.fromhex(computed[1].decode())
    everything: Iterable[bytes | bytearray] = chain([first], buffers)
    passing = Passing(lambda size: None if ctx is None else ctx.progress.advance(raw_bytes=size))
    for _ in passing.through(wire.plain(everything) if wire.is_compressed(first) else everything):
        continue
    return passing.digest
