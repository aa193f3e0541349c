"""Names and keys of format 1: HOST/VOLUME/ID/ and the objects below it: of a backup, and of later revisions of it.

A host or volume name is any text; in a key it is percent-encoded, in one way only, so that two keys never refer to the
same backup and a listing can be read back into names. A name that is too long is shortened first: its end becomes a
digest of the whole name, which the manifest holds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from volback.errors import UsageError
from volback.latest import created_at, is_future

REPOSITORY_KEY = "volback.json"
TIME_KEY = "volback.time"
"""An empty object whose last write shows the store's clock."""
DATA_NAME = "data.tar.zst"
INCREMENT_NAME = "data.zst"
INDEX_NAME: Final = "index.jsonl.zst"
MANIFEST_NAME = "manifest.json"
NOTES_NAME = "notes.json"

REVISION_MAX = 999_999
_REVISION = r"(?:\.([2-9]|[1-9][0-9]{1,5}))?"
"""The first has no number in its name."""
_MANIFEST_NAME = re.compile(rf"manifest{_REVISION}\.json")
_INDEX_NAME = re.compile(rf"index{_REVISION}\.jsonl\.zst")
_DATA_NAME = re.compile(rf"data(?:\.tar|{_REVISION})\.zst")

ID_PATTERN = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}")
"""Use it with fullmatch: `$` would accept a trailing newline."""
_OBJECT_ID = re.compile(ID_PATTERN.pattern + _REVISION)

_ID_EXAMPLE = "20261123T160254Z-3f9c"
_LARGEST_SUFFIX = 0xFFFF
_LARGEST_STEP = 256
_PART_MAX_CHARS = 255  # the limit of a file name on Linux; a local store uses a part as a file name
_SHORT_CHARS = 180
"""Encoded characters of a long name that are kept: 45 encoded letters of two bytes."""
_DIGEST_CHARS = 32
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_ENCODED = re.compile(r"(?:[A-Za-z0-9_.-]|%[0-9A-F]{2})+")


@dataclass(frozen=True, slots=True, order=True)
class BackupKey:
    """The names of a backup (not encoded, shortened where they are too long); ordered by host, volume, id."""

    host: str
    volume: str
    id: str
    revision: int | None = field(default=None, compare=False)
    """The highest revision that a listing showed; None where no listing was asked. Keys of one backup are equal."""

    def __post_init__(self) -> None:
        """Shorten the names, so that a key that was made from them equals one that was read from a listing."""
        object.__setattr__(self, "host", short_name(self.host))
        object.__setattr__(self, "volume", short_name(self.volume))

    @property
    def prefix(self) -> str:
        """HOST/VOLUME/ID/ as in the store."""
        return backup_prefix(self.host, self.volume, self.id)

    @property
    def data(self) -> str:
        """Key of the frames of a full backup: a tar stream."""
        return self.prefix + DATA_NAME

    @property
    def increment(self) -> str:
        """Key of the frames of an increment: what is new in it, no tar by itself."""
        return self.prefix + INCREMENT_NAME

    @property
    def index(self) -> str:
        """Key of the index."""
        return self.prefix + INDEX_NAME

    @property
    def manifest(self) -> str:
        """Key of the manifest's first revision. The backup exists as long as any revision does."""
        return self.prefix + MANIFEST_NAME

    @property
    def notes(self) -> str:
        """Key of the notes, which may be there or not."""
        return self.prefix + NOTES_NAME

    @property
    def listed_manifest(self) -> str:
        """Key of the revision of the manifest that a listing showed; of the first where no listing was asked."""
        return self.manifest_of(self.revision or 1)

    def manifest_of(self, revision: int) -> str:
        """Key of one revision of the manifest."""
        return self.prefix + manifest_name(revision)


def manifest_name(revision: int) -> str:
    """The name of a manifest of that revision."""
    return MANIFEST_NAME if revision == 1 else f"manifest.{revision}.json"


def index_name(revision: int) -> str:
    """The name of the index object that came with that revision of the manifest."""
    return INDEX_NAME if revision == 1 else f"index.{revision}.jsonl.zst"


