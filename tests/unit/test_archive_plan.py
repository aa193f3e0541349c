"""The plan: one order whatever find's, groups that do not follow from one another, and what excludes leave out."""

from __future__ import annotations

import os
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.archive import (
    END,
    MIB,
    TREES,
    Made,
    made,
    pieces,
    plan_of,
    record,
    scan,
    scan_facts,
    scan_fields,
)
from volback.archive.plan import GROUP_MAX_BYTES, GROUP_MIN_BYTES, Plan, make_plan
from volback.errors import EngineError

ROOT = scan_facts() + record(b"", kind="d")


def _paths(plan: Plan) -> list[bytes]:
    return [plan.entry(number).path for number in range(len(plan.records))]


def _units(plan: Plan) -> list[tuple[str, tuple[bytes, ...]]]:
    paths = _paths(plan)
    return [(unit.kind, tuple(paths[unit.start : unit.stop])) for unit in plan.units]


@settings(deadline=None, max_examples=50)
@given(TREES, st.randoms(use_true_random=False), st.integers(1, 300))
def test_plan_is_the_same_whatever_the_order_and_the_buffers(tree: list[Made], dice: random.Random, size: int) -> None:
    with made(tree) as root:
        said = scan(root)
    records, facts = scan_fields(said)
    dice.shuffle(records)
    plan, again = make_plan([said]), make_plan(pieces(b"".join([*facts, *records]) + END, [size]))
    assert (plan.records, plan.units) == (again.records, again.units)
    assert [unit.start for unit in plan.units] == [0, *(unit.stop for unit in plan.units[:-1])]
    assert plan.units[-1].stop == len(plan.records)


@settings(deadline=None, max_examples=50)
@given(TREES)
def test_a_directory_comes_before_what_is_in_it_and_only_sockets_are_left_out(tree: list[Made]) -> None:
    with made(tree) as root:
        plan = plan_of(root)
        found = {os.path.relpath(os.path.join(top, name), os.fsencode(root)): os.path.join(top, name)
                 for top, directories, files in os.walk(os.fsencode(root)) for name in directories + files}  # fmt: skip
        sockets = {path for path, full in found.items() if (os.lstat(full).st_mode & 0o170000) == 0o140000}
    paths = _paths(plan)
    assert set(paths) == found.keys() - sockets | {b""}
    assert plan.sockets == len(sockets)
    place = {path: number for number, path in enumerate(paths)}
    for number in range(1, len(paths)):
        # All names of an inode stand where its first one does; tar makes the directories above the others itself.
        if plan.entry(number).links == 1 or plan.entry(number).type == "d":
            assert place[os.path.dirname(paths[number])] < number


@settings(deadline=None, max_examples=50)
@given(TREES)
def test_all_names_of_an_inode_lie_in_one_unit_side_by_side(tree: list[Made]) -> None:
    with made(tree) as root:
        plan = plan_of(root)
    entries = [plan.entry(number) for number in range(len(plan.records))]
    for unit in plan.units:
        inside = [entry.inode for entry in entries[unit.start : unit.stop] if entry.type in "fl"]
        outside = {entry.inode for entry in entries[: unit.start] + entries[unit.stop :]}
        assert not outside & set(inside)
        assert len(set(inside)) == 1 + sum(map(int.__ne__, inside, inside[1:])) if inside else True


def test_names_of_a_symlink_lie_in_one_unit_too(tmp_path: Path) -> None:
    """tar writes the second name of a symlink as a hard link to the first."""
    (tmp_path / "a").symlink_to("target")
    (tmp_path / "large").write_bytes(bytes(MIB))
    os.link(tmp_path / "a", tmp_path / "z", follow_symlinks=False)
    assert _units(plan_of(tmp_path)) == [("group", (b"", b"a", b"z")), ("file", (b"large",))]


