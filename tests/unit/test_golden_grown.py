"""The golden repository of format 1 with a large file that grew: made once, read by every version."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.golden.make_grown import IDS
from tests.support.nights import stream_of
from tests.support.stored import HOST, VOLUME
from tests.unit.test_golden import GOLDEN
from tests.unit.test_rescue import _rescue
from volback.catalog.keys import BackupKey
from volback.catalog.repository import Catalog
from volback.operations.open_backup import OpenBackup
from volback.store.local import LocalStore

pytestmark = pytest.mark.unit

GROWN = GOLDEN / "format-1-grown"
SHA256_OF_OBJECTS = "2b06dae46d1fecb2c5629d407d4d41df5ef707af43683db1a9aa7ed3745196e2"
STREAMS = dict(
    zip(
        IDS,
        [
            "49fe016ae6ae69d53f090f1fa75835e65490d1b126ece3e8a4a64f97bbe5d51f",
            "2a71adc22385a56aaaccef1105268e3149f985bf16a4c6b0475a3e4313067c37",
            "20a52b9a5a96c5f2547e2f5d82a059b3e6616656e3c223617e35f022b88cb1b2",
        ],
        strict=True,
    )
)


def test_nobody_has_touched_it() -> None:
    objects = {
        path.relative_to(GROWN).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(GROWN.rglob("*"))
        if path.is_file()
    }
    assert hashlib.sha256(json.dumps(objects, sort_keys=True).encode()).hexdigest() == SHA256_OF_OBJECTS


@pytest.mark.parametrize("backup_id", IDS)
def test_stream_is_the_one_that_was_backed_up(backup_id: str) -> None:
    store = LocalStore(GROWN)
    manifest = Catalog(store).read(BackupKey(HOST, VOLUME, backup_id))
    assert hashlib.sha256(stream_of(store, manifest)).hexdigest() == STREAMS[backup_id]
    dictionaries = [segment.dictionary for segment in OpenBackup(store, manifest).segments]
    assert [one.backup for one in dictionaries if one] == ([] if backup_id == IDS[0] else [IDS[0]])


@pytest.mark.programs
@pytest.mark.parametrize("backup_id", IDS)
def test_docs_rescue_reads_it(backup_id: str) -> None:
    done = _rescue(GROWN, f"{HOST}/{VOLUME}@{backup_id}")
    assert (done.returncode, hashlib.sha256(done.stdout).hexdigest()) == (0, STREAMS[backup_id]), done.stderr
