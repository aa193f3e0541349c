"""A prune that repacks, in buckets of real servers, in two phases: what is kept comes back bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.nights import id_of, make_nights, stream_of
from tests.support.s3 import S3Server
from tests.support.stored import HOST, VOLUME
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.store.base import Store

pytestmark = pytest.mark.xdist_group("s3")

NIGHTS = 5
KEPT = [id_of(NIGHTS - 2), id_of(NIGHTS - 1)]


class Machine:
    """Runs volback on a bucket with some nights."""

    def __init__(
        self,
        run_volback: Volback,
        volume_name: Callable[..., str],
        path: Callable[[str], Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self._volback = run_volback
        self._monkeypatch = monkeypatch
        self._volume_name = volume_name
        self._path = path
        self._env = dict[str, str]()

    def __call__(self, *arguments: str) -> Any:
        return self._volback(*arguments, "--json", env=self._env).json["result"]

    def work(self, server: S3Server, directory: Path) -> None:
        """Prune, repack and restore in a bucket of that server."""
        for name, value in server.environment().items():
            self._monkeypatch.setenv(name, value)
        with server.bucket() as bucket:
            store = server.store(bucket, "docker")
            directory.mkdir()
            make_nights(directory, store, NIGHTS, files=24)
            self._env = server.environment() | {"VOLBACK_REPO": store.url, "VOLBACK_HOSTNAME": HOST}
            before, size = streams_of(store), size_of(store)
            self._condemn(store, before)
            self._free(store, before, size)
            self._restore(directory / "volume", before)

    def _condemn(self, store: Store, before: dict[str, tuple[str, bytes]]) -> None:
        pruned = self("prune", "--keep-last", "2")
        (repacked,) = pruned["repacked"]
        assert repacked["objects"] > 0
        assert pruned["condemned_bytes"] > 0
        assert pruned["requests"]["total"] > 20
        assert streams_of(store) == {id_: before[id_] for id_ in KEPT}
        found = self("check")["findings"]
        assert {one["kind"] for one in found} == {"condemned"}

    def _free(self, store: Store, before: dict[str, tuple[str, bytes]], size: int) -> None:
        pruned = self("prune", "--keep-last", "2", "--grace", "0s")
        assert (pruned["condemned"], pruned["repacked"]) == ([], [])
        assert self("check")["findings"] == []
        nothing = self("repack", "--dry-run")
        assert (nothing["repacked"], nothing["requests"]["total"] > 2) == ([], True)
        assert streams_of(store) == {id_: before[id_] for id_ in KEPT}
        assert size_of(store) < 0.75 * size
        assert [one.revision for one in Catalog(store).manifests() if isinstance(one, Manifest)] == [2, 2]

    def _restore(self, volume: Path, before: dict[str, tuple[str, bytes]]) -> None:
        for id_ in KEPT:
            name = self._volume_name("restored")
            restored = self("restore", f"{HOST}/{VOLUME}@{id_}", "--as", name, "--prove")
            assert restored["proven"]
            shown = self("show", f"{HOST}/{VOLUME}@{id_}")["backup"]
            assert shown["digest"] == before[id_][0]
        assert differences(fingerprint(volume), fingerprint(self._path(name))) == []


def streams_of(store: Store) -> dict[str, tuple[str, bytes]]:
    """The digest and the stream of each backup that is listed."""
    found = [one for one in Catalog(store).manifests() if isinstance(one, Manifest)]
    return {one.id: (one.digest, stream_of(store, one)) for one in found}


def size_of(store: Store) -> int:
    return sum(info.size_bytes for info in store.list())


@pytest.fixture
def machine(
    run_volback: Volback,
    volume_name: Callable[..., str],
    volume_path: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Machine:
    return Machine(run_volback, volume_name, volume_path, monkeypatch)


def test_prune_repacks_in_a_bucket_of_rclone(rclone: S3Server, machine: Machine, tmp_path: Path) -> None:
    machine.work(rclone, tmp_path / "nights")


def test_prune_repacks_in_a_bucket_of_seaweedfs(seaweedfs: S3Server, machine: Machine, tmp_path: Path) -> None:
    machine.work(seaweedfs, tmp_path / "nights")
