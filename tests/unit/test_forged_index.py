"""An index that does not tell what the data holds: nothing of it is passed on, whoever reads it."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.support.archive import plan_of, read
from tests.support.forged import raw_units, store_raw_units
from tests.support.stored import FIRST, store_backup
from volback.archive import tar
from volback.archive.announced import Announced, expected_of
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.catalog.units import Member, Span, Unit
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import IntegrityError
from volback.operations.contents import read_file
from volback.operations.export import export
from volback.operations.open_backup import OpenBackup
from volback.operations.selection import Selection
from volback.operations.verify import verify_backup
from volback.settings import Settings
from volback.store.memory import MemoryStore

Units = list[tuple[Unit, bytes]]


@pytest.fixture
def units(tmp_path: Path) -> Units:
    """What a volume with a bit of everything is stored as."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_bytes(b"root:x:0:0\n")
    (root / "etc/shadow").hardlink_to(root / "etc/passwd")
    (root / "etc/link").symlink_to("passwd")
    os.mkfifo(root / "etc/queue")
    (root / "etc/pässword").write_bytes(b"x" * 600)
    (root / ("n" * 120)).write_bytes(b"long")
    with (root / "sparse").open("wb") as file:
        file.truncate(300_000)
        file.seek(200_000)
        file.write(b"end")
    (root / "large").write_bytes(os.urandom(1_200_000))
    store, plan = MemoryStore("honest"), plan_of(root)
    return raw_units(OpenBackup(store, store_backup(store, FIRST, plan, [read(root, plan)])))


def change(units: Units, path: bytes, new: Callable[[Member], Iterable[Member]]) -> Units:
    """The same data, and an index that says something else of one member."""
    return [
        (unit._replace(members=[m for old in unit.members for m in (new(old) if old.path == path else [old])]), raw)
        for unit, raw in units
    ]


def opened(units: Units) -> OpenBackup:
    store = MemoryStore("forged")
    return OpenBackup(store, store_raw_units(store, FIRST, units))


def verified(units: Units, tmp_path: Path) -> list[str]:
    store = MemoryStore("forged")
    manifest: Manifest = store_raw_units(store, FIRST, units)
    Catalog(store).commit(manifest)
    context = Context(Settings(repository="", state=tmp_path / "state"))
    return [item.message for item in verify_backup(context, Repository(store, lambda: "host"), manifest, data=True)]


def passed_on(stream: Iterable[bytes | memoryview]) -> bytes:
    """What comes of a stream before it is refused."""
    came: list[bytes | memoryview] = []
    with pytest.raises(IntegrityError, match="is not what its index announces"):
        came.extend(stream)
    return b"".join(came)


def test_what_the_index_announces_is_passed_on(units: Units, tmp_path: Path) -> None:
    backup = opened(units)
    assert b"".join(backup.stream()) == b"".join(raw for _, raw in units)
    assert b"".join(Selection.of(backup, [b"etc", b"sparse"]).stream())
    assert verified(units, tmp_path) == []


