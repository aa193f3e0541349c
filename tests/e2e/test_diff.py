"""`diff` of a backup with its volume as it is now: what the scan says, and with --data what was read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Volback

SECOND_NS = 10**9


@pytest.fixture
def volume(run_volback: Volback, volume_factory: Callable[..., str]) -> str:
    """A volume with a backup; all of it is as it was."""

    def fill(path: Path) -> None:
        for directory in ("a", "b"):
            (path / directory).mkdir()
            for number in range(3):
                (path / directory / f"file-{number}").write_bytes(f"{number}".encode() * 5000)
        (path / "large").write_bytes(b"large" * 300_000)
        (path / "link").symlink_to("a/file-0")
        os.link(path / "a/file-1", path / "b/again")

    name = volume_factory("diff", fill=fill)
    run_volback("backup", name)
    return name


def _write_back(path: Path, data: bytes) -> None:
    """Other content; size and time stay."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_diff_against_the_volume(run_volback: Volback, volume: str, volume_path: Callable[[str], Path]) -> None:
    path = volume_path(volume)
    assert run_volback("diff", volume).stdout.splitlines() == ["no differences"]
    root_time = path.stat().st_mtime_ns
    (path / "b/file-0").write_bytes(b"shorter")
    (path / "a/file-2").chmod(0o640)
    (path / "added").write_bytes(b"new")
    (path / "link").unlink()
    _write_back(path / "large", b"other")
    os.utime(path / "a/file-1", ns=(SECOND_NS, SECOND_NS))
    os.utime(path, ns=(root_time, root_time))
    scanned = [
        "changed  a/file-1: time; content not compared",
        "changed  a/file-2: mode 0644 -> 0640; content not compared",
        "added    added (3 B)",
        "changed  b/again: time; content not compared",
        "changed  b/file-0: content (4.9 KiB -> 7 B), time",
        "removed  link (symlink)",
        "1 added (3 B), 1 removed (0 B), 4 changed (4.9 KiB -> 7 B)",
        "1 file of the same size and time may have changed: --data reads and compares them",
        "attributes (ACLs, extended attributes) not compared: 1 path",
    ]
    assert run_volback("diff", volume).stdout.splitlines() == scanned
    found = run_volback("diff", volume, "--data").stdout.splitlines()
    assert found[:7] == [
        "changed  a/file-1: time",
        "changed  a/file-2: mode 0644 -> 0640",
        "added    added (3 B)",
        "changed  b/again: time",
        "changed  b/file-0: content (4.9 KiB -> 7 B), time",
        "changed  large: content (1.4 MiB)",
        "removed  link (symlink)",
    ]
    assert found[7:] == ["1 added (3 B), 1 removed (0 B), 5 changed (1,505,000 -> 1,500,007 B)"]


def test_diff_against_another_volume_and_a_directory(
    run_volback: Volback, volume: str, volume_name: Callable[..., str], tmp_path: Path
) -> None:
    """Each file has another inode and ctime."""
    copy = volume_name("copy")
    run_volback("restore", volume, "--as", copy)
    found = run_volback("diff", volume, "--volume", copy, "--data").stdout.splitlines()
    assert found == ["no differences"]
    document = run_volback("diff", volume, "--volume", copy, "--json").json["result"]
    assert (document["after"], document["after_kind"]) == (copy, "volume")
    assert {one["kind"] for one in document["differences"]} == {"unclear"}
    assert run_volback("diff", volume, "--volume", volume_name("nothing"), check_exit=4).stderr
    (tmp_path / "empty").mkdir()
    said = run_volback("diff", volume, "--volume", tmp_path / "empty").stdout.splitlines()
    assert said[-1].startswith("11 removed (")
