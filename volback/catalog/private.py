"""The private part of a manifest: in an encrypted repository, what of it only the holder of an identity may read.

In clear stay names, ids, times, sizes, counts, tags, and which objects are used: what listing, pruning and presence
checks need. How it is encrypted the catalog does not know; it gets a cipher.
"""

from __future__ import annotations

import base64
import binascii
from typing import Protocol

import msgspec

from volback.catalog.model import AGE, FORMAT, Manifest, ObjectDigest, ScanFacts, SetOf, Source
from volback.catalog.sealed import open_document, seal_document
from volback.errors import FormatError


class Cipher(Protocol):
    """Encrypts small texts for the holders of a repository's identity."""

    def seal(self, data: bytes) -> bytes:
        """Return `data`, encrypted."""

    def unseal(self, data: bytes, what: str) -> bytes:
        """Return what was encrypted. Raises IdentityNeeded, IntegrityError, which name `what`."""


class _Private(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    backup: str
    """The backup's full name: the private part of one manifest is not that of another."""
    driver: str
    options: dict[str, str]
    labels: dict[str, str]
    containers: list[str]
    excludes: list[str]
    scan: ScanFacts | None
    set: SetOf | None
    data_sha256: str
    index_sha256: str
    used_sha256: list[str] = []
    """Of the objects of others that it uses, in their order."""
    digest: str
    warnings: list[str]


def closed(manifest: Manifest, cipher: Cipher) -> Manifest:
    """Return the manifest as it is stored in an encrypted repository."""
    source = manifest.source
    private = _Private(
        backup=manifest.name,
        driver=source.driver, options=source.options, labels=source.labels,
        containers=manifest.containers, excludes=manifest.excludes, scan=manifest.scan, set=manifest.set,
        data_sha256=manifest.data.sha256, index_sha256=manifest.index.sha256,
        used_sha256=[used.sha256 for used in manifest.uses], digest=manifest.digest,
        warnings=manifest.warnings,
    )  # fmt: skip
    return msgspec.structs.replace(
        manifest,
        source=Source(kind=source.kind, name=source.name),
        containers=[], excludes=[], scan=None, set=None,
        data=ObjectDigest(size_bytes=manifest.data.size_bytes, sha256=""),
        index=ObjectDigest(size_bytes=manifest.index.size_bytes, sha256=""),
        uses=[msgspec.structs.replace(used, sha256="") for used in manifest.uses],
        digest="",
        warnings=[],
        encryption=AGE,
        private=base64.b64encode(cipher.seal(seal_document(private))).decode(),
    )  # fmt: skip


def is_same_in_clear(manifest: Manifest, stored: Manifest) -> bool:
    """Whether an opened manifest and a closed one agree in all that stays in clear."""
    clear = closed(manifest, _Nothing())
    return _unsigned(clear) == _unsigned(stored)


def in_clear(manifest: Manifest) -> Manifest:
    """An opened manifest as one of a repository in clear, not signed."""
    return msgspec.structs.replace(_unsigned(manifest), encryption=None)


def _unsigned(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, private=msgspec.UNSET, signed_by=msgspec.UNSET)


class _Nothing:
    """A cipher that keeps nothing."""

    def seal(self, data: bytes) -> bytes:
        return b""

    def unseal(self, data: bytes, what: str) -> bytes:
        raise NotImplementedError


def from_base64(text: str, fault: str) -> bytes:
    """What was written as base64. Raises FormatError, which says `fault`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise FormatError(fault) from exc


def opened(manifest: Manifest, cipher: Cipher) -> Manifest:
    """Return the manifest with its private part. Raises IdentityNeeded, FormatError, IntegrityError."""
    if manifest.private is msgspec.UNSET:
        return manifest
    what = f"manifest {manifest.manifest_key}"
    stored = from_base64(manifest.private, f"{what} has a private part that is not base64")
    private = open_document(cipher.unseal(stored, what), _Private, f"the private part of {what}")
    if private.backup != manifest.name or len(private.used_sha256) != len(manifest.uses):
        raise FormatError(f"{what} has the private part of another backup")
    return msgspec.structs.replace(
        manifest,
        source=Source(
            kind=manifest.source.kind, name=manifest.source.name,
            driver=private.driver, options=private.options, labels=private.labels,
        ),
        containers=private.containers, excludes=private.excludes, scan=private.scan, set=private.set,
        data=ObjectDigest(size_bytes=manifest.data.size_bytes, sha256=private.data_sha256),
        index=ObjectDigest(size_bytes=manifest.index.size_bytes, sha256=private.index_sha256),
        uses=[
            msgspec.structs.replace(used, sha256=sha256)
            for used, sha256 in zip(manifest.uses, private.used_sha256, strict=True)
        ],
        digest=private.digest,
        warnings=private.warnings,
        private=msgspec.UNSET,
    )  # fmt: skip
