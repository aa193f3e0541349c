"""Proof: the target is read again on its own host, and compared with what was read of the source.

The digest of the stream that was copied is known, so only the target is read. Where it gives another one, both are
read and compared path by path, so each file that differs is named.
"""

from __future__ import annotations

from volback.archive import tar
from volback.context import Context
from volback.moving.sides import Side
from volback.moving.transfer import Passing, Transferred
from volback.operations.prove import Comparison, compare_signatures, signatures_of
from volback.operations.volumes import open_reader, scan, unreadable
from volback.state.runs import Run


def prove_transfer(ctx: Context, run: Run, source: Side, target: Side, moved: Transferred) -> Comparison:
    """Compare, and name each file that differs. Attributes that could not be set may be missing. Raises EngineError."""
    ctx.progress.start(f"prove {target.volume.name}", total_bytes=moved.raw_bytes, total_files=moved.files)
    if _digest(ctx, run, target) == moved.digest:
        return Comparison([], [], [])

    def may_lack(name: str, path: str) -> bool:
        return (name, path) in moved.unset

    expected = signatures_of(source.engine, run, source.volume)
    return compare_signatures(expected, signatures_of(target.engine, run, target.volume), may_lack)


def _digest(ctx: Context, run: Run, side: Side) -> bytes:
    """SHA-256 of the tar stream of all that a volume holds. Raises EngineError."""
    passing = Passing(lambda size: ctx.progress.advance(raw_bytes=size))
    with open_reader(side.engine, run, side.volume) as reader:
        plan = scan(reader, [])
        for _ in passing.through(reader.read(plan.names())):
            continue
        _, failures = tar.read_warnings(reader.messages())
    if failures:
        raise unreadable(failures)
    return passing.digest
