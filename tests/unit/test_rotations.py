"""Rotations, as other hosts see them: one that is signed by who held the identity before is followed, no other."""

from __future__ import annotations

import json

import pytest

from tests.unit.test_key_commands import ALICE, BOB, QUICK, Commands, context_of, volback
from volback.archive.age_keys import Identity
from volback.archive.signing import SigningKey, authority_of
from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.model import RepositoryEncryption, RepositoryInfo
from volback.catalog.sealed import open_document, seal_document
from volback.catalog.successions import SUCCESSIONS_PREFIX, Succession, write_succession
from volback.context import open_repository
from volback.operations.rotate import rotate
from volback.store.local import LocalStore

__all__ = ["volback"]

pytestmark = pytest.mark.unit


def rotated(volback: Commands) -> str:
    context = context_of(volback, ALICE)
    return rotate(context, open_repository(context), work_factor=QUICK).recipient


@pytest.fixture
def host(volback: Commands, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Another machine, which has used the repository once."""
    monkeypatch.setenv("VOLBACK_STATE_DIR", str(volback.place / "other"))
    volback("list")
    return volback


def pin_of(host: Commands) -> list[str]:
    (path,) = (host.place / "other" / "recipients").iterdir()
    return path.read_text().splitlines()


def test_a_host_follows_rotations_and_says_so_once(host: Commands) -> None:
    former = host.recipient
    rotated(host)
    current = rotated(host)
    host("list")
    assert f"was rotated: this machine encrypts for {current} from now on, and did for {former}" in host.err
    host("list")
    assert host.err == ""
    assert pin_of(host)[0] == current
    again = rotated(host)
    host("list")
    assert f"did for {current}" in host.err
    assert host.recipient == again


def test_a_rotation_that_somebody_else_signed_is_not_followed(host: Commands) -> None:
    """Who can only write to the bucket has no key that signs for the identity."""
    former, thief = host.recipient, Identity.new()
    store, info = LocalStore(host.repository), open_repository(context_of(host)).info
    stated = RepositoryInfo(
        format=1, id=info.id, requires=["age"], encryption=RepositoryEncryption(recipient=str(thief.recipient))
    )
    store.put(REPOSITORY_KEY, [seal_document(stated, authority_of(thief))])
    theirs = Succession(
        repository=info.id, former=former, recipient=str(thief.recipient),
        authority=authority_of(thief).public.hex(), made_at="2026-11-26T00:00:00+00:00",
    )  # fmt: skip
    for signer in (authority_of(thief), SigningKey.new()):
        write_succession(store, theirs, signer)
        host("list", code=7)
        assert f"is encrypted for {thief.recipient} now, and it was for {former}" in host.err
    assert pin_of(host)[0] == former


@pytest.mark.parametrize("field", ["repository", "former", "recipient", "authority"])
def test_a_rotation_of_something_else_is_not_followed(host: Commands, field: str) -> None:
    """One that is valid elsewhere: of another repository, after another recipient, to another one."""
    store, former = LocalStore(host.repository), host.recipient
    identity = open_repository(context_of(host, ALICE)).identities()[0]
    rotated(host)
    key = f"{SUCCESSIONS_PREFIX}{former}.json"
    was = open_document(b"".join(store.open(key)), Succession, key)
    other = {"repository": "f" * 32, "former": str(BOB.recipient), "recipient": str(BOB.recipient),
             "authority": authority_of(BOB).public.hex()}[field]  # fmt: skip
    changed = Succession(**{**{name: getattr(was, name) for name in was.__struct_fields__}, field: other})
    store.put(key, [seal_document(changed, authority_of(identity))])
    host("list", code=7)
    assert "volback key pin" in host.err


@pytest.mark.parametrize("data", [b"", b"rubbish", b"x" * 17_000_000], ids=["empty", "rubbish", "huge"])
def test_a_damaged_rotation_is_not_followed(host: Commands, data: bytes) -> None:
    former = host.recipient
    rotated(host)
    (host.repository / SUCCESSIONS_PREFIX / f"{former}.json").write_bytes(data)
    host("list", code=7)
    assert SUCCESSIONS_PREFIX in host.err
    host("key", "pin", host.recipient)
    host("list")


def test_a_host_that_knows_no_authority_asks_a_person(host: Commands) -> None:
    """As those that pinned a recipient before documents were signed; with an identity, it learns the authority."""
    former = host.recipient
    (path,) = (host.place / "other" / "recipients").iterdir()
    path.write_text(f"{former}\n")
    host("list")
    current = rotated(host)
    host("list", code=7)
    assert f"volback key pin {current}" in host.err
    host("key", "pin", current)
    assert pin_of(host) == [current]
    host("key", "pin", current, "--identity", "alice.txt")
    assert pin_of(host)[0] == current
    rotated(host)
    host("list")
    assert "was rotated" in host.err


def test_a_document_that_was_changed_is_refused_by_who_knows_the_authority(host: Commands) -> None:
    """The recipient is right, and a former one is gone, with which older backups would be read."""
    rotated(host)
    host("list")
    was = (host.repository / REPOSITORY_KEY).read_bytes()
    host.forge(encryption={"recipient": host.recipient, "past": []})
    for command in (["list"], ["key", "list"], ["prune", "--keep-last", "1"]):
        host(*command, code=7)
        assert "was changed by somebody who does not hold its identity" in host.err
    fields = json.loads(was)
    assert {"signed_by", "signature"} <= fields.keys()
    (host.repository / REPOSITORY_KEY).write_bytes(was)
    host("list")


def test_an_earlier_state_of_the_document_is_refused(host: Commands) -> None:
    was = (host.repository / REPOSITORY_KEY).read_bytes()
    rotated(host)
    host("list")
    (host.repository / REPOSITORY_KEY).write_bytes(was)
    host("list", code=7)
    assert "and it was for" in host.err
