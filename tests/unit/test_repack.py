"""Repack: each backup is what it was, the space of what nobody uses is given back, and no failure costs anything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.encrypted import encrypted_copy, own_file
from tests.support.library import Library
from tests.support.machines import StepStore
from tests.support.nights import LATER, change, context, copied, id_of, key_of, make_nights, put_all, remove, stream_of
from tests.support.repository import use_here
from tests.support.stored import ENGINE, HOST, VOLUME, commit_next
from tests.unit.test_rescue import _rescue
from volback.catalog.index import decode_unit
from volback.catalog.model import Manifest, Source
from volback.catalog.repository import Catalog
from volback.cli.main import run as volback
from volback.config.model import Job, Sources
from volback.context import Context, open_engine
from volback.context.repository import Repository
from volback.encryption import sources as secrets
from volback.engine.connect import EngineInfo
from volback.engine.engine import Engine
from volback.errors import IdentityNeeded, IntegrityError, MissingObject, StoreError
from volback.jobs.steps import prune_sources
from volback.operations.check import check
from volback.operations.copy import copy_backup, plan_copies
from volback.operations.open_backup import OpenBackup
from volback.operations.parent import Comparing, choose_parent, known_parent
from volback.operations.prune import prune
from volback.operations.repack import RESERVE_BYTES, RepackResult, repack
from volback.operations.repack_plan import Packing
from volback.operations.selection import Selection
from volback.operations.verify import verify, verify_backup
from volback.policy.keep import KeepRules
from volback.store.base import Buffer, ObjectInfo, Store, Wrapper
from volback.store.faults import FailCall, FaultStore
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

pytestmark = pytest.mark.unit

NIGHTS = 9
LEFT = (5, 7, 8)
REMOVED = tuple(night for night in range(NIGHTS) if night not in LEFT)


class _Made:
    """A repository of nights of which most are removed, not repacked, and the streams of those that are left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = MemoryStore("nights")
        self.repository = make_nights(directory, self.store, NIGHTS)
        remove(self.repository, REMOVED)
        found = list(self.repository.catalog.manifests())
        self.manifests = [one for one in found if isinstance(one, Manifest)]
        self.streams = {one.id: stream_of(self.store, one) for one in self.manifests}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> _Made:
    return _Made(tmp_path_factory.mktemp("nights"))


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return context(tmp_path)


def of(store: Store) -> Repository:
    return Repository(store, lambda: HOST, lambda: LATER)


def run(ctx: Context, store: Store, packing: Packing | None = None, **options: Any) -> RepackResult:
    return repack(ctx, open_engine(ctx), of(store), packing or Packing(), **options)


def total(store: Store) -> int:
    return sum(info.size_bytes for info in store.list())


def assert_whole(store: Store, made: _Made) -> None:
    """Each backup that is listed is what it was."""
    found = {one.id: one for one in Catalog(store).manifests()}
    assert found.keys() == made.streams.keys()
    for id_, manifest in found.items():
        assert isinstance(manifest, Manifest)
        assert stream_of(store, manifest) == made.streams[id_]
    assert check(of(store)).wrong == []


def assert_clean(store: Store) -> None:
    """Nothing lies there that nobody needs, and each backup has one manifest."""
    catalog = Catalog(store)
    needed = catalog.references(HOST, VOLUME).users.keys()
    assert {info.key for info in store.list()} == needed | {"volback.json"}
    assert len(list(catalog.revisions())) == len(catalog.backups())
    assert check(of(store)).findings == ()


