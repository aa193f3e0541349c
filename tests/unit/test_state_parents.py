"""What a machine without an identity keeps of the newest backup of a volume: its manifest and indexes, in clear."""

from __future__ import annotations

import hashlib
import logging
import stat
from pathlib import Path

import msgspec
import pytest

from tests.support.documents import MANIFEST
from volback.archive.age_keys import Identity
from volback.catalog.keys import INDEX_NAME, BackupKey
from volback.catalog.model import AGE, Manifest, UsedObject
from volback.catalog.private import closed
from volback.encryption.store import Encryption
from volback.errors import StoreError
from volback.state.parents import KnownParent

OWN = Identity(bytes(range(32)))
CIPHER = Encryption(OWN.recipient, lambda: [OWN])
OLD, NEW, LAST = "20261101T000000Z-aaaa", "20261102T000000Z-bbbb", "20261103T000000Z-cccc"


def backup(id: str, *uses: str) -> Manifest:
    """A manifest that uses the indexes of these backups."""
    used = [UsedObject(id=other, name=INDEX_NAME, size_bytes=9, used_bytes=9) for other in uses]
    return msgspec.structs.replace(MANIFEST, id=id, encryption=AGE, kind="incremental" if uses else "full", uses=used)


def index_of(id: str) -> str:
    return BackupKey(MANIFEST.host, MANIFEST.volume, id).index


@pytest.fixture
def known(tmp_path: Path) -> KnownParent:
    return KnownParent(tmp_path, "repository-id", MANIFEST.host, MANIFEST.volume)


def test_the_manifest_is_given_for_the_one_that_is_stored(known: KnownParent) -> None:
    manifest = backup(OLD)
    assert known.opened(closed(manifest, CIPHER)) is None, "nothing is kept yet"
    known.keep(manifest, [b"the ", b"index"])
    assert known.opened(closed(manifest, CIPHER)) == manifest


def test_another_backup_or_one_that_was_changed_is_not_known(known: KnownParent) -> None:
    known.keep(backup(OLD), [b"index"])
    stored = closed(backup(OLD), CIPHER)
    for other in (closed(backup(NEW), CIPHER), msgspec.structs.replace(stored, files=stored.files + 1)):
        assert known.opened(other) is None


def test_an_index_or_a_part_of_it_is_given_by_its_key(known: KnownParent) -> None:
    known.keep(backup(OLD), [b"the ", b"index"])
    assert known.has_index(OLD)
    assert known.get(index_of(OLD)) == b"the index"
    assert known.get(f"{index_of(OLD)} 4", size_bytes=3) == b"ind"
    assert known.get(index_of(OLD), hashlib.sha256(b"the index").hexdigest()) == b"the index"
    assert known.get(index_of(OLD), hashlib.sha256(b"another").hexdigest()) is None
    assert not known.has_index(NEW)
    assert known.get(index_of(NEW)) is None


def test_indexes_stay_as_long_as_the_newest_backup_uses_them(known: KnownParent) -> None:
    known.keep(backup(OLD), [b"old"])
    known.keep(backup(NEW, OLD), [b"new"])
    assert [known.get(index_of(id)) for id in (OLD, NEW)] == [b"old", b"new"]
    known.keep(backup(LAST, NEW), [b"last"])
    assert [known.get(index_of(id)) for id in (OLD, NEW, LAST)] == [None, b"new", b"last"]


def test_a_whole_index_that_was_read_is_kept_and_a_part_is_not(known: KnownParent) -> None:
    known.put(index_of(OLD), b"whole")
    known.put(f"{index_of(NEW)} 10", b"part")
    known.put("volback.json", b"no index")
    assert known.get(index_of(OLD)) == b"whole"
    assert not known.has_index(NEW)


def test_nobody_else_can_read_what_is_kept(known: KnownParent, tmp_path: Path) -> None:
    known.keep(backup(OLD), [b"index"])
    made = list((tmp_path / "parents").rglob("*"))
    assert {path.suffix for path in made} == {"", ".json", ".index"}
    for path in [tmp_path / "parents", *made]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_damaged_manifest_is_named_and_not_used(
    known: KnownParent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known.keep(backup(OLD), [b"index"])
    [path] = (tmp_path / "parents").glob("*/manifest.json")
    path.write_bytes(path.read_bytes().replace(b"db", b"bd", 1))
    with caplog.at_level(logging.WARNING):
        assert known.opened(closed(backup(OLD), CIPHER)) is None
    assert str(path) in caplog.text


def test_where_the_state_cannot_be_written_it_is_said(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("a file is in the place of the directory")
    with pytest.raises(StoreError, match="state directory"):
        KnownParent(state, "repository-id", "web1", "db").keep(backup(OLD), [b"index"])
