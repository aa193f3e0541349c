"""An increment is copied complete: what the target lacks comes in one data object, and every reader takes the copy."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from tests.support.archive import MIB
from tests.support.encrypted import IDENTITY, encrypted_copy, own_file
from tests.support.engine import PROJECT
from tests.support.stored import HOST, VOLUME, commit_next
from volback.archive.age_keys import Identity
from volback.archive.frames import MovedIndex
from volback.archive.parent import begins_of
from volback.catalog.keys import INDEX_NAME, BackupKey
from volback.catalog.model import Manifest, RepositoryEncryption
from volback.catalog.repository import Catalog
from volback.context import Context, open_repository
from volback.context.repository import Repository
from volback.encryption.sources import NO_SOURCES, Sources, identity_file
from volback.errors import ConflictError, IdentityNeeded, IntegrityError, StoreDenied
from volback.operations.contents import members, open_backup, read_file
from volback.operations.copy import copy_backup, plan_copies, prepare_target
from volback.operations.diff import diff_backups
from volback.operations.export import export
from volback.operations.open_backup import OpenBackup
from volback.operations.search import find, history
from volback.operations.usage import usage
from volback.operations.verify import verify
from volback.settings import Settings
from volback.store.faults import FailCall, FaultStore
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

NIGHTS = [f"2026112{number}T020000Z-aaaa" for number in range(1, 6)]
OTHER = Identity(bytes(range(1, 33)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Manifest]]:
    """A repository of a full backup and four increments, each of which changes a page, a few files and a name."""
    directory, dice = tmp_path_factory.mktemp("made"), random.Random(3)
    root = directory / "tree"
    for number in range(150):
        path = root / f"{number % 5}/file-{number:03}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(dice.choice([0, 100, 9000, 30_000])))
    (root / "database").write_bytes(dice.randbytes(2 * MIB + 5000))
    (root / "log").write_bytes(dice.randbytes(MIB + 100_000))
    os.link(root / "1/file-001", root / "4/again")
    ctx = Context(Settings(str(directory / "repository"), directory / "state", host=HOST))
    repository = open_repository(ctx)
    Catalog(repository.store).ensure_repository(lambda: "a" * 32)
    found = []
    for night, id_ in enumerate(NIGHTS):
        with (root / "database").open("r+b") as file:
            file.seek(night * 300_000)
            file.write(dice.randbytes(8192))
        for number in range(3):
            (root / f"{number}/file-{number + 10 * night:03}").write_bytes(dice.randbytes(20_000))
        if night == 2:
            (root / "3").rename(root / "renamed")
        if night == 4:
            (root / "log").unlink()
        found.append(commit_next(ctx, repository, id_, root))
    return directory / "repository", found


@pytest.fixture
def copies(tmp_path: Path, made: tuple[Path, list[Manifest]]) -> Copies:
    return Copies(tmp_path, *made)


class Copies:
    """A repository that may be changed, and a new one to copy into."""

    def __init__(self, directory: Path, repository: Path, manifests: list[Manifest]) -> None:
        shutil.copytree(repository, directory / "source")
        self.directory, self.manifests = directory, manifests
        self.tree = repository.parent / "tree"
        """As it was in the last night."""
        self.ctx = Context(Settings(str(directory / "source"), directory / "state", host=HOST))
        self.source = self.repository("source")
        self.target = self.new("target")

    def repository(self, name: str, identity: Identity | None = None) -> Repository:
        """As a command opens it."""
        sources = NO_SOURCES if identity is None else Sources((identity_file(self.identity_file(identity)),))
        settings = Settings(str(self.directory / name), self.directory / "state", host=HOST)
        return open_repository(Context(settings, sources=sources))

    def identity_file(self, identity: Identity = IDENTITY) -> Path:
        directory = self.directory / str(identity.recipient)
        directory.mkdir(exist_ok=True)
        return own_file(directory, identity)

    def new(self, name: str, identity: Identity | None = None) -> Repository:
        stated = None if identity is None else RepositoryEncryption(recipient=str(identity.recipient))
        Catalog(LocalStore(self.directory / name)).ensure_repository(lambda: name.ljust(32, "f"), stated)
        return self.repository(name, identity)

    def copy(self, *nights: int, reencrypt: bool = False) -> list[str]:
        """Copy the backups of these nights; return what was done with each that was planned."""
        prepare_target(self.ctx, self.source, self.target, reencrypt=reencrypt)
        wanted = [f"{VOLUME}@{NIGHTS[night]}" for night in nights]
        return [
            copy_backup(self.ctx, self.source, self.target, item).done
            for item in plan_copies(self.source, self.target, wanted)
        ]

    def held(self, night: int) -> Manifest:
        """The copy's manifest."""
        return self.target.opened(self.target.catalog.read(self.manifests[night].key))

    def ids(self) -> list[str]:
        return [key.id for key in self.target.catalog.backups()]

    def names(self) -> set[str]:
        """Of all objects at the target but notes, without the host and the volume."""
        names = {info.key.removeprefix(f"{HOST}/{VOLUME}/") for info in self.target.stored.list(f"{HOST}/")}
        return {name for name in names if not name.endswith("notes.json")}

    def assert_same(self, night: int) -> None:
        """The copy is the backup: its stream, its members, its digest; every byte of it is verified."""
        there, here = self.held(night), self.manifests[night]
        kept = ("id", "digest", "files", "raw_bytes", "started_at", "ended_at", "scan", "source", "cut", "engine_id")
        assert [getattr(there, name) for name in kept] == [getattr(here, name) for name in kept]
        assert verify(self.ctx, self.target, [there.name], data=True).damaged == []
        one, other = OpenBackup.as_stored(self.target, there), OpenBackup(LocalStore(self.directory / "source"), here)
        assert _joined(one.stream()) == _joined(other.stream())
        assert list(one.members()) == list(other.members())


