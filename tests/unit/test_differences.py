"""What differs between two backups, from their indexes alone."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.archive import MIB, plan_of, read
from tests.support.counting import CountingStore
from tests.support.stored import FIRST, SECOND, store_backup
from volback.catalog.differences import Difference, differences
from volback.catalog.states import State, in_order, path_key, states_of
from volback.errors import IntegrityError
from volback.operations.open_backup import OpenBackup
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

Change = Callable[[Path], object]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Directories before files share the extent of their headers; `alone` has one of its own."""
    root, dice = tmp_path / "tree", random.Random(11)
    for directory in ("a", "b/deep", "empty/one", "empty/two"):
        (root / directory).mkdir(parents=True)
    for number in range(40):
        (root / "a" / f"file-{number:02}").write_bytes(dice.randbytes(5000))
        (root / "b/deep" / f"file-{number:02}").write_bytes(dice.randbytes(dice.choice([0, 511, 100_000])))
    (root / "large").write_bytes(dice.randbytes(MIB + 300_000))
    (root / "large2").write_bytes(dice.randbytes(MIB))
    with open(root / "sparse", "wb") as file:
        file.write(b"begin")
        file.truncate(300_000)
    os.link(root / "a/file-01", root / "z again")
    os.link(root / "large", root / "y again")
    os.symlink("a/file-01", root / "link")
    os.mkfifo(root / "fifo")
    return root


def _opened(store: MemoryStore | CountingStore, root: Path, id_: str) -> OpenBackup:
    plan = plan_of(root)
    return OpenBackup(store, store_backup(store, id_, plan, [read(root, plan)]))


def _found(root: Path, change: Change, copy: Path | None = None) -> list[Difference]:
    store = MemoryStore("test")
    old = _opened(store, root, FIRST)
    change(root)
    new = _opened(store, copy or root, SECOND)
    return list(differences(_states(old), _states(new)))


def _named(found: list[Difference]) -> dict[str, str]:
    said = {}
    for item in found:
        word = "added" if item.before is None else "removed" if item.after is None else " ".join(item.changes)
        said[item.path.decode()] = word + (f" ({item.unclear}?)" if item.unclear else "")
    return said


def _write(root: Path, name: str, at: int) -> None:
    with (root / name).open("r+b") as file:
        file.seek(at)
        file.write(b"changed")


def _touch_back(root: Path) -> None:
    before = (root / "a/file-03").stat()
    _write(root, "a/file-03", 7)
    os.utime(root / "a/file-03", ns=(before.st_atime_ns, before.st_mtime_ns))


