"""What the catalog asks of a store, as a structural type: every store of `volback.store` fits it, and this package
imports none.

Each method behaves as the store protocol (volback/store/base.py) says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Protocol


class StoredObject(Protocol):
    """A stored object as a listing shows it."""

    @property
    def key(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def modified_at(self) -> datetime: ...

    @property
    def etag(self) -> str: ...


class Objects(Protocol):
    """Objects by key: the part of a store through which the catalog does all its I/O."""

    @property
    def parallel_reads(self) -> int:
        """How many large ranges are best read at once; 1 where threads gain nothing."""

    @property
    def is_shared(self) -> bool:
        """Whether another machine may use them at the same time."""

    def put(self, key: str, chunks: Iterable[bytes], *, if_absent: bool = False) -> int:
        """Store all chunks as one object, completely or not at all. Raises ConflictError if `if_absent` and it
        exists."""

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the object's bytes. Raises NotFoundError at the first buffer."""

    def stat(self, key: str) -> StoredObject:
        """Size and time of one object. Raises NotFoundError."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object below `prefix`, in key order."""

    def delete(self, key: str) -> None:
        """Remove one object; one that does not exist is not an error."""


class Kept(Protocol):
    """Local copies of what never changes, by name; safe to use from several threads. Nothing of it raises an error."""

    def get(self, name: str, sha256: str | None = None, size_bytes: int | None = None) -> bytes | None:
        """What was put under `name`, if it is there, whole, and has that SHA-256 (hex) and size."""

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`, if that is possible."""


def name_of_copy(stored: StoredObject) -> str:
    """The name of a local copy: another one once the object was written again, as far as the store's listing shows
    that."""
    return f"{stored.key} {stored.size_bytes} {stored.modified_at.isoformat()} {stored.etag}"


class KeptNothing:
    """No copies are kept."""

    def get(self, name: str, sha256: str | None = None, size_bytes: int | None = None) -> bytes | None:
        return None

    def put(self, name: str, data: bytes) -> None:
        return None
