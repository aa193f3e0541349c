"""Restore into a directory of somebody else: who uses it is asked, and after a failure only what was written goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.disks import make_ext4, mounted
from tests.support.library import Library
from volback.errors import ConflictError, EngineError
from volback.operations.restore import RestoreOptions, restore


@pytest.fixture
def saved(save: Callable[[Callable[[Path], None]], str]) -> str:
    def fill(root: Path) -> None:
        (root / "sub").mkdir()
        (root / "sub" / "small").write_text("small")
        (root / "large").write_bytes(os.urandom(5_000_000))

    return save(fill)


@pytest.fixture
def during_the_restore(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has a function run when the target has been looked into, before the first byte is written."""
    from volback.operations import restore as module

    original = module._Restore._write

    def set_up(act: Callable[[], object]) -> None:
        def write(self: Any, *arguments: Any) -> Any:
            act()
            return original(self, *arguments)

        monkeypatch.setattr(module._Restore, "_write", write)

    return set_up


@pytest.fixture
def new_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem that was just made: 4 MB, with a lost+found."""
    with mounted(tmp_path / "disk", "-o", "loop", make_ext4(tmp_path / "image", 4_000_000)) as path:
        yield path


def mount_of(path: Path) -> dict[str, Any]:
    return {"mounts": [docker.types.Mount("/data", str(path), type="bind")]}


def test_a_directory_that_a_container_uses_is_refused(
    library: Library, saved: str, tmp_path: Path, container_factory: Callable[..., Any]
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    user = container_factory(**mount_of(target))
    with pytest.raises(ConflictError, match=f"is in use by container '{user.name}'"):
        restore(*library, saved, RestoreOptions(directory=str(target)))
    assert list(target.iterdir()) == []
    made = restore(*library, saved, RestoreOptions(directory=str(target / "new")))
    assert made.warnings == (
        f"container '{user.name}' mounts a directory above, so it can write to directory '{target}/new'",
    )


def test_a_container_that_starts_meanwhile_is_an_error(
    library: Library,
    saved: str,
    tmp_path: Path,
    container_factory: Callable[..., Any],
    during_the_restore: Callable[[Callable[[], object]], None],
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    during_the_restore(lambda: container_factory(**mount_of(target)))
    with pytest.raises(ConflictError, match="while it was restored, and may hold its changes"):
        restore(*library, saved, RestoreOptions(directory=str(target)))


def test_a_failure_removes_only_what_was_written(
    library: Library,
    saved: str,
    new_disk: Path,
    during_the_restore: Callable[[Callable[[], object]], None],
) -> None:
    def put_there() -> None:
        (new_disk / "theirs").write_text("theirs")
        (new_disk / "sub").mkdir()
        (new_disk / "sub" / "theirs").write_text("theirs")

    during_the_restore(put_there)
    with pytest.raises(EngineError, match="no space left in directory"):
        restore(*library, saved, RestoreOptions(directory=str(new_disk)))
    assert {str(path.relative_to(new_disk)) for path in new_disk.rglob("*")} == {
        "lost+found", "theirs", "sub", "sub/theirs"
    }  # fmt: skip


def test_a_new_filesystem_is_empty_although_it_has_a_lost_and_found(
    library: Library, saved: str, new_disk: Path
) -> None:
    done = restore(*library, saved, RestoreOptions(directory=str(new_disk), paths=["sub"], prove=True))
    assert (done.proven, (new_disk / "sub" / "small").read_text()) == (True, "small")
