"""Again: a volume that an earlier run has moved, and whose old side went on, is moved once more.

Its target may be replaced without asking if nobody has touched it since: all that is in it is what that run has put
there. The target itself says so: its scan is what it was then, with inodes and times of change, which no program sets.
"""

from __future__ import annotations

import hashlib

from volback.context import Context
from volback.moving.sides import Side
from volback.operations.single_files import found_by
from volback.operations.volumes import open_reader, scan
from volback.state.noted import read_note, write_note
from volback.state.runs import Run

_DIRECTORY = "moved"


def note_moved(ctx: Context, run: Run, target: Side) -> None:
    """Remember how a target is that was just filled. Raises EngineError."""
    write_note(ctx.settings.state / _DIRECTORY, *_names(target), text=_state_of(run, target))


def is_untouched(ctx: Context, run: Run, target: Side) -> bool:
    """Whether a target is as an earlier run has left it. Raises EngineError."""
    known = read_note(ctx.settings.state / _DIRECTORY, *_names(target))
    return known is not None and known == _state_of(run, target)


def _names(target: Side) -> tuple[str, str]:
    return target.engine.info.id, target.volume.name


def _state_of(run: Run, target: Side) -> str:
    with open_reader(target.engine, run, target.volume) as reader:
        if target.volume.kind == "file":
            found = found_by(reader)
            records = [] if found is None else found.plan.records
        else:
            records = scan(reader, []).records
    digest = hashlib.sha256()
    for record in records:
        digest.update(b"%d:%s" % (len(record), record))
    return digest.hexdigest()
