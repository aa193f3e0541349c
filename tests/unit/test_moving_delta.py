"""What a second pass sends and removes: of real trees, scanned by find as helpers do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from volback.archive import tar
from volback.archive.plan import Plan, make_plan
from volback.moving.delta import are_same, delta

OLD_NS = 1_700_000_000_000_000_000


def _scan(root: Path) -> Plan:
    """As if it were much later than the last change: a scan does not trust what changed 2 s before."""
    done = subprocess.run(tar.FIND, cwd=root, capture_output=True, check=True)
    plan = make_plan([done.stdout, tar.SCAN_END.encode()])
    plan.filesystem = "ext4"
    plan.mounted = frozenset()
    plan.started_ns += 10**12
    return plan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "volume"
    for name in ("a/b/one", "a/b/two", "a/other", "c/three", "link-target"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "large").write_bytes(os.urandom(3 << 20))
    return root


def _names(plan: Plan, before: Plan) -> list[bytes]:
    return b"".join(delta(before, plan).names(plan)).split(b"\0")[:-1]


def test_nothing_is_sent_of_what_has_not_changed(root: Path) -> None:
    before, now = _scan(root), _scan(root)
    assert delta(before, now).sent == frozenset()
    assert delta(before, now).gone == frozenset()
    assert b"".join(delta(before, now).names(now)) == b""


def test_a_large_file_that_changed_is_sent_with_the_directories_above(root: Path) -> None:
    before = _scan(root)
    with (root / "large").open("r+b") as file:
        file.write(b"changed")
    now = _scan(root)
    assert _names(now, before) == [b"./", b"./large"]
    assert delta(before, now).raw_bytes == 3 << 20


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        (lambda root: (root / "a/b/one").unlink(), {b"a/b/one"}),
        (lambda root: (root / "a/b/one").rename(root / "a/b/new"), {b"a/b/one"}),
        (lambda root: ((root / "a/other").unlink(), (root / "a/other").mkdir()), {b"a/other"}),
        (
            lambda root: ((root / "c/three").unlink(), (root / "c").rmdir(), (root / "c").write_text("")),
            {b"c", b"c/three"},
        ),
        (lambda root: (root / "a/b/new").write_text("new"), set()),
    ],
    ids=["removed", "renamed", "becomes a directory", "becomes a file", "new"],
)
def test_what_is_gone_or_of_another_type_is_removed_first(
    root: Path, change: Callable[[Path], object], gone: set[bytes]
) -> None:
    before = _scan(root)
    change(root)
    now = _scan(root)
    found = delta(before, now)
    assert found.gone == gone
    assert b"" in found.sent
    assert are_same(now, _scan(root))
    assert not are_same(before, now)


def _with_mounts(plan: Plan) -> Plan:
    """As if `c` and `large` were on file servers that are mounted below the root."""
    for number, record in enumerate(plan.records):
        if plan.entry(number).path.startswith((b"c", b"large")):
            at = record.rindex(b"\0") + 1
            plan.records[number] = record[:at] + b"1:" + record[at:]
    plan.is_mixed, plan.mounted = True, frozenset({"nfs4"})
    return plan


def test_what_is_gone_of_filesystems_mounted_below_is_removed(root: Path) -> None:
    """Of these nothing is known to be unchanged."""
    before = _with_mounts(_scan(root))
    (root / "c/three").unlink()
    (root / "large").unlink()
    found = delta(before, _with_mounts(_scan(root)))
    assert found.gone == {b"c/three", b"large"}
    assert b"c" in found.sent


def test_what_changed_right_before_the_first_scan_is_sent_again(root: Path) -> None:
    before = _scan(root)
    before.started_ns -= 10**12
    assert b"large" in delta(before, _scan(root)).sent


def test_a_change_of_the_mode_alone_is_seen(root: Path) -> None:
    before = _scan(root)
    (root / "a/b/one").chmod(0o600)
    now = _scan(root)
    assert b"a/b/one" in delta(before, now).sent
    assert not are_same(before, now)
