"""A restore is on disk when it says so: the disk is cut off at that moment, and what it holds then is compared."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.disks import loop_device, make_ext4, mounted
from tests.support.library import Library
from volback.operations.import_ import import_tar
from volback.operations.restore import RestoreOptions, restore

CONTENT = b"0123456789abcdef" * 20_000


class Disk:
    """A small disk, mounted. The kernel writes to its image only what is synced: it waits 30 s for anything else."""

    def __init__(self, image: Path, path: Path) -> None:
        self.image, self.path = image, path

    def held_when_cut_off(self, scratch: Path) -> dict[str, bytes]:
        """The files that the disk has after a power cut at this moment, when its journal has been replayed."""
        copy = shutil.copyfile(self.image, scratch / "cut-off")
        with mounted(scratch / "after", "-o", "loop", copy) as path:
            found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
        copy.unlink()
        (scratch / "after").rmdir()
        return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    image = make_ext4(tmp_path / "image", 8_000_000)
    with loop_device(image) as device, mounted(tmp_path / "disk", device) as path:
        yield Disk(image, path)


@pytest.fixture
def saved(save: Callable[[Callable[[Path], None]], str]) -> str:
    def fill(root: Path) -> None:
        (root / "sub").mkdir()
        (root / "sub" / "large").write_bytes(CONTENT)
        (root / "small").write_bytes(b"small")

    return save(fill)


def test_what_is_not_synced_is_lost(disk: Disk, tmp_path: Path) -> None:
    """The test below would not notice anything if this did not hold."""
    (disk.path / "file").write_bytes(CONTENT)
    assert disk.held_when_cut_off(tmp_path).get("file") != CONTENT


def test_every_writer_syncs_before_it_says_that_it_is_done(
    library: Library, saved: str, disk: Disk, tmp_path: Path, volume_name: Callable[..., str]
) -> None:
    expected = {"sub/large": CONTENT, "small": b"small"}
    bind = {"type": "none", "o": "bind", "device": str(disk.path)}
    shutil.rmtree(disk.path / "lost+found")

    restore(*library, saved, RestoreOptions(directory=str(disk.path)))
    assert disk.held_when_cut_off(tmp_path) == expected, "restore --to"

    _empty(disk.path)
    bound = volume_name("bound")
    restore(*library, saved, RestoreOptions(name=bound, driver_options=bind))
    assert disk.held_when_cut_off(tmp_path) == expected, "restore --as"

    (disk.path / "small").write_bytes(b"newer")
    (disk.path / "new").write_bytes(b"new")
    restore(*library, saved, RestoreOptions(name=bound, replace=True, safety_backup=False))
    assert disk.held_when_cut_off(tmp_path) == expected, "restore --replace"

    (disk.path / "sub" / "large").unlink()
    part = RestoreOptions(name=bound, replace=True, safety_backup=False, paths=["sub"])
    restore(*library, saved, part)
    assert disk.held_when_cut_off(tmp_path) == expected, "restore --path --replace"

    _empty(disk.path)
    import_tar(*library, _archive(), volume_name("imported"), driver_options=bind)
    assert disk.held_when_cut_off(tmp_path) == {"large": CONTENT}, "import"


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    subprocess.run(["sync", "-f", path], check=True)


def _archive() -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("large")
        entry.size = len(CONTENT)
        archive.addfile(entry, io.BytesIO(CONTENT))
    return io.BytesIO(out.getvalue())