def repacked_name(revision: int) -> str:
    """The name of the data object that came with that revision, which is not the first."""
    return f"data.{revision}.zst"


def is_index_name(name: str) -> bool:
    """Whether that is the name of an index object, of any revision."""
    return _INDEX_NAME.fullmatch(name) is not None


def is_object_name(name: str) -> bool:
    """Whether that is the name of a data or index object, of any revision."""
    return _revision_in(name) is not None


def object_id(id: str, name: str) -> str:
    """How indexes name a data or index object of a backup: by its id, and the number of a later revision."""
    revision = _revision_in(name) or 1
    return id if revision == 1 else f"{id}.{revision}"


def is_object_id(text: str) -> bool:
    """Whether `text` is what `object_id` returns."""
    return _OBJECT_ID.fullmatch(text) is not None


def revision_in(name: str) -> int:
    """The revision with which a manifest, data or index object of that name came; 1 for any other name."""
    found = _MANIFEST_NAME.fullmatch(name) or _INDEX_NAME.fullmatch(name) or _DATA_NAME.fullmatch(name)
    return int(found[1] or 1) if found else 1


def _revision_in(name: str) -> int | None:
    """None for what is no data or index object."""
    found = _INDEX_NAME.fullmatch(name) or _DATA_NAME.fullmatch(name)
    return found and int(found[1] or 1)


@lru_cache(1024)  # a listing repeats the names of hosts and volumes
def short_name(name: str) -> str:
    """Return `name`, or where it is too long for a file name when encoded: its beginning, `…`, and a digest of it all.

    A short name is its own short name.
    """
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        return name
    if len(_encoded(raw)) <= _PART_MAX_CHARS:
        return name
    kept, size = [], 0
    for char in name:
        size += len(_encoded(char.encode()))
        if size > _SHORT_CHARS:
            break
        kept.append(char)
    return "".join(kept) + "\u2026" + hashlib.sha256(raw).hexdigest()[:_DIGEST_CHARS]


@lru_cache(1024)
def encode_part(name: str) -> str:
    """Return `name`, shortened where it is too long, as one key part. Raises UsageError if it is empty or not UTF-8."""
    try:
        raw = short_name(name).encode()
    except UnicodeEncodeError as exc:
        raise UsageError(f"name {name!r} is not valid UTF-8, so a key cannot contain it") from exc
    if not raw:
        raise UsageError("an empty name cannot be a host or a volume")
    return _encoded(raw)


def _encoded(raw: bytes) -> str:
    plain = frozenset[int]() if raw in {b".", b".."} else _PLAIN
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in raw)


@lru_cache(1024)
def decode_part(part: str) -> str:
    """Return the name from which `encode_part` made `part`, or its short name.

    Raises UsageError for text that it never returns.
    """
    if _ENCODED.fullmatch(part):
        try:
            name = unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            name = ""
        if name and encode_part(name) == part:
            return name
    raise UsageError(f"key part {part!r} is not an encoded name")


def host_prefix(host: str) -> str:
    """The prefix of all backups of one host: `HOST/`."""
    return f"{encode_part(host)}/"


def volume_prefix(host: str, volume: str) -> str:
    """The prefix of all backups of one volume: `HOST/VOLUME/`."""
    return f"{encode_part(host)}/{encode_part(volume)}/"


def backup_prefix(host: str, volume: str, id: str) -> str:
    """The prefix of all objects of one backup: `HOST/VOLUME/ID/`. Raises UsageError if `id` is not a backup id."""
    if not is_id(id):
        raise UsageError(f"{id!r} is not a backup id", f"an id looks like {_ID_EXAMPLE}")
    return f"{volume_prefix(host, volume)}{id}/"


def new_id(now: datetime, random_hex: str, *, after: Iterable[str] = ()) -> str:
    """Return the id of a backup that starts `now` (aware). Ids sort by time; `random_hex` (4 digits) distinguishes
    those of several writers in one second.

    It sorts after each id in `after` that is not from the future, also in the same second, or where the clock was put
    back by some minutes: its time is then a little later than `now`.
    """
    if now.tzinfo is None:
        raise UsageError("the time of a backup must have a time zone")
    made = _stamped(now, random_hex)
    last = max((id_ for id_ in after if not is_future(created_at(id_), now)), default="")
    return made if made > last else _successor(last, random_hex)


