"""Prune and repack as real processes that SIGKILL ends at 32 steps: nothing is lost, and the next prune ends the work.

On a local disk, where all goes at once, and where other machines may use the repository, and data is condemned first.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.support.engine import Volback
from tests.support.halt import struck
from tests.support.library import Library, open_from
from tests.support.nights import LATER, id_of, make_nights, stream_of
from tests.support.steps import spread
from tests.support.stored import HOST
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.operations.check import check
from volback.operations.prune import prune
from volback.operations.repack_plan import Packing
from volback.policy.keep import KeepRules
from volback.settings import Settings
from volback.store.local import LocalStore

NIGHTS = 5
KEPT = [id_of(NIGHTS - 2), id_of(NIGHTS - 1)]
POINTS = 16
PRUNE = ("prune", "--keep-last", "2", "--grace", "0s")


class _Nights:
    """A repository of some nights, and what each backup holds."""

    def __init__(self, directory: Path) -> None:
        self.store = LocalStore(directory / "repository")
        make_nights(directory, self.store, NIGHTS, files=24)
        self.directory = directory
        self.before = self.now(self.store)

    def now(self, store: LocalStore) -> dict[str, tuple[str, bytes]]:
        """The digest and the stream of each backup that is listed."""
        found = [one for one in Catalog(store).manifests() if isinstance(one, Manifest)]
        return {one.id: (one.digest, stream_of(store, one)) for one in found}


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> _Nights:
    return _Nights(tmp_path_factory.mktemp("nights"))


class _Place:
    """A copy of it that a process prunes."""

    def __init__(self, nights: _Nights, directory: Path, *, is_shared: bool) -> None:
        shutil.copytree(nights.directory / "repository", directory / "repository")
        self._nights = nights
        self._volback = Volback(directory, set())
        self.store = LocalStore(directory / "repository")
        self._shared = {"STRIKE_SHARED": "yes"} if is_shared else {}

    def struck(self, number: int, step: str | int, **env: str) -> int:
        machine = {"VOLBACK_HOSTNAME": HOST, "DOCKER_HOST": "unix:///nonexistent"}
        return struck(self._volback, number, step, *PRUNE, env=machine | self._shared | env)

    def assert_whole(self) -> None:
        """Each backup that is listed has the digest that it had, and comes back bit for bit; no object is missing."""
        listed = self._nights.now(self.store)
        assert set(KEPT) <= listed.keys()
        assert listed == {id_: self._nights.before[id_] for id_ in listed}
        assert check(self._library().repository).wrong == []

    def assert_ended(self) -> None:
        """The next prune, of the same machine, leaves what is needed alone; where a repack condemns what it replaces,
        the one after that."""
        for _ in range(2 if self._shared else 1):
            result = prune(*self._library(), KeepRules(last=2), grace_s=0, packing=Packing())
            assert (result.errors, result.interrupted) == ((), None)
        self.assert_whole()
        assert [key.id for key in Catalog(self.store).backups()] == KEPT
        assert check(self._library().repository).findings == ()
        assert list((self._volback.state / "runs").iterdir()) == []

    def _library(self) -> Library:
        settings = Settings(self.store.url, self._volback.state, engine="unix:///nonexistent", host=HOST)
        return open_from(settings, now=lambda: LATER)


@pytest.mark.parametrize("is_shared", [False, pytest.param(True, marks=pytest.mark.long)], ids=["local", "shared"])
def test_a_prune_that_repacks_is_killed(
    nights: _Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config, is_shared: bool
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    if is_shared:
        monkeypatch.setattr("volback.store.local.is_local_filesystem", lambda _: False)
    log = tmp_path / "log"
    whole = _Place(nights, tmp_path / "whole", is_shared=is_shared)
    assert whole.struck(signal.SIGKILL, 0, STRIKE_LOG=str(log)) == 0
    whole.assert_ended()
    names = log.read_text().splitlines()
    assert {"after LocalStore.put", "before LocalStore.delete"} <= set(names)
    assert any(name == "end of put data.2.zst" for name in names), "something was repacked"
    steps = list(enumerate(names, 1))
    for step, name in steps if pytestconfig.getoption("every_step") else spread(steps, f"shared {is_shared}", POINTS):
        place = _Place(nights, tmp_path / str(step), is_shared=is_shared)
        assert place.struck(signal.SIGKILL, step) == -signal.SIGKILL, name
        place.assert_whole()
        place.assert_ended()
