"""The documents of format 1, as types: manifests, and that of the repository. No I/O; all packages above use them."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from volback.catalog.keys import BackupKey, index_name, is_index_name, object_id
from volback.catalog.reference import Reference

FORMAT = 1
FRAME_MAX_BYTES = 8 * 1024 * 1024
"""No writer makes a larger frame; a reader refuses it, so that hostile sizes cost no memory."""

AGE: Final = "age"
"""What `encryption` and `requires` say where objects are files of age."""
INDEX_OBJECTS_MAX = 16
"""From so many other backups an increment's index takes segments at most; else it is written whole."""

BackupKind = Literal["full", "incremental"]
Consistency = Literal["live", "paused", "stopped"]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What was backed up: a volume as the engine describes it, or a host directory."""

    kind: Literal["volume", "directory", "file"]
    """A single file is moved as one; no backup is of that kind."""
    name: str
    driver: str = "local"
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class ObjectDigest(msgspec.Struct, frozen=True, kw_only=True):
    """Size and SHA-256 (hex) of one stored object."""

    size_bytes: int
    sha256: str


class SetOf(msgspec.Struct, frozen=True, kw_only=True):
    """What was backed up together: volumes read under one quiesce belong to one moment, and are restored together."""

    id: str
    """It has the form of a backup id, but is not the id of a backup."""
    project: str | None = None
    """The compose project whose volumes they are."""
    volumes: list[str]
    """Every volume of the set, including this one. The set is complete if each volume has a backup that names the
    set."""


class UsedObject(msgspec.Struct, frozen=True, kw_only=True):
    """An object of another backup of the same volume, or of a later revision, and how much of it this backup uses."""

    id: str
    name: str
    size_bytes: int
    """Of the whole object."""
    used_bytes: int
    """Stored bytes of it without which this backup is not complete."""
    sha256: str = ""
    """Of the whole object (hex), as its own manifest may be removed before it; empty where it is not known."""
    oldest: str | msgspec.UnsetType = msgspec.UNSET
    """Of what repacking made: the id of the oldest backup whose data is in it."""

    @property
    def is_index(self) -> bool:
        """Whether it is an index object."""
        return is_index_name(self.name)

    @property
    def object_id(self) -> str:
        """How indexes name it."""
        return object_id(self.id, self.name)

    @property
    def since(self) -> str:
        """The id of the oldest backup whose data is in it."""
        return self.id if self.oldest is msgspec.UNSET else self.oldest

    def using(self, used_bytes: int) -> UsedObject:
        """The same object, so much of it used."""
        return msgspec.structs.replace(self, used_bytes=used_bytes)

    def of_size(self, size_bytes: int) -> UsedObject:
        """The same object as it is stored now, if it is not of the size that it had."""
        return (
            self if size_bytes == self.size_bytes else msgspec.structs.replace(self, size_bytes=size_bytes, sha256="")
        )


class ScanFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the next increment needs to know of the scan; times in ns, by the clock of the engine's machine."""

    started_ns: int
    newest_ns: int
    """The newest ctime that it saw."""
    filesystem: str
    """The type of the filesystem, and what identifies it."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """One backup; written last, so a backup exists if and only if this does. Times are RFC 3339 UTC."""

    format: int
    number: int | msgspec.UnsetType = msgspec.field(name="revision", default=msgspec.UNSET)
    """Of the revision; not written where it is the first."""
    id: str
    host: str
    volume: str
    """Volume name, or absolute path of a host directory; the key's VOLUME part is its encoding."""
    kind: BackupKind
    engine_id: str
    source: Source
    started_at: str
    ended_at: str
    consistency: Consistency
    containers: list[str] = []
    """Names of the containers that had the volume mounted while it was read."""
    files: int
    """Members in the stream (directories, links and devices too; the end blocks are not members)."""
    raw_bytes: int
    stored_bytes: int
    """Bytes new in this backup's data object."""
    reused_bytes: int = 0
    sockets_skipped: int = 0
    excludes: list[str] = []
    excluded: int = 0
    """How many members the patterns left out."""
    smaller_than: str | None = None
    """The id of the earlier backup against which this one is suspiciously small."""
    parent: str | None = None
    """The id of the backup with which an increment was compared; None for one in two passes that had none."""
    reread: bool = False
    """Whether every file was read, also those that seemed unchanged."""
    uses: list[UsedObject] = []
    """The objects that this one references beside its own two, in clear: no index is needed to know what is needed."""
    cut: str
    """How data was cut into extents: a name, pinned by test vectors. No reader needs it."""
    scan: ScanFacts | None = None
    data: ObjectDigest
    index: ObjectDigest
    """Of the index object that came with this revision."""
    index_table_bytes: int = 0
    """Stored bytes of the list of runs, with which an increment's index object ends; 0: it is the index, whole."""
    digest: str
    """SHA-256 over the binary digests of all units, in stream order."""
    warnings: list[str] = []
    encryption: str | None = None
    """How the backup's objects are encrypted: `age`; None where they are not."""
    private: str | msgspec.UnsetType = msgspec.UNSET
    """Of an encrypted one, what volback/catalog/private.py keeps from who has no identity; as base64."""
    tags: list[str] = []
    set: SetOf | None = None
    """None for a backup that does not belong to a set, and in repositories written before there were sets."""
    volback: str
    signed_by: str | msgspec.UnsetType = msgspec.UNSET
    """The public key (hex) that has signed the document: written by `seal_document`, proven by the catalog."""

    @property
    def revision(self) -> int:
        """Which revision of the backup's manifest it is; the highest valid one counts."""
        return 1 if self.number is msgspec.UNSET else self.number

    def healed(
        self, revision: int, *, data: ObjectDigest, index: ObjectDigest, index_table_bytes: int, uses: list[UsedObject]
    ) -> Manifest:
        """A later revision of the same backup, whose data lies elsewhere."""
        return msgspec.structs.replace(
            self, number=revision, data=data, index=index, index_table_bytes=index_table_bytes, uses=uses
        )

    @property
    def manifest_key(self) -> str:
        """The key of this revision."""
        return self.key.manifest_of(self.revision)

    @property
    def signer(self) -> str | None:
        """The public key (hex) that has signed it; None where nobody has, or nobody has proven it."""
        return None if self.signed_by is msgspec.UNSET else self.signed_by

    @property
    def is_closed(self) -> bool:
        """Whether a part of it is encrypted: its fields have no meaning then, but those that stay in clear."""
        return self.private is not msgspec.UNSET

    @property
    def key(self) -> BackupKey:
        """Where the backup's objects are."""
        return BackupKey(self.host, self.volume, self.id, self.revision)

    @property
    def depends_on(self) -> list[str]:
        """Ids of the other backups of the same volume whose objects this one references."""
        return sorted({used.id for used in self.uses} - {self.id})

    @property
    def shared_bytes(self) -> int:
        """Stored bytes of other backups' objects without which this one is not complete."""
        return sum(used.used_bytes for used in self.uses)

    def key_of(self, used: UsedObject) -> str:
        """The key of an object that this one uses."""
        return BackupKey(self.host, self.volume, used.id).prefix + used.name

    @property
    def usable(self) -> list[UsedObject]:
        """The objects that an increment of it can use: its own, and those that it uses itself."""
        own = [(self.data_name, self.data), (self.index_name, self.index)]
        return [
            UsedObject(id=self.id, name=name, size_bytes=made.size_bytes, used_bytes=0, sha256=made.sha256)
            for name, made in own
        ] + self.uses

    @property
    def references(self) -> list[str]:
        """The keys of all objects that it needs: its own, and those of others that it uses."""
        return list(self.sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of all objects that it needs, by key."""
        own = {self.data_key: self.data.size_bytes, self.index_key: self.index.size_bytes}
        return own | {self.key_of(used): used.size_bytes for used in self.uses}

    @property
    def data_name(self) -> str:
        """The name of its first data object: that of an increment is not a tar stream by itself."""
        return "data.tar.zst" if self.kind == "full" else "data.zst"

    @property
    def data_key(self) -> str:
        """The key of its first data object."""
        return self.key.prefix + self.data_name

    @property
    def index_name(self) -> str:
        """The name of its index object."""
        return index_name(self.revision)

    @property
    def index_key(self) -> str:
        """The key of its index object."""
        return self.key.prefix + self.index_name

    @property
    def index_id(self) -> str:
        """How lists of runs name its index object."""
        return object_id(self.id, self.index_name)

    @property
    def name(self) -> str:
        """The backup's full name: `HOST/VOLUME@ID`."""
        return str(Reference(self.host, self.volume, self.id))


class RepositoryEncryption(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a repository's objects are encrypted."""

    recipient: str
    """The public half of its identity, as age writes it: age1..."""
    past: list[str] = []
    """Those of earlier identities, for which older backups are encrypted."""


class RepositoryInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`volback.json`, the first object of a repository."""

    format: int
    id: str
    requires: list[str] = []
    """What a reader must know by name; who does not know one of them must not use the repository."""
    encryption: RepositoryEncryption | None = None
    """Decided when the repository is made; None: nothing is encrypted."""
    signed_by: str | msgspec.UnsetType = msgspec.UNSET
    """The authority's public key (hex), as in a manifest: that of who holds the identity of an encrypted repository."""

    @property
    def authority(self) -> str | None:
        """The public key (hex) that has signed it; None where nobody has, or nobody has proven it."""
        return None if self.signed_by is msgspec.UNSET else self.signed_by

    def rotated(self, recipient: str) -> RepositoryInfo:
        """The document of the repository once it is encrypted for that recipient, and no longer for its own."""
        former = [] if self.encryption is None else [self.encryption.recipient, *self.encryption.past]
        encryption = RepositoryEncryption(recipient=recipient, past=former)
        return msgspec.structs.replace(self, encryption=encryption, signed_by=msgspec.UNSET)
