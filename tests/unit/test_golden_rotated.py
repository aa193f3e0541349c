"""The golden repository of format 1 whose identity was replaced: made once, read by every version."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest

from tests.unit.test_golden import ALL, EXPECTED, GOLDEN
from volback.archive.signing import authority_of
from volback.context import Context, open_repository
from volback.context.repository import Repository
from volback.encryption.sources import SecretText, Sources
from volback.errors import RecipientChanged
from volback.operations.open_backup import OpenBackup
from volback.operations.verify import verify
from volback.settings import Settings
from volback.state.pinned import Pin, pinned, write_pin
from volback.store.local import LocalStore

pytestmark = pytest.mark.unit

ROTATED = GOLDEN / "format-1-rotated"
PERSON = Sources((SecretText("the person's identity", (GOLDEN / "format-1-rotated.txt").read_bytes),))
SHA256_OF_OBJECTS = "1e313ae77cf5aa4167c5b3887615864429230160bdd2cfa0fb95bff7903289e8"


def opened(place: Path = ROTATED) -> Repository:
    return Repository(LocalStore(place), lambda: "golden-host", sources=PERSON)


def test_nobody_has_touched_it() -> None:
    objects = {
        path.relative_to(ROTATED).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(ROTATED.rglob("*"))
        if path.is_file()
    }
    assert hashlib.sha256(json.dumps(objects, sort_keys=True).encode()).hexdigest() == SHA256_OF_OBJECTS


def test_all_of_it_is_read_with_the_key_of_a_person(tmp_path: Path) -> None:
    copied = shutil.copytree(ROTATED, tmp_path / "copy")
    ctx = Context(Settings(repository=str(copied), state=tmp_path / "state", host="golden-host"))
    found = verify(ctx, opened(copied), [], data=True)
    assert (found.checked, found.damaged) == (3, [])
    assert found.signed is not None
    assert found.signed.certified == 3, "the host was certified before the rotation"


@pytest.mark.parametrize("backup_id", ALL)
def test_stream_is_the_one_that_was_backed_up(backup_id: str) -> None:
    where = opened()
    data = b"".join(OpenBackup.of(where, where.find(f"golden@{backup_id}")).stream())
    assert hashlib.sha256(data).hexdigest() == EXPECTED[backup_id]["stream_sha256"]


@pytest.mark.parametrize("knows_authority", [True, False])
def test_a_host_that_has_pinned_the_former_recipient_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, knows_authority: bool
) -> None:
    current, former = opened().identities()
    ctx = Context(Settings(repository=str(ROTATED), state=tmp_path / "state", host="golden-host"))
    authority = authority_of(former).public.hex() if knows_authority else None
    write_pin(ctx.settings.state, opened().id, Pin(str(former.recipient), authority))
    if not knows_authority:
        with pytest.raises(RecipientChanged):
            _ = open_repository(ctx).info
        return
    with caplog.at_level(logging.WARNING):
        info = open_repository(ctx).info
    assert f"encrypts for {current.recipient} from now on" in caplog.text
    assert pinned(ctx.settings.state, info.id) == Pin(str(current.recipient), authority_of(current).public.hex())
