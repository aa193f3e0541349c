"""What was found damaged is stored anew by the next backup, whoever found it; no engine."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.support.archive import MIB, plan_of, read
from tests.support.stored import HOST, commit_next, store_backup
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.catalog.units import Frame, Unit
from volback.context import Context, open_repository
from volback.context.repository import Repository
from volback.errors import IntegrityError
from volback.operations.contents import open_backup, read_file
from volback.operations.export import export
from volback.operations.open_backup import OpenBackup
from volback.operations.selection import Selection
from volback.operations.verify import verify
from volback.policy.subset import Subset
from volback.settings import Settings

pytestmark = pytest.mark.unit

IDS = [f"2026112{number}T020000Z-aaaa" for number in range(1, 6)]
UNUSED_BIT = 1 << 4
"""Of a zstd frame's descriptor, the byte after the magic number: no decoder looks at it (RFC 8878, 3.1.1.1.1)."""


class Nights:
    """A tree of a text, incompressible data and small files, and its backups."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.root = directory, directory / "tree"
        self.ctx, self.repository = self.at(directory / "repository")
        Catalog(self.repository.store).ensure_repository(lambda: "a" * 32)
        dice = random.Random(5)
        (self.root / "small").mkdir(parents=True)
        for number in range(60):
            (self.root / f"small/{number:02}").write_bytes(dice.randbytes(9000).hex().encode())
        (self.root / "random").write_bytes(dice.randbytes(MIB + 100_000))
        (self.root / "text").write_bytes(dice.randbytes(550_000).hex().encode())
        (self.root / "changing").write_text("one")

    def at(self, repository: Path) -> tuple[Context, Repository]:
        """As a command opens it; the state directory is always the same."""
        ctx = Context(Settings(str(repository), self.directory / "state", host=HOST))
        return ctx, open_repository(ctx)

    def back_up(self) -> Manifest:
        """With something changed since the one before; it is an increment of it."""
        (self.root / "changing").write_bytes(random.randbytes(2000))
        return commit_next(self.ctx, self.repository, self._next_id(), self.root)

    def _next_id(self) -> str:
        return IDS[len(self.repository.catalog.backups())]

    def path(self, key: str) -> Path:
        return self.directory / "repository" / key

    def flip(self, manifest: Manifest, offset: int, bit: int = 1) -> None:
        data = bytearray(self.path(manifest.data_key).read_bytes())
        data[offset] ^= bit
        self.path(manifest.data_key).write_bytes(data)

    def frame_of(self, manifest: Manifest, path: str) -> Frame:
        """The frame in which a file's data begins."""
        unit, span = OpenBackup(self.repository.store, manifest).find(path.encode())
        starts = list(unit.starts())
        return next(
            piece.frame for piece, at in zip(unit.pieces, starts, strict=True) if at + piece.raw_bytes > span.start
        )

    def frames(self, manifest: Manifest) -> set[Frame]:
        """All that a backup uses."""
        return {piece.frame for unit in self.units(manifest) for piece in unit.pieces}

    def units(self, manifest: Manifest) -> list[Unit]:
        return list(OpenBackup(self.repository.store, manifest).units())

    def assert_whole(self, manifest: Manifest) -> None:
        """It is what a full backup of the same state is, and its data is what was written."""
        assert verify(self.ctx, self.repository, [manifest.name], data=True).damaged == []
        plan = plan_of(self.root)
        full = store_backup(self.repository.store, "20261129T000000Z-ffff", plan, [read(self.root, plan)])
        assert manifest.digest == full.digest
        streams = [b"".join(OpenBackup(self.repository.store, made).stream()) for made in (manifest, full)]
        assert streams[0] == streams[1]


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def _verify(nights: Nights, found: Manifest) -> None:
    assert verify(nights.ctx, nights.repository, [found.name], data=True).damaged


def _verify_all(nights: Nights, _: Manifest) -> None:
    assert verify(nights.ctx, nights.repository, [], data=True).damaged


def _verify_parts(nights: Nights, _: Manifest) -> None:
    parts = [Subset(number, 7) for number in range(1, 8)]
    assert any(verify(nights.ctx, nights.repository, [], data=True, subset=part).damaged for part in parts)


def _verify_by_a_link(nights: Nights, _: Manifest) -> None:
    link = nights.directory / "link"
    link.symlink_to(nights.directory / "repository")
    assert verify(*nights.at(link), [], data=True).damaged


