"""The cutter against the real tar: nothing of the stream is lost or moved, and the index tells the truth about it."""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable
from itertools import accumulate, chain, repeat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.archive import (
    BUFFERS,
    MIB,
    TREES,
    CutUnit,
    Made,
    cut,
    made,
    pieces,
    plan_of,
    raw_of,
    read,
    record,
    scan_facts,
)
from tests.support.stored import FIRST, SECOND, store_backup, store_increment
from volback.archive import tar
from volback.archive.plan import Plan, make_plan
from volback.catalog.model import FRAME_MAX_BYTES
from volback.errors import IntegrityError
from volback.operations.open_backup import OpenBackup
from volback.store.memory import MemoryStore

SLOW = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@SLOW
@given(TREES, BUFFERS)
def test_frames_joined_are_the_stream_and_members_lie_where_the_index_says(tree: list[Made], sizes: list[int]) -> None:
    with made(tree) as root:
        plan = plan_of(root)
        stream = read(root, plan)
    units, report = cut(plan, pieces(stream, sizes))
    assert b"".join(map(raw_of, units)) == stream
    assert report.raw_bytes == len(stream)
    assert report.vanished == []
    assert all(0 < len(frame) <= FRAME_MAX_BYTES for unit in units for frame in unit.frames)
    assert [member.path for unit in units for member in unit.end.members] == [
        plan.entry(number).path for number in range(len(plan.records))
    ]
    assert report.members == len(plan.records)
    for unit in units:
        _check_unit(unit)
    _check_against_tarfile(stream, units)


def _check_unit(unit: CutUnit) -> None:
    """Each member's header begins at its offset, and the unit holds every name of what it links to."""
    raw, members = raw_of(unit), unit.end.members
    ends = [member.offset for member in members[1:]] + [len(raw)]
    paths = {member.path for member in members}
    for member, end in zip(members, ends, strict=False):
        header = tar.read_header(raw[member.offset : end])
        assert (header.path, header.type, header.size_bytes, header.link) == (
            member.path,
            member.type,
            member.size_bytes,
            member.link,
        )
        assert header.header_bytes + header.data_bytes == end - member.offset
        assert member.type != "h" or member.link in paths


def _check_against_tarfile(stream: bytes, units: list[CutUnit]) -> None:
    types = {"0": "f", "S": "f", "1": "h", "2": "l", "3": "c", "4": "b", "5": "d", "6": "p"}
    with tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8", errors="surrogateescape") as archive:
        expected = [(_name(info), types[info.type.decode()], info.uid, info.mode, info.size) for info in archive]
    found = [
        (b"./" + member.path if member.path else b".", member.type, member.uid, member.mode, member.size_bytes)
        for unit in units
        for member in unit.end.members
    ]
    assert found == expected


def _name(info: tarfile.TarInfo) -> bytes:
    """tarfile takes the stand-in for the name where a sparse file has an odd one."""
    return info.pax_headers.get("GNU.sparse.name", info.name).encode("utf-8", "surrogateescape")


