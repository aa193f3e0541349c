"""Objects that stay open while many ranges of them are read: one version each, and none is open afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.leftovers import Leftovers
from volback.errors import NotFoundError
from volback.store.local import LocalStore
from volback.store.local_held import HELD_MAX

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "repository")


def read(store: LocalStore, key: str, start: int = 0, length: int | None = None) -> bytes:
    return b"".join(store.open(key, start=start, length=length))


def test_an_object_is_opened_once_in_a_block_and_closed_after_it(store: LocalStore, leftovers: Leftovers) -> None:
    store.put("a/b/c", [b"0123456789"])
    with store.reading():
        assert [read(store, "a/b/c", start, 2) for start in range(0, 10, 2)] == [b"01", b"23", b"45", b"67", b"89"]
        assert len(leftovers.descriptors()) == 1
    assert leftovers.descriptors() == []
    assert read(store, "a/b/c", 8) == b"89"
    assert leftovers.descriptors() == []


def test_the_outermost_block_closes_it(store: LocalStore, leftovers: Leftovers) -> None:
    store.put("a", [b"one"])
    with store.reading():
        with store.reading():
            assert read(store, "a") == b"one"
        assert len(leftovers.descriptors()) == 1
    assert leftovers.descriptors() == []


def test_what_is_read_at_its_end_stays_open_until_it_is_read(store: LocalStore, leftovers: Leftovers) -> None:
    content = bytes(range(250)) * 12_000
    store.put("a", [content])
    with store.reading():
        buffers = store.open("a")
        first = next(buffers)
    with closing(buffers):
        assert first + b"".join(buffers) == content
    assert leftovers.descriptors() == []


def test_an_object_that_is_removed_or_replaced_is_read_on(store: LocalStore) -> None:
    for key in ("removed", "replaced"):
        store.put(key, [b"former"])
    with store.reading():
        assert [read(store, key, 0, 3) for key in ("removed", "replaced")] == [b"for", b"for"]
        store.delete("removed")
        store.put("replaced", [b"new one"])
        assert [read(store, key, 3) for key in ("removed", "replaced")] == [b"mer", b"mer"]
    with pytest.raises(NotFoundError):
        read(store, "removed")
    assert read(store, "replaced") == b"new one"


def test_one_that_was_cut_ends_where_it_was_cut(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", [b"0123456789"])
    with store.reading():
        assert read(store, "a", 0, 2) == b"01"
        (tmp_path / "repository" / "a").write_bytes(b"0123")
        assert read(store, "a", 2) == b"23"
        assert read(store, "a", 8) == b""


def test_a_missing_object_is_missing_until_it_is_there(store: LocalStore, leftovers: Leftovers) -> None:
    store.put("other", [b""])
    with store.reading():
        with pytest.raises(NotFoundError):
            read(store, "a")
        store.put("a", [b"one"])
        assert read(store, "a") == b"one"
    assert leftovers.descriptors() == []


def test_of_many_objects_so_many_stay_open(store: LocalStore, leftovers: Leftovers) -> None:
    keys = [f"d{number}" for number in range(HELD_MAX + 10)]
    for key in keys:
        store.put(key, [key.encode()])
    with store.reading():
        for _ in range(2):
            assert [read(store, key) for key in keys] == [key.encode() for key in keys]
            assert len(leftovers.descriptors()) == HELD_MAX
    assert leftovers.descriptors() == []


def test_threads_read_the_same_objects(store: LocalStore, leftovers: Leftovers) -> None:
    for number in range(5):
        store.put(f"d{number}", [bytes([number]) * 1000])

    def read_some(turn: int) -> bool:
        with store.reading():
            return all(read(store, f"d{number}", turn, 10) == bytes([number]) * 10 for number in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read_some, range(400)))
    assert leftovers.descriptors() == []


def test_a_process_with_few_descriptors_holds_fewer(tmp_path: Path) -> None:
    """They are for the calls to the engine, too."""
    script = """
import os, sys
from pathlib import Path
from volback.store.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
keys = [f"d{number}" for number in range(30)]
for key in keys:
    store.put(key, [key.encode()])
before = len(os.listdir("/proc/self/fd"))
with store.reading():
    assert [b"".join(store.open(key)).decode() for key in keys] == keys
    print(len(os.listdir("/proc/self/fd")) - before)
"""
    command = ["prlimit", "--nofile=40", sys.executable, "-c", script, str(tmp_path / "repository")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("10\n", "")


class _Collecting(dict[str, Any]):
    """Collects garbage whenever it is asked: there, under the lock, a generator that nobody finished may be closed."""

    def get(self, key: str, default: Any = None) -> Any:
        gc.collect()
        return super().get(key, default)

    def popitem(self) -> Any:
        gc.collect()
        return super().popitem()

    def __contains__(self, key: object) -> bool:
        gc.collect()
        return super().__contains__(key)


def test_what_nobody_finished_is_closed_by_the_collector_wherever_it_runs(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
) -> None:
    for key in ("left", "other"):
        store.put(key, [b"one"])
    monkeypatch.setattr(store._held, "_held", _Collecting())

    def unfinished(key: str) -> Iterator[bytes]:
        with store.reading():
            yield from store.open(key)

    def left(key: str) -> None:
        reading = unfinished(key)
        next(reading)
        cycle: list[object] = [reading]
        cycle.append(cycle)

    def run() -> None:
        for _ in range(3):
            left("left")
            with store.reading():
                left("left")
                assert read(store, "other") == b"one"
                left("other")
        gc.collect()

    ending = threading.Thread(target=run, daemon=True)
    ending.start()
    ending.join(30)
    assert not ending.is_alive(), "it waits for itself"
    assert leftovers.descriptors() == []
