"""Which set a restore of a project takes: the latest complete one, or the one that is named; no engine is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.library import Library, open_from
from tests.support.repository import make_backup, manifest_of
from volback.catalog.keys import BackupKey
from volback.catalog.model import SetOf
from volback.errors import NotFoundError, UsageError
from volback.operations.stored_sets import find_set
from volback.settings import Settings

VOLUMES = ["shop_db", "shop_uploads"]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return open_from(Settings(repository=str(tmp_path / "repository"), state=tmp_path / "state", host="web1"))


def set_id(day: int) -> str:
    return f"202611{day:02}T000000Z-5e70"


def back_up(
    library: Library, day: int, volumes: list[str] = VOLUMES, *, project: str | None = "shop", host: str = "web1"
) -> list[BackupKey]:
    """Backups of `volumes`, of a set whose volumes are `VOLUMES`."""
    made = SetOf(id=set_id(day), project=project, volumes=VOLUMES)
    store = library.repository.store
    return [
        make_backup(
            store, f"202611{day:02}T00000{at}Z-aaaa", volume=volume, host=host, data_bytes=10, set=made
        )
        for at, volume in enumerate(volumes, 1)
    ]  # fmt: skip


def test_the_latest_whole_set_is_taken(library: Library) -> None:
    back_up(library, 1)
    keys = back_up(library, 2)
    back_up(library, 3, project="other")
    make_backup(library.repository.store, "20261104T000000Z-aaaa", volume="shop_db", data_bytes=10)
    found, warnings = find_set(library.repository, "shop")
    assert (found.made.id, found.missing, warnings) == (set_id(2), [], [])
    assert found.backups == {key.volume: manifest_of(library.repository.store, key) for key in keys}


def test_a_set_from_the_future_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    settings = Settings(repository=str(tmp_path / "repository"), state=tmp_path / "state", host="web1")
    library = open_from(settings, now=lambda: datetime(2026, 11, 2, tzinfo=UTC))
    back_up(library, 1)
    back_up(library, 3)
    back_up(library, 4, project="other")
    found, warnings = find_set(library.repository, "shop")
    assert found.made.id == set_id(1)
    assert warnings == [f"set {set_id(3)} is from the future, so it is not the latest: {set_id(1)} is restored"]
    assert find_set(library.repository, "shop", set_id(3))[0].made.id == set_id(3)


def test_a_newer_set_that_is_not_whole_is_passed_over_with_a_warning(library: Library) -> None:
    back_up(library, 1)
    back_up(library, 2, ["shop_db"])
    found, warnings = find_set(library.repository, "shop")
    assert found.made.id == set_id(1)
    assert warnings == [f"set {set_id(2)} is newer, but lacks shop_uploads: {set_id(1)} is restored instead"]


def test_a_damaged_manifest_that_could_be_of_a_newer_set_is_reported(library: Library) -> None:
    back_up(library, 1)
    key = back_up(library, 2)[1]
    library.repository.store.put(key.manifest, [b"{}"])
    found, warnings = find_set(library.repository, "shop")
    assert found.made.id == set_id(1)
    assert f"backup web1/shop_uploads@{key.id} cannot be read" in warnings[0]
    assert f"set {set_id(2)} is newer, but lacks shop_uploads" in warnings[1]


def test_a_backup_that_joins_a_set_on_its_own_is_left_out(library: Library) -> None:
    back_up(library, 1)
    made = SetOf(id=set_id(1), project="shop", volumes=["precious", *VOLUMES])
    make_backup(library.repository.store, "20261101T000000Z-aaaa", volume="precious", data_bytes=10, set=made)
    found, _ = find_set(library.repository, "shop")
    assert sorted(found.backups) == VOLUMES


def test_backups_that_do_not_agree_on_their_set_are_not_a_whole_one(library: Library) -> None:
    back_up(library, 1)
    made = SetOf(id=set_id(1), project="shop", volumes=["precious", *VOLUMES])
    key = make_backup(library.repository.store, "20261101T000009Z-aaaa", volume="precious", data_bytes=10, set=made)
    with pytest.raises(NotFoundError, match="no set of project 'shop' is complete"):
        find_set(library.repository, "shop")
    found, warnings = find_set(library.repository, "shop", set_id(1))
    assert list(found.backups) == [key.volume]
    assert f"backup web1/shop_db@20261101T000001Z-aaaa is left out: the other backups of set {set_id(1)}" in "".join(
        warnings
    )


def test_a_set_is_named_by_the_beginning_of_its_id(library: Library) -> None:
    for day in (1, 2, 11):
        back_up(library, day)
    for prefix in (set_id(1), "20261101"):
        found, warnings = find_set(library.repository, "shop", prefix)
        assert (found.made.id, warnings) == (set_id(1), [])
    with pytest.raises(UsageError, match=f"--set 202611 matches 3 sets: {set_id(1)}, {set_id(2)}, {set_id(11)}"):
        find_set(library.repository, "shop", "202611")
    with pytest.raises(NotFoundError, match="no set 2025 of project 'shop'") as caught:
        find_set(library.repository, "shop", "2025")
    assert set_id(2) in str(caught.value.hint)
    with pytest.raises(UsageError, match="is not the beginning of a set's id"):
        find_set(library.repository, "shop", "latest")


def test_a_set_that_is_not_whole_is_only_taken_if_it_is_named(library: Library) -> None:
    back_up(library, 1, ["shop_db"])
    with pytest.raises(NotFoundError, match="no set of project 'shop' is complete") as caught:
        find_set(library.repository, "shop")
    assert f"--set: {set_id(1)}" in str(caught.value.hint)
    found, warnings = find_set(library.repository, "shop", "2026")
    assert (list(found.backups), found.missing) == (["shop_db"], ["shop_uploads"])
    assert warnings == [f"set {set_id(1)} is not complete: it lacks shop_uploads"]


def test_sets_of_other_projects_and_hosts_are_pointed_to(library: Library) -> None:
    back_up(library, 1, project="other")
    back_up(library, 2, host="web2")
    back_up(library, 3, project=None)
    with pytest.raises(NotFoundError, match="no set of project 'shop' on host web1") as caught:
        find_set(library.repository, "shop")
    assert caught.value.hint == "there are sets of web1/other, web2/shop"
    assert find_set(library.repository, "web2/shop")[0].made.id == set_id(2)


LABELS = {"com.docker.compose.project": "shop"}


def back_up_all(
    library: Library, day: int, volumes: list[str], *, lost: tuple[str, ...] = (), shop: tuple[str, ...] = ("shop_",)
) -> None:
    """A set as `backup --all` makes it; of the volumes that begin so the labels say that they are the project's."""
    made = SetOf(id=set_id(day), project=None, volumes=volumes)
    for at, volume in enumerate(volumes, 1):
        if volume not in lost:
            labels = LABELS if volume.startswith(shop) else {}
            id_ = f"202611{day:02}T00000{at}Z-bbbb"
            make_backup(library.repository.store, id_, volume=volume, data_bytes=10, set=made, labels=labels)


