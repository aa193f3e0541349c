"""Damaged repositories: bytes flipped, objects cut short, documents that lie. All of it is found, and none of it used.

The samples are spread over each object and drawn from a seed; the witness of what lies where is Python's tarfile.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.library import Library, open_from, open_library
from volback.archive.codec import compress_lines
from volback.catalog.index import encode_unit
from volback.catalog.model import Manifest, ObjectDigest, RepositoryInfo, Source
from volback.catalog.sealed import seal_document
from volback.catalog.units import Frame, Piece, Unit
from volback.errors import IntegrityError
from volback.operations.backup import BackupOptions, backup
from volback.operations.open_backup import OpenBackup
from volback.operations.verify import verify
from volback.operations.verify_data import Damage
from volback.settings import Settings

SEED = 20261124
MIB = 1024 * 1024
GIB = 1024 * MIB
FLIPS = {"data": 200, "index": 60, "manifest": 60, "repository": 40}
CUTS = {"data": 80, "index": 40, "manifest": 40, "repository": 30}


class Intact(NamedTuple):
    """An intact repository, and what is known of its one backup."""

    path: Path
    manifest: Manifest
    stream: bytes
    pieces: list[Piece]
    spans: list[tuple[str, int, int]]
    """Each member's path and where its bytes lie in the stream, as tarfile sees it."""

    @property
    def keys(self) -> dict[str, str]:
        key = self.manifest.key
        return {"data": key.data, "index": key.index, "manifest": key.manifest, "repository": "volback.json"}

    def lost(self, start: int, stop: int | None = None) -> list[str]:
        """Paths of the members that have bytes in the frames that lie in these stored bytes, in stream order."""
        limit = self.manifest.data.size_bytes if stop is None else stop
        at, found = 0, dict[str, None]()
        for piece in self.pieces:
            end, frame = at + piece.raw_bytes, piece.frame
            if frame.offset < limit and frame.offset + frame.stored_bytes > start:
                found |= {path: None for path, first, last in self.spans if first < end and last > at}
            at = end
        return list(found)


@pytest.fixture(scope="module")
def intact(engine: EngineSession, tmp_path_factory: pytest.TempPathFactory) -> Intact:
    """A backup of group units and file units, made through the engine."""
    directory = tmp_path_factory.mktemp("intact")
    source = directory / "source"
    _fill(source)
    library = open_library(engine, directory)
    manifest = backup(*library, Source(kind="directory", name=str(source)), BackupOptions()).manifest
    opened = OpenBackup(library.repository.store, manifest)
    units = list(opened.units())
    assert {unit.kind for unit in units} == {"group", "file", "end"}
    pieces = [piece for unit in units for piece in unit.pieces]
    assert len({piece.frame for piece in pieces}) >= 6
    stream = b"".join(opened.stream())
    return Intact(directory / "repository", manifest, stream, pieces, _spans(stream))


@pytest.fixture
def copy(intact: Intact, tmp_path: Path) -> Path:
    """A copy of the repository that a test may damage."""
    return Path(shutil.copytree(intact.path, tmp_path / "copy"))


@pytest.fixture
def library(intact: Intact, copy: Path, tmp_path: Path) -> Library:
    """A session that must do without an engine, as on the worst day."""
    settings = Settings(str(copy), tmp_path / "state", engine="unix:///nonexistent", host=intact.manifest.host)
    return open_from(settings)


def _fill(root: Path) -> None:
    dice = random.Random(SEED)
    for directory in ("a", "n", "z"):
        (root / directory).mkdir(parents=True)
    for number in range(30):
        (root / "a" / f"small-{number:02}").write_bytes(dice.randbytes(dice.randrange(9000)))
        (root / "n" / f"text-{number:02}").write_bytes(b"%d\n" % number * dice.randrange(9000))
    (root / "big-random").write_bytes(dice.randbytes(MIB + 300_000))
    (root / "o-text").write_bytes(dice.randbytes(2000).hex().encode() * 600)
    for name in ("one", "two\nlines", "caf\u00e9"):
        (root / "z" / name).write_text(name)
    (root / "z" / "empty").touch()
    (root / "z" / "link").symlink_to("one")
    (root / "z" / "same").hardlink_to(root / "a" / "small-01")