def _swap_types(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").write_bytes(b"a file now")
    os.utime(root, ns=(1, 1))


def _replace_link(root: Path) -> None:
    time = os.lstat(root / "link").st_mtime_ns
    (root / "link").unlink()
    os.symlink("a/file-02", root / "link")
    os.utime(root / "link", ns=(time, time), follow_symlinks=False)


def _keeping_time(name: str, change: Change) -> Change:
    def changed(root: Path) -> None:
        before = (root / name).stat()
        change(root)
        os.utime(root / name, ns=(before.st_atime_ns, before.st_mtime_ns))

    return changed


CASES: list[tuple[Change, dict[str, str]]] = [
    (lambda _: None, {}),
    (lambda root: _write(root, "a/file-03", 7), {"a/file-03": "content time"}),
    (lambda root: _write(root, "large2", 700_000), {"large2": "content time"}),
    (lambda root: _write(root, "large", 700_000), {"large": "content time", "y again": "content time"}),
    (lambda root: _write(root, "sparse", 3), {"sparse": "content time"}),
    (_touch_back, {"a/file-03": "content"}),
    (lambda root: (root / "a/file-05").chmod(0o600), {"a/file-05": "mode"}),
    (lambda root: os.utime(root / "b/deep", ns=(1, 1)), {"b/deep": "time"}),
    (lambda root: os.utime(root / "a/file-01", ns=(1, 1)), {"a/file-01": "time", "z again": "time"}),
    (lambda root: os.setxattr(root / "a/file-05", "user.mark", b"one"), {"a/file-05": "attributes"}),
    (
        lambda root: os.setxattr(root / "a/file-01", "user.a", b"1"),
        {"a/file-01": "attributes", "z again": "attributes"},
    ),
    (lambda root: os.setxattr(root / "a", "user.mark", b"one"), {"a": "attributes"}),
    (lambda root: os.setxattr(root / "empty/one", "user.mark", b"x" * 3000), {"empty/one": "attributes"}),
    (lambda root: os.setxattr(root / "sparse", "user.mark", b"one"), {"sparse": "attributes"}),
    (_replace_link, {"": "time", "link": "link"}),
    (_swap_types, {"": "time", "link": "type"}),
    (_keeping_time("a", lambda root: (root / "a/new").write_bytes(b"new")), {"a/new": "added"}),
    (
        _keeping_time("a", lambda root: os.link(root / "a/file-02", root / "a/x")),
        {"a/file-02": "names", "a/x": "added"},
    ),
    (_keeping_time("a", lambda root: (root / "a/file-01").unlink()), {"a/file-01": "removed", "z again": "names"}),
    (lambda root: os.truncate(root / "large2", 100), {"large2": "content time"}),
]


@pytest.mark.parametrize(("change", "expected"), CASES, ids=range(len(CASES)))
def test_every_kind_of_change_is_named(tree: Path, change: Change, expected: dict[str, str]) -> None:
    assert _named(_found(tree, change)) == expected


def test_a_renamed_directory_is_removed_and_added_with_all_that_it_holds(tree: Path) -> None:
    found = _named(_found(tree, _keeping_time("", lambda root: (root / "a").rename(root / "c"))))
    names = {f"/file-{number:02}" for number in range(40)} | {""}
    assert {path for path, word in found.items() if word == "removed"} == {f"a{name}" for name in names}
    assert {path for path, word in found.items() if word == "added"} == {f"c{name}" for name in names}
    # The header of the root shares an extent with that of the directory, and its ctime changed.
    assert {path: word for path, word in found.items() if path[:1] not in ("a", "c")} == {"": " (attributes?)"}


def test_paths_come_in_order_though_further_names_of_an_inode_are_stored_with_its_first(tree: Path) -> None:
    backup = _opened(MemoryStore("test"), tree, FIRST)
    stored = [member.path for member in backup.members()]
    states = list(_states(backup))
    paths = [state.member.path for state in states]
    assert stored != paths
    assert paths == sorted(stored, key=path_key)
    linked = {state.member.path: state for state in states if state.is_linked}
    assert set(linked) == {b"a/file-01", b"z again", b"large", b"y again"}
    assert [path for path, state in linked.items() if state.is_further_name] == [b"y again", b"z again"]
    assert linked[b"y again"].content == linked[b"large"].content
    assert linked[b"y again"].member.size_bytes == MIB + 300_000


def test_a_large_file_whose_first_name_vanished_meanwhile_has_its_place_by_those_that_are_left(tmp_path: Path) -> None:
    """It is stored where its first name was, though `z` comes after all others."""
    root, dice = tmp_path / "tree", random.Random(2)
    root.mkdir()
    for name in ("b", "c", "d"):
        (root / name).write_bytes(dice.randbytes(MIB + 1000))
    (root / "a").write_text("a")
    (root / "m").hardlink_to(root / "a")
    (root / "y").hardlink_to(root / "b")
    (root / "z").hardlink_to(root / "c")
    plan = plan_of(root)
    (root / "b").unlink()
    (root / "c").unlink()
    store = MemoryStore("test")
    backup = OpenBackup(store, store_backup(store, FIRST, plan, [read(root, plan)]))
    assert [member.path for member in backup.members()] == [b"", b"a", b"m", b"y", b"z", b"d"]
    assert [state.member.path for state in _states(backup)] == [b"", b"a", b"d", b"m", b"y", b"z"]


def test_an_index_that_is_not_in_order_is_refused(tree: Path) -> None:
    backup = _opened(MemoryStore("test"), tree, FIRST)
    units = [unit for unit in backup.units() if unit.members]
    assert len(units) > 2
    with pytest.raises(IntegrityError, match="the index of x is not in the order of paths"):
        list(in_order(map(states_of, [*units[1:], units[0]]), "x"))


def _copied(tree: Path, to: Path) -> Path:
    """Each inode and each ctime is another. A sparse file's header has tar's process number in it, which only in a
    helper container is always 1.
    """
    (tree / "sparse").unlink()
    subprocess.run(["cp", "-a", tree, to], check=True)
    return to


def test_a_copy_of_a_tree_differs_in_nothing(tree: Path, tmp_path: Path) -> None:
    assert _named(_found(tree, lambda _: None, _copied(tree, tmp_path / "copy"))) == {}


def test_what_the_indexes_do_not_say_is_unclear(tree: Path, tmp_path: Path) -> None:
    """The headers of two directories and a file lie in one extent; which of them changed is not known of a copy."""
    copy = _copied(tree, tmp_path / "copy")
    os.setxattr(copy / "b/deep", "user.mark", b"one")
    found = _named(_found(tree, lambda _: None, copy))
    assert found.keys() > {"b", "b/deep"}
    assert set(found.values()) == {" (attributes?)"}


def test_no_data_is_read(tree: Path) -> None:
    store = CountingStore(MemoryStore("test"))
    old = _opened(store, tree, FIRST)
    _write(tree, "large", 700_000)
    new = _opened(store, tree, SECOND)
    assert list(differences(_states(old), _states(new)))
    assert {Path(read.key).name for read in store.reads} == {"index.jsonl.zst"}


def test_the_states_of_a_unit_hold_the_digests_of_each_file_apart_from_its_header(tree: Path) -> None:
    backup = _opened(MemoryStore("test"), tree, FIRST)
    counts = {state.member.path: len(state.content or b"") // 32 for state in _states(backup)}
    assert counts[b"a/file-03"] == counts[b"sparse"] == 1
    assert counts[b"large"] > 10
    assert counts[b"a"] == counts[b"link"] == counts[b"fifo"] == counts[b""] == 0


def _states(backup: OpenBackup) -> Iterator[State]:
    return in_order(map(states_of, backup.units()), backup.name)


def test_neither_index_is_held_whole(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}").write_bytes(bytes(MIB))
    backup = _opened(MemoryStore("test"), tmp_path, FIRST)
    taken: list[int] = []

    def counted() -> Iterator[Iterator[State]]:
        for unit in backup.units():
            taken.append(len(unit.members))
            yield states_of(unit)

    states = in_order(counted(), "backup")
    for _ in range(10):
        next(states)
    assert 10 <= len(taken) <= 16, "a few units of one inode each are looked at together"
