"""The private part of a manifest: what is closed comes back, and nothing of it stands in clear."""

from __future__ import annotations

import msgspec
import pytest

from tests.support.documents import MANIFEST
from volback.archive.age_keys import Identity
from volback.catalog.listing import DamagedManifest
from volback.catalog.model import AGE, Manifest, RepositoryEncryption, ScanFacts, SetOf, Source, UsedObject
from volback.catalog.private import closed, opened
from volback.catalog.repository import Catalog
from volback.catalog.sealed import open_document, seal_document
from volback.encryption.store import Encryption
from volback.errors import FormatError, IdentityNeeded, IntegrityError, UnknownRequirement
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

OWN = Identity(bytes(range(32)))
CIPHER = Encryption(OWN.recipient, lambda: [OWN])
FULL = msgspec.structs.replace(
    MANIFEST,
    source=Source(
        kind="volume", name=MANIFEST.volume, driver="hidden-driver",
        options={"device": "//hidden-nas/share"}, labels={"hidden-label": "hidden-value"},
    ),
    containers=["hidden-container"],
    excludes=["hidden-exclude"],
    scan=ScanFacts(started_ns=1, newest_ns=2, filesystem="hidden-filesystem"),
    set=SetOf(id=MANIFEST.id, project="hidden-project", volumes=[MANIFEST.volume]),
    warnings=["hidden-warning"],
    encryption=AGE,
    kind="incremental",
    uses=[UsedObject(id="20261101T000000Z-aaaa", name="data.zst", size_bytes=9, used_bytes=5, sha256="5e" * 32)],
)  # fmt: skip


def test_what_is_closed_is_opened_again() -> None:
    stored = seal_document(closed(FULL, CIPHER))
    assert b"hidden" not in stored
    for digest in (FULL.digest, FULL.data.sha256, FULL.index.sha256, FULL.uses[0].sha256):
        assert digest.encode() not in stored
    found = open_document(stored, Manifest, "it")
    assert found.is_closed
    assert opened(found, CIPHER) == FULL


def test_what_lists_and_pruning_need_stays_in_clear() -> None:
    found = closed(FULL, CIPHER)
    for name in ("id", "host", "volume", "kind", "started_at", "tags", "files", "raw_bytes", "stored_bytes"):
        assert getattr(found, name) == getattr(FULL, name)
    assert found.uses == [msgspec.structs.replace(used, sha256="") for used in FULL.uses]
    assert (found.data.size_bytes, found.index.size_bytes) == (FULL.data.size_bytes, FULL.index.size_bytes)


def test_another_identity_opens_nothing() -> None:
    with pytest.raises(IntegrityError, match="of another repository"):
        opened(closed(FULL, CIPHER), Encryption(OWN.recipient, lambda: [Identity.new()]))
    with pytest.raises(IdentityNeeded):
        opened(closed(FULL, CIPHER), Encryption(OWN.recipient, lambda: [Identity.new()], 2))


@pytest.mark.parametrize("private", ["***", "", "YWdl"])
def test_a_private_part_that_is_not_one_is_refused(private: str) -> None:
    with pytest.raises(FormatError):
        opened(msgspec.structs.replace(closed(FULL, CIPHER), private=private), CIPHER)


def test_the_private_part_of_another_backup_is_refused() -> None:
    other = closed(msgspec.structs.replace(FULL, id="20261101T000000Z-bbbb"), CIPHER)
    swapped = msgspec.structs.replace(closed(FULL, CIPHER), private=other.private)
    with pytest.raises(FormatError, match="of another backup"):
        opened(swapped, CIPHER)


@pytest.mark.parametrize("is_encrypted", [True, False])
def test_a_manifest_that_is_not_as_its_repository_is_refused(is_encrypted: bool) -> None:
    store = MemoryStore("test")
    wrong = msgspec.structs.replace(FULL, encryption=None) if is_encrypted else closed(FULL, CIPHER)
    store.put(FULL.key.manifest, [seal_document(wrong)])
    (found,) = Catalog(store, is_encrypted=is_encrypted).manifests()
    assert isinstance(found, DamagedManifest)
    assert "and the repository is" in found.error.message


def test_a_repository_that_requires_what_is_unknown_is_refused_by_name() -> None:
    store = MemoryStore("test")
    info = Catalog(store).ensure_repository(lambda: "a" * 32)
    assert (info.requires, info.encryption) == ([], None)
    store.put("volback.json", [seal_document(msgspec.structs.replace(info, requires=["quantum"]))])
    with pytest.raises(UnknownRequirement, match="'quantum'"):
        Catalog(store).info()


@pytest.mark.parametrize("recipient", ["age1", "age1" + "b" * 58, "ssh-ed25519", ""])
def test_a_recipient_that_is_none_is_refused(recipient: str) -> None:
    with pytest.raises(FormatError, match="no valid recipient"):
        Catalog(MemoryStore("t")).ensure_repository(lambda: "a" * 32, RepositoryEncryption(recipient=recipient))


def test_a_repository_that_contradicts_itself_is_refused() -> None:
    store = MemoryStore("test")
    stated = RepositoryEncryption(recipient=str(OWN.recipient))
    info = Catalog(store).ensure_repository(lambda: "a" * 32, stated)
    for changed in (
        msgspec.structs.replace(info, requires=[]), msgspec.structs.replace(info, encryption=None)
    ):  # fmt: skip
        store.put("volback.json", [seal_document(changed)])
        with pytest.raises(FormatError, match="contradicts itself"):
            Catalog(store).info()
