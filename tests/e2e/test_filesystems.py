"""Increments of directories on filesystems that invent what a scan says, or are stamped by another clock.

Each is held against a full backup of the same state.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.engine import EngineSession
from tests.support.fuse import FileServer
from tests.support.library import Library, open_library
from volback.catalog.model import Manifest, Source
from volback.operations.backup import BackupOptions, backup
from volback.operations.export import export
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import Comparing
from volback.store.local import LocalStore

pytestmark = pytest.mark.root

HALF_AN_HOUR_S = 1800.0


@dataclass
class Nights:
    """Backups of one directory."""

    library: Library
    root: Path
    comparing: Comparing = field(default_factory=Comparing)

    def back_up(self) -> Manifest:
        """The increment, or the first backup."""
        return _back_up(self.library, self.root, self.comparing)

    def assert_equal_to_a_full_one(self, increment: Manifest, directory: Path) -> None:
        full = self.library.on(LocalStore(directory))
        whole = _back_up(full, self.root, Comparing(full=True))
        assert (increment.kind, whole.kind) == ("incremental", "full")
        assert increment.digest == whole.digest
        assert _tar(self.library, increment) == _tar(full, whole)


def _back_up(library: Library, root: Path, comparing: Comparing) -> Manifest:
    result = backup(*library, Source(kind="directory", name=str(root)), BackupOptions(comparing=comparing))
    assert result.manifest.warnings == []
    return result.manifest


def _tar(library: Library, manifest: Manifest) -> bytes:
    return b"".join(map(bytes, export(library.ctx, OpenBackup(library.repository.store, manifest))))


@pytest.fixture
def server(tmp_path: Path) -> FileServer:
    return FileServer(tmp_path / "server", tmp_path / "srv/mounted", ahead_s=-HALF_AN_HOUR_S)


@pytest.fixture
def nights(engine: EngineSession, tmp_path: Path, server: FileServer) -> Nights:
    return Nights(open_library(engine, tmp_path), server.point)


def _fill(server: FileServer, root: Path) -> None:
    """All but the last file has settled, by the server's clock."""
    (root / "a").mkdir()
    for number in range(3):
        (root / "a" / str(number)).write_bytes(os.urandom(200_000))
    (root / "a/0").chmod(0o640)
    os.link(root / "a/0", root / "b")
    (root / "last").write_bytes(os.urandom(1_100_000))
    server.pass_time(10)
    _write_over(root / "last")


@pytest.mark.parametrize(
    ("subtype", "invents", "comparing"),
    [
        ("volback-test", ("inodes",), Comparing()),
        ("mergerfs", ("inodes",), Comparing(ignore_inode=True)),
        ("volback-test", ("inodes", "ctimes"), Comparing(ignore_ctime=True)),
        ("sshfs", ("inodes", "ctimes"), Comparing()),
    ],
    ids=["default", "ignore_inode", "ignore_ctime", "known"],
)
def test_what_is_invented_at_each_mount_is_not_read_again(
    nights: Nights, server: FileServer, tmp_path: Path, subtype: str, invents: tuple[str, ...], comparing: Comparing
) -> None:
    nights.comparing = comparing
    with server.mounted(subtype, invents=invents) as root:
        _fill(server, root)
        nights.back_up()
    server.opened()
    with server.mounted(subtype, invents=invents) as root:
        unchanged = nights.back_up()
        assert server.opened() == ["last"], "the server's clock has not passed it by 2 s"
        nights.assert_equal_to_a_full_one(unchanged, tmp_path / "unchanged")
        server.pass_time(10)
        _write_over(root / "a/1")
        server.opened()
        changed = nights.back_up()
        assert {"a/1", "last"} <= set(server.opened())
        nights.assert_equal_to_a_full_one(changed, tmp_path / "changed")


@pytest.mark.parametrize(
    ("invents", "comparing"),
    [((), Comparing()), (("inodes",), Comparing(ignore_inode=True)), (("ctimes",), Comparing(ignore_ctime=True))],
    ids=["default", "ignore_inode", "ignore_ctime"],
)
def test_a_change_within_one_tick_of_a_clock_that_is_behind_is_seen(
    nights: Nights, server: FileServer, tmp_path: Path, invents: tuple[str, ...], comparing: Comparing
) -> None:
    nights.comparing = comparing
    with server.mounted(invents=invents) as root:
        _fill(server, root)
        nights.back_up()
        before = (root / "last").stat()
        _write_over(root / "last")
        assert (root / "last").stat() == before
        nights.assert_equal_to_a_full_one(nights.back_up(), tmp_path / "full")


def test_it_is_seen_below_a_mount_point_of_a_local_directory(
    nights: Nights, server: FileServer, tmp_path: Path
) -> None:
    """Where all files seem to have settled half an hour ago by the clock of this machine."""
    nights.root = server.point.parent
    with server.mounted() as root:
        _fill(server, root)
        nights.back_up()
        _write_over(root / "last")
        nights.assert_equal_to_a_full_one(nights.back_up(), tmp_path / "full")


def _write_over(path: Path) -> None:
    """In place, with the size of before."""
    with path.open("r+b") as file:
        file.write(os.urandom(100))
