"""Single files of the engine's host: found, and written beside the files that are in the same directory.

A helper mounts the directory above, and touches the file and its part, which has a name of its own: what comes is
written into the part, which takes the file's place once all of it is on disk. What is there is never followed.
"""

from __future__ import annotations

import hashlib
import posixpath
import shlex
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from volback.archive.plan import Entry, Plan, PlannedUnit
from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.engine.streams import VolumeReader, VolumeWriter
from volback.errors import EngineError
from volback.operations.volumes import open_reader, open_writer, scan
from volback.state.runs import Run

FILE_LABEL = "volback.file"
"""Of the source of a backup that holds one file."""
REGULAR = "file"
WORD = "now"
"""At which the part takes the place of the file."""
_TYPES = {"f": REGULAR, "d": "directory", "l": "symbolic link", "p": "FIFO", "b": "device", "c": "device"}

# A rename replaces a link, and never follows it; but what is there is not what was looked at then.
# It waits for a word: a client that dies gives it none.
_RENAME = """
read -r word && [ "$word" = {word} ] || exit 1
if [ ! -e {part} ]; then {gone}; fi
if [ -L {name} ]; then echo "it is a symbolic link there by now" >&2; exit 1; fi
if [ -e {name} ] && [ ! -f {name} ]; then echo "it is not a file there by now" >&2; exit 1; fi
mv {how} --no-target-directory -- {part} {name} || exit 1
if [ -e {part} ]; then echo "it is there by now" >&2; exit 1; fi
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a path."""

    what: str
    """In a word: `file`, `directory`, `symbolic link`, `socket` and such."""
    plan: Plan
    """Of the file alone, without the directory above."""

    @property
    def entry(self) -> Entry:
        """What the scan says of it; not of a socket."""
        return self.plan.entry(0)


def single_file(path: str) -> Source:
    """The file at a path of the engine's host."""
    return Source(kind="file", name=path)


def file_backup_source(path: str) -> Source:
    """What the backup of a file says of it: it looks like one of a directory, which holds that file; a label tells."""
    return Source(kind="directory", name=path, labels={FILE_LABEL: posixpath.basename(path)})


def is_file_backup(source: Source) -> bool:
    """Whether a backup is of a single file."""
    return source.kind == "directory" and FILE_LABEL in source.labels


def read_source(source: Source) -> Source:
    """What is read for a backup: of a single file, that file alone."""
    return single_file(source.name) if is_file_backup(source) else source


def look_at(engine: Engine, run: Run, path: str) -> Found | None:
    """Return what is at a path; None where nothing is. Raises NotFoundError for the directory above, EngineError."""
    with open_reader(engine, run, single_file(path)) as reader:
        return found_by(reader)


def found_by(reader: VolumeReader) -> Found | None:
    """Let a helper that was opened for the file scan it. Raises EngineError."""
    plan = scan(reader, [])
    for record, entry in zip(plan.records, map(plan.entry, range(len(plan.records))), strict=True):
        if entry.path:
            plan.records, plan.units = [record], [PlannedUnit("file", 0, 1)]
            return Found(_TYPES.get(entry.type, "special file"), plan)
    if plan.sockets or plan.odd:
        return Found("socket" if plan.sockets else "special file", plan)
    return None


def part_of(path: str) -> str:
    """The path of the file's part: in the same directory, and of a length that every filesystem takes."""
    directory, name = posixpath.split(path)
    mark = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]
    return posixpath.join(directory, f".volback-{mark}.part")


def part_arguments(path: str) -> list[str]:
    """More arguments of an extracting tar: it writes the part. One that a dead run has left is replaced."""
    return [f"--transform=s,.*,./{posixpath.basename(part_of(path))},"]


def open_renamer(
    engine: Engine, run: Run, file: Source, *, replace: bool, may_be_done: bool = False
) -> AbstractContextManager[VolumeWriter]:
    """Start a helper that waits, and lets the part take the place of the file; for `rename_with`.

    `replace`: a file may be there. `may_be_done`: a part that is gone has its place already.
    """
    script = rename_script(file.name, replace=replace, may_be_done=may_be_done)
    return open_writer(engine, run, file, ["/bin/sh", "-c", script])


def rename_script(path: str, *, replace: bool, may_be_done: bool) -> str:
    """What a helper runs for it, in the directory above."""
    part, name = (f"./{posixpath.basename(each)}" for each in (part_of(path), path))
    how = "--force" if replace else "--no-clobber"
    gone = "exit 0" if may_be_done else 'echo "what was written is gone" >&2; exit 1'
    return _RENAME.format(part=part, name=shlex.quote(name), how=how, gone=gone, word=WORD)


def rename_with(renamer: VolumeWriter, file: Source) -> None:
    """Let the part take the place of the file; it is on disk then. Raises EngineError."""
    _carry_out(renamer, [f"{WORD}\n".encode()], failed=f"file {file.name!r} could not be put in its place")


def remove_part(engine: Engine, part: str, *, run: str, directory: Path) -> bool:
    """Remove a part; `run` is the id of a run, and `directory` a new one inside its own. Returns True: nothing of it is
    left. Raises NotFoundError for the directory above, EngineError."""
    name = shlex.quote(posixpath.basename(part))
    script = f"find . -mindepth 1 -maxdepth 1 -name {name} ! -type d -delete >&2"
    with engine.writer(single_file(part), run=run, directory=directory, write=["/bin/sh", "-c", script]) as helper:
        _carry_out(helper, (), failed=f"{part} could not be removed")
    return True


def _carry_out(helper: VolumeWriter, given: Iterable[bytes], *, failed: str) -> None:
    """Let a helper's script do its work. Raises EngineError, which begins with `failed`, for all that it says."""
    status, messages = helper.write(given), helper.messages()
    if status or messages:
        why = messages.decode(errors="backslashreplace").partition("\n")[0] or f"status {status}"
        raise EngineError(f"{failed}: {why}")
