"""References: what a manifest lists stays, whatever became of the manifest of the backup that it belongs to."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.documents import MANIFEST
from volback.catalog.keys import BackupKey
from volback.catalog.listing import damaged
from volback.catalog.model import Manifest, UsedObject
from volback.catalog.references import references_of
from volback.errors import FormatError, IntegrityError

IDS = [f"202611{day:02}T000000Z-aaaa" for day in range(1, 13)]


def backup(id_: str, uses: list[str]) -> Manifest:
    """A backup that uses data of those others, which may not have a manifest."""
    used = [UsedObject(id=other, name="data.zst", size_bytes=10, used_bytes=5) for other in uses]
    return msgspec.structs.replace(MANIFEST, id=id_, kind="incremental", uses=used)


def key_of(id_: str) -> BackupKey:
    return BackupKey(MANIFEST.host, MANIFEST.volume, id_)


def data_of(id_: str) -> str:
    return BackupKey(MANIFEST.host, MANIFEST.volume, id_).increment


histories = st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from(range(12)))), min_size=12, max_size=12)


@settings(max_examples=300, deadline=None)
@given(histories)
def test_data_is_unneeded_when_no_manifest_that_is_left_lists_it(history: list[tuple[bool, set[int]]]) -> None:
    left = {
        id_: [IDS[other] for other in sorted(uses) if other < number]
        for number, (id_, (is_left, uses)) in enumerate(zip(IDS, history, strict=True))
        if is_left
    }
    unneeded = references_of([backup(id_, uses) for id_, uses in left.items()]).unneeded(map(data_of, IDS))
    for id_ in IDS:
        is_used = id_ in left or any(id_ in uses for uses in left.values())
        assert (data_of(id_) in unneeded) == (not is_used)


def test_users_are_the_backup_itself_and_those_that_list_it() -> None:
    users = references_of([backup(IDS[1], [IDS[0]]), backup(IDS[2], [IDS[0], IDS[1]])]).users
    assert users[data_of(IDS[0])] == {key_of(IDS[1]), key_of(IDS[2])}
    assert users[data_of(IDS[1])] == {key_of(IDS[1]), key_of(IDS[2])}
    assert users[data_of(IDS[2])] == {key_of(IDS[2])}


@settings(max_examples=300, deadline=None)
@given(histories, st.sets(st.sampled_from(range(12))))
def test_a_removal_frees_what_no_other_references(history: list[tuple[bool, set[int]]], removed: set[int]) -> None:
    made = [backup(id_, [IDS[other] for other in sorted(uses) if other < number])
            for number, (id_, (_, uses)) in enumerate(zip(IDS, history, strict=True))]  # fmt: skip
    gone = {key_of(IDS[number]) for number in removed}
    needs = references_of(made)
    left = references_of([one for one in made if one.key not in gone])
    assert needs.without(gone) == left
    assert needs.freed_by(gone) == needs.users.keys() - left.users.keys()
    assert left.joined(references_of([one for one in made if one.key in gone])) == needs


def test_unreadable_manifests_make_all_unknown() -> None:
    lost = [key_of(id_) for id_ in IDS[:2]]
    needs = references_of([damaged(key, FormatError("it is damaged")) for key in lost])
    with pytest.raises(IntegrityError, match=f"web1/db@{IDS[0]} and 1 more needs: it is damaged") as caught:
        needs.check_known("data")
    assert caught.value.hint == f"if that is lost, volback remove web1/db@{IDS[0]} web1/db@{IDS[1]} first"
    needs.without(lost).check_known("data")