def _joined(buffers: Iterable[bytes | memoryview]) -> bytes:
    return b"".join(map(bytes, buffers))


def test_an_increment_arrives_complete_in_one_data_object(copies: Copies) -> None:
    assert copies.copy(3) == ["copied"]
    there, here = copies.held(3), copies.manifests[3]
    assert copies.names() == {f"{here.id}/{name}" for name in ("data.zst", INDEX_NAME, "manifest.json")}
    assert (there.kind, there.uses, there.parent, there.index_table_bytes) == ("incremental", [], None, 0)
    assert (there.reused_bytes, there.stored_bytes) == (0, there.data.size_bytes)
    used = [used.used_bytes for used in here.uses if used.name != INDEX_NAME]
    assert there.stored_bytes == here.stored_bytes + sum(used), "byte for byte, and no frame twice"
    copies.assert_same(3)
    assert copies.copy(3) == ["skipped"]


def test_what_the_target_has_at_other_places_is_not_copied_again(copies: Copies) -> None:
    """A unit that has not changed costs nothing: its line is used as it is there."""
    for night in (2, 3, 4):
        assert copies.copy(night) == ["copied"]
        copies.assert_same(night)
    for night in (3, 4):
        there, here = copies.held(night), copies.manifests[night]
        assert (there.parent, there.reused_bytes) == (NIGHTS[night - 1], here.reused_bytes)
        assert there.stored_bytes == here.stored_bytes
        assert {used.name for used in there.uses} == {"data.zst", INDEX_NAME}
        assert there.index.size_bytes < here.index.size_bytes + 1000
        assert set(there.depends_on) <= set(NIGHTS[2:night])


def test_an_older_backup_is_copied_after_a_newer_one(copies: Copies) -> None:
    assert copies.copy(4) == copies.copy(3) == ["copied"]
    there, here = copies.held(3), copies.manifests[3]
    assert there.depends_on == [NIGHTS[4]]
    assert 0 < there.reused_bytes < here.raw_bytes, "a frame of which one extent is missing comes whole"
    assert there.parent is None
    for night in (3, 4):
        copies.assert_same(night)