def _read(buffers: Callable[[], Iterable[bytes | memoryview]]) -> IntegrityError:
    with pytest.raises(IntegrityError) as failed:
        deque(buffers(), maxlen=0)
    return failed.value


def _restore(nights: Nights, found: Manifest) -> IntegrityError:
    return _read(lambda: open_backup(nights.repository, found.name).stream())


def _restore_a_part(nights: Nights, found: Manifest) -> IntegrityError:
    return _read(lambda: Selection.of(open_backup(nights.repository, found.name), [b"random"]).stream())


def _cat(nights: Nights, found: Manifest) -> IntegrityError:
    return _read(lambda: read_file(open_backup(nights.repository, found.name), b"random"))


def _export(nights: Nights, found: Manifest) -> IntegrityError:
    return _read(lambda: export(nights.ctx, open_backup(nights.repository, found.name), "zstd"))


FINDERS = [_verify, _verify_all, _verify_parts, _verify_by_a_link, _restore, _restore_a_part, _cat, _export]


@pytest.mark.parametrize("find", FINDERS)
def test_a_frame_that_was_found_damaged_is_not_used_again(
    nights: Nights, find: Callable[[Nights, Manifest], object]
) -> None:
    first = nights.back_up()
    frame = nights.frame_of(first, "random")
    nights.flip(first, frame.offset + frame.stored_bytes // 2)
    find(nights, first)
    second = nights.back_up()
    assert second.parent == first.id
    assert nights.frames(second) & nights.frames(first)
    assert frame not in nights.frames(second)
    nights.assert_whole(second)
    third = nights.back_up()
    assert third.stored_bytes < 20_000, "it is known what is intact"
    nights.assert_whole(third)


@pytest.mark.parametrize("path", ["text", "small/07", "changing"])
def test_a_frame_of_several_units_is_not_used_again(nights: Nights, path: str) -> None:
    first = nights.back_up()
    frames = [nights.frame_of(first, name) for name in (path, "random")]
    for frame in frames:
        nights.flip(first, frame.offset + frame.stored_bytes // 2)
    _verify(nights, first)
    second = nights.back_up()
    assert nights.frames(second).isdisjoint(frames)
    nights.assert_whole(second)


@pytest.mark.parametrize("find", [_verify, _verify_all, _restore])
def test_a_damaged_frame_of_a_backup_before_the_parent_is_not_used_again(
    nights: Nights, find: Callable[[Nights, Manifest], object]
) -> None:
    first, _, third = (nights.back_up() for _ in range(3))
    frame = nights.frame_of(third, "random")
    assert frame.backup == first.id
    nights.flip(first, frame.offset + frame.stored_bytes // 2)
    find(nights, third)
    fourth = nights.back_up()
    assert frame not in nights.frames(fourth)
    nights.assert_whole(fourth)


def test_an_object_that_is_damaged_where_no_frame_shows_it_is_not_used_again(nights: Nights) -> None:
    """Every extent can be read; only the SHA-256 of the whole object shows that it is not what was written."""
    first = nights.back_up()
    nights.flip(first, nights.frame_of(first, "random").offset + 4, UNUSED_BIT)
    (damage,) = verify(nights.ctx, nights.repository, [], data=True).damaged
    assert damage.message.endswith("is not what was written")
    second = nights.back_up()
    assert nights.frames(second).isdisjoint(nights.frames(first))
    nights.assert_whole(second)
    nights.flip(first, nights.frame_of(first, "random").offset + 4, UNUSED_BIT)
    assert verify(nights.ctx, nights.repository, [first.name], data=True).damaged == []
    assert nights.back_up().stored_bytes < 20_000


@pytest.mark.parametrize("find", [_restore, _restore_a_part, _cat, _export])
def test_an_error_of_damaged_data_names_the_backup_and_what_to_do(
    nights: Nights, find: Callable[[Nights, Manifest], IntegrityError]
) -> None:
    first, second = nights.back_up(), nights.back_up()
    frame = nights.frame_of(first, "random")
    nights.flip(first, frame.offset + frame.stored_bytes // 2)
    error = find(nights, second)
    assert error.message.startswith(f"backup {second.name} is damaged: {first.data_key}, frame at {frame.offset}: ")
    assert error.hint is not None
    assert error.hint.startswith(f"volback verify {second.name} --data names what is lost; ")
