"""What a backup in progress notes: whatever of the file is lost, what is left of it is true."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from volback.catalog.model import ObjectDigest, ScanFacts, Source
from volback.errors import StoreError
from volback.state.unfinished import KEPT_S, Begun, Privileged, Record, UnfinishedFile, forget_all, is_kept

pytestmark = pytest.mark.unit

BEGUN = Begun(
    repository_id="R",
    source=Source(kind="volume", name="db"),
    cut="cut",
    objects=["h/db/1/data.zst", "h/db/2/data.zst"],
)
RECORDS = [
    Record(
        scan=ScanFacts(started_ns=number, newest_ns=2, filesystem="ext4"),
        lines=os.urandom(50),
        stored=ObjectDigest(size_bytes=number, sha256="0" * 64),
        privileged={"security.capability": Privileged(members=2, paths=[b"\xff\n"])},
    )
    for number in range(3)
]


@pytest.fixture
def file(tmp_path: Path) -> UnfinishedFile:
    return UnfinishedFile(tmp_path, "R", "E", "h", "db")


def _path(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "unfinished").iterdir()
    return path


def _noted(file: UnfinishedFile) -> None:
    file.begin(BEGUN)
    for record in RECORDS:
        file.append(record)


def test_what_was_noted_is_read(file: UnfinishedFile) -> None:
    assert not file.exists
    assert file.read() is None
    _noted(file)
    noted = file.read()
    assert file.exists
    assert noted is not None
    assert (noted.begun, noted.records) == (BEGUN, RECORDS)
    file.begin(BEGUN, RECORDS[:1])
    noted = file.read()
    assert noted is not None
    assert noted.records == RECORDS[:1]
    file.forget()
    assert not file.exists


def test_it_is_of_one_volume_on_one_engine_in_one_repository(file: UnfinishedFile, tmp_path: Path) -> None:
    _noted(file)
    for other in (("S", "E", "h", "db"), ("R", "F", "h", "db"), ("R", "E", "i", "db"), ("R", "E", "h", "d")):
        assert UnfinishedFile(tmp_path, *other).read() is None


def test_a_file_that_is_cut_anywhere_has_the_records_before(file: UnfinishedFile, tmp_path: Path) -> None:
    _noted(file)
    data = _path(tmp_path).read_bytes()
    ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
    for size in range(0, len(data), 7):
        _path(tmp_path).write_bytes(data[:size])
        noted = file.read()
        whole = sum(end - 1 <= size for end in ends)  # a newline says nothing
        assert (noted.records if noted else None) == (RECORDS[: whole - 1] if whole else None), size


def test_a_file_that_is_flipped_anywhere_has_the_records_before(file: UnfinishedFile, tmp_path: Path) -> None:
    _noted(file)
    data = _path(tmp_path).read_bytes()
    for at in range(0, len(data), 7):
        _path(tmp_path).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        noted = file.read()
        before = data[:at].count(b"\n")
        assert (noted.records if noted else None) == (RECORDS[: before - 1] if before else None), at


def test_nothing_is_added_to_a_file_that_is_gone(file: UnfinishedFile) -> None:
    with pytest.raises(StoreError, match="state directory"):
        file.append(RECORDS[0])
    assert not file.exists


def test_what_it_names_is_kept_for_a_week(file: UnfinishedFile, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    assert not is_kept(tmp_path, "R", "h/db/1/", now)
    _noted(file)
    assert is_kept(tmp_path, "R", "h/db/1/", now)
    assert is_kept(tmp_path, "R", "h/db/2/", now)
    assert not is_kept(tmp_path, "R", "h/db/3/", now)
    assert not is_kept(tmp_path, "S", "h/db/1/", now)
    assert not is_kept(tmp_path, "R", "h/db/1/", now + timedelta(seconds=KEPT_S + 60))


def test_what_is_too_old_or_of_the_repository_is_forgotten(file: UnfinishedFile, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    _noted(file)
    forget_all(tmp_path, "S", now)
    assert file.exists
    forget_all(tmp_path, "R", now)
    assert not file.exists
    _noted(file)
    forget_all(tmp_path, "S", now + timedelta(seconds=KEPT_S + 60))
    assert not file.exists


def test_a_file_of_a_later_version_is_not_read(file: UnfinishedFile, tmp_path: Path) -> None:
    _noted(file)
    _path(tmp_path).write_bytes(b"%s {}\n" % b"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
    assert file.read() is None
    assert not is_kept(tmp_path, "R", "h/db/1/", datetime.now(UTC))