def test_with_all_that_it_uses_at_the_target_it_is_copied_byte_for_byte(copies: Copies) -> None:
    assert copies.copy(0, 1, 2) == ["copied"] * 3
    assert copies.copy(4, 3) == ["copied"] * 2
    for info in copies.source.store.list(f"{HOST}/"):
        assert _joined(copies.target.store.open(info.key)) == _joined(copies.source.store.open(info.key))
    assert copies.copy(*range(5)) == ["skipped"] * 5


def test_a_copy_of_a_copy_is_the_same_backup(copies: Copies) -> None:
    """In whatever objects it lies: it is known by its id and digest."""
    copies.copy(0, 1)
    copies.copy(3)
    assert set(copies.held(3).depends_on) == {NIGHTS[0], NIGHTS[1]}
    copies.source, copies.target = copies.target, copies.new("third")
    assert copies.copy(3) == ["copied"]
    assert copies.held(3).depends_on == []
    copies.assert_same(3)
    copies.source, copies.target = copies.target, copies.repository("source")
    assert copies.copy(3) == ["skipped"]


def _revise(copies: Copies, night: int) -> Manifest:
    """Commit a second revision at the source, with an index object of its own that uses the first one."""
    first, store = copies.manifests[night], copies.source.store
    index = MovedIndex(f"{first.id}.2")
    for reused in begins_of(OpenBackup(store, first).segments):
        index.add_unchanged(reused)
    stored = index.end()
    usable = {one.object_id: one for one in first.usable if one.is_index}
    uses = [one for one in first.uses if not one.is_index]
    uses += [usable[id_].using(used_bytes) for id_, used_bytes in stored.used.items()]
    second = msgspec.structs.replace(
        first, number=2, uses=uses, index=stored.digest, index_table_bytes=stored.table_bytes
    )
    store.put(second.index_key, stored.buffers)
    copies.source.catalog.commit(second, kept_by=[first])
    store.delete(first.key.manifest)
    return second


def test_a_later_revision_is_copied_complete_or_as_it_is(copies: Copies) -> None:
    """Alone it is a backup of the first revision; with all that it uses, objects of its own come along."""
    second = _revise(copies, 3)
    assert copies.copy(3) == ["copied"]
    assert (copies.held(3).revision, copies.held(3).uses) == (1, [])
    copies.assert_same(3)
    copies.target = copies.new("chain")
    assert copies.copy(0, 1, 2, 3) == ["copied"] * 4
    assert (copies.held(3).revision, copies.held(3).uses) == (2, second.uses)
    copies.assert_same(3)
    assert copies.copy(3) == ["skipped"]


def test_another_backup_of_its_id_is_a_conflict(copies: Copies) -> None:
    copies.copy(2)
    third = copies.new("third")
    other = commit_next(copies.ctx, third, NIGHTS[2], copies.directory / "source")
    assert other.digest != copies.manifests[2].digest
    copies.target = third
    with pytest.raises(ConflictError, match=f"has another backup {HOST}/{VOLUME}@{NIGHTS[2]}"):
        copies.copy(2)


def test_what_removed_backups_have_left_is_copied_with_each_that_uses_it(copies: Copies) -> None:
    copies.source.catalog.remove([copies.manifests[night].key for night in (0, 1)])
    assert copies.copy(2) == copies.copy(4) == ["copied"]
    for night in (2, 4):
        copies.assert_same(night)
    assert copies.ids() == [NIGHTS[2], NIGHTS[4]]
    copies.target.catalog.remove([copies.manifests[night].key for night in (2, 4)])
    assert copies.names() == set()


def test_what_other_copies_use_of_a_removed_one_is_never_replaced(copies: Copies) -> None:
    copies.copy(3)
    copies.copy(4)
    copies.target.catalog.remove([copies.manifests[3].key])
    before = _joined(copies.target.store.open(copies.manifests[3].key.increment))
    with pytest.raises(ConflictError, match=rf"{NIGHTS[3]}/data\.zst, of a backup that was removed.*@{NIGHTS[4]} uses"):
        copies.copy(3)
    assert _joined(copies.target.store.open(copies.manifests[3].key.increment)) == before
    copies.assert_same(4)


