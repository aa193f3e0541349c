"""Restore of a part in place: what of the part is written into a volume that holds other files, and what is not.

A part changes its own paths only. The directories above it that the volume has keep owner, mode and attributes. Where
it cannot be written to its end, the former files of these paths are put back.
"""

from __future__ import annotations

from collections import deque

from volback.archive import tar
from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.errors import ConflictError, EngineError
from volback.operations.open_backup import OpenBackup
from volback.operations.removal import remove_paths
from volback.operations.selection import Selection
from volback.operations.volumes import open_extractor, open_reader, scan
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


def missing_bytes(engine: Engine, run: Run, selection: Selection, target: Source) -> tuple[int, int]:
    """Return how many bytes of the part's files `target` does not have, and how many there are. Raises EngineError."""
    wanted = {member.path: member.size_bytes for member in selection.members() if member.type == "f"}
    with open_reader(engine, run, target) as reader:
        plan = scan(reader, [])
        entries = map(plan.entry, range(len(plan.records)))
        there = {entry.path: entry.size_bytes for entry in entries if entry.path in wanted}
    missing = sum(max(0, size - there.get(path, 0)) for path, size in wanted.items())
    return missing, sum(wanted.values())


def put_back(engine: Engine, run: Run, selection: Selection, target: Source, former: OpenBackup) -> None:
    """Undo a part that was written in part: remove what is there of it, and write what `former` has of its paths.

    Raises EngineError, IntegrityError.
    """
    part = {member.path: member.type for member in selection.members()}
    before = Selection.only(former, part.keys())
    kept = {member.path for member in before.members() if member.type == "d"}
    made = [path for path, type_ in part.items() if type_ != "d" or path not in kept]
    remove_paths(engine, run, target, made)
    with open_extractor(engine, run, target) as writer:
        status = writer.write(before.without(before.above).stream())
        said = tar.read_extract_messages(writer.messages(), status)
    if said.failures or (status and not said.unset):
        raise EngineError(f"the former files could not be put back: {said.failures[0] if said.failures else status}")


def _text(path: bytes) -> str:
    return repr(path.decode(errors="backslashreplace") or ".")
