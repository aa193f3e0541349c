"""Checks of a manifest that its types cannot express. Its digest only proves that it was not changed since.

The catalog checks what it reads (a store may be hostile) and what it commits (so that it can be read).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from volback.catalog.keys import REVISION_MAX, BackupKey, is_id, is_object_name
from volback.catalog.model import AGE, FORMAT, INDEX_OBJECTS_MAX, Manifest, RepositoryInfo, SetOf, UsedObject
from volback.errors import FormatError, UnknownRequirement

_DIGEST = re.compile(r"[0-9a-f]{64}")
_REPOSITORY_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_SIZE_LIMIT = 2**63


def check_manifest(manifest: Manifest, key: BackupKey) -> Manifest:
    """Return `manifest` if it is valid and belongs under `key`. Raises FormatError with the first fault."""
    for fault in _faults(manifest, key):
        raise FormatError(f"manifest {key.listed_manifest} {fault}")
    return manifest


def check_repository(info: RepositoryInfo, what: str) -> RepositoryInfo:
    """Return `info` if it is valid. Raises FormatError, UnknownRequirement where it needs what is not known here."""
    if info.format != FORMAT or not _REPOSITORY_ID.fullmatch(info.id):
        raise FormatError(f"{what} holds no valid repository id")
    for name in info.requires:
        if name != AGE:
            raise UnknownRequirement(
                f"{what} says that one must know {name[:40]!r}, which this volback does not", "install a newer volback"
            )
    encryption = info.encryption
    if (encryption is not None) != (AGE in info.requires):
        raise FormatError(f"{what} contradicts itself on whether the repository is encrypted")
    if encryption and not all(map(_RECIPIENT.fullmatch, [encryption.recipient, *encryption.past])):
        raise FormatError(f"{what} holds no valid recipient")
    return info


def _faults(manifest: Manifest, key: BackupKey) -> Iterator[str]:
    if manifest.format != FORMAT:
        yield f"has format {manifest.format}, not {FORMAT}"
    if BackupKey(manifest.host, manifest.volume, manifest.id) != key:
        yield f"belongs to another backup: {manifest.volume[:255]!r} of host {manifest.host[:255]!r}"
    if not 0 < manifest.revision <= REVISION_MAX or key.revision not in {None, manifest.revision}:
        yield f"says that it is revision {manifest.revision}"
    if manifest.encryption not in (None, AGE):
        yield f"is encrypted in a way that is not known: {manifest.encryption[:40]!r}"
    if manifest.is_closed and manifest.encryption is None:
        yield "has a private part, and is not encrypted"
    yield from _source_faults(manifest)
    yield from _number_faults(manifest)
    yield from _text_faults(manifest)
    yield from _use_faults(manifest)
    if manifest.set is not None:
        yield from _set_faults(manifest.set, manifest.volume)


def _source_faults(manifest: Manifest) -> Iterator[str]:
    """The key says which volume a backup is of; nothing in the manifest may name another one."""
    source = manifest.source
    if source.name != manifest.volume:
        yield f"is of {source.name[:255]!r}, but is stored as a backup of {manifest.volume[:255]!r}"
    if source.kind != ("directory" if source.name.startswith("/") else "volume"):
        yield f"calls {source.name[:255]!r} a {source.kind}"


def _set_faults(made: SetOf, volume: str) -> Iterator[str]:
    if not is_id(made.id):
        yield f"belongs to set {made.id[:40]!r}, which is not valid"
    if made.project == "":
        yield "belongs to a project without a name"
    if volume not in made.volumes or "" in made.volumes or len(set(made.volumes)) < len(made.volumes):
        yield f"belongs to a set whose volumes are not valid: {made.volumes[:5]!r}"[:255]


def _number_faults(manifest: Manifest) -> Iterator[str]:
    sizes = {
        "files": manifest.files,
        "raw_bytes": manifest.raw_bytes,
        "stored_bytes": manifest.stored_bytes,
        "reused_bytes": manifest.reused_bytes,
        "sockets_skipped": manifest.sockets_skipped,
        "excluded": manifest.excluded,
        "data.size_bytes": manifest.data.size_bytes,
        "index.size_bytes": manifest.index.size_bytes,
        "index_table_bytes": manifest.index_table_bytes,
    }
    for name, size in sizes.items():
        if not 0 <= size < _SIZE_LIMIT:
            yield f"has an impossible {name}: {size}"


def _use_faults(manifest: Manifest) -> Iterator[str]:
    for used in manifest.uses:
        yield from _name_faults(manifest, used)
        if not 0 <= used.used_bytes <= used.size_bytes < _SIZE_LIMIT:
            yield f"uses an impossible part of {used.name} of {used.id[:40]!r}"
        if used.sha256 and not _DIGEST.fullmatch(used.sha256):
            yield f"has no valid digest of {used.name} of {used.id[:40]!r}"
    if len({(used.object_id, used.is_index) for used in manifest.uses}) < len(manifest.uses):
        yield "names an object twice that it uses"
    if sum(used.is_index for used in manifest.uses) > INDEX_OBJECTS_MAX:
        yield f"takes its index from more than {INDEX_OBJECTS_MAX} other backups"
    if manifest.index_table_bytes > manifest.index.size_bytes:
        yield f"has a list of runs of {manifest.index_table_bytes} bytes in an index of {manifest.index.size_bytes}"
    if manifest.kind == "full" and manifest.revision == 1 and (manifest.uses or manifest.index_table_bytes):
        yield "is a full backup, but uses another one"


def _name_faults(manifest: Manifest, used: UsedObject) -> Iterator[str]:
    if not is_id(used.id):
        yield f"depends on {used.id[:40]!r}, which is not a backup id"
    if not is_object_name(used.name):
        yield f"uses {used.name[:40]!r}, which is not an object of a backup"
    if (used.object_id, used.is_index) in {(manifest.id, False), (manifest.index_id, True)}:
        yield f"names its own {used.name} as one that it uses"
    if used.oldest is not msgspec.UNSET and not is_id(used.oldest):
        yield f"uses data of {used.oldest[:40]!r}, which is not a backup id"


def _text_faults(manifest: Manifest) -> Iterator[str]:
    digests = {"digest": manifest.digest, "data": manifest.data.sha256, "index": manifest.index.sha256}
    for name, digest in digests.items():
        if not (_DIGEST.fullmatch(digest) or (manifest.is_closed and not digest)):
            yield f"has no valid digest of its {name}"
    if manifest.parent is not None and (not is_id(manifest.parent) or manifest.parent == manifest.id):
        yield f"has {manifest.parent[:40]!r} as its parent, which is not another backup's id"
    if manifest.smaller_than is not None and not is_id(manifest.smaller_than):
        yield f"is smaller than {manifest.smaller_than[:40]!r}, which is not a backup id"
    for name, time in {"started_at": manifest.started_at, "ended_at": manifest.ended_at}.items():
        if not is_utc_time(time):
            yield f"has no valid {name}: {time[:40]!r}"


def is_utc_time(text: str) -> bool:
    """Whether it is a time in RFC 3339, in UTC."""
    try:
        return datetime.fromisoformat(text).utcoffset() == timedelta(0)
    except ValueError:
        return False
