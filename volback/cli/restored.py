"""Restored: what `restore` shows of a volume that was restored, or would be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from volback.cli.words import count, human_size
from volback.policy.storage import described, is_plain

if TYPE_CHECKING:
    from volback.cli.documents import moves
    from volback.operations.restore import RestoreResult
    from volback.operations.restore_dry_run import Planned
    from volback.operations.restore_set import SetFiles
    from volback.operations.together import Chosen


def restored_lines(done: RestoreResult) -> Iterator[str]:
    """What was restored, to where."""
    proven = ", proven bit for bit" if done.proven else ""
    yield f"{done.backup} -> {done.target.kind} {done.target.name}"
    yield f"  {count(done.files, 'file')}, {human_size(done.raw_bytes)}{proven}"
    if done.target.kind == "volume" and not is_plain(done.target.driver, done.target.options):
        yield f"  on {described(done.target.driver, done.target.options)}"
    if done.author.is_certified:
        yield "  signed by a certified key of its host"
    if done.safety_backup:
        yield f"  safety backup of the replaced data: {done.safety_backup}"


def restored_facts(done: RestoreResult) -> moves.RestoredVolume:
    """One restored volume or directory."""
    return {
        "volume": done.target.name,
        "files": done.files,
        "raw_bytes": done.raw_bytes,
        "proven": done.proven,
        "backup": done.backup,
        "safety_backup": done.safety_backup,
        "signed_by": done.author.signed_by,
        "certified": done.author.is_certified,
    }


def planned_lines(planned: Planned) -> Iterator[str]:
    """What would be restored, to where."""
    backup, target = planned.backup, planned.target
    yield f"{backup.name} -> {target.kind} {target.name}"
    what = f"{count(backup.files, 'file')}, {human_size(backup.raw_bytes)}"
    yield f"  would restore {what}{', in place' if planned.exists else ''}"


def planned_facts(planned: Planned) -> moves.PlannedRestore:
    """One restore that was not made."""
    return {
        "volume": planned.target.name,
        "backup": planned.backup.name,
        "files": planned.backup.files,
        "raw_bytes": planned.backup.raw_bytes,
        "exists": planned.exists,
    }


def chosen_facts(chosen: Chosen | None) -> moves.ChosenSet:
    """Which set several volumes come from; null where they are of none, or of several."""
    made = None if chosen is None else chosen.made
    return {
        "project": None if chosen is None else chosen.project,
        "set": None if made is None else made.id,
        "whole": chosen is None or not chosen.missing,
    }


def files_lines(files: SetFiles, verb: str = "") -> Iterator[str]:
    """Which compose files were written, and how the project is started."""
    if files.backup is None:
        return
    if files.written is None:
        yield f"compose files are in {files.backup.name}: --compose-dir DIR writes them"
        return
    yield f"{files.backup.name} -> directory {files.written.directory}"
    yield f"  {verb}{', '.join(sorted(files.written.contents))}"
    if files.written.secret:
        yield f"  mode 0600, as they may hold secrets: {', '.join(files.written.secret)}"
    yield f"start: {files.start}"


def files_facts(files: SetFiles) -> moves.FilesBack | None:
    """The compose files of the set; `directory` is null where they are not written."""
    if files.backup is None:
        return None
    written = files.written
    return {
        "backup": files.backup.name,
        "directory": None if written is None else str(written.directory),
        "paths": [] if written is None else sorted(written.contents),
        "start": files.start,
    }