def test_paths_are_sorted_by_their_parts() -> None:
    names = [b"a", b"a-b", b"a.b", b"a/b", b"a/b/c", b"a/b-c", b"a0", b"\xff", b"a\x01"]
    kinds = {name: "d" if name in (b"a", b"a/b") else "f" for name in names}
    records = [record(name, kind=kinds[name], inode=number) for number, name in enumerate(names)]
    assert _paths(make_plan([ROOT, *records, END])) == [
        b"", b"a", b"a/b", b"a/b/c", b"a/b-c", b"a\x01", b"a-b", b"a.b", b"a0", b"\xff"
    ]  # fmt: skip


def test_entry_has_what_find_said(tmp_path: Path) -> None:
    path = tmp_path / "odd\nname"
    path.write_bytes(b"x" * 5000)
    path.chmod(0o4751)
    os.utime(path, ns=(0, -1_500_000_001))
    os.symlink(b"to \xff", tmp_path / "zz")
    _, entry, link = (plan_of(tmp_path).entry(number) for number in range(3))
    status = path.stat()
    assert entry == (
        b"odd\nname", "f", 0o4751, os.getuid(), os.getgid(), 5000, -1_500_000_001, status.st_ctime_ns, status.st_ino,
        0, 1, b"",
    )  # fmt: skip
    assert (link.path, link.type, link.link) == (b"zz", "l", b"to \xff")


@pytest.mark.parametrize("time_ns", [0, -1, -999_999_999, -1_000_000_000, -(10**18), 1, 2**33 * 10**9 + 7])
def test_times_before_1970_and_after_2038_are_exact(tmp_path: Path, time_ns: int) -> None:
    os.utime(tmp_path, ns=(0, time_ns))
    assert plan_of(tmp_path).entry(0).mtime_ns == tmp_path.stat().st_mtime_ns


def test_inserting_a_file_changes_its_own_group_only() -> None:
    """Boundaries come from the paths, so they are found again soon after the place of a change."""
    dice = random.Random(1)
    paths = sorted({b"d%02d/f%06d" % (dice.randrange(40), dice.randrange(10**6)) for _ in range(20_000)})
    records = [record(path, size=dice.randrange(4000), inode=number) for number, path in enumerate(paths)]
    before = _units(make_plan([ROOT, *records, END]))
    assert len(before) > 40
    changed = []
    for _ in range(30):
        new = record(b"d%02d/f%06d-new" % (dice.randrange(40), dice.randrange(10**6)), inode=10**6)
        after = _units(make_plan([ROOT, *records, new, END]))
        changed.append(len(set(after) - set(before)))
    assert statistics.median(changed) <= 3
    assert max(changed) < len(before) // 4


def test_groups_stay_within_their_size() -> None:
    records = [record(b"%06d" % number, size=3000, inode=number) for number in range(5000)]
    plan = make_plan([ROOT, *records, END])
    sizes = [(unit.stop - unit.start) * (3000 + 1536) for unit in plan.units]
    assert max(sizes) <= GROUP_MAX_BYTES + 5000
    assert min(sizes[:-1]) >= GROUP_MIN_BYTES


def test_names_of_some_units_are_those_units_names() -> None:
    records = [record(b"%06d" % number, size=3000, inode=number) for number in range(20_000)]
    plan = make_plan([ROOT, *records, END])
    chosen = set(plan.units[3::7])
    assert 5 < len(chosen) < len(plan.units) // 2
    buffers = list(plan.names(chosen.__contains__))
    assert max(map(len, buffers)) < 70_000
    expected = [path for unit in plan.units if unit in chosen for path in plan.paths(unit)]
    assert b"".join(buffers).split(b"\0")[:-1] == [b"./" + path for path in expected]
    assert b"".join(plan.names(lambda _: True)) == b"".join(plan.names())
    assert b"".join(plan.names(lambda _: False)) == b""
    assert [path for unit in plan.units for path in plan.paths(unit)] == _paths(plan)


