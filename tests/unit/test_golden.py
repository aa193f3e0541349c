"""The golden repository of format 1: made once, read by every version. It is never made anew to please a reader."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.library import Library, open_from
from volback.archive.walk import walk
from volback.operations.list import list_backups
from volback.operations.open_backup import OpenBackup
from volback.operations.selection import Selection
from volback.operations.verify import Verification, verify
from volback.settings import Settings

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FORMAT_1 = GOLDEN / "format-1"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "format-1.json").read_text())
FULL, INCREMENT = "20260102T030405Z-0001", "20260103T030405Z-0002"
SECOND_INCREMENT = "20260104T030405Z-0003"
ALL = [FULL, INCREMENT, SECOND_INCREMENT]
SHA256_OF_EXPECTED = "b2a18a3de62b3ae2001408504d1a836bd0209fddae0be3289f48a3a492714e81"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return open_from(Settings(repository=str(FORMAT_1), state=tmp_path / "state", host="golden-host"))


def _open(library: Library, backup_id: str) -> OpenBackup:
    return OpenBackup(library.repository.store, library.repository.find(f"golden@{backup_id}"))


def test_nobody_has_touched_it() -> None:
    assert hashlib.sha256((GOLDEN / "format-1.json").read_bytes()).hexdigest() == SHA256_OF_EXPECTED
    found = {
        str(path.relative_to(FORMAT_1)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FORMAT_1.rglob("*")
        if path.is_file()
    }
    assert found == EXPECTED["objects"]


def test_all_backups_are_listed(library: Library) -> None:
    rows = list_backups(library.ctx, library.repository)
    assert [(row.name, row.error) for row in rows] == [(f"golden-host/golden@{backup_id}", None) for backup_id in ALL]


def test_manifest_says_what_was_committed(library: Library) -> None:
    full, increment = library.repository.find(f"golden@{FULL}"), library.repository.find(f"golden@{INCREMENT}")
    assert (full.kind, full.parent, full.depends_on) == ("full", None, [])
    assert (increment.kind, increment.parent, increment.depends_on) == ("incremental", FULL, [FULL])
    second = library.repository.find("golden-host/golden")
    assert (second.kind, second.parent, second.depends_on) == ("incremental", INCREMENT, [FULL, INCREMENT])
    assert {backup.cut for backup in (full, increment, second)} == {"fastcdc-128k-64k"}
    assert full.source.options == {"type": "none"}
    assert full.source.labels == {"com.example.key": "value"}
    assert (full.started_at, full.ended_at) == ("2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z")
    assert (full.consistency, full.containers, full.tags) == ("paused", ["one", "two"], ["golden"])
    assert (full.sockets_skipped, full.excludes, full.warnings) == (1, ["*.tmp"], ["a warning"])
    assert (full.files, full.raw_bytes, full.engine_id) == (21, 2_672_640, "GOLD:ENGI:NEID")


def test_every_frame_is_whole(tmp_path: Path) -> None:
    copied = shutil.copytree(FORMAT_1, tmp_path / "copy")  # verify notes there what it has found
    library = open_from(Settings(repository=str(copied), state=tmp_path / "state", host="golden-host"))
    assert verify(library.ctx, library.repository, [], data=True) == Verification(3, [])


@pytest.mark.parametrize("backup_id", ALL)
def test_stream_is_the_one_that_was_backed_up(library: Library, backup_id: str) -> None:
    digest = hashlib.sha256()
    for buffer in _open(library, backup_id).stream():
        digest.update(buffer)
    assert digest.hexdigest() == EXPECTED[backup_id]["stream_sha256"]


@pytest.mark.parametrize("backup_id", ALL)
def test_index_has_each_member_as_the_kernel_had_it(library: Library, backup_id: str) -> None:
    members = list(_open(library, backup_id).members())
    expected = EXPECTED[backup_id]["members"]
    facts = [
        [member.path.decode("latin-1"), member.mtime_ns, member.mode, member.uid, member.gid] for member in members
    ]
    assert facts == [[path, *numbers] for path, _, _, *numbers, _ in expected]
    for member, (_, kind, size, *_, holds) in zip(members, expected, strict=True):
        assert (member.type, member.size_bytes) in ((kind, size), ("h", 0))
        assert member.type != "l" or member.link.decode("latin-1") == holds
    links = {member.path: member.link for member in members if member.type == "h"}
    assert links == {
        b"b/again" if backup_id != SECOND_INCREMENT else b"renamed/again": b"a/deep/name",
        b"z \xff/and again": b"a/deep/name",
        b"z \xff/dangling too": b"dangling",
    }


@pytest.mark.parametrize("backup_id", ALL)
def test_content_of_each_file_comes_out(library: Library, backup_id: str) -> None:
    stream = io.BytesIO(b"".join(_open(library, backup_id).stream()))
    expected = {path: holds for path, kind, *_, holds in EXPECTED[backup_id]["members"] if kind == "f"}
    found = {}
    with tarfile.open(fileobj=stream, encoding="utf-8", errors="surrogateescape") as archive:
        for info in archive:
            if info.isreg() or info.issparse() or info.islnk():
                path = info.name.encode("utf-8", "surrogateescape").removeprefix(b"./").decode("latin-1")
                file = archive.extractfile(info) if path in expected else None
                if file is not None:
                    found[path] = hashlib.sha256(file.read()).hexdigest()
    assert found == expected


@pytest.mark.programs
def test_full_backup_opens_with_zstd_and_tar_alone(tmp_path: Path) -> None:
    data = FORMAT_1 / "golden-host" / "golden" / FULL / "data.tar.zst"
    stream = subprocess.run(["zstd", "-dc", data], capture_output=True, check=True).stdout
    assert hashlib.sha256(stream).hexdigest() == EXPECTED[FULL]["stream_sha256"]
    subprocess.run(["tar", "-x", "--exclude=./device"], cwd=tmp_path, input=stream, check=True)
    assert (tmp_path / "b" / "again").read_bytes() == b"a hard link's data, three names\n"
    assert (tmp_path / "sparse").stat().st_blocks * 512 < 100_000


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([b"b/again"], {b"": "d", b"b": "d", b"b/again": "f"}),
        ([b"z \xff"], {b"": "d", b"z \xff": "d", b"z \xff/and again": "f", b"z \xff/dangling too": "l"}),
        ([b"large"], {b"": "d", b"large": "f"}),
        ([b"sparse", b"fifo"], {b"": "d", b"sparse": "f", b"fifo": "p"}),
    ],
)
def test_part_of_the_increment_is_a_stream_of_its_own(
    library: Library, paths: list[bytes], expected: dict[bytes, str]
) -> None:
    selection = Selection.of(_open(library, INCREMENT), paths)
    assert {header.path: header.type for header, _ in walk(selection.stream())} == expected