def test_a_repack_frees_what_nobody_uses_and_changes_no_backup(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    before = total(store)
    result = run(ctx, store)
    assert (result.errors, result.interrupted) == ((), None)
    (done,) = result.volumes
    assert done.objects > 2
    assert total(store) == pytest.approx(before - done.freed_bytes + done.written_bytes, abs=10_000)  # manifests
    assert total(store) < 0.75 * before
    assert_whole(store, made)
    assert_clean(store)
    assert [one.revision for one in Catalog(store).revisions() if isinstance(one, Manifest)] == [2, 2, 2]
    assert verify(ctx, of(store), [], data=True).damaged == []
    assert run(ctx, store).volumes == ()


def test_the_newest_backup_is_parent_of_the_next_one_as_before(made: _Made, ctx: Context, tmp_path: Path) -> None:
    store = copied(made.store)
    run(ctx, store)
    root = made.directory / "volume"
    same = commit_next(ctx, of(store), id_of(NIGHTS), root)
    assert (same.parent, same.stored_bytes, same.digest) == (id_of(8), 0, made.manifests[-1].digest)
    remove(of(store), LEFT)
    assert stream_of(store, same) == made.streams[id_of(8)]
    assert run(ctx, store, Packing(below=0.99)).errors == ()
    assert stream_of(store, Catalog(store).read(key_of(NIGHTS))) == made.streams[id_of(8)]
    assert_clean(store)


def test_an_object_of_a_repack_is_repacked_again(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    run(ctx, store)
    remove(of(store), [5, 7])
    before = total(store)
    result = run(ctx, store, Packing(below=0.95))
    assert result.errors == ()
    assert total(store) < before
    (last,) = Catalog(store).manifests()
    assert isinstance(last, Manifest)
    assert last.revision == 3
    assert stream_of(store, last) == made.streams[id_of(8)]
    assert min(used.since for used in last.uses if not used.is_index) == id_of(0)
    assert_clean(store)


def test_docs_rescue_rebuilds_a_repacked_backup(made: _Made, ctx: Context, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "repository")
    put_all(store, made.store)
    assert run(ctx, store).errors == ()
    for night in LEFT:
        done = _rescue(tmp_path / "repository", f"{HOST}/{VOLUME}@{id_of(night)}")
        assert (done.returncode, done.stdout == made.streams[id_of(night)]) == (0, True), done.stderr


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    before = {info.key for info in store.list()}
    (planned,) = run(ctx, store, dry_run=True).volumes
    assert {info.key for info in store.list()} == before
    (done,) = run(ctx, store).volumes
    assert (planned.objects, planned.host, planned.volume) == (done.objects, HOST, VOLUME)
    assert planned.written_bytes == pytest.approx(done.written_bytes, rel=0.1)
    assert planned.freed_bytes == pytest.approx(done.freed_bytes, rel=0.1)


def test_no_more_is_written_than_is_allowed(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    (whole,) = run(ctx, copied(made.store), dry_run=True).volumes
    (part,) = run(ctx, store, Packing(max_bytes=whole.written_bytes // 2), dry_run=True).volumes
    assert 0 < part.objects < whole.objects
    assert part.written_bytes <= whole.written_bytes // 2
    assert run(ctx, store, Packing(max_bytes=0)).volumes == ()
    assert_whole(store, made)


def test_the_threshold_decides_what_is_repacked(made: _Made, ctx: Context) -> None:
    objects = []
    for below in (0.01, 0.2, 0.5):
        objects.append(sum(one.objects for one in run(ctx, made.store, Packing(below=below), dry_run=True).volumes))
    assert objects[0] == 0 < objects[1] < objects[2]


class _Full(Wrapper):
    """A store with so much free space."""

    def __init__(self, inner: Store, room_bytes: int) -> None:
        super().__init__(inner)
        self._limit = total(inner) + room_bytes

    def free_bytes(self) -> int | None:
        return max(self._limit - total(self._inner), 0)


def test_where_space_is_short_it_is_done_in_rounds_and_what_does_not_fit_is_said(made: _Made, ctx: Context) -> None:
    (whole,) = run(ctx, made.store, dry_run=True).volumes
    none = run(ctx, _Full(copied(made.store), RESERVE_BYTES), dry_run=True)
    assert [(one.objects, one.why) for one in none.volumes] == [
        (0, "there is not enough free space to copy what is used")
    ]
    assert none.volumes[0].unused_bytes > 0
    store = copied(made.store)
    rounds = run(ctx, _Full(store, RESERVE_BYTES + int(0.8 * whole.written_bytes)))
    assert rounds.errors == ()
    (done,) = rounds.volumes
    assert (done.objects > 0, done.unused_bytes, done.why) == (True, 0, None)
    assert run(ctx, store).volumes == (), "nothing is left that is mostly unused"
    assert_whole(store, made)
    assert_clean(store)


# readers meanwhile


@pytest.mark.parametrize("parallel_reads", [1, 4])
def test_a_reader_goes_on_from_the_newest_revision(made: _Made, ctx: Context, parallel_reads: int) -> None:
    store = copied(made.store, parallel_reads=parallel_reads)
    repository = of(store)
    opened = [OpenBackup.of(repository, manifest) for manifest in made.manifests]
    begun = [one.stream() for one in opened]
    first = [bytes(next(stream)) for stream in begun]
    assert run(ctx, store).errors == ()
    for one, begin, stream in zip(opened, first, begun, strict=True):
        assert begin + b"".join(map(bytes, stream)) == made.streams[one.manifest.id]
        assert b"".join(map(bytes, one.stream())) == made.streams[one.manifest.id], "also from its begin on"
        selected = Selection.of(one, [b"d1", b"big"])
        parts = b"".join(map(bytes, selected.stream()))
        assert parts == b"".join(
            map(bytes, Selection.of(OpenBackup(made.store, one.manifest), [b"d1", b"big"]).stream())
        )


def test_a_reader_follows_several_repacks(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    opened = OpenBackup.of(of(store), made.manifests[-1])
    stream = opened.stream()
    begin = bytes(next(stream))
    run(ctx, store)
    begin += b"".join(bytes(next(stream)) for _ in range(20))
    remove(of(store), [5, 7])
    run(ctx, store, Packing(below=0.95))
    assert begin + b"".join(map(bytes, stream)) == made.streams[id_of(8)]


def test_an_index_that_is_gone_is_read_in_its_newest_revision(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    run(ctx, store)
    for manifest in made.manifests:
        opened = OpenBackup.of(of(store), manifest)
        assert b"".join(map(bytes, opened.stream())) == made.streams[manifest.id]
        assert verify_backup(ctx, of(store), manifest, data=True) == []
        assert verify_backup(ctx, of(store), manifest, data=False) == []


def test_what_is_lost_is_not_taken_for_repacked(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    manifest = made.manifests[-1]
    opened = OpenBackup.of(of(store), manifest)
    store.delete(made.manifests[-1].key_of(manifest.uses[0]))
    with pytest.raises(MissingObject, match="is missing"):
        list(opened.stream())
    assert any("is missing" in damage.message for damage in verify_backup(ctx, of(store), manifest, data=True))


# what happens meanwhile, and killed runs


class _Killed(BaseException):
    """Nothing works any more."""


class _Dying(Wrapper):
    """A store in which the `last`th write or delete is the last: `after` it, or instead of it, nothing works."""

    def __init__(self, inner: Store, last: int, *, after: bool) -> None:
        super().__init__(inner)
        self._left = last
        self._after = after
        self.is_dead = False

    def _step(self) -> bool:
        """Whether this one is carried out."""
        self._check()
        self._left -= 1
        self.is_dead = self._left <= 0
        return not self.is_dead or self._after

    def _check(self) -> None:
        if self.is_dead:
            raise _Killed

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        if self._step():
            size = self._inner.put(key, chunks, if_absent=if_absent)
            self._check()
            return size
        raise _Killed

    def delete(self, key: str) -> None:
        if self._step():
            self._inner.delete(key)
        self._check()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._check()
        return self._inner.list(prefix)

    def stat(self, key: str) -> ObjectInfo:
        self._check()
        return self._inner.stat(key)

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        self._check()
        return self._inner.open(key, start=start, length=length)


def _points(made: _Made, ctx: Context) -> int:
    """How many writes and deletes a repack makes."""
    store = copied(made.store)
    dying = _Dying(store, 1_000_000, after=True)
    run(ctx, dying)
    return 1_000_000 - dying._left


def test_killed_at_any_point_each_backup_is_whole_and_the_next_repack_leaves_nothing(made: _Made, ctx: Context) -> None:
    points = _points(made, ctx)
    assert points >= 15
    for after in (False, True):
        for last in range(1, points + 1):
            store = copied(made.store)
            dying = _Dying(store, last, after=after)
            with suppress(_Killed):
                run(ctx, dying)
            assert dying.is_dead
            assert_whole(store, made)
            result = run(ctx, store)
            assert result.errors == (), f"killed {'after' if after else 'at'} step {last} of {points}"
            assert_whole(store, made)
            assert_clean(store)
            assert total(store) < 0.75 * total(made.store)


@pytest.mark.parametrize("fails", ["data.2.zst", "index.2.jsonl.zst", "manifest.2.json"])
def test_an_error_leaves_nothing_behind(made: _Made, ctx: Context, fails: str) -> None:
    store = copied(made.store)
    faulty = FaultStore(store, [FailCall("put", StoreError("disk full"), key=f"*/{fails}")])
    result = run(ctx, faulty)
    faulty.assert_all_hit()
    assert [error.message for error in result.errors] == ["disk full"]
    assert_whole(store, made)
    assert_clean(store)


class _Meanwhile(Wrapper):
    """A store in which something happens before the put of a key that ends so."""

    def __init__(self, inner: Store, before: str, act: Callable[[], object]) -> None:
        super().__init__(inner)
        self._before = before
        self._acts: list[Callable[[], object]] = [act]

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        if key.endswith(self._before) and self._acts:
            self._acts.pop()()
        return self._inner.put(key, chunks, if_absent=if_absent)


def test_a_backup_that_another_machine_removes_meanwhile_stays_removed(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    meanwhile = _Meanwhile(store, f"{id_of(7)}/manifest.2.json", lambda: remove(of(store), [7]))
    result = run(ctx, meanwhile)
    assert [
        f"it needs what {id_of(7)} uses, and that was removed meanwhile" in one.message for one in result.errors
    ] == [True]
    assert {key.id for key in Catalog(store).backups()} == {id_of(5), id_of(8)}
    assert run(ctx, store).errors == ()
    for manifest in Catalog(store).manifests():
        assert isinstance(manifest, Manifest)
        assert stream_of(store, manifest) == made.streams[manifest.id]
    assert_clean(store)


def test_an_increment_that_is_made_meanwhile_keeps_what_it_uses(made: _Made, ctx: Context, tmp_path: Path) -> None:
    """Another machine, which has a state of its own, commits after the repack has read the manifests."""
    other, store = context(tmp_path / "other"), copied(made.store)
    committed: list[Manifest] = []

    def back_up() -> None:
        committed.append(commit_next(other, of(store), id_of(NIGHTS), made.directory / "volume"))

    for before in ("data.2.zst", f"{id_of(8)}/manifest.2.json"):
        store = copied(made.store)
        assert run(ctx, _Meanwhile(store, before, back_up)).errors == ()
        found = Catalog(store).read(committed[-1].key)
        assert stream_of(store, found) == made.streams[id_of(8)]
        assert_clean(store)


def test_an_increment_whose_parent_was_repacked_fails_cleanly_or_holds(
    made: _Made, ctx: Context, tmp_path: Path
) -> None:
    """The backup has chosen its parent, and stored its data, before the repack begins."""
    store = copied(made.store)
    meanwhile = _Meanwhile(store, f"{id_of(NIGHTS)}/index.jsonl.zst", lambda: run(ctx, store))
    with pytest.raises(IntegrityError, match=r"backup not committed: it needs .*, which was removed meanwhile"):
        commit_next(context(tmp_path / "other"), of(meanwhile), id_of(NIGHTS), made.directory / "volume")
    assert_whole(store, made)


# what is damaged, and what is encrypted


def test_a_damaged_object_is_left_as_it_is(made: _Made, ctx: Context, caplog: pytest.LogCaptureFixture) -> None:
    store = copied(made.store)
    key = key_of(0).data
    data = bytearray(b"".join(store.open(key)))
    for at in range(0, len(data), 40_000):
        data[at] ^= 1
    store.put(key, [bytes(data)])
    result = run(ctx, store)
    assert result.errors == ()
    (done,) = result.volumes
    (whole,) = run(ctx, made.store, dry_run=True).volumes
    assert 0 < done.objects < whole.objects
    assert "an object is left as it is" in caplog.text
    assert b"".join(store.open(key)) == bytes(data)
    assert_clean(store)


def test_while_a_manifest_cannot_be_read_nothing_is_repacked(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    store.put(key_of(7).manifest, [b"{"])
    before = {info.key for info in store.list()}
    result = run(ctx, store)
    assert (len(result.errors), result.volumes) == (1, ())
    assert "while it is unknown" in result.errors[0].message
    pruned = prune(ctx, open_engine(ctx), of(store), KeepRules(last=1), packing=Packing())
    assert (pruned.errors, pruned.repacked) == ((), ()), "it is said once, as a warning"
    assert [one.key.id for one in pruned.judged if one.damage] == [id_of(7)]
    assert {info.key for info in store.list()} == before


@pytest.fixture(scope="module")
def closed(made: _Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryStore, secrets.Sources]:
    """The same in an encrypted repository, and its identity."""
    directory, store = tmp_path_factory.mktemp("closed"), MemoryStore("closed")
    put_all(LocalStore(directory / "clear"), made.store)
    encrypted_copy(directory / "clear", store)
    return store, secrets.Sources((secrets.identity_file(own_file(directory)),))


def test_an_encrypted_repository_is_repacked_with_an_identity(
    made: _Made, ctx: Context, closed: tuple[MemoryStore, secrets.Sources]
) -> None:
    store = copied(closed[0])
    repository = Repository(store, lambda: HOST, lambda: LATER, sources=closed[1])
    before = total(store)
    result = repack(ctx, open_engine(ctx), repository, Packing())
    assert result.errors == ()
    assert total(store) < 0.75 * before
    for manifest in repository.catalog.manifests():
        assert isinstance(manifest, Manifest)
        assert (manifest.revision, manifest.is_closed) == (2, True)
        stream = b"".join(map(bytes, OpenBackup.of(repository, manifest).stream()))
        assert stream == made.streams[manifest.id]
    assert all(info.key.endswith((".age", ".json")) for info in store.list())


def test_what_is_copied_without_an_identity_is_repacked_before_any_call(
    made: _Made, ctx: Context, closed: tuple[MemoryStore, secrets.Sources]
) -> None:
    """Another machine, which has the identity, repacks; what was replaced is gone at once."""
    step, is_struck = 0, True
    while is_struck:
        store, target, struck = copied(closed[0]), MemoryStore("target"), list[bool]()
        target.put("volback.json", store.open("volback.json"))

        def repack_there(store: MemoryStore = store, struck: list[bool] = struck) -> None:
            struck.append(True)
            there = Repository(store, lambda: HOST, lambda: LATER, sources=closed[1])
            assert repack(ctx, open_engine(ctx), there, Packing()).errors == ()

        source, there = of(StepStore(store, step, repack_there)), of(target)
        with suppress(IdentityNeeded):  # what it uses was copied in another revision
            for item in plan_copies(source, there, [f"{VOLUME}@{id_of(8)}"]):
                assert copy_backup(ctx, source, there, item).done == "copied"
        with_key = Repository(target, lambda: HOST, lambda: LATER, sources=closed[1])
        for found in with_key.catalog.manifests():
            assert isinstance(found, Manifest)
            assert b"".join(map(bytes, OpenBackup.of(with_key, found).stream())) == made.streams[found.id]
        assert check(with_key).wrong == []
        step, is_struck = step + 16, bool(struck)
    assert step > 10


def test_the_next_backup_of_this_machine_needs_no_identity(
    made: _Made, ctx: Context, closed: tuple[MemoryStore, secrets.Sources]
) -> None:
    """The repack keeps the parent's new revision in the state, as the backup had kept the one before."""
    store = copied(closed[0])
    repository = Repository(store, lambda: HOST, lambda: LATER, sources=closed[1])
    parent = repository.opened(repository.catalog.read(key_of(8)))
    known = known_parent(ctx, repository, VOLUME)
    known.keep(parent, repository.store.open(parent.index_key))
    for used in parent.uses:
        if used.is_index:
            known.put(parent.key_of(used), b"".join(repository.store.open(parent.key_of(used))))
    assert repack(ctx, open_engine(ctx), repository, Packing()).errors == ()
    without = Repository(store, lambda: HOST, lambda: LATER)
    chosen = choose_parent(ctx, without, without.catalog.backups(), parent.source, ENGINE, Comparing())
    assert chosen.warnings == []
    assert chosen.manifest is not None
    assert (chosen.manifest.id, chosen.manifest.revision) == (id_of(8), 2)


def test_without_an_identity_it_says_what_it_could_not_free(
    ctx: Context, closed: tuple[MemoryStore, secrets.Sources]
) -> None:
    store = copied(closed[0])
    before = {info.key for info in store.list()}
    result = repack(ctx, open_engine(ctx), Repository(store, lambda: HOST, lambda: LATER), Packing())
    assert result.errors == ()
    assert {info.key for info in store.list()} == before
    assert [one for one in result.volumes if one.objects or one.written_bytes] == []


def test_what_manifests_alone_say_is_unused_is_named_without_an_identity(
    ctx: Context, closed: tuple[MemoryStore, secrets.Sources]
) -> None:
    store = copied(closed[0])
    repository = Repository(store, lambda: HOST, lambda: LATER, sources=closed[1])
    remove(repository, [5, 7])
    (done,) = repack(ctx, open_engine(ctx), Repository(store, lambda: HOST, lambda: LATER), Packing()).volumes
    assert done.unused_bytes > 100_000
    assert done.why is not None
    assert "encrypted" in done.why


# prune


def test_what_was_said_of_a_backup_stays_and_a_held_one_is_never_pruned(made: _Made, ctx: Context) -> None:
    store, held = copied(made.store), key_of(LEFT[0])
    said = of(store).catalog.notes.change(
        held, lambda notes: notes.with_(held_at="2026-02-01T00:00:00Z", tags=["release"], note="before the upgrade")
    )
    result = prune(ctx, open_engine(ctx), of(store), KeepRules(last=1), packing=Packing())
    assert [one.objects > 0 for one in result.repacked] == [True]
    assert {key.id for key in Catalog(store).backups()} == {held.id, id_of(8)}
    assert Catalog(store).read(held).revision == 2
    assert of(store).catalog.notes.read(held) == said
    assert stream_of(store, Catalog(store).read(held)) == made.streams[held.id]


def test_new_objects_come_before_manifests_and_the_old_ones_go_last(made: _Made, ctx: Context) -> None:
    store = _Noting(copied(made.store))
    assert run(ctx, store).errors == ()
    names = [re.sub(r"^(\w+ ).*/", r"\1", call) for call in store.calls if VOLUME in call]
    order = [
        "put data.2.zst",
        "put index.2.jsonl.zst",
        "put manifest.2.json",
        "delete manifest.json",
        "delete data.zst",
    ]
    firsts = [names.index(name) for name in order]
    assert firsts == sorted(firsts)
    lasts = [len(names) - names[::-1].index(name) for name in order]
    assert lasts[0] <= firsts[2], "all data is there before a manifest names it"
    assert lasts[2] <= firsts[3], "no earlier revision goes before all later ones are there"
    assert lasts[3] <= firsts[4]


class _Noting(Wrapper):
    """Notes what is put and deleted."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls: list[str] = []

    def put(self, key: str, chunks: Iterable[Buffer], *, if_absent: bool = False) -> int:
        self.calls.append(f"put {key}")
        return self._inner.put(key, chunks, if_absent=if_absent)

    def delete(self, key: str) -> None:
        self.calls.append(f"delete {key}")
        self._inner.delete(key)


def test_copy_knows_a_repacked_backup_as_the_same(made: _Made, ctx: Context) -> None:
    source, target = copied(made.store), MemoryStore("target")
    Catalog(target).ensure_repository(lambda: "t" * 32)

    def copy_all() -> list[str]:
        names = [one.name for one in made.manifests]
        items = plan_copies(of(source), of(target), names)
        return [copy_backup(ctx, of(source), of(target), item).done for item in items]

    assert copy_all() == ["copied"] * 3
    assert run(ctx, source).errors == ()
    assert copy_all() == ["skipped"] * 3
    assert run(ctx, target, Packing(below=0.99)).errors == ()
    assert copy_all() == ["skipped"] * 3
    assert_whole(target, made)


def test_a_job_says_what_is_repacked(made: _Made, ctx: Context) -> None:
    """By the keys `repack`, `max_repack` and `repack_below`."""
    source = Source(kind="volume", name=VOLUME)
    found = dict[str, int]()
    for name, keys in {
        "usual": {}, "none": {"repack": False}, "little": {"max_repack_bytes": 1}, "below": {"repack_below": 0.01}
    }.items():  # fmt: skip
        job = Job("nightly", ("main",), Sources(volumes=(VOLUME,)), keep=KeepRules(last=9), **keys)  # type: ignore[arg-type]
        (result,) = prune_sources(ctx, _Known(), of(copied(made.store)), job, [source])
        assert result.errors == ()
        found[name] = sum(one.objects for one in result.repacked)
    assert found["usual"] > 2
    assert {**found, "usual": 0} == dict.fromkeys(found, 0)


class _Known(Engine):
    """An engine of which is known what it says of itself; it is not asked for anything else."""

    def __init__(self) -> None:
        super().__init__("unix:///nonexistent", client_id=str)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(HOST, ENGINE, "20.10", "1.41", "x86_64", "/var/lib/docker", "6.1")


def test_an_endless_chain_stays_small(tmp_path: Path) -> None:
    """Forty nights, of which few are kept; each week it is as small as the kept ones alone would be, but for half."""
    store, directory = MemoryStore("nights"), tmp_path / "chain"
    directory.mkdir()
    repository = make_nights(directory, store, 1, files=24)
    here, rules = context(directory), KeepRules(last=3, weekly=2)
    for night in range(1, 40):
        change(directory / "volume", night, 24)
        commit_next(here, repository, id_of(night), directory / "volume")
        if night % 7 == 0:
            assert prune(here, open_engine(here), repository, rules, packing=Packing()).errors == ()
            kept = [one for one in Catalog(store).manifests() if isinstance(one, Manifest)]
            assert len(kept) <= 5
            assert total(store) <= 1.5 * needed_bytes(store, kept)
    assert check(repository).findings == ()


def needed_bytes(store: Store, kept: Iterable[Manifest]) -> int:
    """What these backups need: each extent once, at its share of its frame, and their documents and indexes."""
    extents, documents = dict[bytes, float](), dict[object, int]()
    for manifest in kept:
        documents[manifest.manifest_key] = store.stat(manifest.manifest_key).size_bytes
        for segment in OpenBackup(store, manifest).segments:
            documents[segment.backup, segment.offset] = len(segment.stored)
            for piece in (piece for line in segment.lines() for piece in decode_unit(line).pieces):
                share = piece.frame.stored_bytes / max(piece.frame.raw_bytes, 1)
                extents |= {digest: size * share for _, size, digest in piece.extents()}
    return round(sum(extents.values())) + sum(documents.values())


def test_prune_repacks_what_the_backups_that_are_left_use(made: _Made, ctx: Context) -> None:
    store = copied(made.store)
    library = Library(ctx, open_engine(ctx), of(store))
    plan = prune(*library, KeepRules(last=2), packing=Packing(), dry_run=True)
    kept = prune(*library, KeepRules(last=2))
    assert kept.repacked == ()
    after_removal = total(store)
    result = prune(*library, KeepRules(last=2), packing=Packing())
    (planned,), (done,) = plan.repacked, result.repacked
    assert planned.objects == done.objects > 0
    assert planned.freed_bytes == pytest.approx(done.freed_bytes, rel=0.1)
    assert total(store) < 0.75 * after_removal
    assert {key.id for key in Catalog(store).backups()} == {id_of(7), id_of(8)}
    for manifest in Catalog(store).manifests():
        assert isinstance(manifest, Manifest)
        assert stream_of(store, manifest) == made.streams[manifest.id]
    assert_clean(store)
    assert prune(*library, KeepRules(last=2), packing=Packing()).repacked == ()


def test_prune_ends_what_a_killed_repack_has_begun(made: _Made, ctx: Context, tmp_path: Path) -> None:
    points = _points(made, ctx)
    for last in range(2, points, 5):
        store = copied(made.store)
        with suppress(_Killed):
            run(ctx, _Dying(store, last, after=True))
        result = prune(ctx, open_engine(ctx), of(store), KeepRules(last=3), packing=Packing())
        assert (result.errors, result.interrupted) == ((), None)
        assert_whole(store, made)
        assert_clean(store)


def test_the_command_says_what_it_does(
    made: _Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_all(LocalStore(tmp_path / "repository"), made.store)
    use_here(monkeypatch, tmp_path, "repository")
    monkeypatch.setenv("VOLBACK_HOSTNAME", HOST)
    assert volback(["repack", "--dry-run"]) == 0
    assert re.search(
        rf"^{HOST}/{VOLUME}: \d+ objects to repack, .* written, .* to free$", capsys.readouterr().out, re.M
    )
    assert volback(["--json", "--verbose", "repack", "--below", "40%", "--max-repack", "100GiB"]) == 0
    said = capsys.readouterr()
    assert re.search(rf"{HOST}/{VOLUME}: \d+ objects to repack, .* to read and to write anew, .* to free", said.err)
    (facts,) = json.loads(said.out)["result"]["repacked"]
    assert (facts["volume"], facts["why"], facts["condemned_bytes"]) == (VOLUME, None, 0)
    assert facts["freed_bytes"] > facts["written_bytes"] > 0
    put_all(LocalStore(tmp_path / "plain"), made.store)
    assert volback(["--repo", str(tmp_path / "plain"), "repack", "--below", "40%"]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert re.fullmatch(rf"{HOST}/{VOLUME}: \d+ objects to repack, .* to read and to write anew, .* to free", first)
    assert re.fullmatch(rf"{HOST}/{VOLUME}: \d+ objects repacked, .* written, .* freed", second)
    assert volback(["repack", "--below", "40%"]) == 0
    assert "nothing to repack" in capsys.readouterr().out
    assert volback(["repack", "--below", "120%"]) == 2
    assert volback(["repack", "--max-repack", "much"]) == 2
    assert volback(["repack", "nosuchvolume"]) == 4
    assert volback(["prune", "--keep-last", "1", "--no-repack"]) == 0
    assert "repacked" not in capsys.readouterr().out
    assert volback(["prune", "--keep-last", "1", "--repack-below", "99%"]) == 0
    assert re.search(r"objects? repacked, .* written, .* freed", capsys.readouterr().out)
