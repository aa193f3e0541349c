"""Read the index of a backup: its own object, and the runs of others' that it uses, each compared with its digest.

Runs of a distant store are read ahead, in threads, and local copies are used where there are any.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing

from volback.ahead import read_ahead
from volback.archive.segments import Segment, compressed_after, runs_of, split
from volback.catalog.index import Room
from volback.catalog.model import Manifest
from volback.catalog.objects import Kept
from volback.catalog.units import Run
from volback.errors import IntegrityError, MissingObject, NotFoundError
from volback.store.base import Store

INDEX_MAX_BYTES = 4 * 1024**3
VERIFY_HINT = "see what is damaged with `volback verify --data`; take an older backup"


class IndexReader:
    """Reads the index of one backup."""

    def __init__(self, store: Store, manifest: Manifest, kept: Kept, room: Room) -> None:
        """`room` says how much data there is for what the index claims."""
        self._store = store
        self._manifest = manifest
        self._name, self._key = manifest.name, manifest.index_key
        self._kept = kept
        self._room = room

    def segments(self) -> list[Segment]:
        """Its segments, in stream order. Raises IntegrityError."""
        expected, own = self._manifest.index, self._manifest.index_id
        stored = self._read_own_index()
        table_bytes = self._manifest.index_table_bytes
        if not table_bytes:
            return list(split(own, 0, stored, room=self._room))
        if table_bytes > len(stored):
            raise IntegrityError(f"index of {self._name} is shorter than its list of runs", VERIFY_HINT)
        own_bytes = expected.size_bytes - table_bytes
        runs = runs_of(stored[own_bytes:], what=f"index of {self._name}")
        claimed = sum(part.stored_bytes for run in runs for part in (run, run.dictionary) if part is not None)
        if claimed > INDEX_MAX_BYTES:
            raise IntegrityError(f"index of {self._name} claims more than {INDEX_MAX_BYTES} bytes", VERIFY_HINT)

        def read(run: Run) -> memoryview:
            if run.backup == own:
                return stored[:own_bytes][run.offset : run.offset + run.stored_bytes]
            return memoryview(self._read_run(run))

        def read_both(run: Run, _: threading.Event) -> tuple[Run, memoryview, memoryview | None]:
            return run, read(run), None if run.dictionary is None else read(run.dictionary)

        with self._store.reading(), closing(read_ahead(read_both, runs, ahead=self._store.parallel_reads)) as pieces:
            return [segment for found in pieces for segment in self._segments(*found)]

    def _segments(self, run: Run, stored: memoryview, dictionary: memoryview | None) -> Iterator[Segment]:
        self._check(run, stored)
        if run.dictionary is None or dictionary is None:
            yield from split(run.backup, run.offset, stored, room=self._room)
            return
        self._check(run.dictionary, dictionary)
        yield compressed_after(run.backup, run.offset, stored, dictionary, run.dictionary, room=self._room)

    def _check(self, run: Run, stored: memoryview) -> None:
        if len(stored) != run.stored_bytes or hashlib.sha256(stored).digest() != run.digest:
            message = f"backup {self._name} is damaged: the index of {run.backup} is not what it was"
            raise IntegrityError(message, VERIFY_HINT)

    def _read_run(self, run: Run) -> bytes:
        used = next((one for one in self._manifest.uses if one.is_index and one.object_id == run.backup), None)
        if used is None:
            raise IntegrityError(f"index of {self._name} names backup {run.backup}, which its manifest does not")
        key = self._manifest.key_of(used)
        name, wanted = f"{key} {run.offset}", (run.digest.hex(), run.stored_bytes)
        if (copy := self._kept.get(name, *wanted)) is not None:
            return copy
        try:
            stored = b"".join(self._store.open(key, start=run.offset, length=run.stored_bytes))
        except NotFoundError as exc:
            raise MissingObject(f"backup {self._name} is damaged: {key} is missing", VERIFY_HINT) from exc
        if hashlib.sha256(stored).digest() == run.digest:
            self._kept.put(name, stored)
        return stored

    def _read_own_index(self) -> memoryview:
        expected = self._manifest.index
        if expected.size_bytes > INDEX_MAX_BYTES:
            raise IntegrityError(f"index of {self._name} claims {expected.size_bytes} bytes", VERIFY_HINT)
        if (copy := self._kept.get(self._key, expected.sha256, expected.size_bytes)) is not None:
            return memoryview(copy)
        try:
            stored = b"".join(self._store.open(self._key, length=expected.size_bytes + 1))
        except NotFoundError as exc:
            raise MissingObject(f"backup {self._name} is damaged: {self._key} is missing", VERIFY_HINT) from exc
        if len(stored) != expected.size_bytes or hashlib.sha256(stored).hexdigest() != expected.sha256:
            raise IntegrityError(
                f"backup {self._name} is damaged: {self._key} is not what was written",
                VERIFY_HINT,
            )
        self._kept.put(self._key, stored)
        return memoryview(stored)