def _stamped(time: datetime, random_hex: str) -> str:
    made = f"{time.astimezone(UTC):%Y%m%dT%H%M%SZ}-{random_hex}"
    if not is_id(made):
        raise UsageError(f"{made!r} is not a backup id", f"an id looks like {_ID_EXAMPLE}")
    return made


def _successor(last: str, random_hex: str) -> str:
    """An id after `last`: of its second, as long as that has one left. The step is random, so that two writers that
    both follow `last` seldom have one id."""
    stamp, _, suffix = last.partition("-")
    number = int(suffix, 16) + 1 + int(random_hex, 16) % _LARGEST_STEP
    if number > _LARGEST_SUFFIX:
        return _stamped(created_at(last) + timedelta(seconds=1), random_hex)
    return f"{stamp}-{number:04x}"


def is_id(text: str) -> bool:
    """Whether `text` is a backup id."""
    return ID_PATTERN.fullmatch(text) is not None


def is_id_prefix(text: str) -> bool:
    """Whether some id begins with `text`, which is not empty."""
    return bool(text) and is_id(text + _ID_EXAMPLE[len(text) :])


def parse_manifest_key(key: str) -> BackupKey | None:
    """Return the backup of whose manifest `key` is a revision, with that revision; None for any other key."""
    found = _MANIFEST_NAME.fullmatch(key.rpartition("/")[2])
    if found is None or key.count("/") != 3 or (backup := parse_backup_key(key)) is None:
        return None
    return BackupKey(backup.host, backup.volume, backup.id, int(found[1] or 1))


def parse_backup_key(key: str) -> BackupKey | None:
    """Return the backup below whose prefix `key` lies, or None for a key that is not below one."""
    parts = key.split("/")
    if len(parts) < 4 or not is_id(parts[2]):
        return None
    try:
        return BackupKey(decode_part(parts[0]), decode_part(parts[1]), parts[2])
    except UsageError:
        return None


# condemned objects

_CONDEMNED = "condemned"
_DELETING = "deleting"
_CONDEMNED_KEY = re.compile(rf"([^/]+/[^/]+/){_CONDEMNED}/(.+)\.(0|[1-9][0-9]{{0,8}})")
"""The place of an object's name without its grace time in seconds: up to 31 years."""
_DELETING_KEY = re.compile(rf"[^/]+/[^/]+/{_CONDEMNED}/{_DELETING}/[^/]+")


def condemned_prefix(host: str, volume: str) -> str:
    """The prefix of all condemnations of one volume: HOST/VOLUME/condemned/."""
    return f"{volume_prefix(host, volume)}{_CONDEMNED}/"


def condemned_key(name: str, grace_s: int) -> str:
    """The key of the condemnation of an object of a backup: HOST/VOLUME/condemned/ID/NAME.GRACE."""
    host, volume, rest = name.split("/", 2)
    return f"{host}/{volume}/{_CONDEMNED}/{rest}.{grace_s}"


def deleting_prefix(host: str, volume: str) -> str:
    """The prefix of the lists of what is being deleted of one volume: HOST/VOLUME/condemned/deleting/."""
    return f"{condemned_prefix(host, volume)}{_DELETING}/"


def deleting_key(name: str, token: str) -> str:
    """The key of a list of what is being deleted, of which an object of a backup is one."""
    host, volume, _ = name.split("/", 2)
    return f"{host}/{volume}/{_CONDEMNED}/{_DELETING}/{token}"


def is_deleting_key(key: str) -> bool:
    """Whether an object is a list of what is being deleted."""
    return _DELETING_KEY.fullmatch(key) is not None


def parse_condemned_key(key: str) -> tuple[str, int] | None:
    """Return the key of the object that a condemnation names, and its grace time in seconds; None for any other key."""
    found = _CONDEMNED_KEY.fullmatch(key)
    if found is None or parse_backup_key(name := found[1] + found[2]) is None:
        return None
    return name, int(found[3])
