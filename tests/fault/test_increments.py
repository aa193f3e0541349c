"""Bad days of increments: a disk that is full in the middle of one, others that back up or remove meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Volback
from tests.support.halt import halted
from tests.support.repository import manifest_of, new_repository
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.store.local import LocalStore

MIB = 1024 * 1024


class Nights:
    """Increments of a small volume, by the program."""

    def __init__(self, run: Volback, name: str, root: Path, repository: Path) -> None:
        self.run, self.name, self.root, self.repository = run, name, root, repository

    def command(self, *arguments: str) -> list[str]:
        return ["--repo", str(self.repository), *arguments]

    def back_up(self, *, check_exit: int = 0, env: dict[str, str] | None = None) -> Manifest:
        (self.root / "changing").write_bytes(os.urandom(2000))
        self.run(*self.command("backup", self.name), check_exit=check_exit, env=env)
        return self.manifests()[-1]

    def manifests(self) -> list[Manifest]:
        """Oldest first."""
        store = LocalStore(self.repository)
        return sorted((manifest_of(store, key) for key in Catalog(store).backups()), key=lambda made: made.id)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.repository)) for path in self.repository.rglob("*") if path.is_file()}

    def assert_intact(self) -> None:
        self.run(*self.command("verify", "--data"))
        assert Catalog(LocalStore(self.repository)).litter() == []


def _fill(root: Path) -> None:
    (root / "large").write_bytes(random.Random(2).randbytes(MIB + 300_000))
    (root / "small").write_text("text")


@pytest.fixture
def nights(
    run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path],
    mount_small: Callable[[int], Path],
) -> Nights:  # fmt: skip
    """Their repository has room for 4 MiB."""
    repository = mount_small(4 * MIB)
    new_repository(repository)
    name = volume_factory("nights", fill=_fill)
    return Nights(run_volback, name, volume_path(name), repository)


def test_a_disk_that_is_full_in_the_middle_of_an_increment_costs_that_one_alone(nights: Nights) -> None:
    first, second = nights.back_up(), nights.back_up()
    before = nights.files()
    (nights.root / "new").write_bytes(os.urandom(4 * MIB))
    said = nights.run(*nights.command("backup", nights.name), check_exit=1).stderr
    assert "is full" in said
    assert nights.files() == before
    nights.assert_intact()
    (nights.root / "new").unlink()
    third = nights.back_up()
    assert (second.parent, third.parent, third.stored_bytes < 10_000) == (first.id, second.id, True)
    nights.assert_intact()


def test_an_increment_that_does_not_fit_into_its_target_leaves_nothing_there(
    nights: Nights, mount_small: Callable[[int], Path]
) -> None:
    nights.back_up()
    increment, target = nights.back_up(), mount_small(MIB)
    said = nights.run(*nights.command("restore", increment.name, "--to", str(target)), check_exit=1).stderr
    assert "no space left in directory" in said
    assert list(target.iterdir()) == []


def test_two_machines_that_back_up_one_volume_at_once_both_make_an_increment(nights: Nights) -> None:
    """Neither knows of the other's lock; both stand on the backup that was there."""
    first = nights.back_up()
    other = {"VOLBACK_STATE_DIR": str(nights.run.directory / "other-state")}
    with halted(nights.run, "before Catalog.commit", *nights.command("backup", nights.name)) as halt:
        nights.back_up(env=other)
    assert halt.ended.exit_code == 0, halt.ended.stderr
    one, two = nights.manifests()[1:]
    assert (one.parent, two.parent) == (first.id, first.id)
    nights.assert_intact()
    third = nights.back_up()
    assert third.parent == two.id
    nights.run(*nights.command("prove", nights.name))


def test_a_backup_whose_parent_is_removed_meanwhile_fails_or_is_whole(
    nights: Nights, volume_name: Callable[..., str]
) -> None:
    """From another machine, which knows nothing of this one's run."""
    first = nights.back_up()
    other = {"VOLBACK_STATE_DIR": str(nights.run.directory / "other-state")}
    with halted(nights.run, "before Catalog.commit", *nights.command("backup", nights.name)) as halt:
        nights.run(*nights.command("remove", first.name), env=other)
    assert halt.ended.exit_code == 7, halt.ended.stderr
    assert "was removed meanwhile" in halt.ended.stderr
    assert nights.files() == {"volback.json"}
    assert nights.back_up().kind == "full"
    restored = volume_name("restored")
    nights.run(*nights.command("restore", nights.name, "--as", restored, "--prove"))
