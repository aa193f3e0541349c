"""Parts: what moves with the volumes of a compose project: directories and files that its containers mount, compose
files.

What is left out is named, with the reason.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from volback.context import Context
from volback.engine.engine import Engine
from volback.errors import StoreError, UsageError
from volback.operations.compose_files import ComposeFiles
from volback.operations.compose_files_back import FilesBack
from volback.operations.project_parts import LeftOut, project_parts
from volback.policy.binds import is_below, is_machine_file, may_be_filled, place_of


@dataclass(frozen=True, slots=True)
class Parts:
    """What moves, and what does not."""

    directories: Mapping[str, str] = field(default_factory=dict)
    """Paths here, and where each goes there."""
    single_files: Mapping[str, str] = field(default_factory=dict)
    """The same of files that containers mount by themselves."""
    left_out: tuple[LeftOut, ...] = ()
    files: ComposeFiles | None = None
    """Compose files that can be read here."""
    written: FilesBack | None = None
    """Their copies."""
    start: str | None = None
    """The command that starts the project there."""


def parts_of(
    ctx: Context, source: Engine, target: Engine, project: str, *, with_binds: bool, maps: Mapping[str, str],
    compose_dir: Path | None,
) -> Parts:  # fmt: skip
    """Find the parts of a project; nothing is written. Raises UsageError, ConflictError, EngineError."""
    found = project_parts(ctx, source, project, with_binds=with_binds, done="moved")
    single = {path: place_of(path, maps) for path in found.mounted_files}
    directories = {one.name: place_of(one.name, maps) for one in found.directories if one.name not in single}
    places = {**directories, **single}
    unused = [old for old in maps if not any(is_below(path, old) for path in places)]
    if unused:
        raise UsageError(f"--map {unused[0]}={maps[unused[0]]}: nothing below {unused[0]} is moved")
    refused = {
        path: LeftOut(path, f"is not moved to {there}, which belongs to the machine")
        for path, there in places.items()
        if not (_file_may_go(target, there) if path in single else _may_go(source, target, path, there))
    }
    kept = {path: there for path, there in directories.items() if path not in refused}
    moved_files = {path: there for path, there in single.items() if path not in refused}
    left_out = (*(one for one in found.left_out if one.path not in single), *refused.values())
    files = found.files
    if files is None:
        return Parts(kept, moved_files, left_out)
    copies = FilesBack(files.source.labels, compose_dir or Path(files.working_dir), _contents(files))
    if compose_dir is not None and (obstacle := copies.obstacle("moved")):
        raise obstacle
    used = [*places, *(one.path for one in left_out)]
    home = place_of(files.working_dir, maps) if any(is_below(path, files.working_dir) for path in used) else None
    start = copies.start_command(project, engine=_options_for(target), home=home)
    if compose_dir is not None:
        return Parts(kept, moved_files, left_out, files, copies, start)
    is_as_named = all(copies.directory / name == path for name, path in files.paths.items())
    return Parts(kept, moved_files, left_out, files, start=start if is_as_named else None)


def _may_go(source: Engine, target: Engine, path: str, there: str) -> bool:
    return may_be_filled(path, source.info.root_directory) and may_be_filled(there, target.info.root_directory)


def _file_may_go(target: Engine, there: str) -> bool:
    return not is_machine_file(there, target.info.root_directory)


def _contents(files: ComposeFiles) -> dict[str, bytes]:
    """Raises StoreError."""
    try:
        return {name: path.read_bytes() for name, path in files.paths.items()}
    except OSError as exc:
        raise StoreError(f"compose files cannot be read: {exc.filename}: {exc.strerror}") from exc


def _options_for(engine: Engine) -> list[str]:
    """How docker gets to know the engine: by its address, or by the name of its context."""
    if not engine.address:
        return []
    return ["--host" if "://" in engine.address else "--context", engine.address]


def read_maps(texts: list[str]) -> dict[str, str]:
    """Read OLD=NEW texts. Raises UsageError."""
    maps = {}
    for text in texts:
        old, _, new = text.partition("=")
        if not (old.startswith("/") and new.startswith("/")):
            raise UsageError(f"--map {text!r} is not OLD=NEW", "both are absolute paths: --map /srv/shop=/data/shop")
        maps[posixpath.normpath(old)] = posixpath.normpath(new)
    return maps
