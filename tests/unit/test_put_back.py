"""`repair` of a repository's own document: the one that was there comes back, never another, and that is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.forged import reseal_file
from tests.support.repository import IDS, make_backup, use_here
from tests.unit.test_golden import FORMAT_1
from tests.unit.test_key_commands import ALICE, QUICK, Commands, context_of, volback
from volback.archive.age_keys import Identity
from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.repository import Catalog
from volback.context import open_repository
from volback.errors import StoreUnreachable
from volback.operations.document import put_back_document
from volback.operations.keys import Holder, first_key
from volback.operations.rotate import rotate
from volback.operations.trust import certify
from volback.state.documents import kept_document
from volback.store.base import Buffer
from volback.store.local import LocalStore

__all__ = ["volback"]

pytestmark = pytest.mark.unit


@pytest.fixture
def clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """Commands on a repository in clear, with a backup, that this machine has used."""
    use_here(monkeypatch, tmp_path, "repository")
    commands = Commands(tmp_path, capsys)
    commands("init")
    for path in FORMAT_1.iterdir():
        if path.is_dir():
            shutil.copytree(path, commands.repository / path.name)
    commands("list")
    return commands


def document_of(commands: Commands) -> Path:
    return commands.repository / REPOSITORY_KEY


def fill(commands: Commands, identity: Identity = ALICE) -> None:
    """Put the golden backups into an encrypted repository, as its host would."""
    repository, source = open_repository(context_of(commands, identity)), LocalStore(FORMAT_1)
    for info in source.list():
        if info.key.endswith(".zst"):
            repository.store.put(info.key, source.open(info.key))
    for key in Catalog(source).backups():
        repository.catalog.commit(Catalog(source).read(key), kept_by=[])


def forget(commands: Commands, monkeypatch: pytest.MonkeyPatch, name: str = "fresh") -> None:
    """From now on commands run on a machine that knows nothing."""
    monkeypatch.setenv("VOLBACK_STATE_DIR", str(commands.place / name))


# in clear


def test_a_lost_document_comes_back_as_it_was(clear: Commands) -> None:
    was = document_of(clear).read_bytes()
    id_ = json.loads(was)["id"]
    document_of(clear).unlink()
    clear("list")
    assert "has lost its volback.json: `volback repair` puts it back" in clear.err
    clear("backup", "db", code=8)
    assert clear("repair", "--dry-run").startswith(f"would be put back  volback.json: this machine's copy, id {id_}\n")
    assert not document_of(clear).exists()
    put_back = clear.json("repair", code=0)["document"]
    assert put_back == {"id": id_, "recipient": None, "is_copy": True}
    assert document_of(clear).read_bytes() == was
    assert clear.json("repair", code=0)["document"] is None


@pytest.mark.parametrize("harm", [b"", b"{}", b"cut", b"flipped"])
def test_a_damaged_document_comes_back(clear: Commands, harm: bytes) -> None:
    was = document_of(clear).read_bytes()
    harmed = {b"cut": was[:-20], b"flipped": was.replace(b'"format": 1', b'"format": 3')}.get(harm, harm)
    document_of(clear).write_bytes(harmed)
    clear("check", code=7)
    clear("repair")
    assert document_of(clear).read_bytes() == was
    clear("check")


def test_a_damaged_document_without_backups_comes_back(clear: Commands) -> None:
    shutil.rmtree(clear.repository / "golden-host")
    was = document_of(clear).read_bytes()
    document_of(clear).write_bytes(was[:30])
    clear("repair")
    assert document_of(clear).read_bytes() == was


@pytest.mark.parametrize("fields", [{"format": 2}, {"requires": ["quantum"]}, {"id": "another"}])
def test_what_somebody_has_written_is_not_replaced(clear: Commands, fields: dict[str, object]) -> None:
    reseal_file(document_of(clear), lambda document: document.update(fields))
    written = document_of(clear).read_bytes()
    clear("repair", code=9 if "id" in fields else 7)
    assert document_of(clear).read_bytes() == written


def test_where_no_backup_is_nothing_is_made(clear: Commands) -> None:
    """A disk that is not mounted is not a repository that has lost its document."""
    clear.repository.rename(clear.place / "unmounted")
    clear.repository.mkdir()
    clear("repair", code=9)
    assert "is the path right and mounted?" in clear.err
    assert list(clear.repository.iterdir()) == []
    clear.repository.rmdir()
    clear("repair", code=9)
    assert not clear.repository.exists()


def test_a_machine_that_does_not_know_the_repository_makes_nothing(
    clear: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    document_of(clear).unlink()
    forget(clear, monkeypatch)
    clear("repair", code=9)
    assert "is lost or damaged, and this machine does not know its id" in clear.err
    assert "volback init --accept-repository" in clear.err
    assert not document_of(clear).exists()


def test_a_copy_that_is_damaged_is_not_used(clear: Commands) -> None:
    id_ = json.loads(document_of(clear).read_bytes())["id"]
    document_of(clear).unlink()
    (clear.state / "documents" / f"{id_}.json").write_bytes(b"{")
    clear("repair", code=9)
    assert "this machine's copy of the document is damaged" in clear.err
    assert not document_of(clear).exists()


def test_of_disks_that_take_turns_the_damaged_document_says_which_it_is(clear: Commands) -> None:
    first = document_of(clear).read_bytes()
    clear.repository.rename(clear.place / "first")
    clear("init", "--accept-repository")
    make_backup(LocalStore(clear.repository), IDS[1], host="web2", data_bytes=100)
    clear("list")
    second = document_of(clear).read_bytes()
    document_of(clear).write_bytes(second[:-70])
    clear("repair")
    assert document_of(clear).read_bytes() == second
    document_of(clear).unlink()
    clear("repair", code=5)
    assert all(json.loads(one)["id"] in clear.err for one in (first, second))
    assert not document_of(clear).exists()


def test_that_it_came_back_is_said_also_where_the_rest_fails(clear: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    make_backup(LocalStore(clear.repository), IDS[1], host="web2", data_bytes=100)
    document_of(clear).unlink()
    monkeypatch.delenv("VOLBACK_HOSTNAME")
    assert "put back  volback.json: " in clear("repair", code=8)
    assert document_of(clear).exists()


def test_the_copy_follows_the_document(clear: Commands) -> None:
    """Read-only users keep none, and nothing fails."""
    was = document_of(clear).read_bytes()
    id_ = json.loads(was)["id"]
    assert kept_document(clear.state, id_) == was
    shutil.rmtree(clear.state / "documents")
    (clear.state / "documents").write_text("in the way")
    clear("list")
    (clear.state / "documents").unlink()
    clear("list")
    assert kept_document(clear.state, id_) == was


class _PutMeanwhile(LocalStore):
    """Another machine puts the document back first."""

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        super().put(key, list(chunks))
        return super().put(key, [b"mine"], if_absent=if_absent)


def test_another_machine_may_be_faster(clear: Commands) -> None:
    was = document_of(clear).read_bytes()
    document_of(clear).unlink()
    repository = open_repository(context_of(clear))
    repository.stored = _PutMeanwhile(clear.repository)
    assert put_back_document(repository) is not None
    assert document_of(clear).read_bytes() == was


# encrypted


def test_a_host_without_an_identity_puts_back_what_was_signed(volback: Commands) -> None:
    fill(volback)
    was = document_of(volback).read_bytes()
    document_of(volback).unlink()
    put_back = volback.json("repair")["document"]
    assert put_back == {"id": json.loads(was)["id"], "recipient": json.loads(was)["encryption"]["recipient"],
                        "is_copy": True}  # fmt: skip
    assert document_of(volback).read_bytes() == was


def rotated(volback: Commands) -> None:
    """By another machine, after `volback` has used the repository."""
    context = context_of(volback, ALICE)
    rotate(context, open_repository(context), work_factor=QUICK)


def test_a_copy_from_before_a_rotation_is_not_put_back(volback: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(volback)
    forget(volback, monkeypatch, "other")
    volback("list")
    rotated(volback)
    was = document_of(volback).read_bytes()
    document_of(volback).unlink()
    volback("repair", code=2)
    assert "an identity is needed" in volback.err
    assert not document_of(volback).exists()
    put_back = volback.json("repair", "--identity", "alice.txt")["document"]
    assert isinstance(put_back, dict)
    assert put_back["is_copy"] is False
    assert document_of(volback).read_bytes() == was, "id, recipients and signature are the same"
    volback("verify", "--data", "--identity", "alice.txt")
    volback("list")
    assert "was rotated" not in volback.err


def test_a_fresh_machine_makes_it_anew_from_what_the_identity_has_certified(
    volback: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(volback)
    was, repository = document_of(volback).read_bytes(), open_repository(context_of(volback, ALICE))
    document_of(volback).unlink()
    forget(volback, monkeypatch)
    volback("repair", "--identity", "alice.txt", code=9)
    assert "nothing that its identity signed names its id" in volback.err
    identity = repository.keyring()[0]
    certify(repository.stored, json.loads(was)["id"], identity, "web1", "0" * 64, now=context_of(volback).now())
    certify(repository.stored, "stranger", Identity.new(), "web2", "1" * 64, now=context_of(volback).now())
    assert "made anew with the identity" in volback("repair", "--identity", "alice.txt")
    assert document_of(volback).read_bytes() == was
    volback("verify", "--data", "--identity", "alice.txt")


def test_an_identity_that_opens_no_backup_makes_nothing(volback: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(volback)
    document_of(volback).unlink()
    forget(volback, monkeypatch)
    stranger = volback.file("stranger.txt", Identity.new())
    volback("repair", "--identity", stranger, code=7)
    assert "the repository's identity does not open it" in volback.err
    assert not document_of(volback).exists()


@pytest.mark.parametrize("command", [["repair"], ["init", "--accept-repository"]], ids=["repair", "init"])
def test_a_key_that_a_thief_has_added_counts_for_nothing(
    volback: Commands, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Whoever can write to the repository can encrypt an identity of their own for Alice, under a name that comes
    first, and remove the document."""
    fill(volback)
    document_of(volback).unlink()
    holder = Holder((ALICE.recipient,))
    first_key(LocalStore(volback.repository), Identity.new(), "aaa", holder, now=context_of(volback).now())
    forget(volback, monkeypatch)
    volback(*command, "--identity", "alice.txt", code=5)
    assert "hold identities that do not follow one another" in volback.err
    assert not document_of(volback).exists()


def test_a_former_identity_alone_makes_nothing(volback: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(volback)
    former = open_repository(context_of(volback, ALICE)).identities()[0]
    rotated(volback)
    document_of(volback).unlink()
    for key in (volback.repository / "keys").glob("*.age"):
        key.unlink()
    forget(volback, monkeypatch)
    volback("repair", "--identity", volback.file("former.txt", former), code=2)
    assert "was rotated since" in volback.err


def test_where_the_store_does_not_answer_nothing_is_taken_for_lost(volback: Commands) -> None:
    repository = open_repository(context_of(volback))

    def refuse(*_: object, **__: object) -> object:
        raise StoreUnreachable("no answer")

    repository.stored.open = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreUnreachable):
        put_back_document(repository)
