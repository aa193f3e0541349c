"""Restore of a part in place: what of the part is written into a volume that holds other files, and what is not.

A part changes its own paths only. The directories above it that the volume has keep owner, mode and attributes.
"""

from __future__ import annotations

from collections import deque

from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.errors import ConflictError
from volback.operations.open_backup import Selection
from volback.operations.volumes import open_reader, scan
from volback.state.runs import Run

_HINT = "restore the part into a volume of its own with --as, and copy from there"


def fit_part(engine: Engine, run: Run, selection: Selection, target: Source) -> Selection:
    """Return the selection without the directories above it that `target` has.

    Raises ConflictError where the target has a directory in place of a file, or something else in place of a directory
    above: following a symbolic link would change another path.
    """
    with open_reader(engine, run, target) as reader:
        plan = scan(reader, [])
        there = {entry.path: entry.type for entry in map(plan.entry, range(len(plan.records)))}
    for path in sorted(selection.above):
        if there.get(path, "d") != "d":
            raise ConflictError(f"{_text(path)} in {target.kind} {target.name!r} is not a directory", _HINT)
    for member in selection.members():
        if member.type != "d" and there.get(member.path) == "d":
            what = f"{_text(member.path)} in {target.kind} {target.name!r} is a directory, but a file in the backup"
            raise ConflictError(what, _HINT)
    return selection.without(path for path in selection.above if path in there)


def check_part(selection: Selection) -> None:
    """Read all that the part consists of. Raises IntegrityError where it is damaged."""
    deque(selection.stream(), maxlen=0)


def _text(path: bytes) -> str:
    return repr(path.decode(errors="backslashreplace") or ".")
