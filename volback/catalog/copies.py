"""Copies: whether two manifests are of one backup, and the manifest of a copy whose objects are its own.

What identifies a backup is its id and the digest of its stream. Where its bytes lie may differ from copy to copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from volback.catalog.model import Manifest, ObjectDigest, UsedObject


def is_same_backup(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests are of one backup. Where one of them is closed, by what both have in clear."""
    if not one.digest or not other.digest:
        return _clear_facts(one) == _clear_facts(other)
    return (one.key, one.digest) == (other.key, other.digest)


def _clear_facts(manifest: Manifest) -> tuple[object, ...]:
    """What is never encrypted, and does not depend on where the bytes lie."""
    made = (manifest.engine_id, manifest.started_at, manifest.ended_at, manifest.consistency)
    return (manifest.key, manifest.volume, *made, manifest.files, manifest.raw_bytes)


def objects_of(manifest: Manifest) -> list[tuple[str, ObjectDigest]]:
    """All objects that a backup needs, by key: those that it uses, its data, its index. A SHA-256 may not be known."""
    used = [
        (manifest.key_of(used), ObjectDigest(size_bytes=used.size_bytes, sha256=used.sha256)) for used in manifest.uses
    ]
    return [*used, (manifest.data_key, manifest.data), (manifest.index_key, manifest.index)]


def is_same_object(one: ObjectDigest, other: ObjectDigest) -> bool | None:
    """Whether two objects have the same bytes; None where their sizes are equal and a SHA-256 is not known."""
    if one.size_bytes != other.size_bytes:
        return False
    return one.sha256 == other.sha256 if one.sha256 and other.sha256 else None


def stored_anew(
    manifest: Manifest,
    *,
    data: ObjectDigest,
    index: ObjectDigest,
    index_table_bytes: int,
    reused_bytes: int,
    uses: Sequence[UsedObject],
    parent: str | None,
) -> Manifest:
    """Return the manifest of the same backup with other objects: an increment in form, of the first revision, and not
    signed."""
    return msgspec.structs.replace(
        manifest,
        number=msgspec.UNSET,
        kind="incremental",
        data=data,
        stored_bytes=data.size_bytes,
        index=index,
        index_table_bytes=index_table_bytes,
        reused_bytes=reused_bytes,
        uses=list(uses),
        parent=parent,
        signed_by=msgspec.UNSET,
    )