LIES: dict[str, Callable[[Member], Iterable[Member]]] = {
    "omitted": lambda member: [],
    "another name": lambda member: [member._replace(path=b"etc/passwe")],
    "another type": lambda member: [member._replace(type="p", size_bytes=0)],
    "another size": lambda member: [member._replace(size_bytes=10)],
    "another owner": lambda member: [member._replace(uid=member.uid + 1)],
    "another group": lambda member: [member._replace(gid=member.gid + 1)],
    "another mode": lambda member: [member._replace(mode=0o4755)],
    "announced twice": lambda member: [member, member._replace(path=b"etc/passwd2", offset=member.offset + 512)],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_a_member_is_found_before_it_is_passed_on(units: Units, tmp_path: Path, lie: str) -> None:
    forged = change(units, b"etc/passwd", LIES[lie])
    backup = opened(forged)
    assert b"root:x:0:0" not in passed_on(backup.stream())
    assert b"root:x:0:0" not in passed_on(Selection.of(backup, [b"etc"]).stream())
    assert passed_on(export(Context(Settings(repository="", state=tmp_path)), backup, "zstd")) == b""
    (message,) = verified(forged, tmp_path)
    assert "does not announce what the data holds" in message


@pytest.mark.parametrize(
    ("path", "lie"),
    [
        (b"etc/link", {"link": b"/etc/other"}),
        (b"etc/shadow", {"link": b"etc/link"}),
        (b"etc/queue", {"type": "c"}),
        (b"etc/p\xc3\xa4ssword", {"mode": 0o4755}),
        (b"n" * 120, {"path": b"n" * 119}),
        (b"sparse", {"size_bytes": 300_001}),
        (b"large", {"uid": 4_000_000}),
        (b"etc", {"mode": 0o777}),
    ],
    ids=repr,
)
def test_every_kind_of_member_is_compared(units: Units, path: bytes, lie: dict[str, object]) -> None:
    passed_on(opened(change(units, path, lambda member: [member._replace(**lie)])).stream())  # type: ignore[arg-type]


def test_a_file_is_not_shown_by_another_name_or_size(units: Units) -> None:
    backup = opened(change(units, b"etc/passwd", LIES["another mode"]))
    with pytest.raises(IntegrityError):
        b"".join(read_file(backup, b"etc/passwd"))
    with pytest.raises(IntegrityError):
        b"".join(Selection.of(backup, [b"etc/shadow"]).stream())


def device(name: bytes) -> bytes:
    """A header that makes a device node."""
    archive = io.BytesIO()
    info = tarfile.TarInfo(name.decode())
    info.type, info.devmajor, info.devminor = tarfile.BLKTYPE, 8, 0
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        writer.addfile(info)
    return archive.getvalue()[: tar.BLOCK]


def with_hidden(units: Units, hidden: bytes, at: Callable[[Unit], int]) -> Units:
    """Bytes put into the first unit, behind the member that `at` gives the end of; later ones move."""
    (unit, raw), *rest = units
    place = at(unit)
    members = [m._replace(offset=m.offset + (len(hidden) if m.offset >= place else 0)) for m in unit.members]
    return [(unit._replace(members=members), raw[:place] + hidden + raw[place:]), *rest]


@pytest.mark.parametrize("number", [1, 3, -1])
def test_a_device_that_no_index_announces_is_never_passed_on(units: Units, tmp_path: Path, number: int) -> None:
    forged = with_hidden(units, device(b"./etc/sda"), lambda unit: list(unit.spans())[number].stop)
    assert b"etc/sda" not in passed_on(opened(forged).stream())
    assert "does not announce" in verified(forged, tmp_path)[0]


def test_a_header_of_a_wrong_sum_hides_no_member(units: Units) -> None:
    """GNU tar skips such a header, and then takes what follows for one: the values of a pax header, too."""
    hidden = device(b"./etc/sda")
    (unit, raw), *rest = units
    value = b"x" * (tar.BLOCK - 25) + hidden
    body = b"%d SCHILY.xattr.user.a=%s\n" % (25 + len(value) + 1, value)
    assert tar.pax_records(body) == {b"SCHILY.xattr.user.a": value}
    assert body[tar.BLOCK : 2 * tar.BLOCK] == hidden
    extended = bytearray(raw[: tar.BLOCK])
    extended[124:136] = b"%011o\0" % len(body)  # its sum is not right any more
    first = bytes(extended) + body.ljust(3 * tar.BLOCK, b"\0")
    grown = len(first) - 2 * tar.BLOCK
    members = [unit.members[0], *(m._replace(offset=m.offset + grown) for m in unit.members[1:])]
    passed_on(opened([(unit._replace(members=members), first + raw[2 * tar.BLOCK :]), *rest]).stream())


@pytest.mark.parametrize("key", [b"GNU.dumpdir", b"GNU.sparse.map", b"comment", b"SCHILY.dev"])
def test_a_record_that_our_tar_does_not_write_is_refused(units: Units, key: bytes) -> None:
    (unit, raw), *rest = units
    value = b"x" * 20
    size = len(key) + len(value) + 5
    body = b"%d %s=%s\n" % (size, key, value)
    extended = bytearray(raw[: tar.BLOCK])
    extended[124:136] = b"%011o\0" % len(body)
    extended[148:156] = b" " * 8
    extended[148:156] = b"%06o\0 " % sum(extended)
    first = bytes(extended) + body.ljust(tar.BLOCK, b"\0")
    passed_on(opened([(unit, first + raw[2 * tar.BLOCK :]), *rest]).stream())


def test_the_end_of_the_archive_is_at_the_end_and_empty(units: Units, tmp_path: Path) -> None:
    *members, (end, zeros) = units
    lies: list[Units] = [
        [*members, (end, device(b"./etc/sda") + zeros[tar.BLOCK :])],
        [(end, zeros), *members],
        [*members, (end, zeros), (end, zeros)],
        [*members[:-1], (end, zeros), members[-1]],
    ]
    for lie in lies:
        passed_on(opened(lie).stream())
        assert verified(lie, tmp_path)
    assert verified(members, tmp_path) != []


@pytest.mark.parametrize("sizes", [1, 100, 511, 513, 1024, 100_000])
def test_headers_are_compared_wherever_buffers_end(units: Units, sizes: int) -> None:
    unit, stream = units[0]
    announced = Announced("it")
    announced.announce(expected_of(unit))
    parts = [stream[at : at + sizes] for at in range(0, len(stream), sizes)]
    assert b"".join(announced.passed(zip(parts, parts, strict=True))) == stream


def test_a_long_header_that_comes_in_single_bytes_is_compared_once() -> None:
    """A frame may hold one byte."""
    value = b"x" * 100_000
    body = b"%d SCHILY.xattr.user.a=%s\n" % (27 + len(value) + 1, value)
    padding = bytes(-len(body) % tar.BLOCK)
    extended = bytearray(device(b"./PaxHeaders/a"))
    extended[124:136], extended[156] = b"%011o\0" % len(body), ord("x")
    extended[148:156] = b" " * 8
    extended[148:156] = b"%06o\0 " % sum(extended)
    header = bytes(extended) + body + padding + device(b"./a")
    member = Member(b"a", "b", 0, 0, 0, 1, 0o644, 0, 0, b"", 0)
    announced = Announced("it")
    announced.announce([Span(member, 0, len(header))])
    fed = [announced.feed(header[at : at + 1]) for at in range(len(header))]
    assert fed.index(True) == len(header) - 1
    announced.end()
