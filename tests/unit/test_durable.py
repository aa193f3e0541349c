"""Files that are whole on disk or not there: what is fsynced in which order, and what errors and kills leave."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.test_store_local import small_disk  # noqa: F401 - a fixture
from volback.durable import sync_directory, write_new, write_whole


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that make a file durable, with the names that they were made on."""
    done: list[str] = []

    def note(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def noted(target: int | str | Path, *others: str | Path, **where: int | None) -> object:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(others[0])
            done.append(f"{name} {os.path.basename(path)}")
            return call(target, *others, **where)

        return noted

    for name in ("fsync", "rename", "link"):
        monkeypatch.setattr(os, name, note(name, getattr(os, name)))
    return done


def test_a_file_is_fsynced_before_it_has_its_name_and_its_directory_after(tmp_path: Path, steps: list[str]) -> None:
    write_whole(tmp_path / "f", b"new")
    assert steps == ["fsync .f~", "rename f", f"fsync {tmp_path.name}"]
    steps.clear()
    write_new(tmp_path / "g", [b"new"])
    draft, *rest = steps
    assert draft.startswith("fsync .g.")
    assert rest == ["link g", f"fsync {tmp_path.name}"]


def test_a_reader_has_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", b"old")
    with (tmp_path / "f").open("rb") as reader:
        write_whole(tmp_path / "f", b"new")
        assert reader.read() == b"old"
    assert (tmp_path / "f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


def test_files_are_their_owners_alone_unless_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            write_whole(tmp_path / "f", b"")
            write_whole(tmp_path / "open", b"", mode=0o644)
            write_new(tmp_path / f"new-{umask}", [])
        finally:
            os.umask(before)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert (modes["f"], modes["open"], modes[f"new-{umask}"]) == (0o600, 0o644, 0o600)


def test_a_new_file_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def slow() -> Iterator[bytes]:
        yield b"new"
        (tmp_path / "g").write_bytes(b"somebody was faster")

    with pytest.raises(FileExistsError):
        write_new(tmp_path / "f", [b"new"])
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "g", slow())
    assert (tmp_path / "f").read_bytes() == b"old"
    assert (tmp_path / "g").read_bytes() == b"somebody was faster"
    assert sorted(os.listdir(tmp_path)) == ["f", "g"]


def test_an_error_of_the_source_leaves_nothing(tmp_path: Path) -> None:
    def torn() -> Iterator[bytes]:
        yield b"x" * 10_000_000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_new(tmp_path / "f", torn())
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_a_full_disk_leaves_the_old_file_and_no_draft(small_disk: Path) -> None:  # noqa: F811
    write_whole(small_disk / "f", b"old")
    with pytest.raises(OSError, match="No space left"):
        write_whole(small_disk / "f", b"x" * 100_000_000)
    with pytest.raises(OSError, match="No space left"):
        write_new(small_disk / "g", [b"x" * 1_000_000] * 100)
    assert (small_disk / "f").read_bytes() == b"old"
    assert os.listdir(small_disk) == ["f"]


def test_what_a_killed_writer_left_is_replaced(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", b"old")
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from volback.durable import write_whole\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_whole(Path(sys.argv[1]), b'new and longer')\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path / "f"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "f").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == [".f~", "f"]
    write_whole(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


def test_a_link_in_the_drafts_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep me")
    (tmp_path / ".f~").symlink_to(victim)
    write_whole(tmp_path / "f", b"new")
    assert victim.read_bytes() == b"keep me"
    assert not (tmp_path / "f").is_symlink()


def test_the_longest_name_has_room_for_its_draft(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), b"1")
    write_new(tmp_path / ("é" * 127), [b"1"])
    assert sorted(os.listdir(tmp_path)) == ["x" * 255, "é" * 127]


def test_a_directory_that_cannot_be_fsynced_is_not_an_error_and_a_failing_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No filesystem here refuses it as SMB does."""
    code = errno.EINVAL

    def refuse(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    sync_directory(tmp_path)
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        sync_directory(tmp_path)


def test_a_directory_that_is_gone_is_an_error_unless_allowed(tmp_path: Path) -> None:
    sync_directory(tmp_path / "gone", missing_ok=True)
    with pytest.raises(FileNotFoundError):
        sync_directory(tmp_path / "gone")
