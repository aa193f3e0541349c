"""Directories of the engine's host: created for a restore, and removed if that fails. Only helpers can access that
host.

A helper mounts the directory above. It has tar and find, but may lack mkdir and rmdir.
"""

from __future__ import annotations

import posixpath
import tarfile

from volback.catalog.model import Source
from volback.context import Context
from volback.engine.engine import Engine
from volback.errors import EngineError, NotFoundError
from volback.operations.volumes import write_into
from volback.state.runs import Run

_MODE = 0o755


def make_directories(ctx: Context, engine: Engine, run: Run, target: Source) -> None:
    """Make the directory, and those above that do not exist. Raises EngineError."""
    missing = [target]
    while True:
        try:
            make_directory(ctx, engine, run, missing[-1])
        except NotFoundError:
            above = posixpath.dirname(missing[-1].name)
            if above == "/":
                raise
            missing.append(Source(kind="directory", name=above))
            continue
        missing.pop()
        if not missing:
            return


def make_directory(ctx: Context, engine: Engine, run: Run, target: Source) -> None:
    """Make the directory, mode 0755 and root's. Raises NotFoundError if the one above does not exist, EngineError."""
    above, name = posixpath.split(target.name)
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, _MODE, ctx.now().timestamp()
    archive = entry.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape") + bytes(2 * tarfile.BLOCKSIZE)
    try:
        _run(engine, run, target, ["tar", "-x", "-p", "--same-owner", "--file=-"], archive)
    except NotFoundError as exc:
        raise NotFoundError(f"directory {above} does not exist on the engine's host", "create it first") from exc


def remove_directory(engine: Engine, run: Run, target: Source) -> None:
    """Remove the directory and all that is in it. Raises EngineError."""
    _run(engine, run, target, ["find", f"./{posixpath.basename(target.name)}", "-delete"])


def _run(engine: Engine, run: Run, target: Source, command: list[str], archive: bytes = b"") -> None:
    above = Source(kind="directory", name=posixpath.dirname(target.name))
    status, messages = write_into(engine, run, above, command, [archive] if archive else [])
    if status or messages:
        message = messages.decode(errors="backslashreplace").partition("\n")[0] or f"{command[0]} ended with {status}"
        raise EngineError(f"directory {target.name} could not be created or removed: {message}")
