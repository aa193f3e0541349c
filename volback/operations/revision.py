"""Revision: the manifest of a later revision of a backup, whose index names other places of the same extents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from volback.archive.frames import MovedIndex
from volback.archive.segments import StoredIndex
from volback.catalog.keys import object_id, repacked_name, revision_in
from volback.catalog.model import Manifest, ObjectDigest, UsedObject
from volback.catalog.objects import StoredObject
from volback.errors import IntegrityError

Name = tuple[str, bool]
"""An object of a volume, as indexes name it: its object id, and whether it is an index."""


def name_of(used: UsedObject) -> Name:
    """How indexes name an object."""
    return used.object_id, used.is_index


def next_revision(manifest: Manifest, stored: Iterable[StoredObject]) -> int:
    """A number that no object of the backup has, of all that lie there: a killed run may have left some."""
    return 1 + max([manifest.revision, *(revision_in(one.key.rpartition("/")[2]) for one in stored)])


def revision_of(
    old: Manifest,
    number: int,
    index: MovedIndex,
    usable: Mapping[Name, UsedObject],
    *,
    data: Callable[[], ObjectDigest] | None = None,
) -> tuple[Manifest, StoredIndex]:
    """Return the manifest with that number, and its index, which is to be stored; `data` gives the backup's own first
    data object, where that is not what it was.

    `usable` are the objects that can be used. Raises IntegrityError where the index is not that of the backup.
    """
    if index.stream_digest() != old.digest:
        raise IntegrityError(f"the index of {old.name} is not that of the backup", "see volback verify --data")
    stored = index.end()
    used = {(id_, False): size for id_, size in index.frames.used.items() if id_ != old.id}
    if index.frames.own_bytes:
        used[object_id(old.id, repacked_name(number)), False] = index.frames.own_bytes
    used |= {(id_, True): size for id_, size in stored.used.items()}
    made = old.healed(
        number,
        data=old.data if data is None else data(),
        index=stored.digest,
        index_table_bytes=stored.table_bytes,
        uses=[usable[name].using(min(size, usable[name].size_bytes)) for name, size in sorted(used.items())],
    )
    return made, stored
