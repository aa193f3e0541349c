"""What comes back is what was there, seen by the kernel's eyes: a tree of odd entries, through every way out."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fingerprint import differences, fingerprint
from tests.support.library import Library
from tests.support.tree import make_deep_path, make_odd_tree
from volback.catalog.model import Manifest, Source
from volback.errors import EngineError
from volback.operations.backup import BackupOptions, backup
from volback.operations.parent import Comparing
from volback.operations.prove import Comparison, prove
from volback.operations.restore import RestoreOptions, restore
from volback.operations.sources import volume_source
from volback.operations.verify import verify

GIB = 1024**3
IDENTICAL = Comparison([], [], [])


def _fill(path: Path) -> None:
    make_odd_tree(path, deep=False)


def _back_up(library: Library, name: str, *, full: bool = False) -> Manifest:
    source = Source(kind="directory", name=name) if name.startswith("/") else volume_source(library.engine, name)
    result = backup(*library, source, BackupOptions(comparing=Comparing(full=full)))
    assert result.manifest.warnings == []
    assert not result.incomplete
    return result.manifest


def _data_path(library: Library, manifest: Manifest) -> Path:
    key = manifest.key
    return Path(library.ctx.settings.repository) / key.data


def test_restored_volume_has_no_difference(
    library: Library,
    volume_factory: Callable[..., str],
    volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:
    original, copy = volume_factory("odd", fill=_fill), volume_name("copy")
    before = fingerprint(volume_path(original))
    manifest = _back_up(library, original)
    assert differences(before, fingerprint(volume_path(original))) == [], "reading must not change the source"
    assert manifest.sockets_skipped == 3
    assert manifest.files == len(before)

    result = restore(*library, manifest.name, RestoreOptions(name=copy, prove=True))

    assert result.proven
    assert result.files == len(before)
    assert differences(before, fingerprint(volume_path(copy))) == []
    assert prove(*library, manifest.name, original) == IDENTICAL
    assert prove(*library, manifest.name, copy) == IDENTICAL
    assert _back_up(library, copy).digest == manifest.digest


def test_two_backups_of_one_volume_are_the_same_stream(library: Library, volume_factory: Callable[..., str]) -> None:
    name = volume_factory("odd", fill=_fill)
    first, second = _back_up(library, name), _back_up(library, name, full=True)
    assert first.id != second.id
    assert first.digest == second.digest
    assert _data_path(library, first).read_bytes() == _data_path(library, second).read_bytes()
    increment = _back_up(library, name)
    assert (increment.parent, increment.digest, increment.files) == (second.id, first.digest, first.files)
    assert verify(library.ctx, library.repository, [], data=True).damaged == []


def test_data_object_opens_with_zstd_and_tar_alone(
    library: Library, volume_factory: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path
) -> None:
    name = volume_factory("odd", fill=_fill)
    data = _data_path(library, _back_up(library, name))
    target = tmp_path / "by-hand"
    target.mkdir()
    script = (
        f"set -o pipefail; zstd -dc {data} | tar -C {target} -xp --same-owner --numeric-owner "
        "--xattrs --xattrs-include='*' --acls --delay-directory-restore --warning=no-timestamp"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert done.stderr == b""
    assert differences(fingerprint(volume_path(name)), fingerprint(target)) == []


def test_host_directory_goes_to_a_directory_and_to_a_volume(
    library: Library, volume_name: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path
) -> None:
    original, target, copy = tmp_path / "source", tmp_path / "target", volume_name("copy")
    original.mkdir()
    target.mkdir()
    _fill(original)
    before = fingerprint(original)
    manifest = _back_up(library, str(original))
    assert manifest.source.kind == "directory"

    into_directory = restore(*library, manifest.name, RestoreOptions(directory=str(target), prove=True))
    into_volume = restore(*library, manifest.name, RestoreOptions(name=copy, prove=True))

    assert into_directory.proven
    assert into_volume.proven
    assert differences(before, fingerprint(original)) == []
    assert differences(before, fingerprint(target)) == []
    assert differences(before, fingerprint(volume_path(copy))) == []
    assert prove(*library, manifest.name) == IDENTICAL
    assert _back_up(library, str(target)).digest == manifest.digest


def test_sparse_file_of_10_gib_costs_what_it_holds(
    library: Library,
    volume_factory: Callable[..., str],
    volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
) -> None:
    def fill(path: Path) -> None:
        with (path / "sparse").open("wb") as file:
            file.truncate(10 * GIB)
            for offset in (4096, 5 * GIB, 10 * GIB - 70_000):
                os.pwrite(file.fileno(), os.urandom(70_000), offset)

    original, copy = volume_factory("sparse", fill=fill), volume_name("copy")
    started = time.monotonic()
    manifest = _back_up(library, original)
    restore(*library, manifest.name, RestoreOptions(name=copy))
    assert time.monotonic() - started < 120
    assert manifest.raw_bytes < 400_000
    assert manifest.stored_bytes < 300_000
    restored = (volume_path(copy) / "sparse").stat()
    assert restored.st_size == 10 * GIB
    assert restored.st_blocks * 512 < 1024 * 1024
    assert differences(fingerprint(volume_path(original)), fingerprint(volume_path(copy))) == []


def test_path_beyond_4096_bytes_is_refused_by_name(
    library: Library, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    """GNU tar names members by their whole path, which the kernel refuses: so the backup fails and says which."""
    name = volume_factory("deep", fill=lambda path: make_deep_path(path / "deep"))
    with pytest.raises(EngineError, match="File name too long") as caught:
        _back_up(library, name)
    assert "--exclude" in (caught.value.hint or "")
    assert library.repository.catalog.backups() == []

    excluded = backup(*library, volume_source(library.engine, name), BackupOptions(excludes=["deep"]))
    assert excluded.manifest.files == 1
