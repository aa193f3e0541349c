"""A manifest with all that one holds, to seal as it is or changed."""

from __future__ import annotations

import hashlib
import json

import msgspec

from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, ObjectDigest, SetOf, Source

ID = "20261123T160254Z-3f9c"
DIGEST = "0123456789abcdef" * 4
MANIFEST = Manifest(
    format=1,
    id=ID,
    host="web1",
    volume="db",
    kind="full",
    engine_id="X",
    source=Source(kind="volume", name="db", labels={"a": "ü"}),
    started_at="2026-11-23T16:02:54Z",
    ended_at="2026-11-23T16:02:55.5+00:00",
    consistency="live",
    files=3,
    raw_bytes=10240,
    stored_bytes=100,
    data=ObjectDigest(size_bytes=100, sha256=DIGEST),
    index=ObjectDigest(size_bytes=50, sha256=DIGEST),
    cut="fastcdc-128k-64k",
    digest=DIGEST,
    volback="0.1",
)


def source_of(volume: str) -> Source:
    """The source of a backup that lies under that name."""
    return Source(kind="directory" if volume.startswith("/") else "volume", name=volume)


SET = SetOf(id="20261123T160254Z-5e70", project="shop", volumes=["db", "uploads"])
KEY = BackupKey("web1", "db", ID)


def reseal(**changes: object) -> bytes:
    """A document with a good digest whatever its fields say."""
    fields = {**msgspec.to_builtins(MANIFEST), **changes}
    body = json.dumps(fields, indent=2).encode().removesuffix(b"\n}")
    return body + b',\n  "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'