def test_the_same_bytes_of_a_removed_copy_are_used_again(copies: Copies) -> None:
    copies.copy(0, 1)
    copies.target.catalog.remove([copies.manifests[0].key])
    assert copies.copy(0) == ["copied"]
    for night in (0, 1):
        copies.assert_same(night)


def test_into_a_bucket_what_a_failed_copy_has_left_is_replaced_by_the_next_one(copies: Copies) -> None:
    """There it is condemned, not deleted; what is not condemned may be of another machine, and is never replaced."""
    bucket = MemoryStore("bucket", parallel_reads=4, is_shared=True)
    Catalog(bucket).ensure_repository(lambda: "b" * 32)
    key = copies.manifests[3].key
    failing = FaultStore(bucket, [FailCall("put", StoreDenied("no"), key=key.manifest)])
    copies.target = Repository(failing, lambda: HOST)
    with pytest.raises(StoreDenied):
        copies.copy(3)
    assert {f"{NIGHTS[3]}/data.zst", f"{NIGHTS[3]}/{INDEX_NAME}"} <= copies.names()
    copies.target = Repository(bucket, lambda: HOST)
    assert copies.copy(3) == ["copied"]
    copies.assert_same(3)
    bucket.put(copies.manifests[4].key.increment, [b"of another machine"])
    with pytest.raises(ConflictError, match=f"has objects of .*{NIGHTS[4]}, and not the backup: another run copies it"):
        copies.copy(4)
    assert copies.ids() == [NIGHTS[3]]


