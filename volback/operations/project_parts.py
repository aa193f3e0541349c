"""Project parts: what a compose project has beside its volumes - directories that its containers mount, compose files -
and what of it a backup leaves out.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from volback.catalog.model import Source
from volback.context import Context
from volback.engine.engine import Engine
from volback.errors import NotFoundError, UsageError
from volback.operations.compose_files import ComposeFiles, find_compose_files
from volback.operations.emptiness import first_entry
from volback.operations.single_files import REGULAR, file_backup_source, look_at
from volback.policy.binds import is_below, is_machine_file, is_system, outermost
from volback.state.runs import Run


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A path that the project uses, and why it is not backed up."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class ProjectParts:
    """What is backed up with a project's volumes."""

    directories: tuple[Source, ...]
    """Single files among them that are not kept with the compose files: backups that hold one file each."""
    files: ComposeFiles | None
    left_out: tuple[LeftOut, ...]
    mounted_files: tuple[str, ...] = ()
    """Regular files that containers mount by themselves, also where they are kept among the compose files; known
    `with_binds` only."""


def project_parts(
    ctx: Context, engine: Engine, project: str, *, with_binds: bool, done: str = "backed up"
) -> ProjectParts:
    """Look at the containers of a project, running or not. Directories are only among its parts `with_binds`.

    `done`: what is done with its parts, in words. Raises EngineError.
    """
    containers = engine.project_containers(project)
    binds = {mount.source for found in containers for mount in found.mounts if mount.kind == "bind" and mount.source}
    directories, others, left_out = list[str](), list[str](), list[LeftOut]()
    if with_binds:
        directories, others, left_out = _sorted_out(ctx, engine, outermost(binds), done)
    else:
        left_out = [
            LeftOut(path, f"is a bind mount, which is {done} with --with-binds")
            for path in _ours(engine, outermost(binds))
        ]
    files, refused = find_compose_files(project, [found.labels for found in containers], more=others)
    kept = set() if files is None else {posixpath.join(files.working_dir, name) for name in files.paths}
    left_out += [LeftOut(path, why) for path, why in refused]
    sources = tuple(Source(kind="directory", name=path) for path in directories)
    sources += tuple(file_backup_source(path) for path in others if path not in kept)
    named = tuple(found for found in left_out if not is_below(found.path, *directories))
    return ProjectParts(sources, files, named, tuple(others))


def _ours(engine: Engine, paths: Iterable[str]) -> list[str]:
    return [path for path in paths if not is_system(path, engine.info.root_directory)]


def _sorted_out(
    ctx: Context, engine: Engine, paths: list[str], done: str
) -> tuple[list[str], list[str], list[LeftOut]]:
    """Directories, files, and what is neither; only a helper can say what a path of the engine's host is."""
    directories, files, left_out = list[str](), list[str](), list[LeftOut]()
    ours = _ours(engine, paths)
    left_out += [LeftOut(path, "belongs to the machine") for path in paths if path not in ours]
    if not ours:
        return directories, files, left_out
    with Run(ctx.settings.state, "backup", "looks at directories") as run:
        for path in ours:
            try:
                first_entry(engine, Source(kind="directory", name=path), run=run.id, directory=run.scratch("look"))
                directories.append(path)
            except UsageError:
                if why := _why_not(engine, run, path, done):
                    left_out.append(LeftOut(path, why))
                else:
                    files.append(path)
            except NotFoundError:
                left_out.append(LeftOut(path, "does not exist on the engine's host"))
    return directories, files, left_out


def _why_not(engine: Engine, run: Run, path: str, done: str) -> str:
    """Why what is no directory stays where it is; empty for a file."""
    if is_machine_file(path, engine.info.root_directory):
        return "belongs to the machine"
    found = look_at(engine, run, path)
    if found is None:
        return "does not exist on the engine's host"
    return "" if found.what == REGULAR else f"is a {found.what}, which is not {done}"
