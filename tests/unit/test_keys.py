"""The keys of a repository: added, changed and removed; each opens it, and none is lost by mistake."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.support.forged import sealed
from volback.archive.age import decrypt
from volback.archive.age_keys import Identity, parse_identities
from volback.catalog.key_files import note_key, read_key_file
from volback.encryption.keyring import Keyring
from volback.encryption.sources import SecretText, Sources
from volback.errors import ConflictError, IdentityNeeded, NotFoundError, UsageError
from volback.operations.keys import Holder, Keys, first_key, identity_text
from volback.store.memory import MemoryStore

NOW = datetime(2026, 11, 26, 10, 0, tzinfo=UTC)
OWN, ALICE, BOB = Identity.new(), Identity.new(), Identity.new()
QUICK = 4
"""Of scrypt: a test needs no protection."""


def knowing(*texts: str) -> Sources:
    return Sources(passphrases=tuple(SecretText("a test", text.encode) for text in texts))


def holding(*identities: Identity) -> Sources:
    return Sources(tuple(SecretText("a test", str(identity).encode) for identity in identities))


NOTHING = Sources()


def keys(store: MemoryStore, sources: Sources = NOTHING, *own: Identity) -> Keys:
    recipients = [str(identity.recipient) for identity in own or (OWN,)]
    return Keys(store, recipients, Keyring(store, recipients, sources, what="test"), lambda: NOW, work_factor=QUICK)


def opened(store: MemoryStore, sources: Sources, *own: Identity) -> list[Identity]:
    return Keyring(store, [str(identity.recipient) for identity in own or (OWN,)], sources, what="test")()


@pytest.fixture
def store() -> MemoryStore:
    """A repository with one key, of a passphrase."""
    made = MemoryStore("test")
    first_key(made, OWN, "main", Holder(passphrase="correct horse"), now=NOW, work_factor=QUICK)
    return made


def test_the_first_key_opens_the_repository_and_is_an_identity_file_of_age(store: MemoryStore) -> None:
    assert opened(store, knowing("correct horse")) == [OWN]
    plain = b"".join(decrypt([read_key_file(store, "main")], passphrase="correct horse"))
    assert parse_identities(plain.decode()) == [OWN]
    assert f"# recipient: {OWN.recipient}" in plain.decode()
    (key,) = keys(store).all()
    assert (key.name, key.kind, key.recipients, key.opens) == ("main", "passphrase", (), (str(OWN.recipient),))


def test_a_key_is_added_for_the_recipients_of_persons(store: MemoryStore) -> None:
    added = keys(store, knowing("correct horse")).add("team", Holder((ALICE.recipient, BOB.recipient)))
    assert added in keys(store).all()
    assert opened(store, holding(ALICE)) == opened(store, holding(BOB)) == [OWN]


def test_no_key_is_added_without_an_identity_or_under_a_name_that_is_taken(store: MemoryStore) -> None:
    before = list(store.list())
    with pytest.raises(IdentityNeeded):
        keys(store, knowing("battery staple")).add("team", Holder((ALICE.recipient,)))
    with pytest.raises(ConflictError, match="there is a key 'main' already"):
        keys(store, knowing("correct horse")).add("main", Holder((ALICE.recipient,)))
    with pytest.raises(UsageError, match="is for nobody"):
        keys(store, knowing("correct horse")).add("team", Holder())
    assert list(store.list()) == before


@pytest.mark.parametrize("name", ["", "../main", "a b", "-a", "a.age", "a/b", "ä", "a\n", "x" * 65])
def test_a_name_that_is_not_valid_is_refused(store: MemoryStore, name: str) -> None:
    with pytest.raises(UsageError, match="not a valid name of a key"):
        keys(store, holding(OWN)).add(name, Holder((ALICE.recipient,)))
    with pytest.raises(UsageError, match="not a valid name of a key"):
        keys(store).remove(name)


def test_the_last_key_is_not_removed(store: MemoryStore) -> None:
    with pytest.raises(ConflictError, match="'main' is the last one that opens the repository"):
        keys(store).remove("main")
    keys(store, knowing("correct horse")).add("alice", Holder((ALICE.recipient,)))
    keys(store).remove("main")
    assert [key.name for key in keys(store).all()] == ["alice"]
    assert not [found.key for found in store.list("keys/") if "main" in found.key]
    with pytest.raises(ConflictError, match="'alice' is the last one"):
        keys(store).remove("alice")
    with pytest.raises(NotFoundError, match="there is no key 'main'") as caught:
        keys(store).remove("main")
    assert caught.value.hint == "its keys: alice"


def test_a_key_that_opens_only_former_backups_does_not_count_as_another_one(store: MemoryStore) -> None:
    new = Identity.new()
    keys(store, holding(OWN)).add("alice", Holder((ALICE.recipient,)))
    keys(store, holding(new, OWN), new, OWN).rewrite({"main": Holder(passphrase="correct horse")}, [new, OWN])
    with pytest.raises(ConflictError, match="'main' is the last one"):
        keys(store, NOTHING, new, OWN).remove("main")


def test_a_passphrase_is_changed_and_the_former_one_opens_nothing(store: MemoryStore) -> None:
    keys(store, knowing("correct horse")).change_passphrase("main", "battery staple")
    assert opened(store, knowing("battery staple")) == [OWN]
    with pytest.raises(IdentityNeeded):
        opened(store, knowing("correct horse"))
    keys(store, knowing("battery staple")).add("alice", Holder((ALICE.recipient,)))
    with pytest.raises(UsageError, match="'alice' is for recipients"):
        keys(store, knowing("battery staple")).change_passphrase("alice", "another")
    with pytest.raises(NotFoundError, match="there is no key 'bob'"):
        keys(store, knowing("battery staple")).change_passphrase("bob", "another")


def test_who_only_writes_to_the_repository_gets_no_new_identity_by_changing_a_note(store: MemoryStore) -> None:
    mine = keys(store, knowing("correct horse"))
    mine.add("alice", Holder((ALICE.recipient,)))
    mine.add("bob", Holder((BOB.recipient,)))
    mine.add("carol", Holder((BOB.recipient,)))
    note = json.loads(b"".join(store.open(note_key("alice"))))
    del note["sha256"]
    store.put(note_key("alice"), [sealed({**note, "recipients": [str(BOB.recipient)]})])
    store.delete(note_key("bob"))
    found = mine.holders(lambda _: ["correct horse"])
    assert found == {
        "alice": None, "bob": None, "carol": Holder((BOB.recipient,)), "main": Holder(passphrase="correct horse")
    }  # fmt: skip
    assert mine.holders(lambda _: ["battery staple"])["main"] is None


def test_a_note_that_somebody_else_signed_does_not_count(store: MemoryStore) -> None:
    mine = keys(store, knowing("correct horse"))
    made = MemoryStore("another")
    first_key(made, BOB, "main", Holder((BOB.recipient,)), now=NOW)
    store.put(note_key("main"), made.open(note_key("main")))
    assert mine.holders(lambda _: ["correct horse"]) == {"main": None}


def test_earlier_identities_stay_in_every_key_and_the_earlier_alone_adds_none(store: MemoryStore) -> None:
    new = Identity.new()
    keys(store, holding(new, OWN), new, OWN).add("alice", Holder((ALICE.recipient,)))
    assert opened(store, holding(ALICE), new, OWN) == [new, OWN]
    with pytest.raises(IdentityNeeded, match="only an earlier identity"):
        keys(store, knowing("correct horse"), new, OWN).add("bob", Holder((BOB.recipient,)))


def test_secrets_are_in_no_repr() -> None:
    shown = repr((Holder(passphrase="correct horse"), OWN, knowing("correct horse")))
    assert "correct" not in shown
    assert str(OWN) not in shown
    assert str(OWN) in identity_text([OWN], NOW)
