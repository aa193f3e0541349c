"""The store protocol: a flat space of objects under keys. One file a backend implements it;
retry, limits and faults are wrappers around a store, never inside one. One conformance suite
(tests/store) runs against every implementation.

Keys are relative, `/`-separated, non-empty, made of `[A-Za-z0-9_.%-]` parts, none of which is `.` or `..`.
No key lies below another (`a` beside `a/b`): a directory could not hold both.
An invalid key, prefix or range raises UsageError from the call itself, before anything is touched.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from volback.errors import UsageError
from volback.store.traffic import Requests

Buffer = bytes | bytearray | memoryview
Names = list[str]
"""Inside a store `list` is its method."""

BUFFER_MAX_BYTES = 4 * 1024 * 1024
"""No store yields a larger buffer from `open`."""
KEY_MAX_CHARS = 1024

_PART = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.%-]{1,255}")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A stored object: its key, size, and time of its last write."""

    key: str
    size_bytes: int
    modified_at: datetime
    etag: str = field(default="", compare=False)
    """Another one after another write of the object, where a listing has that; else empty."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What an unfinished put left: its object's key (or its temp file's name), and when it began."""

    key: str
    started_at: datetime


UnfinishedList = list[Unfinished]


class Store(Protocol):
    """Objects by key. Every method raises StoreError (refused) or StoreUnreachable (no answer)."""

    @property
    def url(self) -> str:
        """The store's address for people; without secrets."""

    @property
    def parallel_reads(self) -> int:
        """How many ranges of one object are best read at once, each by `open` in a thread of its own.

        1 where a read waits for the disk only: a second thread then only takes processor time from the first, and who
        decompresses the bytes may as well read them. More where each request waits for a network: the next requests
        are sent meanwhile. Readers hold up to 16 MiB for each. A wrapper returns the value of the store that it wraps.
        """

    @property
    def is_shared(self) -> bool:
        """Whether another machine may use it at the same time: all but a local filesystem.

        Then nothing that a backup may need is deleted at once. A wrapper returns the value of the store that it wraps.
        """

    @property
    def requests(self) -> Requests | None:
        """The requests that were sent so far; None where there are none, as in a directory."""

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        """Store all chunks as one object and return its size; atomic: complete or not at all.

        An error or signal raised by `chunks` leaves nothing behind and passes through.
        A chunk is no longer used once the next one is requested, so its buffer may be filled again.
        Raises ConflictError if `if_absent` and the key exists.
        """

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        """Yield the object's bytes from `start`, `length` of them (all when None), lazily, in buffers of <= 4 MiB.

        Yields fewer only where the object ends. Close the iterator to stop early.
        Raises NotFoundError at the first buffer if there is no such object.
        """

    def reading(self) -> AbstractContextManager[None]:
        """For a block that reads many ranges of some objects: these may stay open until it ends.

        So what is read of one that is replaced or removed meanwhile may be of the former version.
        """

    def stat(self, key: str) -> ObjectInfo:
        """Size and time of one object. Raises NotFoundError."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below `prefix` (empty, or a key part path that ends in `/`), in key order."""

    def delete(self, key: str) -> None:
        """Remove one object. Does nothing if there is none."""

    def holds(self) -> str | None:
        """The name of anything that is there, an object or not; None where there is nothing, not even a directory."""

    def free_bytes(self) -> int | None:
        """Free space for new objects, or None where there is no such limit."""

    def unfinished(self, prefix: str = "") -> UnfinishedList:
        """What unfinished puts below `prefix` left, in key order. A store that can tell omits puts in progress."""

    def finish(self, key: str) -> int | None:
        """Make an object of what a dead put of `key` has stored, and return its size.

        It may have holes, or be anything else: who uses it compares it with what was put. An object that is there
        stays.
        None where there is nothing, or where the put is in progress, as far as the store can tell.
        """

    def extend(self, left: str, key: str, chunks: Iterable[Buffer], *, keep_bytes: int) -> int:
        """As `put`, of an object that begins with the first `keep_bytes` of the object `left`.

        These are moved or copied where they are stored, as far as the store can. So `left` may be gone then, also after
        an error. The caller deletes it.
        """

    def sweep(self, prefix: str = "", *, older_than_s: float | None = None) -> Names:
        """Remove what unfinished puts below `prefix` left (never an object); return what was removed.

        None is the store's own safe age: 0 if it can tell which puts are in progress, else a day or two.
        """


class Wrapper:
    """A store around another one: it passes every call on. Those that wrap a store override what they change."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def parallel_reads(self) -> int:
        return self._inner.parallel_reads

    @property
    def is_shared(self) -> bool:
        return self._inner.is_shared

    @property
    def requests(self) -> Requests | None:
        return self._inner.requests

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        return self._inner.put(key, chunks, if_absent=if_absent)

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        return self._inner.open(key, start=start, length=length)

    def reading(self) -> AbstractContextManager[None]:
        return self._inner.reading()

    def stat(self, key: str) -> ObjectInfo:
        return self._inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        self._inner.delete(key)

    def holds(self) -> str | None:
        return self._inner.holds()

    def free_bytes(self) -> int | None:
        return self._inner.free_bytes()

    def unfinished(self, prefix: str = "") -> UnfinishedList:
        return self._inner.unfinished(prefix)

    def finish(self, key: str) -> int | None:
        return self._inner.finish(key)

    def extend(self, left: str, key: str, chunks: Iterable[Buffer], *, keep_bytes: int) -> int:
        return self._inner.extend(left, key, chunks, keep_bytes=keep_bytes)

    def sweep(self, prefix: str = "", *, older_than_s: float | None = None) -> Names:
        return self._inner.sweep(prefix, older_than_s=older_than_s)


def is_part(name: str) -> bool:
    """Whether `name` may be one part of a key."""
    return _PART.fullmatch(name) is not None


def check_key(key: str) -> str:
    """Return `key` if it is valid. Raises UsageError for any other: it could name something outside the store."""
    if len(key) > KEY_MAX_CHARS or not all(is_part(part) for part in key.split("/")):
        raise UsageError(f"object key {key!r} is not valid")
    return key


def check_range(start: int, length: int | None) -> None:
    """Raises UsageError for a negative start or length."""
    if start < 0 or (length is not None and length < 0):
        raise UsageError(f"range of {length} bytes from {start} is not valid")


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it is empty or a valid key followed by `/`. Raises UsageError."""
    if prefix and not (prefix.endswith("/") and check_key(prefix[:-1])):
        raise UsageError(f"prefix {prefix!r} must end in '/'")
    return prefix