def test_file_of_a_mebibyte_is_a_unit_of_header_and_blocks(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(random.Random(1).randbytes(2 * MIB + 5))
    (tmp_path / "small").write_bytes(b"x")
    units, _ = cut(plan_of(tmp_path), [read(tmp_path, plan_of(tmp_path))])
    assert [unit.end.kind for unit in units] == ["group", "file", "group", "end"]
    header, *blocks = units[1].extents
    assert b"ustar" in header
    assert len(header) in range(512, 4096, 512)
    assert all(16 * 1024 <= len(block) < 80 * 1024 for block in blocks[:-1])
    assert all(len(frame) >= MIB for frame in units[1].frames[:-1])


def test_the_headers_between_the_data_of_two_files_are_one_extent(tmp_path: Path) -> None:
    """A file's data is an extent of its own, so that it is found again under another name or with another time."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 700)
    for number in range(5):
        (tmp_path / f"aa-{number}").symlink_to("a")
    units, _ = cut(plan_of(tmp_path), [read(tmp_path, plan_of(tmp_path))])
    first, data, between, other = units[0].extents
    assert (data, other) == (b"a" * 700 + bytes(324), b"b" * 700 + bytes(324))
    assert [len(first) % 512, len(between) % 512] == [0, 0]
    assert all(b"aa-%d" % number in between for number in range(5))


def test_block_that_changes_leaves_the_other_extents_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "database"
    path.write_bytes(random.Random(2).randbytes(5 * MIB))
    plan = plan_of(tmp_path)
    before = cut(plan, [read(tmp_path, plan)])[0][1].extents
    with path.open("r+b") as file:
        file.seek(2 * MIB + 17)
        file.write(b"changed")
    os.utime(path, ns=(0, plan.entry(1).mtime_ns))
    after = cut(plan, [read(tmp_path, plan)])[0][1].extents
    assert len(set(after) - set(before)) == len(set(before) - set(after)) == 1


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_symlink(path: Path, target: str = "elsewhere") -> None:
    path.unlink()
    path.symlink_to(target)


def _as_file(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"file")


CHANGES: dict[str, tuple[str, Callable[[Path], object], list[bytes]]] = {
    # name: path, change between scan and read, what has vanished then
    "small file is gone": ("small", _remove, [b"small"]),
    "large file is gone": ("large", _remove, [b"large"]),
    "directory is gone with all below": ("many", _remove, [b"many", *(b"many/%03d" % number for number in range(300))]),
    "first of three names is gone": ("linked-1", _remove, [b"linked-1"]),
    "second of three names is gone": ("linked-2", _remove, [b"linked-2"]),
    "small file has grown past a frame": ("small", lambda path: path.write_bytes(os.urandom(11 * MIB)), []),
    "large file has shrunk": ("large", lambda path: path.write_bytes(b"tiny"), []),
    "large file is empty": ("large", lambda path: path.write_bytes(b""), []),
    "small file is a directory": ("small", _as_directory, []),
    "small file is a symlink": ("small", _as_symlink, []),
    "large file is a symlink": ("large", _as_symlink, []),
    "symlink points elsewhere": ("link", lambda path: _as_symlink(path, "other"), []),
    "symlink points far": ("link", lambda path: _as_symlink(path, "o" * 300), []),
    "symlink is a file": ("link", _as_file, []),
    "file has a second name": ("small", lambda path: path.with_name("unplanned").hardlink_to(path), []),
    "mode has changed": ("small", lambda path: path.chmod(0o400), []),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_changes_between_scan_and_read_is_cut_as_it_is_read(tmp_path: Path, case: str) -> None:
    name, change, vanished = CHANGES[case]
    (tmp_path / "many").mkdir()
    for number in range(300):
        (tmp_path / "many" / f"{number:03}").write_bytes(b"x" * number * 20)
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "large").write_bytes(os.urandom(3 * MIB))
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "linked-1").write_bytes(os.urandom(70_000))
    (tmp_path / "linked-2").hardlink_to(tmp_path / "linked-1")
    (tmp_path / "linked-3").hardlink_to(tmp_path / "linked-1")
    plan = plan_of(tmp_path)
    change(tmp_path / name)
    stream = read(tmp_path, plan)
    for buffers in ([stream], pieces(stream, [10_007])):
        units, report = cut(plan, buffers)
        assert report.vanished == vanished
        assert b"".join(map(raw_of, units)) == stream
        assert all(len(frame) <= FRAME_MAX_BYTES for unit in units for frame in unit.frames)
        assert report.members == len(plan.records) - len(vanished)
        for unit in units:
            _check_unit(unit)


def test_names_that_the_list_lacks_have_vanished(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / name).write_bytes(name.encode())
    plan, short = plan_of(tmp_path), plan_of(tmp_path)
    for number in (5, 3, 1):
        del short.records[number]
    units, report = cut(plan, [read(tmp_path, short)])
    assert report.vanished == [b"a", b"c", b"e"]
    assert [member.path for unit in units for member in unit.end.members] == [b"", b"b", b"d", b"f"]


def test_member_that_was_not_planned_is_refused(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    plan, short = plan_of(tmp_path), plan_of(tmp_path)
    short.records.pop(2)
    short.units[0] = short.units[0]._replace(stop=3)
    with pytest.raises(IntegrityError, match="not planned"):
        cut(short, [read(tmp_path, plan)])


def test_stream_that_ends_at_any_block_is_refused(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"x" * 3000)
    (tmp_path / "large").write_bytes(os.urandom(MIB))
    (tmp_path / ("n" * 200)).write_bytes(b"y")
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 100_000)
    plan = plan_of(tmp_path)
    stream = read(tmp_path, plan)
    end = len(stream.rstrip(b"\0"))
    boundaries = [at for at in range(0, end, 512) if at < 30_000 or at > end - 10_000 or not at % 65_536]
    assert len(boundaries) > 60
    for at in (*boundaries, 1, 513, end - 1):
        with pytest.raises(IntegrityError, match="ended"):
            cut(plan, [stream[:at]])


@pytest.mark.parametrize("end_bytes", [0, 511, 512, 1023])
def test_stream_without_both_end_blocks_is_refused(tmp_path: Path, end_bytes: int) -> None:
    plan = plan_of(tmp_path)
    members = read(tmp_path, plan)[: 3 * tar.BLOCK]  # the root: pax header, its records, ustar header
    with pytest.raises(IntegrityError, match="before its end-of-archive blocks"):
        cut(plan, [members + bytes(end_bytes)])


@pytest.mark.parametrize("end_bytes", [1024, 1025, 1536, 10_240, 3 * MIB])
def test_end_of_the_archive_does_not_depend_on_how_tar_padded_its_own(tmp_path: Path, end_bytes: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3000)
    plan = plan_of(tmp_path)
    stream = read(tmp_path, plan)
    members = sum(len(raw_of(unit)) for unit in cut(plan, [stream])[0][:-1])
    units, report = cut(plan, pieces(stream[:members] + bytes(end_bytes), [1000]))
    assert b"".join(map(raw_of, units)) == stream
    assert report.raw_bytes == len(stream)


def test_zeros_behind_the_end_are_dropped_as_they_come(tmp_path: Path) -> None:
    """However many there are: a helper that writes zeros without end must not fill the memory."""
    plan = plan_of(tmp_path)
    stream = read(tmp_path, plan)
    buffers = chain([stream], repeat(bytes(4 * MIB), 50))
    tracemalloc.start()
    try:
        units, _ = cut(plan, buffers)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert b"".join(map(raw_of, units)) == stream
    assert peak < 30 * MIB


@SLOW
@given(TREES, st.data())
def test_units_that_the_parent_has_are_passed_on_and_the_stream_is_the_same(
    tree: list[Made], data: st.DataObject
) -> None:
    """What is left to tar is any choice of the plan's units; its own end is then padded otherwise."""
    with made(tree) as root:
        plan = plan_of(root)
        stream = read(root, plan)
    store = MemoryStore("test")
    full = store_backup(store, FIRST, plan, [stream])
    parent = dict(zip(plan.units, OpenBackup(store, full).units(), strict=False))
    again = data.draw(st.sets(st.sampled_from(plan.units)))
    places = accumulate((unit.raw_bytes for unit in parent.values()), initial=0)
    parts = [stream[at : at + parent[unit].raw_bytes] for unit, at in zip(plan.units, places, strict=False)]
    left = b"".join(part for unit, part in zip(plan.units, parts, strict=True) if unit in again)
    partial = pieces(left + tar.end_of_archive(len(left)), [4096, 511])
    second = store_increment(store, SECOND, plan, lambda _plan, _wanted: partial, full, again=again)
    opened = OpenBackup(store, second)
    assert b"".join(opened.stream()) == stream
    assert (second.digest, second.raw_bytes, second.files) == (full.digest, full.raw_bytes, full.files)
    assert (second.reused_bytes, second.stored_bytes) == (full.raw_bytes, 0), "what was read again is known"
    assert second.depends_on == [FIRST]
    assert list(opened.members()) == list(OpenBackup(store, full).members())


def test_tar_reads_only_the_units_that_it_is_named(tmp_path: Path) -> None:
    """Some large files and groups of small ones, of which a few changed; one of them is away."""
    for directory in range(30):
        (tmp_path / f"{directory:02}").mkdir()
        for number in range(20):
            (tmp_path / f"{directory:02}" / f"{number}").write_bytes(os.urandom(20_000))
    for number in range(4):
        (tmp_path / f"large-{number}").write_bytes(os.urandom(2 * MIB))
    (tmp_path / "large-2-again").hardlink_to(tmp_path / "large-2")
    store, plan = MemoryStore("test"), plan_of(tmp_path)
    full = store_backup(store, FIRST, plan, [read(tmp_path, plan)])
    (tmp_path / "07" / "5").write_bytes(b"y" * 20_000)
    (tmp_path / "large-1").write_bytes(b"z" * 2 * MIB)
    (tmp_path / "21" / "5").unlink()
    changed = {unit for unit in plan.units if {b"07/5", b"large-1", b"21/5", b"21"} & set(plan.paths(unit))}
    assert 3 <= len(changed) < len(plan.units) // 2
    partial = read(tmp_path, plan, changed.__contains__)
    second = store_increment(store, SECOND, plan, lambda _plan, _wanted: [partial], full, again=changed)
    assert len(partial) < full.raw_bytes // 2
    assert b"".join(OpenBackup(store, second).stream()) == read(tmp_path, plan)
    assert second.files == full.files - 1


def test_bytes_behind_the_end_are_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    stream = read(tmp_path, plan)
    with pytest.raises(IntegrityError, match="after its end"):
        cut(plan, [stream, b"more"])


def _composed(members: list[tuple[str, bytes, dict[str, str]]]) -> tuple[Plan, bytes]:
    """Plan and stream of files with pax records that this machine's filesystem could not hold."""
    out = io.BytesIO()
    records = [scan_facts(), record(b"", kind="d", mode=0o755)]
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        root = tarfile.TarInfo("./")
        root.type = tarfile.DIRTYPE
        archive.addfile(root)
        for number, (name, content, headers) in enumerate(members):
            info = tarfile.TarInfo("./" + name)
            info.size, info.pax_headers = len(content), headers
            archive.addfile(info, io.BytesIO(content))
            records.append(record(name.encode(), size=len(content), inode=number + 3))
    # tarfile writes the root's name without its slash
    stream = out.getvalue().replace(b".\0", b"./", 1)
    return make_plan([*records, tar.SCAN_END.encode()]), stream


def test_headers_of_many_mebibytes_stay_within_frames() -> None:
    """XFS and tmpfs keep any number of attributes of 64 KiB each."""
    attributes = {f"SCHILY.xattr.user.{number}": "v" * 65_000 for number in range(150)}
    plan, stream = _composed([("a", b"content", attributes), ("b", b"x" * MIB, attributes), ("c", b"", attributes)])
    units, report = cut(plan, [stream])
    assert b"".join(map(raw_of, units)) == stream
    assert report.members == 4
    assert max(len(frame) for unit in units for frame in unit.frames) <= FRAME_MAX_BYTES
    for unit in units:
        _check_unit(unit)


def test_many_members_with_great_headers_stay_within_frames() -> None:
    attributes = {f"SCHILY.xattr.user.{number}": "v" * 65_000 for number in range(10)}
    plan, stream = _composed([(f"{number:03}", b"content", attributes) for number in range(40)])
    units, report = cut(plan, pieces(stream, [100_003]))
    assert b"".join(map(raw_of, units)) == stream
    assert report.members == 41
    assert max(len(frame) for unit in units for frame in unit.frames) <= FRAME_MAX_BYTES


def test_header_that_claims_to_be_endless_is_refused() -> None:
    plan, stream = _composed([("a", b"content", {"comment": "x" * 1000})])
    at = stream.index(b"comment=") // 512 * 512 - 512
    bad = stream[: at + 124] + b"77777777777\0" + stream[at + 136 :]
    with pytest.raises(IntegrityError, match="more than 64 MiB"):
        cut(plan, [bad])