def back_up_alone(library: Library, day: int, volume: str, labels: dict[str, str]) -> None:
    make_backup(
        library.repository.store, f"202611{day:02}T000009Z-cccc", volume=volume, data_bytes=10, labels=labels
    )  # fmt: skip


def test_a_set_of_more_than_the_project_is_reduced_to_its_volumes(library: Library) -> None:
    back_up(library, 1)
    back_up_all(library, 2, ["blog_db", *VOLUMES])
    found, warnings = find_set(library.repository, "shop")
    assert (found.made.id, list(found.backups), found.missing, warnings) == (set_id(2), VOLUMES, [], [])
    assert find_set(library.repository, "shop", set_id(2))[0].backups.keys() == set(VOLUMES)


def test_what_other_projects_lack_of_a_set_does_not_matter(library: Library) -> None:
    back_up_all(library, 1, ["blog_db", *VOLUMES])
    back_up_all(library, 2, ["blog_db", *VOLUMES], lost=("blog_db",))
    found, warnings = find_set(library.repository, "shop")
    assert (found.made.id, found.missing, warnings) == (set_id(2), [], [])


def test_a_set_in_which_a_volume_of_the_project_failed_is_passed_over(library: Library) -> None:
    back_up_all(library, 1, ["blog_db", *VOLUMES])
    back_up_all(library, 2, ["blog_db", *VOLUMES], lost=("shop_uploads",))
    found, warnings = find_set(library.repository, "shop")
    assert found.made.id == set_id(1)
    assert warnings == [f"set {set_id(2)} is newer, but lacks shop_uploads: {set_id(1)} is restored instead"]


def test_a_set_without_a_newer_volume_of_the_project_is_not_whole(library: Library) -> None:
    back_up_all(library, 1, VOLUMES)
    back_up_alone(library, 2, "shop_new", LABELS)
    with pytest.raises(NotFoundError, match="no set of project 'shop' is complete"):
        find_set(library.repository, "shop")
    found, warnings = find_set(library.repository, "shop", set_id(1))
    assert (list(found.backups), found.missing) == (VOLUMES, ["shop_new"])
    assert warnings == [f"set {set_id(1)} is not complete: it lacks shop_new"]


def test_a_volume_that_is_backed_up_alone_is_named(library: Library) -> None:
    back_up_alone(library, 1, "shop_alone", LABELS)
    back_up_alone(library, 1, "blog_alone", {})
    back_up_all(library, 2, VOLUMES)
    found, warnings = find_set(library.repository, "shop")
    assert list(found.backups) == VOLUMES
    assert warnings == [
        f"volume 'shop_alone' of project 'shop' is not in set {set_id(2)}, and not restored:"
        " volback restore web1/shop_alone"
    ]


def test_an_external_volume_is_known_by_this_machine_alone(library: Library) -> None:
    back_up_all(library, 1, ["shared", *VOLUMES])
    assert list(find_set(library.repository, "shop")[0].backups) == VOLUMES

    def is_known(host: str, volume: str) -> bool:
        return (host, volume) == ("web1", "shared")

    found, _ = find_set(library.repository, "shop", is_known=is_known)
    assert list(found.backups) == ["shared", *VOLUMES]


def test_sets_that_hold_nothing_of_the_project_are_not_its_own(library: Library) -> None:
    back_up_all(library, 1, ["blog_db", "blog_uploads"])
    with pytest.raises(NotFoundError, match="no set of project 'shop' on host web1"):
        find_set(library.repository, "shop")


def test_ids_of_one_second_are_in_no_order(library: Library) -> None:
    made = SetOf(id="20261101T000000Z-ffff", project=None, volumes=VOLUMES)
    for at, volume in enumerate(VOLUMES):
        id_ = f"20261101T000000Z-000{at}"
        make_backup(library.repository.store, id_, volume=volume, data_bytes=10, set=made, labels=LABELS)
    assert find_set(library.repository, "shop")[0].made == made
