"""Forged backups: what anybody can make of a repository who may write to it. Each document has a good digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.support.stored import store_units
from volback.archive.codec import ZstdCodec
from volback.archive.ranges import whole
from volback.catalog.model import Manifest, ObjectDigest
from volback.catalog.units import Frame, Piece, Unit
from volback.operations.open_backup import OpenBackup
from volback.store.base import Store


def reseal_manifest(store: Store, manifest: Manifest, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a stored manifest, as the fields of its JSON, and give it a good digest again."""
    key = manifest.key.manifest
    fields = json.loads(b"".join(store.open(key)))
    del fields["sha256"]
    change(fields)
    store.put(key, [sealed(fields)])


def reseal_file(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The same for a document of a repository in a directory."""
    fields = json.loads(path.read_bytes())
    del fields["sha256"]
    change(fields)
    path.write_bytes(sealed(fields))


def sealed(fields: dict[str, Any]) -> bytes:
    """A document whose last field is the digest of the bytes before it."""
    body = json.dumps(fields, indent=2, ensure_ascii=False).removesuffix("\n}").encode(errors="surrogatepass")
    return body + b',\n  "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def put_index(store: Store, manifest: Manifest, index: bytes) -> None:
    """Put another index in place of the backup's, and its size and digest into the manifest."""
    store.put(manifest.key.index, [index])
    digest = {"size_bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()}
    reseal_manifest(store, manifest, lambda fields: fields.update(index=digest))


def store_raw_units(store: Store, backup_id: str, units: list[tuple[Unit, bytes]]) -> Manifest:
    """Store units whose frames hold these raw bytes, one frame each, and an index that announces their members."""
    data, framed = b"", list[Unit]()
    for unit, raw in units:
        stored = ZstdCodec().seal(raw)
        piece = Piece(Frame(backup_id, len(data), len(stored), len(raw)), 0, [len(raw)], hashlib.sha256(raw).digest())
        data += stored
        framed.append(unit._replace(pieces=[piece]))
    manifest = store_units(store, backup_id, data, framed)
    digest = ObjectDigest(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    sizes = {"files": sum(len(unit.members) for unit in framed), "raw_bytes": sum(unit.raw_bytes for unit in framed)}
    return msgspec.structs.replace(manifest, data=digest, stored_bytes=len(data), **sizes)


def raw_units(opened: OpenBackup) -> list[tuple[Unit, bytes]]:
    """The units of a backup with their raw bytes, as `store_raw_units` takes them."""
    return [(unit, b"".join(opened.read(whole(unit.pieces)))) for unit in opened.units()]
