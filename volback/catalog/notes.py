"""Notes of a backup: notes.json beside its manifest. Tags, a hold, a text, and when it was last verified and proven.

They are never part of the manifest, and may be written again at any time; of two writers at once the last one wins.
They are sealed and not signed: who can write to the repository can forge them. So nothing is removed because of them:
a tag or a hold can only keep a backup, and notes that cannot be read keep it too.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import msgspec

from volback.ahead import read_ahead
from volback.catalog.check import is_utc_time
from volback.catalog.keys import BackupKey, parse_backup_key
from volback.catalog.model import FORMAT
from volback.catalog.objects import Kept, KeptNothing, Objects, StoredObject, name_of_copy
from volback.catalog.private import Cipher, from_base64
from volback.catalog.sealed import open_document, read_document, seal_document
from volback.errors import (
    FormatError,
    IntegrityError,
    NotFoundError,
    StoreError,
    StoreUnreachable,
    UsageError,
    VolbackError,
)

NOTES_MAX_BYTES = 256 * 1024
"""Of a document: 32 of them are read at once."""


class NoteFields(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What this version knows of a document of notes. Times are RFC 3339 UTC."""

    format: int
    tags: list[str] = []
    """Added after the backup was made; those of the manifest stay there."""
    held_at: str | None = None
    """Since when the backup is held: it is not removed."""
    note: str | None = None
    """In a repository in clear: a text."""
    private: str | None = None
    """In an encrypted one: an age file, as base64, that holds the text."""
    verified_at: str | None = None
    """When its data was last read and found intact."""
    proven_at: str | None = None
    """When a volume was last compared with it, and found identical."""


class _Private(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    backup: str
    """The prefix of the backup: the note of one backup is not that of another."""
    note: str


_NOTHING = NoteFields(format=FORMAT)


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes of one backup."""

    fields: NoteFields = _NOTHING
    others: Mapping[str, object] = field(default_factory=dict)
    """Fields of a later version; they are kept."""
    error: VolbackError | None = None
    """Why they cannot be read. There may be a hold among them, so the backup counts as held."""

    @property
    def damage(self) -> str | None:
        """Why they cannot be read, in words."""
        return None if self.error is None else self.error.message

    @property
    def tags(self) -> list[str]:
        """The tags that were added after the backup was made."""
        return self.fields.tags

    def tags_with(self, given: Iterable[str]) -> list[str]:
        """The tags that a backup was given when it was made, and those that were added later, each once."""
        return list(dict.fromkeys([*given, *self.tags]))

    @property
    def is_held(self) -> bool:
        """Whether the backup must not be removed."""
        return self.fields.held_at is not None or self.damage is not None

    def with_(self, **changes: object) -> Notes:
        """The same notes, with other values of these fields."""
        return Notes(msgspec.structs.replace(self.fields, **changes), self.others)


NO_NOTES = Notes()


class AllNotes:
    """Reads and writes the notes of a repository's backups. Every method may raise StoreError or StoreUnreachable."""

    def __init__(self, objects: Objects, kept: Kept | None = None, *, at_once: int = 1) -> None:
        """`kept` has local copies of documents, by their names in the listing; `at_once` are read at once."""
        self._objects = objects
        self._kept = kept or KeptNothing()
        self._at_once = at_once

    def read(self, key: BackupKey) -> Notes:
        """The notes of a backup; empty ones where there are none."""
        try:
            return _checked(self._document(key), key)
        except NotFoundError:
            return NO_NOTES
        except IntegrityError as exc:
            return Notes(error=exc)

    def listed(self, stored: Iterable[StoredObject], *, cached: bool = False) -> dict[BackupKey, Notes]:
        """Read the notes that a listing shows; there are none of the other backups. With `cached`, local copies are
        used where the listing still shows the object of which they were made."""
        there = [(key, one) for one in stored if (key := parse_backup_key(one.key)) and one.key == key.notes]

        def read(item: tuple[BackupKey, StoredObject], stop: threading.Event) -> tuple[BackupKey, Notes]:
            return item[0], NO_NOTES if stop.is_set() else self._read_listed(*item, cached=cached)

        with closing(read_ahead(read, there, ahead=self._at_once)) as found:
            return dict(found)

    def change(self, key: BackupKey, change: Callable[[Notes], Notes]) -> Notes:
        """Write what `change` makes of a backup's notes, and return it. Raises IntegrityError where they cannot be
        read: see `replace`."""
        notes = self.read(key)
        if notes.damage is not None:
            raise IntegrityError(
                f"{notes.damage}; the backup counts as held", "volback release, or volback hold, writes them anew"
            )
        return self.replace(key, change(notes))

    def replace(self, key: BackupKey, notes: Notes) -> Notes:
        """Write these notes in place of those that are there. Raises UsageError where they are too large."""
        document = seal_document({**msgspec.to_builtins(notes.fields), **notes.others})
        if len(document) > NOTES_MAX_BYTES:
            raise UsageError(f"the notes of a backup cannot be larger than {NOTES_MAX_BYTES} bytes")
        self._objects.put(key.notes, [document])
        return notes

    def _read_listed(self, key: BackupKey, stored: StoredObject, *, cached: bool) -> Notes:
        name = name_of_copy(stored)
        try:
            copy = self._kept.get(name) if cached else None
            document = self._document(key) if copy is None else copy
            notes = _checked(document, key)
        except NotFoundError:
            return NO_NOTES
        except StoreUnreachable:
            raise
        except (IntegrityError, StoreError) as exc:
            return Notes(error=exc)
        if copy is None:
            self._kept.put(name, document)
        return notes

    def _document(self, key: BackupKey) -> bytes:
        data = read_document(self._objects, key.notes, NOTES_MAX_BYTES)
        if len(data) > NOTES_MAX_BYTES:
            raise FormatError(f"{key.notes} is larger than {NOTES_MAX_BYTES} bytes")
        return data


def with_text(notes: Notes, text: str, key: BackupKey, cipher: Cipher | None) -> Notes:
    """The notes with that text, which only the holder of an identity can read where there is a cipher."""
    if cipher is None or not text:
        return notes.with_(note=text or None, private=None)
    sealed = cipher.seal(seal_document(_Private(backup=key.prefix, note=text)))
    return notes.with_(note=None, private=base64.b64encode(sealed).decode())


def text_of(notes: Notes, key: BackupKey, cipher: Cipher | None) -> str | None:
    """The text of the notes. Raises IdentityNeeded, IntegrityError."""
    if notes.fields.private is None or cipher is None:
        return notes.fields.note
    what = f"the note in {key.notes}"
    stored = from_base64(notes.fields.private, f"{what} is not base64")
    private = open_document(cipher.unseal(stored, what), _Private, what)
    if private.backup != key.prefix:
        raise FormatError(f"{what} is that of another backup")
    return private.note


def _checked(document: bytes, key: BackupKey) -> Notes:
    fields = open_document(document, NoteFields, key.notes)
    for time in (fields.held_at, fields.verified_at, fields.proven_at):
        if time is not None and not is_utc_time(time):
            raise FormatError(f"{key.notes} has no valid time: {time[:40]!r}")
    everything = open_document(document, dict[str, object], key.notes)
    known = set(NoteFields.__struct_fields__) | {"sha256"}
    return Notes(fields, {name: value for name, value in everything.items() if name not in known})
