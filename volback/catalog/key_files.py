"""The keys of a repository: keys/NAME.age is an age file that holds the repository's identities, for a person or for a
passphrase. Beside it, keys/NAME.json says in clear for whom that is.

Nothing here decrypts: the bytes of key files come and go as they are. What a note says is proven by its signature
alone, which the holder of an identity can verify (volback/operations/keys.py).
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from volback.catalog.model import FORMAT
from volback.catalog.objects import Objects
from volback.catalog.sealed import Signer, open_document, read_document, seal_document
from volback.errors import ConflictError, FormatError, NotFoundError, UsageError

KEYS_PREFIX: Final = "keys/"
KEY_FILE_MAX_BYTES: Final = 64 * 1024
"""Of ours: 200 bytes, and 80 for each identity and recipient."""
KEYS_MAX: Final = 1000
"""More key files are not looked at."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEY = re.compile(rf"{KEYS_PREFIX}({_NAME.pattern})\.age")

KeyKind = Literal["recipients", "passphrase"]


class KeyNote(msgspec.Struct, frozen=True, kw_only=True):
    """keys/NAME.json: what the key file beside it is for. It holds no secret."""

    format: int = FORMAT
    name: str
    kind: KeyKind
    recipients: list[str] = []
    """For whom the key file is encrypted; none for a passphrase."""
    opens: list[str]
    """The recipients of the repository whose identities it holds; the current one first."""
    made_at: str


def check_name(name: str) -> str:
    """Return the name of a key if it is valid. Raises UsageError."""
    if not _NAME.fullmatch(name):
        hint = "use A-Z a-z 0-9 _ -, begin with a letter or a digit, at most 64 characters"
        raise UsageError(f"{name[:80]!r} is not a valid name of a key", hint)
    return name


def key_names(objects: Objects) -> list[str]:
    """The names of all keys, in order."""
    found = (_KEY.fullmatch(stored.key) for stored in objects.list(KEYS_PREFIX))
    return sorted(match[1] for match in found if match)[:KEYS_MAX]


def read_key_file(objects: Objects, name: str) -> bytes:
    """The age file of one key. Raises NotFoundError, FormatError for one that is too large."""
    try:
        data = read_document(objects, file_key(name), KEY_FILE_MAX_BYTES)
    except NotFoundError as exc:
        raise no_such_key(objects, name) from exc
    if len(data) > KEY_FILE_MAX_BYTES:
        raise FormatError(f"{file_key(name)} is larger than {KEY_FILE_MAX_BYTES} bytes, so it is not a key file")
    return data


def read_note(objects: Objects, name: str) -> tuple[KeyNote, bytes] | None:
    """The note beside a key file and its bytes; None where there is none. Raises FormatError."""
    key = note_key(name)
    try:
        data = read_document(objects, key)
    except NotFoundError:
        return None
    note = open_document(data, KeyNote, key)
    if note.name != name:
        raise FormatError(f"{key} belongs to another key: {note.name[:80]!r}")
    return note, data


def write_key(objects: Objects, note: KeyNote, data: bytes, signer: Signer, *, replace: bool = False) -> None:
    """Store a key file, then its note. Raises ConflictError where the name is taken, unless it is to be replaced."""
    check_name(note.name)
    if len(data) > KEY_FILE_MAX_BYTES:
        raise UsageError(f"key {note.name!r} would be larger than {KEY_FILE_MAX_BYTES} bytes", "name fewer recipients")
    try:
        objects.put(file_key(note.name), [data], if_absent=not replace)
    except ConflictError as exc:
        raise ConflictError(f"there is a key {note.name!r} already", "choose another name, or remove it first") from exc
    write_note(objects, note, signer)


def write_note(objects: Objects, note: KeyNote, signer: Signer) -> None:
    """Store the note beside a key file, in place of another."""
    objects.put(note_key(note.name), [seal_document(note, signer)])


def delete_key(objects: Objects, name: str) -> None:
    """Delete a key file and its note. The caller has checked that another key is left."""
    objects.delete(file_key(name))
    objects.delete(note_key(name))


def no_such_key(objects: Objects, name: str) -> NotFoundError:
    """The error for a name that no key has."""
    there = ", ".join(key_names(objects)) or "none"
    return NotFoundError(f"there is no key {name[:80]!r} in the repository", f"its keys: {there}")


def file_key(name: str) -> str:
    """The object of a key file. Raises UsageError for a name that is not valid."""
    return f"{KEYS_PREFIX}{check_name(name)}.age"


def note_key(name: str) -> str:
    """The object of the note beside a key file. Raises as `file_key`."""
    return f"{KEYS_PREFIX}{check_name(name)}.json"
