"""The cache: a copy is used if it is whole and of this repository; nothing that is wrong with it is an error."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from volback.errors import UsageError
from volback.settings import load_settings
from volback.state.cache import Cache

LIMIT = 1024 * 1024
DAY_S = 86_400


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache"


@pytest.fixture
def cache(root: Path) -> Cache:
    return Cache(root, "id-1 s3://bucket/", limit_bytes=LIMIT)


def entries(root: Path) -> list[Path]:
    return sorted(root.glob("*/*"))


def room(root: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in entries(root))


def test_what_was_put_is_found_by_name_digest_and_size(cache: Cache, root: Path) -> None:
    cache.put("name", b"data")
    digest = hashlib.sha256(b"data").hexdigest()
    again = Cache(root, "id-1 s3://bucket/", limit_bytes=LIMIT)
    assert again.get("name") == again.get("name", digest, 4) == b"data"
    assert again.get("other") is None


@pytest.mark.parametrize("wanted", [("0" * 64, 4), (hashlib.sha256(b"data").hexdigest(), 5)])
def test_another_digest_or_size_is_not_there(cache: Cache, wanted: tuple[str, int]) -> None:
    cache.put("name", b"data")
    assert cache.get("name", *wanted) is None


def test_files_and_directories_are_private(cache: Cache, root: Path) -> None:
    cache.put("name", b"data")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root, *entries(root)[0].parents[:1])} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [root / "added", *entries(root)]} == {0o600}


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "longer", "directory", "link", "fifo", "gone"])
def test_a_damaged_entry_is_not_there_and_can_be_put_again(cache: Cache, root: Path, harm: str) -> None:
    cache.put("name", b"data" * 100)
    (entry,) = entries(root)
    whole = entry.read_bytes()
    entry.unlink()
    match harm:
        case "flip":
            entry.write_bytes(whole[:-1] + b"!")
        case "cut":
            entry.write_bytes(whole[:50])
        case "empty":
            entry.touch()
        case "longer":
            entry.write_bytes(whole + b"!")
        case "directory":
            entry.mkdir()
        case "link":
            entry.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(entry)
    assert cache.get("name") is None
    if harm != "directory":
        cache.put("name", b"again")
        assert cache.get("name") == b"again"


@pytest.mark.parametrize("place", ["id-2 s3://bucket/", "id-1 s3://other/"])
def test_an_entry_of_another_repository_is_never_used(cache: Cache, root: Path, place: str) -> None:
    other = Cache(root, place, limit_bytes=LIMIT)
    other.put("name", b"theirs")
    (theirs,) = entries(root)
    assert cache.get("name") is None
    cache.put("name", b"ours")
    (ours,) = set(entries(root)) - {theirs}
    shutil.copy(theirs, ours)
    assert cache.get("name") is None
    assert other.get("name") == b"theirs"


def test_an_entry_under_another_name_is_not_used(cache: Cache, root: Path) -> None:
    cache.put("one", b"1")
    (one,) = entries(root)
    cache.put("two", b"2")
    (two,) = set(entries(root)) - {one}
    shutil.copy(one, two)
    assert cache.get("two") is None


@pytest.mark.parametrize("remove", ["entry", "place", "root"])
def test_it_may_be_deleted_while_it_is_used(cache: Cache, root: Path, remove: str) -> None:
    cache.put("name", b"data")
    (entry,) = entries(root)
    shutil.rmtree(root if remove == "root" else entry.parent) if remove != "entry" else entry.unlink()
    assert cache.get("name") is None
    cache.put("name", b"data")
    fresh = Cache(root, "id-1 s3://bucket/", limit_bytes=LIMIT)
    fresh.put("name", b"data")
    assert fresh.get("name") == b"data"


def test_a_directory_that_others_can_write_is_not_used(cache: Cache, root: Path) -> None:
    cache.put("name", b"data")
    (entry,) = entries(root)
    entry.parent.chmod(0o777)
    fresh = Cache(root, "id-1 s3://bucket/", limit_bytes=LIMIT)
    assert fresh.get("name") is None
    fresh.put("more", b"data")
    assert entries(root) == [entry]


def test_what_was_not_used_for_longest_goes_first(root: Path) -> None:
    now = 1_000_000_000.0
    cache = Cache(root, "id", limit_bytes=LIMIT, clock=lambda: now)
    old, used = root / "x", root / "x"
    for name in ("old", "used"):
        before = set(entries(root))
        cache.put(name, bytes(100_000))
        (made,) = set(entries(root)) - before
        os.utime(made, (now - 9 * DAY_S, now - 9 * DAY_S))
        old, used = (made, used) if name == "old" else (old, made)
    assert cache.get("used") is not None, "its use is noted"
    for number in range(30):
        cache.put(str(number), bytes(60_000))
        before = set(entries(root))
        for path in before - {old, used}:
            os.utime(path, (now - DAY_S, now - DAY_S))
    assert not old.exists()
    assert used.exists()
    assert room(root) <= LIMIT + LIMIT // 8


def test_many_small_entries_count_by_the_room_that_they_take(root: Path) -> None:
    cache = Cache(root, "id", limit_bytes=LIMIT)
    for number in range(600):
        cache.put(str(number), b"small")
    assert LIMIT // 2 < room(root) <= LIMIT + LIMIT // 8


def test_what_a_killed_run_left_half_written_goes_too(cache: Cache, root: Path) -> None:
    cache.put("name", b"data")
    left = entries(root)[0].with_name("left.0011aabb")
    left.write_bytes(bytes(100_000))
    os.utime(left, (1, 1))
    for number in range(30):
        cache.put(str(number), bytes(60_000))
    assert not left.exists()


def test_what_is_too_large_is_not_kept(cache: Cache, root: Path) -> None:
    cache.put("large", bytes(LIMIT // 2))
    assert cache.get("large") is None
    assert entries(root) == []


@pytest.mark.parametrize("harm", ["file", "read-only", "file-size"])
def test_a_place_that_takes_nothing_raises_nothing(tmp_path: Path, harm: str) -> None:
    """In a child: the limits of a process stay with it. `read-only` is a place in /proc, also for root."""
    place = tmp_path / "cache"
    if harm == "file":
        place.write_text("")
    root = "/proc/self/fdinfo/cache" if harm == "read-only" else str(place)
    script = (
        "import sys, pathlib\n"
        "from volback.state.cache import Cache\n"
        "cache = Cache(pathlib.Path(sys.argv[1]), 'id', limit_bytes=1 << 20)\n"
        "for number in range(3): cache.put(str(number), bytes(9000))\n"
        "print([cache.get(str(number)) for number in range(3)])\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, "-c", script, root], capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=limit if harm == "file-size" else None,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "[None, None, None]\n", "")
    assert not place.is_dir() or not [path for path in place.glob("*/*") if path.stat().st_size]


def test_two_processes_put_get_and_evict_at_once(root: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from volback.state.cache import Cache\n"
        "cache = Cache(pathlib.Path(sys.argv[1]), 'id', limit_bytes=1 << 18)\n"
        "for number in range(1500):\n"
        "    name = str(number % 90)\n"
        "    assert cache.get(name) in (None, name.encode() * 500)\n"
        "    cache.put(name, name.encode() * 500)\n"
        "print('done')\n"
    )
    pair = [
        subprocess.Popen([sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120) for process in pair] == [(b"done\n", b"")] * 2
    assert room(root) <= (1 << 18) + (1 << 17)


def test_where_it_is_and_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert load_settings({"XDG_CACHE_HOME": "/c"}).cache == Path("/c/volback")
    assert load_settings({"XDG_CACHE_HOME": "relative"}).cache == Path.home() / ".cache" / "volback"
    assert load_settings({"XDG_CACHE_HOME": "/c", "VOLBACK_CACHE": "/here"}).cache == Path("/here")
    assert load_settings({}).cache_bytes == 1024**3
    assert load_settings({"VOLBACK_CACHE_MIB": "0"}).cache_bytes == 0
    with pytest.raises(UsageError, match="VOLBACK_CACHE_MIB=-1 is not a positive number"):
        load_settings({"VOLBACK_CACHE_MIB": "-1"})
