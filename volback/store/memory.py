"""A store in memory, lost when the process ends: for tests, and as proof that the protocol fits more than files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import chain

from volback.errors import ConflictError, NotFoundError
from volback.store.base import (
    BUFFER_MAX_BYTES,
    Buffer,
    Names,
    ObjectInfo,
    UnfinishedList,
    check_key,
    check_prefix,
    check_range,
)
from volback.store.traffic import Requests


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryStore:
    """Objects in a dict; safe to use from several threads."""

    def __init__(
        self, name: str, *, clock: Callable[[], datetime] = _now, parallel_reads: int = 1, is_shared: bool = False
    ) -> None:
        self._name = name
        self._is_shared = is_shared
        self._clock = clock
        self._parallel_reads = parallel_reads
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    @property
    def parallel_reads(self) -> int:
        """The number that it was created with: tests read ahead from it as from a remote store."""
        return self._parallel_reads

    @property
    def is_shared(self) -> bool:
        """As it was created: to tests it is a bucket that several machines use."""
        return self._is_shared

    @property
    def requests(self) -> Requests | None:
        return None

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        """Store all chunks as one object, visible once the last one is stored."""
        check_key(key)
        data = bytearray()
        for chunk in chunks:
            data += chunk
        with self._lock:
            if if_absent and key in self._objects:
                raise ConflictError(f"object {key!r} is in {self.url} already")
            self._objects[key] = (bytes(data), self._clock())
        return len(data)

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        """Yield the object's bytes, of the version that is there at the first buffer."""
        check_range(start, length)
        return self._read(check_key(key), start, length)

    def reading(self) -> AbstractContextManager[None]:
        """See Store."""
        return nullcontext()

    def stat(self, key: str) -> ObjectInfo:
        data, modified_at = self._get(check_key(key))
        return ObjectInfo(key, len(data), modified_at)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below `prefix` as of this call, in key order."""
        check_prefix(prefix)
        with self._lock:
            objects = sorted((key, value) for key, value in self._objects.items() if key.startswith(prefix))
        return (ObjectInfo(key, len(data), modified_at) for key, (data, modified_at) in objects)

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def holds(self) -> str | None:
        return next((found.key for found in self.list()), None)

    def free_bytes(self) -> int | None:
        return None

    def unfinished(self, prefix: str = "") -> UnfinishedList:
        """Nothing: an unfinished put leaves nothing."""
        check_prefix(prefix)
        return []

    def finish(self, key: str) -> int | None:
        """An unfinished put leaves nothing; an object is there, or not."""
        check_key(key)
        with self._lock:
            return len(self._objects[key][0]) if key in self._objects else None

    def extend(self, left: str, key: str, chunks: Iterable[Buffer], *, keep_bytes: int) -> int:
        return self.put(key, chain(self.open(left, length=keep_bytes), chunks))

    def sweep(self, prefix: str = "", *, older_than_s: float | None = None) -> Names:
        """Nothing: an unfinished put leaves nothing."""
        check_prefix(prefix)
        return []

    def _read(self, key: str, start: int, length: int | None) -> Generator[bytes, None, None]:
        data, _ = self._get(key)
        end = len(data) if length is None else min(len(data), start + length)
        for offset in range(start, end, BUFFER_MAX_BYTES):
            yield data[offset : min(end, offset + BUFFER_MAX_BYTES)]

    def _get(self, key: str) -> tuple[bytes, datetime]:
        with self._lock:
            try:
                return self._objects[key]
            except KeyError:
                raise NotFoundError(f"object {key!r} is not in {self.url}", "see `volback list`") from None
