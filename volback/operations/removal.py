"""Removal: takes some paths out of a volume or directory, after a failure, and leaves all else that is in it.

The paths come from a backup, so they are never arguments as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress

from volback.catalog.model import Source
from volback.catalog.units import Member
from volback.engine.engine import Engine
from volback.engine.streams import VolumeWriter
from volback.errors import EngineError, IntegrityError
from volback.operations.volumes import open_writer
from volback.state.runs import Run

_REMOVE = r"""
while read -r line; do
  case $line in
    *\\*) path=$(printf '%b.' "$line"); path=${path%.} ;;
    *) path=$line ;;
  esac
  [ -e "$path" ] || [ -L "$path" ] || continue
  set -- "$@" "$path"
  if [ $# -ge 200 ]; then find "$@" -maxdepth 0 \( ! -type d -o -empty \) -delete >&2; set --; fi
done
[ $# = 0 ] || find "$@" -maxdepth 0 \( ! -type d -o -empty \) -delete >&2
"""
"""Removes the paths that it is given, escaped, one a line. The dot: a shell cuts newlines off at a name's end."""
_ODD = re.compile(rb"[^A-Za-z0-9/_.,:+=@%~-]")


def remove_paths(engine: Engine, run: Run, target: Source, paths: Iterable[bytes]) -> None:
    """Remove these paths, as far as they are there; a directory only if it is empty then. Raises EngineError."""
    with open_remover(engine, run, target) as remover:
        remove_with(remover, target, paths)


def open_remover(engine: Engine, run: Run, target: Source) -> AbstractContextManager[VolumeWriter]:
    """Start a helper that waits for paths to remove, and removes nothing before."""
    return open_writer(engine, run, target, ["/bin/sh", "-c", _REMOVE])


def remove_with(remover: VolumeWriter, target: Source, paths: Iterable[bytes]) -> None:
    """Remove paths as `remove_paths` does, with a helper of `open_remover`. Raises EngineError."""
    status, messages = remover.write(_lines(paths)), remover.messages()
    if status or messages:
        message = messages.decode(errors="backslashreplace").partition("\n")[0] or f"status {status}"
        raise EngineError(f"what was written into {target.kind} {target.name!r} could not be removed: {message}")


def paths_written(members: Iterable[Member]) -> Iterator[bytes]:
    """Yield the paths that a failed restore may have written: up to where the index is damaged.

    What the index announces after that was not written, as a line of it is read before the data that it is about.
    """
    with suppress(IntegrityError):
        for member in members:
            yield member.path


def _lines(paths: Iterable[bytes]) -> Iterator[bytes]:
    """Each before the directory that it is in; what a shell could take for something else is escaped."""
    for path in sorted(filter(None, paths), reverse=True):
        yield b"./%b\n" % _ODD.sub(lambda found: b"\\0%03o" % found[0][0], path)
