"""Notes of backups: tags, holds, texts, when they were verified and proven; no engine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.counting import CountingStore
from tests.support.encrypted import IDENTITY, encrypted_copy, own_file
from tests.support.forged import reseal_file
from tests.support.repository import IDS, make_backup, use_here
from tests.support.stored import HOST, commit_next
from volback.catalog.keys import BackupKey
from volback.catalog.notes import NO_NOTES, NOTES_MAX_BYTES, AllNotes, Notes, text_of, with_text
from volback.catalog.repository import Catalog
from volback.catalog.sealed import seal_document
from volback.cli.main import run
from volback.context import Context, open_repository
from volback.context.repository import Repository
from volback.encryption.store import Encryption
from volback.errors import FormatError, IdentityNeeded, IntegrityError, StoreDenied
from volback.operations.notes import note_text
from volback.operations.verify import verify
from volback.policy.subset import Subset
from volback.settings import Settings
from volback.store.base import Buffer, Wrapper
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

HELD = "2026-11-20T00:00:00Z"


class Commands:
    """Runs commands in a directory with a repository of three backups of `db`."""

    def __init__(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.place, self.repository = place, place / "repository"
        self.keys = [make_backup(LocalStore(self.repository), id_, data_bytes=5000) for id_ in IDS[:3]]
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        assert run(list(arguments)) == code, self._capsys.readouterr()
        self.out, self.err = self._capsys.readouterr()
        return self.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self("--json", *arguments, code=code))["result"]

    def backup(self, number: int) -> str:
        return f"db@{IDS[number]}"

    def path(self, number: int) -> Path:
        return self.repository / self.keys[number].notes

    def ids(self) -> list[str]:
        return [one["id"] for one in self.json("list")["backups"]]


@pytest.fixture
def volback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    use_here(monkeypatch, tmp_path, "repository")
    return Commands(tmp_path, capsys)


def test_a_held_backup_is_pruned_only_after_its_release(volback: Commands) -> None:
    volback("hold", volback.backup(0))
    found = volback.json("prune", "--keep-last", "1")
    assert [(one["id"], one["reasons"]) for one in found["kept"]] == [(IDS[2], ["last 1 of 1"]), (IDS[0], ["held"])]
    assert volback.ids() == [IDS[0], IDS[2]]
    volback("release", volback.backup(0))
    volback("prune", "--keep-last", "1")
    assert volback.ids() == [IDS[2]]
    assert not volback.path(0).exists(), "its notes go with it"


def test_a_held_backup_is_not_removed(volback: Commands) -> None:
    volback("hold", volback.backup(0), volback.backup(1))
    volback("remove", volback.backup(0), volback.backup(2), "--yes", code=5)
    assert f"error: backup web1/{volback.backup(0)} is held since " in volback.err
    assert f"hint: volback release web1/{volback.backup(0)}" in volback.err
    assert volback.ids() == IDS[:3]
    volback("release", volback.backup(0))
    volback("remove", volback.backup(0), "--yes")
    assert volback.ids() == IDS[1:3]


def test_holding_again_leaves_the_time_as_it_was(volback: Commands) -> None:
    assert volback.json("hold", volback.backup(0))["backups"][0]["held_at"] > HELD
    reseal_file(volback.path(0), lambda notes: notes.update(held_at=HELD))
    assert volback.json("hold", volback.backup(0))["backups"][0]["held_at"] == HELD


@pytest.mark.parametrize("content", [b"", b"garbage", b"{}", seal_document({"format": 1, "held_at": "tomorrow"})])
def test_a_backup_whose_notes_cannot_be_read_is_kept(volback: Commands, content: bytes) -> None:
    volback.path(0).write_bytes(content)
    found = volback.json("prune", "--keep-last", "1")
    assert [one["id"] for one in found["kept"]] == [IDS[2], IDS[0]]
    volback("remove", volback.backup(0), "--yes", code=5)
    assert "as its notes cannot be read: " in volback.err
    volback("tag", "add", volback.backup(0), "release", code=7)
    assert "hint: volback release, or volback hold, writes them anew" in volback.err
    assert "yes, as its notes cannot be read" in volback("show", volback.backup(0))
    volback("release", volback.backup(0))
    volback("remove", volback.backup(0), "--yes")


def test_tags_are_added_shown_kept_by_and_taken_away(volback: Commands) -> None:
    volback("tag", "add", volback.backup(0), "release", "v2", "v2")
    volback("tag", "add", volback.backup(1), "v2")
    assert volback.json("show", volback.backup(0))["backup"]["tags"][-2:] == ["release", "v2"]
    assert [one["id"] for one in volback.json("list", "--tag", "v2")["backups"]] == IDS[:2]
    assert [one["id"] for one in volback.json("list", "--tag", "v2,release")["backups"]] == IDS[:1]
    assert volback("list", "--tag", "none") == "no backups with tag none\n"
    found = volback.json("prune", "--keep-tag", "release", "--dry-run")
    assert [(one["id"], one["reasons"]) for one in found["kept"]] == [
        (IDS[2], ["newest good one"]), (IDS[0], ["tag release"]),
    ]  # fmt: skip
    assert volback("tag", "remove", volback.backup(1), "v2") == f"web1/{volback.backup(1)}: tags: none\n"
    assert [one["id"] for one in volback.json("list", "--tag", "v2")["backups"]] == IDS[:1]


def test_a_tag_of_the_manifest_is_not_taken_away(volback: Commands) -> None:
    manifest = volback.repository / volback.keys[0].manifest
    reseal_file(manifest, lambda fields: fields.update(tags=["nightly"]))
    volback("tag", "add", volback.backup(0), "nightly", "more")
    assert json.loads(volback.path(0).read_bytes())["tags"] == ["more"]
    volback("tag", "remove", volback.backup(0), "nightly", code=5)
    assert "was given when it was made, and stays in its manifest" in volback.err


@pytest.mark.parametrize("tag", ["", "a,b", "before-replace"])
def test_what_cannot_be_a_tag_is_refused(volback: Commands, tag: str) -> None:
    volback("tag", "add", volback.backup(0), tag, code=2)
    assert not volback.path(0).exists()


def test_a_note_is_shown_replaced_and_taken_away(volback: Commands) -> None:
    volback("note", volback.backup(0), "before the upgrade")
    assert "note:         before the upgrade\n" in volback("show", volback.backup(0))
    volback("note", volback.backup(0), "after it")
    assert volback.json("list")["backups"][0]["note"] == "after it"
    volback("note", volback.backup(0), "")
    assert volback.json("show", volback.backup(0))["backup"]["note"] is None


def test_notes_are_not_larger_than_what_is_read(volback: Commands) -> None:
    volback("note", volback.backup(0), "x" * NOTES_MAX_BYTES, code=2)
    volback.path(0).write_bytes(seal_document({"format": 1, "note": "x" * NOTES_MAX_BYTES}))
    assert "is larger than" in volback("show", volback.backup(0))


def test_fields_of_a_later_version_are_kept(volback: Commands) -> None:
    volback.path(0).write_bytes(seal_document({"format": 1, "tags": ["old"], "later": {"a": [1, None]}}))
    volback("hold", volback.backup(0))
    volback("release", volback.backup(0))
    assert json.loads(volback.path(0).read_bytes())["later"] == {"a": [1, None]}
    assert json.loads(volback.path(0).read_bytes())["tags"] == ["old"]


def test_forged_tags_keep_and_never_remove(volback: Commands) -> None:
    """A rule that keeps backups without tags looks at the manifests alone, and so does what is a safety copy."""
    for number in range(3):
        volback.path(number).write_bytes(seal_document({"format": 1, "tags": ["x", "before-replace"]}))
    assert [one["id"] for one in volback.json("prune", "--keep-tag", "", "--dry-run")["kept"]] == IDS[2::-1]
    assert volback.json("show", "db")["backup"]["id"] == IDS[2]


def test_notes_of_one_backup_cost_the_others_no_request() -> None:
    store = CountingStore(MemoryStore("m"))
    keys = [make_backup(store, id_, data_bytes=10) for id_ in IDS[:3]]
    catalog = Catalog(store)
    catalog.notes.replace(keys[1], Notes().with_(held_at=HELD))
    store.reads.clear()
    beside: list[Any] = []
    assert len(list(catalog.manifests(beside=beside))) == 3
    assert catalog.notes.listed(beside) == {keys[1]: Notes().with_(held_at=HELD)}
    assert [read.key for read in store.reads] == [*(key.manifest for key in keys), keys[1].notes]


def test_a_local_copy_is_used_as_long_as_the_listing_shows_the_same_object() -> None:
    store, kept = CountingStore(MemoryStore("m")), _Copies()
    key = make_backup(store, data_bytes=10)
    notes = AllNotes(store, kept)
    for text in ("one", "two, longer"):
        notes.replace(key, Notes().with_(note=text))
        store.reads.clear()
        for reads in (1, 1):
            assert notes.listed(store.list(), cached=True)[key].fields.note == text
            assert len(store.reads) == reads


def test_notes_that_are_gone_since_the_listing_are_none() -> None:
    store = MemoryStore("m")
    key = make_backup(store, data_bytes=10)
    notes = AllNotes(store)
    notes.replace(key, Notes().with_(held_at=HELD))
    listed = list(store.list())
    store.delete(key.notes)
    assert notes.listed(listed) == {key: NO_NOTES}
    assert notes.read(key) == NO_NOTES


class _Copies:
    def __init__(self) -> None:
        self._copies: dict[str, bytes] = {}

    def get(self, name: str, sha256: str | None = None, size_bytes: int | None = None) -> bytes | None:
        return self._copies.get(name)

    def put(self, name: str, data: bytes) -> None:
        self._copies[name] = data


def test_an_encrypted_note_is_written_without_a_key_and_read_with_one() -> None:
    key, other = BackupKey("web1", "db", IDS[0]), BackupKey("web1", "db", IDS[1])
    host = Encryption(IDENTITY.recipient, _no_identity)
    person = Encryption(IDENTITY.recipient, lambda: [IDENTITY])
    notes = with_text(Notes(), "secret words", key, host)
    assert b"secret" not in seal_document({"private": notes.fields.private})
    with pytest.raises(IdentityNeeded):
        text_of(notes, key, host)
    assert text_of(notes, key, person) == "secret words"
    with pytest.raises(FormatError, match="is that of another backup"):
        text_of(notes, other, person)
    with pytest.raises(IntegrityError):
        text_of(notes.with_(private="AAAA"), key, person)
    with pytest.raises(FormatError, match="is not base64"):
        text_of(notes.with_(private="?"), key, person)


def _no_identity() -> list[Any]:
    raise IdentityNeeded("an identity is needed")


def test_commands_in_an_encrypted_repository(volback: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypted_copy(volback.repository, LocalStore(volback.place / "closed"))
    monkeypatch.setenv("VOLBACK_REPO", str(volback.place / "closed"))
    volback("note", volback.backup(0), "secret words")
    volback("tag", "add", volback.backup(0), "release")
    document = (volback.place / "closed" / volback.keys[0].notes).read_text()
    assert '"release"' in document
    assert "secret" not in document
    assert "note:         encrypted: give --identity\n" in volback("show", volback.backup(0))
    assert volback.json("list")["backups"][0]["note"] is None
    shown = volback("show", volback.backup(0), "--identity", str(own_file(volback.place)))
    assert "note:         secret words\n" in shown
    reseal_file(volback.place / "closed" / volback.keys[0].notes, lambda notes: notes.update(private="?"))
    shown = volback("show", volback.backup(0), "--identity", str(own_file(volback.place)))
    assert "is not base64" in volback.err


def test_the_note_of_a_new_backup_is_written_without_reading_and_never_fails_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = CountingStore(MemoryStore("m"))
    manifest = Catalog(store).read(make_backup(store, data_bytes=10))
    repository = Repository(store, lambda: "web1")
    assert repository.encryption is None
    store.reads.clear()
    note_text(repository, manifest, "")
    note_text(repository, manifest, "nightly, after the upgrade")
    assert store.reads == []
    assert repository.catalog.notes.read(manifest.key).fields.note == "nightly, after the upgrade"
    note_text(Repository(_ReadOnly(store), lambda: "web1"), manifest, "more")
    note_text(repository, manifest, "x" * NOTES_MAX_BYTES)
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        f"the note of backup {manifest.name} was not written"
    ] * 2


class _ReadOnly(Wrapper):
    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        raise StoreDenied(f"{key} may not be written")


def test_verify_notes_what_it_has_read_and_found_intact(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"content")
    ctx = Context(Settings(str(tmp_path / "repository"), tmp_path / "state", host=HOST))
    repository = open_repository(ctx)
    Catalog(repository.store).ensure_repository(lambda: "a" * 32)
    first, second = (commit_next(ctx, repository, id_, tmp_path / "tree") for id_ in IDS[:2])
    denied = Repository(_ReadOnly(LocalStore(tmp_path / "repository")), lambda: HOST)
    assert verify(ctx, denied, [], data=True).damaged == []
    verify(ctx, repository, [], data=True, subset=Subset(1, 2))
    assert repository.catalog.notes.read(first.key) == NO_NOTES
    path = tmp_path / "repository" / first.data_key
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    made_at = f"{ctx.now():%Y-%m-%d}"
    verify(ctx, repository, [], data=True)
    assert repository.catalog.notes.read(first.key) == NO_NOTES
    assert second.uses
    (tmp_path / "tree/file").write_bytes(b"other content")
    third = commit_next(ctx, repository, IDS[2], tmp_path / "tree")
    verify(ctx, repository, [third.name], data=True)
    assert made_at <= str(repository.catalog.notes.read(third.key).fields.verified_at)
