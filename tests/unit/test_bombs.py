"""What a repository claims costs memory in proportion to what a unit may be, and to what is stored of it.

Each reader runs in a process of its own, whose peak memory is measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard

from tests.support.archive import plan_of
from tests.support.forged import put_index, reseal_manifest, sealed
from tests.support.stored import FIRST, HOST, SECOND, VOLUME, store_units
from volback.archive.parent import EarlierBackup, begins_of
from volback.archive.plan import Plan
from volback.catalog.index import MEMBERS_MAX, NAMES_MAX_BYTES, encode_unit
from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest, UsedObject
from volback.catalog.repository import Catalog
from volback.catalog.units import Frame, Member, Piece, Unit
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import IntegrityError, VolbackError
from volback.operations.contents import members, read_file
from volback.operations.open_backup import OpenBackup
from volback.operations.verify import verify_backup
from volback.settings import Settings
from volback.store.local import LocalStore

MIB = 1024 * 1024
MEMBER = Member(b"a", "f", 0, 0, 0, 1, 0o644, 0, 0, b"", 0)
ROW = b'["a%d","f",0,0,0,1,420,0,0,"",%d]'
FRAME = b'["%s",0,10,8388608]' % FIRST.encode()
DIGEST = b64encode(b"a" * 32)
BEGIN = b'{"digest":"%s","scan":"","newest":0,"bytes":8388608,"files":1,"kind":"group",' % DIGEST
PIECE = b'[0,0,[1],"%s"]' % DIGEST


def line(frames: int, rows: int, pieces: bytes = PIECE) -> Iterator[bytes]:
    yield BEGIN + b'"frames":[' + b",".join([FRAME] * frames) + b'],"pieces":[' + pieces + b'],"members":['
    for at in range(0, rows, 10_000):
        last = min(at + 10_000, rows)
        yield b",".join(ROW % (number, number) for number in range(at, last)) + (b"," if last < rows else b"")
    yield b"]}\n"


def endless(size: int) -> Iterator[bytes]:
    yield BEGIN + b'"frames":[],"pieces":[],"members":[["'
    for _ in range(size // MIB):
        yield b"a" * MIB


def many_units(count: int) -> Iterator[bytes]:
    unit = Unit("group", [Piece(Frame(FIRST, 0, 10, 8 * MIB), 0, [8 * MIB], b"a" * 32)], [MEMBER])
    text = encode_unit(unit)
    for _ in range(count // 1000):
        yield text * 1000


def one_piece(extents: int) -> Iterator[bytes]:
    return line(1, 1, b'[0,0,[%s],"%s"]' % (b",".join([b"1000"] * extents), b64encode(bytes(32 * extents))))


BOMBS: dict[str, Callable[[], Iterator[bytes]]] = {
    "63 MB of members": lambda: line(2000, 1_500_000),
    "members below the limit of a line": lambda: line(1, 700_000),
    "frames": lambda: line(700_000, 1),
    "frames, and a little more than is decoded at once": lambda: line(60_000, 1),
    "pieces": lambda: line(1, 1, b",".join([PIECE] * 500_000)),
    "pieces without extents": lambda: line(1, 1, b",".join([b'[0,0,[],""]'] * 2_500_000)),
    "extents": lambda: one_piece(500_000),
    "extents without digests": lambda: line(1, 1, b'[0,0,[%s],""]' % b",".join([b"1000"] * 5_000_000)),
    "digests without extents": lambda: line(1, 1, b'[0,0,[1],"%s"]' % (b"a" * 30 * MIB)),
    "one name without end": lambda: endless(500 * MIB),
    "lines": lambda: iter([b"\n" * MIB] * 100),
    "short lines": lambda: iter([b"{}\n" * MIB] * 30),
    "units in one segment": lambda: many_units(2_000_000),
    "units in many segments": lambda: many_units(1_000),
    "brackets": lambda: iter([b"[" * MIB] * 100),
}
"""Each is a few kilobytes to a few megabytes of index, beside ten bytes of data."""
LONG = {
    "members below the limit of a line", "frames, and a little more than is decoded at once", "pieces", "extents",
    "short lines", "units in many segments", "digests without extents", "lines",
}  # fmt: skip


@pytest.fixture
def bomb(tmp_path: Path, request: pytest.FixtureRequest) -> Manifest:
    """A repository whose one backup has that index."""
    store = LocalStore(tmp_path / "repository")
    manifest = store_units(store, FIRST, b"x" * 10, [])
    digest = {"size_bytes": 10, "sha256": hashlib.sha256(b"x" * 10).hexdigest()}
    store.put(manifest.key.manifest, [sealed({**_fields(manifest), "data": digest})])
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    index = b"".join([*map(compressor.compress, BOMBS[request.param]()), compressor.flush()])
    put_index(store, manifest, index * (200 if "many segments" in request.param else 1))
    return Catalog(store).read(manifest.key)


def _fields(manifest: Manifest) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(manifest)
    return fields


def peak_mib(work: Callable[[], object]) -> tuple[float, str]:
    """How much a process grows that does this, and the error that ends it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            work()
            said = ""
        except VolbackError as exc:
            said = f"{type(exc).__name__}: {exc.message}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writing, json.dumps([grown / 1024, said]).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    grown, said = json.loads(os.read(reading, 100_000))
    os.close(reading)
    return grown, said


