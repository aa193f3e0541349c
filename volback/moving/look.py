"""Look: what a target is, before anything is copied into it: empty or not, its room, what its filesystem takes.

One command in a helper finds it all, where one writes, before it does. It writes one small file and removes it, and
only where nothing else is.
"""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from volback.archive import tar
from volback.archive.attributes import Kind, probe_archive, refused_kinds
from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.errors import EngineError
from volback.operations.emptiness import look_alone

_ALL_IDS = 2**32 - 1
_FIELDS = 7
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./_-=")

# Fields end with NUL, which no name and no message contains. stat: image.PROGRAMS has it, a configured image may not.
_FACTS = r"""
first=$(find . -mindepth 1 -maxdepth 1 ! -name lost+found -printf x -quit) || exit 1
{ find . -mindepth 1 -maxdepth 1 ! -name lost+found -printf %%f -quit; printf '\0'
find . -maxdepth 0 -printf %%F; printf '\0'
stat -f -c '%%a %%b %%S %%c %%d' . 2>/dev/null; printf '\0'
stat -c '%%i %%w' . 2>/dev/null; printf '\0'
cat /proc/self/uid_map; printf '\0'; cat /proc/self/gid_map; printf '\0'; } >&2
if [ -n "$first" ]; then exit 0; fi
{ printf '%(archive)s'; head -c %(zeros)d /dev/zero; } | %(extract)s; status=$?
find . -maxdepth 1 -name %(name)s -delete; exit $status
"""


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of owners that exist in the engine's user namespace: ranges of (first, count)."""

    ranges: tuple[tuple[int, int], ...] = ((0, _ALL_IDS),)

    @property
    def are_all(self) -> bool:
        """Whether it is the host's own namespace, where every id exists."""
        return (0, _ALL_IDS) in self.ranges

    def has(self, id_: int) -> bool:
        """Whether the id exists."""
        return any(first <= id_ < first + count for first, count in self.ranges)


@dataclass(frozen=True, slots=True)
class Look:
    """What was found of a target."""

    first_entry: str
    """The name of something that is in it; empty where nothing is."""
    filesystem: str
    """Its type, as the kernel names it."""
    block_bytes: int | None = None
    free_bytes: int | None = None
    free_inodes: int | None = None
    """None where it is not known, or the filesystem has no limit of its own."""
    uids: Ids = Ids()
    gids: Ids = Ids()
    refuses: frozenset[Kind] = frozenset()
    """Attributes that it does not take; not looked at where something is in it."""
    birth: str = ""
    """Inode and time of birth of its root, which no other directory has ever had; empty where that is not known."""


class Looking:
    """One look into a target; several if it is asked again."""

    def __init__(self, target: Source) -> None:
        self._target = target
        self._found: Look | None = None
        name = f".volback-probe-{secrets.token_hex(6)}"
        archive = probe_archive(name)
        begin = archive.rstrip(b"\0")
        facts = {"archive": _printable(begin), "zeros": len(archive) - len(begin), "name": name}
        self.command = ("/bin/sh", "-c", _FACTS % {"extract": shlex.join(tar.EXTRACT), **facts})

    @property
    def found(self) -> Look:
        """What was found the last time."""
        assert self._found is not None
        return self._found

    def take(self, status: int, said: bytes) -> str:
        """Name something that is in it, or nothing. Raises EngineError."""
        target = self._target
        fields = said.split(b"\0")
        if len(fields) != _FIELDS:
            why = said.decode(errors="backslashreplace").strip() or f"status {status}"
            raise EngineError(f"{target.kind} {target.name!r} cannot be looked into: {why}")
        first, filesystem, room, birth, uids, gids, messages = fields
        if status and (failures := tar.read_extract_messages(messages, status).failures):
            raise EngineError(f"nothing can be written into {target.kind} {target.name!r}: {failures[0]}")
        self._found = Look(
            first.decode(errors="backslashreplace"),
            filesystem.decode(errors="backslashreplace"),
            *_room(room),
            _ids(uids),
            _ids(gids),
            refused_kinds(messages),
            _birth(birth),
        )
        return self._found.first_entry


def look_into(engine: Engine, target: Source, *, run: str, directory: Path) -> Look:
    """Look into a volume; `run` is the id of the run that asks, and `directory` a new one inside its own.

    Raises NotFoundError, EngineError.
    """
    looking = Looking(target)
    look_alone(engine, target, looking, run=run, directory=directory)
    return looking.found


def _printable(data: bytes) -> str:
    """As a format of printf."""
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03o}" for byte in data)


def _birth(text: bytes) -> str:
    """A filesystem that keeps no such time says '-'."""
    inode, _, born = text.decode(errors="backslashreplace").strip().partition(" ")
    return f"{inode} {born}" if born not in ("", "-") else ""


def _room(text: bytes) -> tuple[int | None, int | None, int | None]:
    """Size of a block, and what is free, of bytes and inodes."""
    numbers = [int(word) for word in text.split() if word.isdigit()]
    if len(numbers) != 5:
        return None, None, None
    free_blocks, blocks, block_bytes, inodes, free_inodes = numbers  # a filesystem without a limit has none at all
    return block_bytes, free_blocks * block_bytes if blocks else None, free_inodes if inodes else None


def _ids(text: bytes) -> Ids:
    """Each line is the first id inside, that outside, and how many: user_namespaces(7)."""
    lines = [line.split() for line in text.splitlines()]
    ranges = tuple((int(words[0]), int(words[2])) for words in lines if len(words) == 3)
    return Ids(ranges) if ranges else Ids()
