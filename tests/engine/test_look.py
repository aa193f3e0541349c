"""What is found of a target before anything is copied into it, on real filesystems and engines."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Opener
from tests.support.disks import loop_device, make_ext4, mounted
from tests.support.remote import namespaced_engine
from volback.catalog.model import Source
from volback.engine.engine import Engine
from volback.engine.volumes import Volume
from volback.errors import EngineError, NotFoundError
from volback.moving.look import Look, look_into

MIB = 1024 * 1024


@pytest.fixture
def look(open_engine: Opener, directory: Callable[[], Path]) -> Callable[[str], Look]:
    engine = open_engine()
    return lambda name: look_into(engine, Source(kind="volume", name=name), run="run", directory=directory())


@pytest.fixture
def on(volume_factory: Callable[..., str]) -> Callable[..., str]:
    """Makes a volume whose storage is a directory."""
    return lambda path: volume_factory(driver_opts={"type": "none", "o": "bind", "device": str(path)})


def test_a_plain_volume_takes_everything_and_is_left_as_it_was(
    look: Callable[[str], Look], volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    name = volume_factory()
    found = look(name)
    assert (found.first_entry, found.refuses) == ("", frozenset())
    assert found.free_bytes is not None
    assert found.free_bytes > MIB
    assert found.uids.are_all
    assert list(volume_path(name).iterdir()) == []


def test_a_small_disk_says_what_is_free(look: Callable[[str], Look], on: Callable[..., str], tmp_path: Path) -> None:
    image = make_ext4(tmp_path / "image", 4 * MIB, "-N", "64")
    with loop_device(image) as device, mounted(tmp_path / "disk", device) as disk:
        found = look(on(disk))
        assert found.filesystem == "ext4"
        assert found.block_bytes == 1024
        assert found.free_bytes is not None
        assert 2 * MIB < found.free_bytes < 4 * MIB
        assert found.free_inodes is not None
        assert 40 < found.free_inodes < 64
        assert [path.name for path in disk.iterdir()] == ["lost+found"]


def test_a_filesystem_without_attributes_is_known(
    look: Callable[[str], Look], on: Callable[..., str], tmp_path: Path
) -> None:
    with mounted(tmp_path / "ramfs", "-t", "ramfs", "volback-test") as path:
        found = look(on(path))
        assert found.filesystem == "ramfs"
        assert found.refuses == {"acl", "xattr"}
        assert (found.free_bytes, found.free_inodes) == (None, None), "it says that it has room for nothing"
        assert list(path.iterdir()) == []


def test_where_something_is_nothing_is_written(
    look: Callable[[str], Look], volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    name = volume_factory(fill=lambda root: (root / "two\nlines").write_text("mine"))
    before = volume_path(name).stat().st_mtime_ns
    assert look(name).first_entry == "two\nlines"
    assert volume_path(name).stat().st_mtime_ns == before


def test_where_nothing_can_be_written_it_is_an_error(
    look: Callable[[str], Look], on: Callable[..., str], tmp_path: Path
) -> None:
    with mounted(tmp_path / "tmpfs", "-t", "tmpfs", "-o", "ro", "volback-test") as path:
        name = on(path)
        with pytest.raises(EngineError, match=f"nothing can be written into volume '{name}': .*Read-only file system"):
            look(name)


def test_a_volume_that_is_not_there_is_not_made(look: Callable[[str], Look], volume_name: Callable[..., str]) -> None:
    with pytest.raises(NotFoundError):
        look(volume_name())


@pytest.fixture(scope="module")
def namespaced() -> Iterator[Engine]:
    with namespaced_engine() as running:
        client_id = f"test-{secrets.token_hex(4)}"
        yield Engine(running.url, client_id=lambda: client_id)


def test_in_a_user_namespace_the_ids_that_exist_are_known(namespaced: Engine, directory: Callable[[], Path]) -> None:
    namespaced.create_volume(Volume("db", "local", {}, {}))
    found = look_into(namespaced, Source(kind="volume", name="db"), run="run", directory=directory())
    assert found.uids.ranges == found.gids.ranges == ((0, 65536),)
    assert found.refuses == frozenset()
    namespaced.remove_volume("db")