@pytest.mark.parametrize(
    "bomb",
    [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in BOMBS],
    indirect=True,
)
def test_an_index_that_claims_much_takes_little_memory(bomb: Manifest, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "repository")
    context = Context(Settings(repository="", state=tmp_path / "state"))
    (tmp_path / "empty").mkdir()
    plan = plan_of(tmp_path / "empty")

    def opened() -> OpenBackup:
        return OpenBackup(store, bomb)

    def verify() -> None:
        for damage in verify_backup(context, Repository(store, lambda: HOST), bomb, data=True):
            raise IntegrityError(damage.message)

    readers: dict[str, Callable[[], object]] = {
        "ls": lambda: sum(1 for _ in members(opened())),
        "cat": lambda: list(read_file(opened(), b"no/such")),
        "verify --data": verify,
        "restore": lambda: sum(map(len, opened().stream())),
        "an increment": lambda: compare(opened(), plan),
    }
    for name, read in readers.items():
        grown, said = peak_mib(read)
        sys.stdout.write(f"{name}: {grown:.0f} MiB, {said[:100]}\n")
        assert grown < 200, name
        assert said.startswith(("FormatError", "IntegrityError")), name


def compare(parent: OpenBackup, plan: Plan) -> None:
    """Look all extents of a volume up in the parent's index, as an increment does; what it cannot use it passes over.

    Raises IntegrityError to say that it found none.
    """
    known = EarlierBackup(begins_of(parent.segments), plan, lambda _: True, reread=False).known(0)
    if known(b"a" * 32) is None:
        raise IntegrityError("nothing is known")


RUN = b'["%s",0,100,"%s"]' % (FIRST.encode(), DIGEST)


