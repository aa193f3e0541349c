"""`repair`: older backups take from newer ones what is damaged of them; what is lost is named, file by file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.encrypted import encrypted_copy
from tests.support.engine import PROJECT
from tests.support.repository import use_here
from tests.support.stored import HOST, VOLUME, commit_next
from tests.unit.test_damage_heals import IDS, UNUSED_BIT, Nights
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.catalog.units import Unit
from volback.cli.main import run
from volback.context import Context, open_engine
from volback.context.repository import Repository
from volback.errors import IdentityNeeded
from volback.operations.check import check
from volback.operations.copy import copy_backup, plan_copies
from volback.operations.open_backup import OpenBackup
from volback.operations.prune import prune
from volback.operations.repack_plan import Packing
from volback.operations.repair import Repaired, repair
from volback.operations.verify import verify
from volback.policy.keep import KeepRules
from volback.settings import Settings
from volback.state.memory import Memory
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit


class Damaged(Nights):
    """Backups of which something is damaged."""

    def stream(self, manifest: Manifest) -> bytes:
        current = self.repository.find(f"{VOLUME}@{manifest.id}")
        return b"".join(OpenBackup(self.repository.store, current).stream())

    def break_frame(self, manifest: Manifest, path: str) -> None:
        frame = self.frame_of(manifest, path)
        owner = next(one for one in self.manifests() if one.id == frame.backup)
        self.flip(owner, frame.offset + frame.stored_bytes // 2)

    def manifests(self) -> list[Manifest]:
        return [one for one in self.repository.catalog.manifests() if isinstance(one, Manifest)]

    def repair(self, *, data: bool = False, dry_run: bool = False) -> Repaired:
        return repair(self.ctx, open_engine(self.ctx), self.repository, data=data, dry_run=dry_run)

    def find_damage(self) -> None:
        assert verify(self.ctx, self.repository, [], data=True).damaged

    def assert_all_whole(self) -> None:
        assert verify(self.ctx, self.repository, [], data=True).damaged == []
        assert check(self.repository).wrong == []
        assert self.repair().healed == [], "nothing is left to do"


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Damaged:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    return Damaged(tmp_path)


def test_an_older_backup_takes_what_a_newer_one_has_stored_anew(nights: Damaged) -> None:
    first, second = nights.back_up(), nights.back_up()
    before = nights.stream(first), nights.stream(second)
    nights.break_frame(first, "random")
    nights.break_frame(first, "small/07")
    nights.find_damage()
    third = nights.back_up()
    planned = nights.repair(dry_run=True)
    assert len(nights.manifests()) == 3
    assert {one.revision for one in nights.manifests()} == {1}
    done = nights.repair()
    assert done == planned
    assert [(one.backup, one.revision) for one in done.healed] == [(first.name, 2), (second.name, 2)]
    assert {"random", "small/07"} <= set(done.healed[0].paths)
    assert (done.lost, done.rebuilt, done.errors) == ([], [], [])
    assert (nights.stream(first), nights.stream(second)) == before
    assert third.id in nights.repository.find(f"{VOLUME}@{first.id}").depends_on
    nights.assert_all_whole()


def test_the_next_prune_removes_the_earlier_revision(nights: Damaged) -> None:
    first, _ = nights.back_up(), nights.back_up()
    before = nights.stream(first)
    nights.break_frame(first, "random")
    nights.find_damage()
    nights.back_up()
    assert len(nights.repair().healed) == 2
    assert [finding.kind for finding in check(nights.repository).findings] == ["double", "double"]
    rules, engine = KeepRules(last=9), open_engine(nights.ctx)
    assert prune(nights.ctx, engine, nights.repository, rules, packing=Packing()).errors == ()
    assert check(nights.repository).findings == ()
    assert nights.stream(first) == before
    nights.assert_all_whole()


def test_a_healed_backup_is_copied_and_read_without_volback_as_any_other(nights: Damaged, tmp_path: Path) -> None:
    first = nights.back_up()
    before = nights.stream(first)
    nights.break_frame(first, "random")
    nights.find_damage()
    nights.back_up()
    assert len(nights.repair().healed) == 1
    script, repository = str(PROJECT / "docs/rescue.py"), str(tmp_path / "repository")
    rescued = subprocess.run(
        [sys.executable, "-I", script, repository, f"{HOST}/{VOLUME}@{first.id}"],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert rescued.stdout == before
    ctx, target = nights.at(tmp_path / "target")
    Catalog(target.store).ensure_repository(lambda: "b" * 32)
    (item,) = plan_copies(nights.repository, target, [first.name])
    copy_backup(ctx, nights.repository, target, item)
    assert b"".join(OpenBackup(target.store, target.find(first.name)).stream()) == before
    assert verify(ctx, target, [], data=True).damaged == []


def test_files_that_are_nowhere_else_are_named_and_no_others(nights: Damaged) -> None:
    first = nights.back_up()
    nights.break_frame(first, "changing")
    lost = sorted(path for unit in nights.units(first) for path in _paths_in(nights, first, unit, "changing"))
    nights.find_damage()
    done = nights.repair()
    assert [(one.backup, sorted(one.paths or [])) for one in done.lost] == [(first.name, lost)]
    assert "changing" in lost
    assert "random" not in lost
    assert done.healed == []


def _paths_in(nights: Damaged, manifest: Manifest, unit: Unit, path: str) -> list[str]:
    """The files of a unit that have bytes in the frame in which that file begins."""
    frame, found = nights.frame_of(manifest, path), []
    starts = list(unit.starts())
    for span in unit.spans():
        pieces = zip(unit.pieces, starts, strict=True)
        if any(p.frame == frame and at < span.stop and at + p.raw_bytes > span.start for p, at in pieces):
            found.append(span.member.path.decode() or ".")
    return found


def test_what_of_a_backup_is_elsewhere_is_healed_though_something_is_lost(nights: Damaged) -> None:
    first = nights.back_up()
    nights.break_frame(first, "random")
    nights.break_frame(first, "text")
    nights.find_damage()
    (nights.root / "random").unlink()
    nights.back_up()
    done = nights.repair()
    (healed,), (lost,) = done.healed, done.lost
    assert (healed.backup, lost.backup) == (first.name, first.name)
    assert "random" in (lost.paths or [])
    assert "text" in healed.paths
    assert "text" not in (lost.paths or [])
    left = verify(nights.ctx, nights.repository, [first.name], data=True).damaged
    assert {path for damage in left for path in damage.paths} == set(lost.paths or [])


@pytest.mark.parametrize("size", [0.5, 1.5])
def test_of_a_data_object_of_another_size_what_is_there_is_used(nights: Damaged, size: float) -> None:
    first, second = nights.back_up(), nights.back_up()
    before = nights.stream(first), nights.stream(second)
    data = nights.path(first.data_key).read_bytes()
    nights.path(first.data_key).write_bytes((data + data)[: int(len(data) * size)])
    nights.back_up()
    done = nights.repair()
    assert [one.backup for one in done.healed] == [first.name, second.name]
    assert (nights.stream(first), nights.stream(second)) == before
    nights.assert_all_whole()


def test_a_data_object_that_is_missing_is_not_needed_once_all_of_it_is_elsewhere(nights: Damaged) -> None:
    first = nights.back_up()
    was, times = (nights.root / "changing").read_bytes(), (nights.root / "changing").stat()
    second = nights.back_up()
    before = nights.stream(first), nights.stream(second)
    nights.path(first.data_key).unlink()
    nights.back_up()
    done = nights.repair()
    assert [one.backup for one in done.healed] == [second.name]
    assert [(one.backup, "changing" in (one.paths or [])) for one in done.lost] == [(first.name, True)]
    (nights.root / "changing").write_bytes(was)
    os.utime(nights.root / "changing", ns=(times.st_mtime_ns, times.st_mtime_ns))
    commit_next(nights.ctx, nights.repository, IDS[3], nights.root)
    assert [one.backup for one in nights.repair().healed] == [first.name]
    assert (nights.stream(first), nights.stream(second)) == before
    nights.assert_all_whole()


def test_where_only_the_sha256_of_an_object_is_wrong_its_manifest_says_how_it_is_now(nights: Damaged) -> None:
    first = nights.back_up()
    nights.flip(first, nights.frame_of(first, "random").offset + 4, UNUSED_BIT)
    nights.find_damage()
    done = nights.repair()
    assert [(one.backup, one.paths) for one in done.healed] == [(first.name, [])]
    nights.assert_all_whole()


def test_a_copy_that_is_damaged_too_is_not_taken(nights: Damaged) -> None:
    first = nights.back_up()
    nights.break_frame(first, "random")
    nights.find_damage()
    second = nights.back_up()
    nights.break_frame(second, "random")
    done = nights.repair()
    assert {one.backup for one in done.lost} == {first.name, second.name}
    assert all("random" in (one.paths or []) for one in done.lost)
    assert nights.repair(data=True).lost == done.lost


def test_everything_is_read_first_if_asked(nights: Damaged) -> None:
    first = nights.back_up()
    nights.break_frame(first, "random")
    assert nights.repair() == Repaired(backups=1)
    assert nights.repair(data=True).lost[0].backup == first.name


def test_a_manifest_that_cannot_be_read_is_a_loss(nights: Damaged) -> None:
    first = nights.back_up()
    nights.path(first.key.manifest).write_bytes(b"garbage")
    (lost,) = nights.repair().lost
    assert (lost.backup, lost.paths) == (first.name, None)


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_an_index_comes_back_from_a_local_copy(nights: Damaged, tmp_path: Path, harm: str) -> None:
    first = nights.back_up()
    store = MemoryStore("far", parallel_reads=3)
    for stored in nights.repository.store.list():
        store.put(stored.key, nights.repository.store.open(stored.key))
    memory = Memory(tmp_path / "state", "far", True, tmp_path / "cache", 1 << 24)
    far = Repository(store, lambda: HOST, memory=memory)
    index = b"".join(store.open(first.index_key))
    OpenBackup.of(far, far.find(first.name))
    store.delete(first.index_key)
    if harm == "damaged":
        store.put(first.index_key, [os.urandom(len(index))])
    engine = open_engine(nights.ctx)
    assert repair(nights.ctx, engine, far, dry_run=True).rebuilt == [first.index_key]
    assert repair(nights.ctx, engine, far).rebuilt == [first.index_key]
    assert b"".join(store.open(first.index_key)) == index
    assert repair(nights.ctx, engine, far) == Repaired(backups=1)


def test_an_index_without_a_copy_is_lost_with_its_backup(nights: Damaged) -> None:
    first = nights.back_up()
    nights.path(first.index_key).unlink()
    (lost,) = nights.repair().lost
    assert (lost.backup, lost.paths) == (first.name, None)


def test_an_encrypted_repository_needs_an_identity(nights: Damaged, tmp_path: Path) -> None:
    nights.back_up()
    encrypted_copy(tmp_path / "repository", LocalStore(tmp_path / "closed"))
    ctx = Context(Settings(str(tmp_path / "closed"), tmp_path / "state", host=HOST))
    closed = Repository(LocalStore(tmp_path / "closed"), lambda: HOST)
    with pytest.raises(IdentityNeeded):
        repair(ctx, open_engine(ctx), closed)


def test_the_command_says_what_was_healed_and_what_is_lost(
    nights: Damaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_here(monkeypatch, tmp_path, "repository")
    monkeypatch.setenv("VOLBACK_HOSTNAME", HOST)
    first = nights.back_up()
    assert _run("repair") == 0
    assert capsys.readouterr().out == "1 backup: nothing to repair\n"
    nights.break_frame(first, "random")
    nights.break_frame(first, "text")
    nights.find_damage()
    (nights.root / "random").unlink()
    nights.back_up()
    assert _run("repair", "--dry-run") == 7
    assert "would be healed   host/volume@" in capsys.readouterr().out
    assert _run("--json", "repair", VOLUME) == 7
    result = json.loads(capsys.readouterr().out)["result"]
    assert (result["backups"], result["healed"][0]["revision"], result["dry_run"]) == (2, 2, False)
    assert "random" in result["lost"][0]["paths"]
    assert _run("repair") == 7
    out, err = capsys.readouterr()
    assert "  lost   random\n" in out
    assert "  no damage is known of its other files\n" in out
    assert err.startswith(f"error: something is lost of {first.name}\n")
    assert _run("repair", "--data") == 7
    assert "  all its other files are intact\n" in capsys.readouterr().out


def _run(*arguments: str) -> int:
    return run(list(arguments))
