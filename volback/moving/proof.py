"""Proof: the target is read again on its own host, and compared with what was read of the source.

The digest of the stream that was copied is known, so only the target is read. A helper on another host computes it
there. Where it is another one, both are read and compared path by path, so each file that differs is named.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from itertools import chain

from volback.archive import tar, wire
from volback.context import Context
from volback.engine.engine import Engine
from volback.moving.sides import Side
from volback.moving.transfer import Passing, Transferred
from volback.operations.prove import Comparison, compare_signatures, signatures_of
from volback.operations.volumes import open_reader, scan, unreadable
from volback.state.runs import Run

log = logging.getLogger(__name__)

_SHA256SUM = re.compile(rb"([0-9a-f]{64})  -\n")
"""What the program writes of its standard input."""


def prove_transfer(ctx: Context, run: Run, source: Side, target: Side, moved: Transferred) -> Comparison:
    """Compare, and name each file that differs. Attributes that could not be set may be missing. Raises EngineError."""
    ctx.progress.start(f"prove {target.volume.name}", total_bytes=moved.raw_bytes, total_files=moved.files)
    if _digest(ctx, run, target) == moved.digest:
        return Comparison([], [], [])
    log.debug("%s gives another stream: compared path by path", target.what)

    def may_lack(name: str, path: str) -> bool:
        return (name, path) in moved.unset

    expected = signatures_of(source.engine, run, source.volume)
    return compare_signatures(expected, signatures_of(target.engine, run, target.volume), may_lack)


def _digest(ctx: Context, run: Run, side: Side) -> bytes:
    """SHA-256 of the tar stream of all that a volume holds. Raises EngineError."""
    with open_reader(side.engine, run, side.volume, on_wire=_on_wire(side.engine)) as reader:
        plan = scan(reader, [])
        found = _found(ctx, reader.read(plan.names()))
        _, failures = tar.read_warnings(reader.messages())
    if failures:
        raise unreadable(failures)
    return found


def _on_wire(engine: Engine) -> list[str]:
    """More arguments of tar on another host, where it stays process 1 and writes the same stream."""
    for program, command in (("sha256sum", "sha256sum"), ("zstd", wire.COMPRESS)):
        if engine.has_program(program):
            return [f"--use-compress-program={command}"]
    return []


def _found(ctx: Context, stream: Iterable[bytes | bytearray]) -> bytes:
    """The digest that a helper has computed, or that of the stream which it sends."""
    buffers = iter(stream)
    first = bytes(next(buffers, b""))
    if computed := _SHA256SUM.fullmatch(first):
        for _ in buffers:
            continue
        return bytes.fromhex(computed[1].decode())
    everything: Iterable[bytes | bytearray] = chain([first], buffers)
    passing = Passing(lambda size: ctx.progress.advance(raw_bytes=size))
    for _ in passing.through(wire.plain(everything) if wire.is_compressed(first) else everything):
        continue
    return passing.digest
