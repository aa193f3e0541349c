"""The encrypted golden repository of format 1: made once, read by every version. It is never made anew to please a
reader."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.golden.make_encrypted import PASSPHRASE
from tests.unit.test_golden import ALL, EXPECTED, FULL, GOLDEN, INCREMENT
from volback.archive.signing import authority_of
from volback.catalog.model import AGE
from volback.context import Context
from volback.context.repository import Repository
from volback.encryption.sources import NO_SOURCES, SecretText, Sources
from volback.errors import IdentityNeeded
from volback.operations.open_backup import OpenBackup
from volback.operations.trust import trusted_keys
from volback.operations.verify import verify
from volback.settings import Settings
from volback.store.local import LocalStore

ENCRYPTED = GOLDEN / "format-1-encrypted"
PERSON = (GOLDEN / "format-1-encrypted.txt").read_bytes()
SHA256_OF_OBJECTS = "60930a4d42279605b6000e5b6ee0e5bc5e899cf335cae1634a223fea53d506f7"
BY_IDENTITY = Sources((SecretText("the person's identity", lambda: PERSON),))
BY_PASSPHRASE = Sources(passphrases=(SecretText("the passphrase", PASSPHRASE.encode),))


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Settings(repository=str(ENCRYPTED), state=tmp_path / "state", host="golden-host"))


def opened(sources: Sources, where: Path = ENCRYPTED) -> Repository:
    return Repository(LocalStore(where), lambda: "golden-host", sources=sources)


def test_nobody_has_touched_it() -> None:
    objects = {
        path.relative_to(ENCRYPTED).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(ENCRYPTED.rglob("*"))
        if path.is_file()
    }
    assert hashlib.sha256(json.dumps(objects, sort_keys=True).encode()).hexdigest() == SHA256_OF_OBJECTS


def test_it_says_what_a_reader_must_know() -> None:
    info = opened(NO_SOURCES).info
    assert info.requires == [AGE]
    assert info.encryption is not None
    assert info.encryption.past == []


def test_without_an_identity_its_backups_are_listed_and_present(ctx: Context) -> None:
    where = opened(NO_SOURCES)
    assert [key.id for key in where.catalog.backups()] == ALL
    found = verify(ctx, where, [])
    assert (found.checked, found.damaged, found.signed and found.signed.certified) == (3, [], None)
    increment = where.find(f"golden@{INCREMENT}")
    assert (increment.kind, increment.parent, increment.depends_on) == ("incremental", FULL, [FULL])
    assert (increment.is_closed, increment.digest, increment.warnings) == (True, "", [])
    with pytest.raises(IdentityNeeded):
        where.opened(increment)


@pytest.mark.parametrize("sources", [BY_IDENTITY, BY_PASSPHRASE], ids=["identity", "passphrase"])
def test_every_frame_is_whole(ctx: Context, sources: Sources, tmp_path: Path) -> None:
    copied = shutil.copytree(ENCRYPTED, tmp_path / "copy")  # verify notes there what it has found
    found = verify(ctx, opened(sources, copied), [], data=True)
    assert (found.checked, found.damaged) == (3, [])
    assert found.signed is not None
    assert found.signed.certified == (3 if sources is BY_IDENTITY else None)


@pytest.mark.parametrize("backup_id", ALL)
def test_stream_is_the_one_that_was_backed_up(backup_id: str) -> None:
    where, digest = opened(BY_IDENTITY), hashlib.sha256()
    for buffer in OpenBackup.of(where, where.find(f"golden@{backup_id}")).stream():
        digest.update(buffer)
    assert digest.hexdigest() == EXPECTED[backup_id]["stream_sha256"]


def test_the_private_part_says_what_was_committed() -> None:
    where = opened(BY_IDENTITY)
    full = where.opened(where.find(f"golden@{FULL}"))
    assert full.source.options == {"type": "none"}
    assert full.source.labels == {"com.example.key": "value"}
    assert (full.containers, full.excludes, full.warnings) == (["one", "two"], ["*.tmp"], ["a warning"])


def test_its_host_is_certified() -> None:
    where = opened(BY_IDENTITY)
    trusted = trusted_keys(where.stored, where.id, authority_of(where.identities()[0]).public)
    found = [where.catalog.read(key) for key in where.catalog.backups()]
    assert [trusted.is_certified(manifest) for manifest in found] == [True] * 3