def _spans(stream: bytes) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=BytesIO(stream)) as archive:
        members = archive.getmembers()
    ends = [member.offset for member in members[1:]]
    ends.append(members[-1].offset_data + (members[-1].size + 511) // 512 * 512)
    names = [member.name.removeprefix("./") for member in members]
    return [(name, member.offset, end) for name, member, end in zip(names, members, ends, strict=True)]


@contextmanager
def _damaged(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def _spread(size: int, count: int, salt: str) -> list[int]:
    """`count` places from 0 to `size`, one at random in each stretch; the first and the last place are among them."""
    dice = random.Random(f"{SEED} {salt}")
    edges = [size * number // count for number in range(count + 1)]
    return sorted({0, size - 1, *(dice.randrange(a, b) for a, b in pairwise(edges) if a < b)})


def _flips(content: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    dice = random.Random(SEED)
    for at in _spread(len(content), FLIPS[name], name):
        flipped = bytearray(content)
        flipped[at] ^= dice.randrange(1, 256)
        yield at, bytes(flipped)


def _read_as_far_as_it_goes(library: Library, intact: Intact) -> bool:
    """Read the stream, each byte held against the intact one; return whether it was complete."""
    at = 0
    try:
        for buffer in OpenBackup(library.repository.store, library.repository.find(intact.manifest.name)).stream():
            assert buffer == intact.stream[at : at + len(buffer)], f"a byte that was never written, in the {at}s"
            at += len(buffer)
    except IntegrityError:
        return False
    assert at == len(intact.stream)
    return True


def _verified(library: Library) -> list[Damage]:
    return verify(library.ctx, library.repository, [], data=True).damaged


def test_an_intact_repository_has_no_damage(library: Library, intact: Intact) -> None:
    assert _verified(library) == []
    assert _read_as_far_as_it_goes(library, intact)


def test_each_flipped_byte_of_the_data_is_found_and_its_files_are_named(
    library: Library, intact: Intact, copy: Path
) -> None:
    path = copy / intact.keys["data"]
    harmless = 0
    for at, content in _flips(path.read_bytes(), "data"):
        with _damaged(path, content):
            damaged = _verified(library)
            whole = _read_as_far_as_it_goes(library, intact)
        assert [damage.object for damage in damaged] == [intact.keys["data"]], at
        # zstd's header has a bit without meaning (RFC 8878, 3.1.1.1.1.3): the object is not the same, its files are.
        expected = [] if whole else intact.lost(at, at + 1)
        assert damaged[0].paths == expected, at
        harmless += whole
    assert harmless <= 2


def test_a_flip_that_zstd_does_not_see_is_found(library: Library, intact: Intact, copy: Path) -> None:
    path = copy / intact.keys["data"]
    content = bytearray(path.read_bytes())
    content[4] ^= 0x10
    with _damaged(path, bytes(content)):
        damaged = _verified(library)
        assert _read_as_far_as_it_goes(library, intact), "every file can still be had"
    assert [(damage.object, damage.paths) for damage in damaged] == [(intact.keys["data"], [])]


def test_each_cut_of_the_data_is_found_and_its_files_are_named(library: Library, intact: Intact, copy: Path) -> None:
    path = copy / intact.keys["data"]
    content = path.read_bytes()
    for size in _spread(len(content), CUTS["data"], "cut"):
        with _damaged(path, content[:size]):
            damaged = _verified(library)
            at_a_glance = verify(library.ctx, library.repository, []).damaged
            assert not _read_as_far_as_it_goes(library, intact), size
        expected = intact.lost(size)
        assert {damage.object for damage in damaged} == {intact.keys["data"]}, size
        assert [path for damage in damaged for path in damage.paths] == expected, size
        assert [(damage.object, damage.paths) for damage in at_a_glance] == [(intact.keys["data"], expected)], size


@pytest.mark.parametrize("name", ["index", "manifest", "repository"])
def test_each_flipped_byte_of_a_document_is_found(library: Library, intact: Intact, copy: Path, name: str) -> None:
    path = copy / intact.keys[name]
    for at, content in _flips(path.read_bytes(), name):
        with _damaged(path, content):
            assert [damage.object for damage in _verified(library)] == [intact.keys[name]], at
            assert _read_or_refused(library, intact, name), at


@pytest.mark.parametrize("name", ["index", "manifest", "repository"])
def test_each_cut_of_a_document_is_found(library: Library, intact: Intact, copy: Path, name: str) -> None:
    path = copy / intact.keys[name]
    content = path.read_bytes()
    for size in _spread(len(content), CUTS[name], "cut"):
        with _damaged(path, content[:size]):
            assert [damage.object for damage in _verified(library)] == [intact.keys[name]], size
            assert _read_or_refused(library, intact, name), size


@pytest.mark.parametrize("name", ["data", "index", "repository"])
def test_a_missing_object_is_found(library: Library, intact: Intact, copy: Path, name: str) -> None:
    (copy / intact.keys[name]).unlink()
    damaged = verify(library.ctx, library.repository, []).damaged
    assert [damage.object for damage in damaged] == [intact.keys[name]]
    assert "is missing" in damaged[0].message
    assert damaged[0].paths == (intact.lost(0) if name == "data" else [])


def test_there_are_at_least_500_samples() -> None:
    assert sum(FLIPS.values()) + sum(CUTS.values()) >= 500


def _read_or_refused(library: Library, intact: Intact, name: str) -> bool:
    """A bad index or manifest leads to no byte at all; the repository's own document is not needed to read."""
    return _read_as_far_as_it_goes(library, intact) == (name == "repository")


def _resealed(intact: Intact, **changed: object) -> bytes:
    return seal_document(msgspec.structs.replace(intact.manifest, **changed))


def _digest(content: bytes) -> ObjectDigest:
    return ObjectDigest(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _huge_index(intact: Intact) -> dict[str, bytes]:
    return {"manifest": _resealed(intact, index=ObjectDigest(size_bytes=5 * GIB, sha256=intact.manifest.index.sha256))}


def _garbage_index(intact: Intact) -> dict[str, bytes]:
    garbage = random.Random(SEED).randbytes(5000)
    return {"index": garbage, "manifest": _resealed(intact, index=_digest(garbage))}


def _index_of_no_units(intact: Intact) -> dict[str, bytes]:
    id_ = intact.manifest.id
    line = encode_unit(Unit("group", [Piece(Frame(id_, 0, 20, 1), 0, [1], bytes(32))], []))
    index = compress_lines(line.replace(id_.encode(), b"../../etc"))
    return {"index": index, "manifest": _resealed(intact, index=_digest(index))}


HOSTILE: dict[str, tuple[Callable[[Intact], dict[str, bytes]], str, str]] = {
    # case: objects, what an error or warning must hold, which object it is about
    "garbage manifest": (lambda _: {"manifest": b"\x00\xff{" * 999}, "cut short or is not a document", "manifest"),
    "empty manifest": (lambda _: {"manifest": b""}, "cut short or is not a document", "manifest"),
    "huge manifest": (lambda _: {"manifest": b" " * 17 * MIB}, "larger than", "manifest"),
    "manifest of a later format": (lambda it: {"manifest": _resealed(it, format=2)}, "format 2", "manifest"),
    "index that claims 5 GiB": (_huge_index, str(5 * GIB), "index"),
    "garbage index": (_garbage_index, "is damaged", "index"),
    "index that leads elsewhere": (_index_of_no_units, "names no data object", "index"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_document_is_named_and_refused(case: str, intact: Intact, copy: Path, run_volback: Volback) -> None:
    objects, words, name = HOSTILE[case]
    for key, content in objects(intact).items():
        (copy / intact.keys[key]).write_bytes(content)
    backup_name = intact.manifest.name
    target = copy.parent / "target"
    target.mkdir()

    def run(*arguments: str, check_exit: int) -> str:
        done = run_volback("--repo", str(copy), *arguments, check_exit=check_exit)
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
        return done.stdout + done.stderr

    listed = run("list", "--all-hosts", check_exit=7 if name == "manifest" else 0)
    assert backup_name in listed
    assert ("is damaged" in listed) == (name == "manifest")
    verified = run("verify", "--data", check_exit=7)
    assert backup_name in verified
    assert words in verified
    refused = run("restore", backup_name, "--to", str(target), check_exit=7)
    assert refused.startswith("error: ")
    assert words in refused
    assert list(target.iterdir()) == [], "nothing was written"


def test_a_repository_of_a_later_format_gets_no_backup(intact: Intact, copy: Path, run_volback: Volback) -> None:
    (copy / "volback.json").write_bytes(seal_document(RepositoryInfo(format=2, id="0" * 32)))
    source = copy.parent / "source"
    source.mkdir()
    done = run_volback("--repo", str(copy), "backup", str(source), check_exit=7)
    assert done.stderr.startswith("error: volback.json is of format 2;")
    assert "install a newer volback" in done.stderr
    assert "1 intact" in run_volback("--repo", str(copy), "verify", check_exit=7).stdout
    assert len(list(copy.rglob("manifest.json"))) == 1