def test_damage_of_what_is_needed_stops_a_copy_and_leaves_nothing(copies: Copies) -> None:
    frames = [
        piece.frame for unit in OpenBackup(copies.source.store, copies.manifests[3]).units() for piece in unit.pieces
    ]
    needed = next(frame for frame in frames if frame.backup == NIGHTS[0])
    _flip(copies, copies.manifests[0].data_key, needed.offset + needed.stored_bytes // 2)
    with pytest.raises(IntegrityError, match=rf"@{NIGHTS[3]} is damaged: .*{NIGHTS[0]}/data\.tar\.zst, frame at"):
        copies.copy(3)
    assert copies.names() == set()
    assert not list((copies.directory / "state/runs").iterdir())


def test_damage_of_what_is_not_needed_does_not_matter(copies: Copies) -> None:
    """The log was removed in the last night."""
    frames = [
        {p.frame for unit in OpenBackup(copies.source.store, copies.manifests[night]).units() for p in unit.pieces}
        for night in (0, 4)
    ]
    spare = min(frames[0] - frames[1])
    _flip(copies, copies.manifests[0].data_key, spare.offset + spare.stored_bytes // 2)
    assert copies.copy(4) == ["copied"]
    assert verify(copies.ctx, copies.target, [], data=True).damaged == []


def test_a_skipped_copy_has_what_it_uses(copies: Copies) -> None:
    copies.copy(2)
    copies.copy(3)
    copies.target.catalog.remove([copies.manifests[2].key])
    copies.target.store.delete(copies.manifests[2].key.increment)
    with pytest.raises(IntegrityError, match=rf"is damaged: .*{NIGHTS[2]}/data\.zst is missing"):
        copies.copy(3)


def test_nothing_is_taken_from_a_backup_at_the_target_that_is_damaged(copies: Copies) -> None:
    copies.copy(2)
    held = copies.held(2)
    (copies.directory / "target" / held.key.index).write_bytes(b"x" * held.index.size_bytes)
    assert copies.copy(3) == ["copied"]
    assert copies.held(3).uses == []
    copies.assert_same(3)


def _flip(copies: Copies, key: str, offset: int) -> None:
    path = copies.directory / "source" / key
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("night", [2, 3])
def test_every_reader_takes_a_copied_increment(copies: Copies, night: int) -> None:
    """Alone, and after another one whose data it uses."""
    copies.copy(2)
    copies.copy(night)
    there, here = copies.held(night), copies.manifests[night]
    opened, original = (open_backup(where, there.name) for where in (copies.target, copies.source))
    assert list(members(opened, b"renamed")) == list(members(original, b"renamed"))
    for path in (b"database", b"4/again", b"renamed/file-003"):
        assert _joined(read_file(opened, path)) == _joined(read_file(original, path))
    tar = _joined(export(copies.ctx, original))
    assert _joined(export(copies.ctx, opened)) == tar
    packed = _joined(export(copies.ctx, opened, "zstd"))
    assert subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout == tar
    rescue = map(str, [sys.executable, "-I", PROJECT / "docs/rescue.py", copies.directory / "target", there.name])
    assert subprocess.run([*rescue], capture_output=True, check=True, timeout=60).stdout == tar
    versions, _ = find(copies.target, "file-003", [VOLUME])
    assert {version.state.member.path for version in versions} == {b"renamed/file-003"}
    epochs, _ = history(copies.target, VOLUME, b"database")
    assert len(epochs) == night - 1
    assert [volume.backups[-1].key.id for volume in usage(copies.target, []).volumes] == [here.id]


def test_copies_are_compared_as_the_originals_are(copies: Copies) -> None:
    copies.copy(1)
    copies.copy(4)
    one, other = (f"{VOLUME}@{NIGHTS[night]}" for night in (1, 4))
    there, here = (
        [(found.path, found.changes, found.unclear) for found in diff_backups(where, one, other).found]
        for where in (copies.target, copies.source)
    )
    assert there == here
    assert len(here) > 30


def test_the_next_backup_goes_on_from_a_copy(copies: Copies) -> None:
    """What was moved to another repository costs nothing to go on with: the scan is known there too."""
    copies.copy(4)
    again = commit_next(copies.ctx, copies.target, "20261128T020000Z-aaaa", copies.tree)
    assert (again.parent, again.stored_bytes, again.depends_on) == (NIGHTS[4], 0, [NIGHTS[4]])
    assert again.digest == copies.manifests[4].digest
    assert verify(copies.ctx, copies.target, [], data=True).damaged == []


class TestEncrypted:
    """Copies from encrypted repositories, and into them."""

    @pytest.fixture
    def copies(self, tmp_path: Path, made: tuple[Path, list[Manifest]]) -> Copies:
        copies = Copies(tmp_path, *made)
        encrypted_copy(tmp_path / "source", LocalStore(tmp_path / "encrypted"))
        copies.source, copies.target = copies.repository("encrypted", IDENTITY), copies.new("offsite", IDENTITY)
        return copies

    def test_with_the_identity_it_arrives_complete_and_signed_by_who_copied_it(self, copies: Copies) -> None:
        for night in (2, 3):
            assert copies.copy(night) == ["copied"]
        for night in (2, 3):
            assert copies.held(night).signer is not None
            copies.assert_same(night)
        assert copies.held(2).uses == []
        assert copies.names() == {
            f"{NIGHTS[night]}/{name}"
            for night in (2, 3)
            for name in ("data.zst.age", f"{INDEX_NAME}.age", "manifest.json")
        }
        assert copies.copy(2, 3) == ["skipped"] * 2
        rescue = map(str, [PROJECT / "docs/rescue.py", copies.directory / "offsite", copies.held(3).name])
        identity = str(copies.identity_file())
        done = subprocess.run([sys.executable, "-I", *rescue, identity], capture_output=True, check=True, timeout=60)
        assert done.stdout == _joined(OpenBackup(LocalStore(copies.directory / "source"), copies.manifests[3]).stream())

    def test_without_it_the_backups_that_it_uses_come_along_whole(self, copies: Copies) -> None:
        copies.source, copies.target = copies.repository("encrypted"), copies.repository("offsite")
        assert copies.copy(3) == ["copied"] * 4
        assert copies.copy(3) == ["skipped"] * 4
        for info in copies.source.stored.list(f"{HOST}/"):
            if NIGHTS[4] not in info.key:
                assert _joined(copies.target.stored.open(info.key)) == _joined(copies.source.stored.open(info.key))
        copies.target = copies.repository("offsite", IDENTITY)
        copies.assert_same(3)

    def test_without_it_what_removed_backups_have_left_comes_along(self, copies: Copies) -> None:
        copies.source, copies.target = copies.repository("encrypted"), copies.repository("offsite")
        copies.source.catalog.remove([copies.manifests[night].key for night in (0, 1)])
        assert copies.copy(2) == ["copied"]
        assert copies.copy(3) == ["skipped", "copied"]
        assert f"{NIGHTS[0]}/data.tar.zst.age" in copies.names()
        assert copies.ids() == [NIGHTS[2], NIGHTS[3]]
        copies.target = copies.repository("offsite", IDENTITY)
        copies.assert_same(3)
        copies.target.catalog.remove([copies.manifests[night].key for night in (2, 3)])
        assert copies.names() == set()

    @pytest.mark.parametrize("how", ["is missing", "is not what was written"])
    def test_without_it_what_is_damaged_of_a_removed_backup_is_not_copied(self, copies: Copies, how: str) -> None:
        copies.source, copies.target = copies.repository("encrypted"), copies.repository("offsite")
        copies.source.catalog.remove([copies.manifests[0].key])
        lost = f"{copies.manifests[0].data_key}.age"
        data = _joined(copies.source.stored.open(lost))
        copies.source.stored.delete(lost) if how == "is missing" else copies.source.stored.put(lost, [data[:-1]])
        with pytest.raises(IntegrityError, match=rf"is damaged: .*/data\.tar\.zst\.age {how}"):
            copies.copy(1)
        assert copies.names() == set()

    def test_without_it_what_was_copied_complete_is_known_again_and_never_replaced(self, copies: Copies) -> None:
        """Two of its objects have the names of others: they must not be taken for them."""
        copies.copy(2)
        copies.copy(3)
        before = {info.key: _joined(copies.target.stored.open(info.key)) for info in copies.target.stored.list()}
        copies.source, copies.target = copies.repository("encrypted"), copies.repository("offsite")
        assert copies.copy(3) == ["copied", "copied", "skipped", "skipped"]
        with pytest.raises(IdentityNeeded, match=rf"@{NIGHTS[4]} cannot be copied as it is: .* has what it uses in"):
            copies.copy(4)
        assert (
            before.items()
            <= {info.key: _joined(copies.target.stored.open(info.key)) for info in copies.target.stored.list()}.items()
        )

    @pytest.mark.parametrize("target", [OTHER, None], ids=["another identity", "in clear"])
    def test_into_a_repository_of_another_kind(self, copies: Copies, target: Identity | None) -> None:
        copies.target = copies.new("other", target)
        for night in (2, 4):
            assert copies.copy(night, reencrypt=True) == ["copied"]
            assert copies.copy(night, reencrypt=True) == ["skipped"]
        assert set(copies.held(4).depends_on) == {NIGHTS[2]}
        for night in (2, 4):
            copies.assert_same(night)

    def test_from_clear_into_an_encrypted_one_that_cannot_be_read_all_that_is_used_comes_along(
        self, copies: Copies
    ) -> None:
        """Else each night would be copied as a whole: nothing that is there could be found again."""
        copies.source, copies.target = copies.repository("source"), copies.repository("offsite")
        assert copies.copy(2, reencrypt=True) == ["copied"] * 3
        assert copies.copy(3, reencrypt=True) == ["skipped"] * 3 + ["copied"]
        copies.target = copies.repository("offsite", IDENTITY)
        for night in (2, 3):
            assert copies.held(night).stored_bytes == copies.manifests[night].stored_bytes
            copies.assert_same(night)


def test_a_chain_that_goes_on_at_the_target_is_swept_as_any_other(copies: Copies) -> None:
    copies.copy(2)
    copies.copy(4)
    held = copies.held(4)
    copies.target.catalog.remove([copies.manifests[2].key])
    assert copies.names() >= {f"{NIGHTS[2]}/data.zst", f"{NIGHTS[2]}/{INDEX_NAME}"}
    assert held.depends_on == [NIGHTS[2]]
    copies.assert_same(4)
    assert copies.target.catalog.litter() == []
    copies.target.catalog.remove([BackupKey(HOST, VOLUME, NIGHTS[4])])
    assert copies.names() == set()