def _table(*runs: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([b'{"runs":[' + b",".join(runs) + b"]}\n"])


RUNS: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "a run a million times": (_table(*[RUN] * 1_000_000), "more than it can"),
    "runs that overlap": (_table(RUN, RUN.replace(b",0,", b",99,")), "twice"),
    "two equal runs": (_table(RUN, RUN), "twice"),
    "gigabytes of nothing": (lambda: iter([b" " * MIB] * 2000), "more than it can"),
    "gigabytes of brackets": (lambda: iter([b"[" * MIB] * 2000), "more than it can"),
    "a run of four exabytes": (_table(RUN.replace(b"100", b"%d" % 2**62)), "more than"),
    "a run of three gigabytes": (_table(RUN.replace(b"100", b"3000000000")), "is not what"),
    "a run of a backup that is not used": (
        _table(RUN.replace(FIRST.encode(), SECOND[:-1].encode() + b"0")), "its manifest does not",
    ),
    "a run of what is no id": (_table(RUN.replace(FIRST.encode(), b"..")), "impossible"),
    "a run of no bytes": (_table(RUN.replace(b"100", b"0")), "impossible"),
    "a run before the beginning": (_table(RUN.replace(b",0,", b",-1,")), "impossible"),
    "not a list": (lambda: iter([b'{"runs":7}\n']), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", RUNS)
def test_a_list_of_runs_that_claims_much_takes_little_memory(tmp_path: Path, case: str) -> None:
    store = LocalStore(tmp_path / "repository")
    parent = store_units(store, FIRST, b"x" * 10, [Unit("group", [], [])])
    store.put(parent.key.manifest, [sealed(_fields(parent))])
    buffers, words = RUNS[case]
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    table = b"".join([*map(compressor.compress, buffers()), compressor.flush()])
    uses = UsedObject(id=FIRST, name="index.jsonl.zst", size_bytes=parent.index.size_bytes, used_bytes=10)
    key = BackupKey(HOST, VOLUME, SECOND)
    increment = msgspec.structs.replace(parent, id=SECOND, kind="incremental", uses=[uses])
    store.put(key.manifest, [sealed(_fields(increment))])
    put_index(store, increment, table)
    reseal_manifest(store, increment, lambda fields: fields.update(index_table_bytes=len(table)))
    grown, said = peak_mib(lambda: OpenBackup(store, Catalog(store).read(key)))
    assert grown < 50
    assert words in said


@pytest.mark.parametrize("table_bytes", [1, 40, 2**62])
def test_a_list_of_runs_that_is_elsewhere_is_refused(tmp_path: Path, table_bytes: int) -> None:
    store = LocalStore(tmp_path / "repository")
    manifest = store_units(store, FIRST, b"x" * 10, [Unit("group", [], [])])
    forged = msgspec.structs.replace(manifest, kind="incremental", index_table_bytes=table_bytes)
    with pytest.raises(IntegrityError):
        OpenBackup(store, forged)


def test_a_segment_of_a_few_bytes_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "repository")
    manifest = store_units(store, FIRST, b"x" * 10, [])
    store.put(manifest.key.manifest, [sealed(_fields(manifest))])
    put_index(store, manifest, zstandard.ZstdCompressor(write_content_size=False).compress(b"\n") * 700_000)
    grown, said = peak_mib(lambda: OpenBackup(store, Catalog(store).read(manifest.key)))
    assert grown < 50
    assert "is damaged: a segment of" in said


@pytest.mark.parametrize("what", ["labels", "containers", "volumes"])
def test_a_manifest_that_claims_much_takes_little_memory(tmp_path: Path, what: str) -> None:
    store = LocalStore(tmp_path / "repository")
    manifest = store_units(store, FIRST, b"", [])
    store.put(manifest.key.manifest, [sealed(_fields(manifest))])
    names = [f"{number:x}" for number in range(450_000)]

    def change(fields: dict[str, object]) -> None:
        if what == "labels":
            fields["source"] = {"kind": "volume", "name": VOLUME, "labels": dict.fromkeys(names, "")}
        elif what == "volumes":
            fields["set"] = {"id": FIRST, "volumes": names}
        else:
            fields["containers"] = names

    reseal_manifest(store, manifest, change)
    grown, said = peak_mib(lambda: Catalog(store).read(manifest.key))
    assert grown < 100
    assert "holds more than" in said


def test_the_window_of_an_index_is_bounded(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "repository")
    manifest = store_units(store, FIRST, b"", [])
    store.put(manifest.key.manifest, [sealed(_fields(manifest))])
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    put_index(store, manifest, compressor.compress(b"x" * 9 * MIB) + compressor.flush())
    opened = OpenBackup(store, Catalog(store).read(manifest.key))
    grown, said = peak_mib(lambda: list(opened.units()))
    assert grown < 50
    assert "is damaged" in said


def test_a_unit_with_all_names_that_a_filesystem_allows_is_written_and_read(tmp_path: Path) -> None:
    count = 65_000
    first = Member(b"d/" + b"n" * 100, "f", 5, 1, 1, 1, 0o644, 0, 0, b"", 0)
    others = [first._replace(path=b"d/%0100d" % number, type="h", link=first.path, offset=number * 1536)
              for number in range(1, count)]  # fmt: skip
    pieces = [Piece(Frame(FIRST, 0, 10, 8 * MIB), 0, [8 * MIB], b"a" * 32)] * 16
    unit = Unit("group", pieces, [first, *others])
    store = LocalStore(tmp_path / "repository")
    text = encode_unit(unit)
    assert MIB < len(text) < NAMES_MAX_BYTES
    manifest = store_units(store, FIRST, b"x" * 1000, [unit])
    grown, said = peak_mib(lambda: [len(unit.members) for unit in OpenBackup(store, manifest).units()])
    assert (grown < 300, said) == (True, "")


@pytest.mark.parametrize("count", [MEMBERS_MAX + 1])
def test_a_unit_that_no_reader_would_take_is_not_written(count: int) -> None:
    member = Member(b"a", "f", 0, 1, 1, 1, 0o644, 0, 0, b"", 0)
    unit = Unit("group", [], [member._replace(offset=number) for number in range(count)])
    with pytest.raises(VolbackError, match="has too many names"):
        encode_unit(unit)
