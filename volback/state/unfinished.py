"""Unfinished: what a backup in progress has stored up to now. If it is killed, the next one of the volume uses it.

One file for each volume of a repository, on an engine. Each line of it is JSON after its SHA-256: which backup it is,
then records, as they are added. Nothing is synced: a line that is cut short or damaged ends it, and whoever uses a
record compares it with what is stored.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from volback.catalog.model import ObjectDigest, ScanFacts, Source
from volback.durable import write_whole
from volback.state.files import private_directory, usable

log = logging.getLogger(__name__)

KEPT_S = 7 * 86_400.0
"""After the last record, what is stored waits so long for the next backup of its volume."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """Which backup it is."""

    repository_id: str
    source: Source
    cut: str
    objects: list[str]
    """The keys of which its data object has one, finished or not."""


class Privileged(msgspec.Struct, frozen=True, kw_only=True):
    """How many members have an attribute that needs privileges to be restored, and the first few paths."""

    members: int
    paths: list[bytes]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was read since the record before it, and the scan on which that is based."""

    scan: ScanFacts
    lines: bytes
    """Of an index, compressed."""
    stored: ObjectDigest
    """How much of the data object the store had been given, and the SHA-256 of that. The last lines may need more."""
    privileged: dict[str, Privileged] = {}
    """By name: those found since the scan."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What was noted of one backup."""

    begun: Begun
    records: list[Record]


class UnfinishedFile:
    """The file of one volume. Each method raises StoreError."""

    def __init__(self, state: Path, repository_id: str, engine_id: str, host: str, volume: str) -> None:
        name = repr((repository_id, engine_id, host, volume)).encode(errors="backslashreplace")
        self._path = _directory(state) / f"{hashlib.sha256(name).hexdigest()}.log"

    @property
    def exists(self) -> bool:
        """Whether anything is noted."""
        return self._path.exists()

    def read(self) -> Unfinished | None:
        """What is noted; None where there is nothing that this version can read."""
        with usable(self._path):
            try:
                lines = self._path.read_bytes().splitlines()
            except (FileNotFoundError, NotADirectoryError):
                return None
        begun = _decoded(lines[0], Begun) if lines else None
        return None if begun is None else Unfinished(begun, list(_records(lines[1:])))

    def begin(self, begun: Begun, records: Iterable[Record] = ()) -> None:
        """Say which backup it is, and what is stored of it; replaces what is noted."""
        private_directory(self._path.parent)
        with usable(self._path):
            write_whole(self._path, b"".join([_line(begun), *map(_line, records)]))

    def append(self, record: Record) -> None:
        """Add a record."""
        with usable(self._path):
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(fd, "ab") as file:
                file.write(_line(record))

    def forget(self) -> None:
        """Remove it."""
        with usable(self._path):
            self._path.unlink(missing_ok=True)


def is_kept(state: Path, repository_id: str, prefix: str, now: datetime) -> bool:
    """Whether what a dead run left under `prefix` waits for the next backup of its volume."""
    return any(
        begun.repository_id == repository_id and any(name.startswith(prefix) for name in begun.objects)
        for path, begun in _all(state)
        if _age_s(path, now) < KEPT_S
    )


def forget_all(state: Path, repository_id: str, now: datetime) -> None:
    """Let no backup of that repository use what a dead one has left; nor one of any, what waits too long already.

    Raises StoreError.
    """
    for path, begun in _all(state):
        if begun.repository_id == repository_id or _age_s(path, now) >= KEPT_S:
            with usable(path):
                path.unlink(missing_ok=True)


def _directory(state: Path) -> Path:
    return state / "unfinished"


def _all(state: Path) -> Iterator[tuple[Path, Begun]]:
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(_directory(state).glob("*.log")):
            with suppress(FileNotFoundError), path.open("rb") as file:
                begun = _decoded(file.readline().rstrip(b"\n"), Begun)
                if begun is not None:
                    yield path, begun


def _age_s(path: Path, now: datetime) -> float:
    return now.timestamp() - path.stat().st_mtime


def _records(lines: list[bytes]) -> Iterator[Record]:
    for line in lines:
        record = _decoded(line, Record)
        if record is None:
            return
        yield record


_Noted = TypeVar("_Noted", Begun, Record)


def _line(noted: Begun | Record) -> bytes:
    text = msgspec.json.encode(noted)
    return b"%s %s\n" % (hashlib.sha256(text).hexdigest().encode(), text)


def _decoded(line: bytes, kind: type[_Noted]) -> _Noted | None:
    digest, _, text = line.partition(b" ")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as exc:
        log.info("what an earlier version noted of a backup cannot be read: %s", exc)
        return None
