"""Which backups several volumes are restored from: of one set where they have one, and else the latest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.support.library import Library, open_from
from tests.support.repository import make_backup
from volback.catalog.keys import BackupKey
from volback.catalog.model import SetOf
from volback.errors import FormatError, NotFoundError, UsageError
from volback.operations.together import Chosen, choose_all, choose_named
from volback.settings import Settings

AB = ["a", "b"]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return open_from(Settings(repository=str(tmp_path / "repository"), state=tmp_path / "state", host="web1"))


def set_id(day: int) -> str:
    return f"202611{day:02}T000000Z-5e70"


def back_up(library: Library, day: int, volumes: list[str], *, of: list[str] | None = None, project: str = "") -> None:
    """Backups of `volumes`, of the set `of` (none: each is alone)."""
    made = None if of is None else SetOf(id=set_id(day), volumes=of)
    labels = {"com.docker.compose.project": project} if project else {}
    for at, volume in enumerate(volumes, 1):
        id_ = f"202611{day:02}T00000{at}Z-aaaa"
        make_backup(library.repository.store, id_, volume=volume, data_bytes=10, set=made, labels=labels)


def days(chosen: Chosen) -> dict[str, int]:
    """On which day of the month the backup of each volume was made."""
    return {manifest.volume: int(manifest.id[6:8]) for manifest in chosen.backups}


def test_the_latest_of_each_are_taken_and_their_set_is_named(library: Library) -> None:
    back_up(library, 1, AB, of=AB)
    back_up(library, 2, AB, of=AB)
    chosen = choose_named(library.repository, ["b", "a", "b"])
    assert (days(chosen), chosen.warnings) == ({"b": 2, "a": 2}, [])
    assert chosen.made is not None
    assert chosen.made.id == set_id(2)


def test_a_set_in_which_one_of_them_failed_is_passed_over(library: Library) -> None:
    back_up(library, 1, AB, of=AB)
    back_up(library, 2, ["a"], of=AB)
    chosen = choose_named(library.repository, AB)
    assert days(chosen) == {"a": 1, "b": 1}
    assert chosen.warnings == [
        f"set {set_id(2)} has no backup of b",
        "web1/a@20261102T000001Z-aaaa is newer; web1/a@20261101T000001Z-aaaa is of one set with the others",
    ]
    assert days(choose_named(library.repository, ["a"])) == {"a": 2}


def test_a_backup_that_was_made_alone_is_not_passed_over_for_an_old_set(library: Library) -> None:
    back_up(library, 1, AB, of=AB)
    back_up(library, 2, ["a"])
    chosen = choose_named(library.repository, AB)
    assert (days(chosen), chosen.made, chosen.warnings) == ({"a": 2, "b": 1}, None, [])


def test_where_no_set_has_all_of_them_each_comes_from_its_latest(library: Library) -> None:
    back_up(library, 1, ["b"])
    back_up(library, 2, ["a"], of=AB)
    chosen = choose_named(library.repository, AB)
    assert (days(chosen), chosen.made) == ({"a": 2, "b": 1}, None)


def test_a_backup_that_joins_a_set_on_its_own_is_not_of_it(library: Library) -> None:
    back_up(library, 1, AB, of=AB)
    back_up(library, 2, ["a"], of=AB)
    make_backup(
        library.repository.store, "20261102T000009Z-aaaa", volume="b", data_bytes=10,
        set=SetOf(id=set_id(2), volumes=["a", "b", "c"]),
    )  # fmt: skip
    chosen = choose_named(library.repository, AB)
    assert (days(chosen), chosen.made) == ({"a": 2, "b": 2}, None)
    assert chosen.warnings == [f"set {set_id(2)} has no backup of a"]


def test_a_backup_that_is_named_by_its_id_is_taken(library: Library) -> None:
    back_up(library, 1, AB, of=AB)
    back_up(library, 2, AB, of=AB)
    assert days(choose_named(library.repository, ["a@20261101", "b"])) == {"a": 1, "b": 2}
    with pytest.raises(UsageError, match="would be restored into one volume"):
        choose_named(library.repository, ["a@20261101", "a"])


def test_a_set_can_be_named(library: Library) -> None:
    for day in (1, 2):
        back_up(library, day, AB, of=[*AB, "c"])
    back_up(library, 3, ["c"])
    assert days(choose_named(library.repository, AB, "20261101")) == {"a": 1, "b": 1}
    chosen = choose_all(library.repository, "20261102")
    assert (days(chosen), chosen.missing) == ({"a": 2, "b": 2}, ("c",))
    assert chosen.warnings == [f"set {set_id(2)} is not complete: it lacks c"]
    with pytest.raises(UsageError, match=f"--set 202611 matches 2 sets: {set_id(2)}, {set_id(1)}"):
        choose_named(library.repository, ["a"], "202611")
    with pytest.raises(NotFoundError, match=f"set {set_id(1)} has no backup of c"):
        choose_named(library.repository, ["a", "c"], "20261101")
    with pytest.raises(NotFoundError, match="no set 2025"):
        choose_all(library.repository, "2025")
    with pytest.raises(UsageError, match="names a backup by its id, and --set a set"):
        choose_named(library.repository, ["a@2026"], "2026")


def test_all_are_the_latest_but_for_projects_which_fit_together(library: Library) -> None:
    shop, rest = ["shop_a", "shop_b"], ["x", "y"]
    for project, volumes in (("shop", shop), ("", rest)):
        back_up(library, 1, volumes, of=[*shop, *rest], project=project)
    back_up(library, 2, ["shop_a"], of=[*shop, *rest], project="shop")
    back_up(library, 2, ["x"], of=[*shop, *rest])
    assert days(choose_all(library.repository)) == {"shop_a": 1, "shop_b": 1, "x": 2, "y": 1}


def test_anonymous_volumes_that_no_container_used_are_left_out_of_all(library: Library) -> None:
    dead, alive = "0" * 64, "1" * 64
    back_up(library, 1, ["a", dead, alive], of=["a", dead, alive])
    key = BackupKey("web1", alive, next(k.id for k in library.repository.catalog.backups("web1") if k.volume == alive))
    used = msgspec.structs.replace(library.repository.catalog.read(key), containers=["db-1"])
    library.repository.store.delete(used.manifest_key)
    library.repository.catalog.commit(used)
    chosen = choose_all(library.repository)
    assert (days(chosen), chosen.is_partial) == ({"a": 1, alive: 1}, False)
    assert chosen.warnings == ["1 anonymous volume that no container used: left out; --anonymous restores them too"]
    assert days(choose_all(library.repository, anonymous=True)) == {"a": 1, dead: 1, alive: 1}
    assert days(choose_all(library.repository, set_id(1))) == {"a": 1, dead: 1, alive: 1}, "a set is named"


def test_what_cannot_be_restored_among_all_is_named(library: Library) -> None:
    back_up(library, 1, ["a", "damaged", "/srv/www"])
    library.repository.store.put("web1/damaged/20261101T000002Z-aaaa/manifest.json", [b"{}"])
    chosen = choose_all(library.repository)
    assert (days(chosen), chosen.is_partial) == ({"a": 1}, True)
    assert chosen.warnings == ["directory /srv/www is left out: volback restore web1//srv/www --to DIR"]
    (error,) = chosen.errors
    assert isinstance(error, FormatError)
    assert error.message.startswith("volume 'damaged' was not restored: ")


def test_a_host_without_backups_has_nothing_to_restore(library: Library) -> None:
    with pytest.raises(NotFoundError, match="no backup of host web1"):
        choose_all(library.repository)
