"""The benchmark's case `prune`: whether the space of removed backups comes back, and what a repacked backup costs.

Backups are made of real trees through the archive layer, in a directory in memory: no engine is needed, and three years
of nights take some minutes.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import docker

from scripts.bench_measure import MIB, Options, verdict
from tests.support.archive import plan_of, read
from tests.support.stored import HOST, VOLUME, commit_next, store_backup
from volback.catalog.index import decode_unit
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.context import Context, open_engine
from volback.context.repository import Repository
from volback.operations.open_backup import OpenBackup
from volback.operations.prune import prune
from volback.operations.repack_plan import Packing
from volback.policy.keep import KeepRules
from volback.settings import Settings
from volback.store.local import LocalStore

NIGHTS = 3 * 365
DEPTH = 100
SPACE_RATIO, RESTORE_RATIO = 1.5, 1.1
_PAGE_BYTES = 8192
_RULES = KeepRules(daily=7, weekly=4, monthly=12)
_READS = 5


class _Volume:
    """Small files, a database of which 1 % of the pages are written each night, and a log that is rotated."""

    def __init__(self, root: Path, *, files: int, database_bytes: int) -> None:
        self.root = root
        self._dice = random.Random(7)
        self._pages = database_bytes // _PAGE_BYTES
        self._made = 0
        self._paths: list[Path] = []
        root.mkdir()
        for _ in range(files):
            self._add()
        (root / "database").write_bytes(self._dice.randbytes(self._pages * _PAGE_BYTES))
        (root / "log").write_bytes(b"")

    def _bytes(self) -> bytes:
        return self._dice.randbytes(self._dice.choice([500, 4000, 30_000]))

    def _add(self) -> None:
        path = self.root / f"d{self._made % 30}/f{self._made:06}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self._bytes())
        self._paths.append(path)
        self._made += 1

    def change(self, night: int) -> None:
        """What happens in a day."""
        for _ in range(max(len(self._paths) // 60, 1)):
            self._dice.choice(self._paths).write_bytes(self._bytes())
        self._add()
        self._paths.pop(self._dice.randrange(len(self._paths))).unlink()
        with (self.root / "database").open("r+b") as file:
            for _ in range(self._pages // 100):
                file.seek(self._dice.randrange(self._pages) * _PAGE_BYTES)
                file.write(self._dice.randbytes(_PAGE_BYTES))
        with (self.root / "log").open("wb" if night % 30 == 0 else "ab") as file:
            file.write(self._dice.randbytes(20_000))


class _Nights:
    """A repository, and the backups of a volume in it."""

    def __init__(self, directory: Path, volume: _Volume) -> None:
        self.now = datetime(2026, 1, 1, 2, tzinfo=UTC)
        self.store = LocalStore(directory / "repository")
        self.repository = Repository(self.store, lambda: HOST, lambda: self.now)
        self.written_bytes = self.stored_bytes = 0
        self._volume = volume
        self._night = 0
        self._ctx = Context(Settings("unused", directory / "state", host=HOST), now=lambda: self.now)
        Catalog(self.store).ensure_repository(lambda: "0" * 32)

    def back_up(self) -> Manifest:
        if self._night:
            self._volume.change(self._night)
        id_ = f"{self.now:%Y%m%dT%H%M%SZ}-{self._night:04x}"
        made = commit_next(self._ctx, self.repository, id_, self._volume.root)
        self.stored_bytes += made.stored_bytes
        self._night += 1
        return made

    def prune(self, rules: KeepRules, packing: Packing | None) -> None:
        done = prune(self._ctx, open_engine(self._ctx), self.repository, rules, zone=UTC, packing=packing)
        assert not done.errors, done.errors
        self.written_bytes += sum(one.written_bytes for one in done.repacked)

    def manifests(self) -> list[Manifest]:
        return [one for one in self.repository.catalog.manifests(HOST, VOLUME) if isinstance(one, Manifest)]

    def total_bytes(self) -> int:
        return sum(info.size_bytes for info in self.store.list())

    def needed_bytes(self) -> int:
        """What the kept backups need: each extent once, at its share of its frame; indexes and manifests."""
        extents, segments, documents = dict[bytes, float](), set[tuple[str, int]](), 0
        for manifest in self.manifests():
            documents += self.store.stat(manifest.manifest_key).size_bytes + manifest.index_table_bytes
            for segment in OpenBackup(self.store, manifest).segments:
                if (segment.backup, segment.offset) not in segments:
                    segments.add((segment.backup, segment.offset))
                    documents += len(segment.stored)
                    extents |= dict(_shares(segment.lines()))
        return documents + round(sum(extents.values()))


def _shares(lines: Iterable[bytes]) -> Iterator[tuple[bytes, float]]:
    for line in lines:
        for piece in decode_unit(line).pieces:
            share = piece.frame.stored_bytes / max(piece.frame.raw_bytes, 1)
            yield from ((digest, size * share) for _, size, digest in piece.extents())


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(mkdtemp(prefix="volback-bench-", dir="/dev/shm"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def case_prune(_client: docker.DockerClient, options: Options) -> dict[str, Any]:
    """Three years of nights with 7 daily, 4 weekly and 12 monthly backups kept; a hundred increments, then a repack."""
    return {"nights": _nights(round(NIGHTS * options.scale)), "depth": _depth(round(DEPTH * options.scale))}


def _nights(nights: int) -> dict[str, Any]:
    months: list[float] = []
    with _directory() as directory:
        made = _Nights(directory, _Volume(directory / "volume", files=250, database_bytes=6 * MIB))
        for _ in range(nights):
            made.back_up()
            made.prune(_RULES, Packing())
            tomorrow = made.now + timedelta(days=1)
            if tomorrow.month != made.now.month:
                have, need = made.total_bytes(), made.needed_bytes()
                months.append(have / need)
                print(f"  {made.now:%Y-%m}  {have / 1e6:7.1f} MB, needed {need / 1e6:7.1f}: {have / need:.2f}")
            made.now = tomorrow
        print(f"  copied {made.written_bytes / 1e6:.1f} MB for {made.stored_bytes / 1e6:.1f} MB that were backed up")
    worst = max(months, default=0.0)
    word = verdict(worst <= SPACE_RATIO)
    print(f"  space, worst month's end: {worst:.2f} of what is needed  {word} (goal {SPACE_RATIO})")
    return {"months": months, "worst": worst}


def _depth(depth: int) -> dict[str, Any]:
    with _directory() as directory:
        volume = _Volume(directory / "volume", files=1500, database_bytes=60 * MIB)
        made = _Nights(directory, volume)
        for _ in range(depth + 1):
            made.back_up()
            made.now += timedelta(days=1)
        before = _read_cpu_s(made.store, made.manifests()[-1])
        made.prune(KeepRules(last=1), Packing())
        (last,) = made.manifests()
        after = _read_cpu_s(made.store, last)
        plan = plan_of(volume.root)
        full = _read_cpu_s(
            made.store, store_backup(made.store, "20300101T000000Z-ffff", plan, [read(volume.root, plan)])
        )
    print(f"  reading it back, CPU: {before:.2f} s, after the repack {after:.2f}, a full one {full:.2f}", end="  ")
    print(f"{after / full:.2f}  {verdict(after / full <= RESTORE_RATIO)} (goal {RESTORE_RATIO})")
    return {"before_s": before, "after_s": after, "full_s": full}


def _read_cpu_s(store: LocalStore, manifest: Manifest) -> float:
    """The least of some times in which the whole stream is read, verified."""
    times = []
    for _ in range(_READS):
        start = time.process_time()
        for _ in OpenBackup(store, manifest).stream():
            pass
        times.append(time.process_time() - start)
    return min(times)