@pytest.mark.parametrize("cut_off", [b"", b"\0", END[:-1], END + b"x"])
def test_scan_that_was_cut_off_is_refused(cut_off: bytes) -> None:
    with pytest.raises(EngineError, match="cut off"):
        make_plan([ROOT, record(b"file"), cut_off])


def test_scan_without_a_root_is_refused() -> None:
    with pytest.raises(EngineError, match="before it began"):
        make_plan([scan_facts() + END])


TREE = [b"a.log", b"cache", b"cache/tmp", b"cache/tmp/x", b"keep", b"keep/a.log", b"keep/a.logs", b"keep/cache",
        b"keep/cache/y", b"keep/cache.d", b"x", b"x/y", b"x/y/z", b"[odd]", b"caf\xe9.log", b"new\n.log"]  # fmt: skip

EXCLUDES: dict[str, tuple[list[str], set[bytes]]] = {
    "a name goes at any depth, with all below it": (
        ["cache"],
        {b"cache", b"cache/tmp", b"cache/tmp/x", b"keep/cache", b"keep/cache/y"},
    ),
    "a star stands for any part of a name, odd bytes too": (
        ["*.log"],
        {b"a.log", b"keep/a.log", b"caf\xe9.log", b"new\n.log"},
    ),
    "a star does not reach over a slash": (["x*z"], set()),
    "a leading slash holds the pattern to the root": (["/cache"], {b"cache", b"cache/tmp", b"cache/tmp/x"}),
    "a slash inside does so too": (["cache/tmp"], {b"cache/tmp", b"cache/tmp/x"}),
    "a trailing slash says no more than the name": (["keep/cache/"], {b"keep/cache", b"keep/cache/y"}),
    "one star is one level": (
        ["keep/*"], {b"keep/a.log", b"keep/a.logs", b"keep/cache", b"keep/cache/y", b"keep/cache.d"}),
    "a star between slashes is one level": (["*/*/z"], {b"x/y/z"}),
    "a star between slashes is not two levels": (["*/z"], set()),
    "two stars are any number of levels": (["x/**/z"], {b"x/y/z"}),
    "two stars are also no level": (["x/**/y"], {b"x/y", b"x/y/z"}),
    "a question mark is one byte but no slash": (["keep/a.log?"], {b"keep/a.logs"}),
    "a question mark does not match a slash": (["x?y"], set()),
    "brackets are a set": (["[cx]*"], {b"cache", b"cache/tmp", b"cache/tmp/x", b"keep/cache", b"keep/cache/y",
                                       b"keep/cache.d", b"x", b"x/y", b"x/y/z", b"caf\xe9.log"}),
    "brackets can be negated": (["/[!a-k\\[]"], {b"x", b"x/y", b"x/y/z"}),
    "brackets around a bracket take it as it is": (["[[]odd]"], {b"[odd]"}),
    "a bracket that does not close is itself": (["[odd"], set()),
    "a name that is not UTF-8 can be given as Python gives it": (["caf\udce9.log"], {b"caf\xe9.log"}),
    "several patterns add up": (["/x", "*.logs"], {b"x", b"x/y", b"x/y/z", b"keep/a.logs"}),
    "the pattern is the whole name": (["log", "a", "ache"], set()),
    "case counts": (["CACHE"], set()),
}  # fmt: skip


@pytest.mark.parametrize("case", EXCLUDES)
def test_exclude_patterns(case: str) -> None:
    patterns, expected = EXCLUDES[case]
    records = [
        record(path, kind="d" if any(other.startswith(path + b"/") for other in TREE) else "f", inode=number)
        for number, path in enumerate(TREE)
    ]
    plan = make_plan([ROOT, *records, END], patterns)
    assert set(TREE) - set(_paths(plan)) == expected
    assert plan.excluded == len(expected)


def test_excluded_first_name_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert _paths(make_plan([scan(tmp_path)], ["a"])) == [b"", b"b"]
