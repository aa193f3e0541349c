"""Keys: names of any kind become key parts and come back; ids sort by time."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volback.catalog.keys import (
    BackupKey,
    backup_prefix,
    decode_part,
    encode_part,
    is_id_prefix,
    new_id,
    parse_backup_key,
    parse_manifest_key,
    short_name,
)
from volback.errors import UsageError
from volback.store.base import check_key

ID = "20261123T160254Z-3f9c"
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(deadline=None)
@given(NAMES)
def test_any_name_is_a_valid_key_part_and_comes_back(name: str) -> None:
    part = encode_part(name)
    assert check_key(part) == part
    assert "/" not in part
    assert decode_part(part) == name


@settings(deadline=None)
@given(NAMES, NAMES)
def test_manifest_keys_give_their_names_back(host: str, volume: str) -> None:
    key = BackupKey(host, volume, ID)
    assert parse_manifest_key(check_key(key.manifest)) == key
    assert parse_manifest_key(key.data) is None
    assert parse_backup_key(key.data) == key


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("db", "db"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        (".hidden", ".hidden"),
        ("/srv/data", "%2Fsrv%2Fdata"),
        ("é", "%C3%A9"),
        ("a%b", "a%25b"),
        ("x" * 255, "x" * 255),
    ],
)
def test_names_encode_as_the_format_says(name: str, part: str) -> None:
    assert encode_part(name) == part


@pytest.mark.parametrize("name", ["", "\udc80"])
def test_names_that_no_key_can_hold_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        encode_part(name)


@pytest.mark.parametrize("part", ["", ".", "..", "%2f", "%41", "%", "a/b", "%FF", "é", "%2E.", "a\n", "%ED%A0%80"])
def test_text_that_encoding_never_makes_is_refused(part: str) -> None:
    with pytest.raises(UsageError):
        decode_part(part)


def test_prefix_is_host_volume_id() -> None:
    assert backup_prefix("web1", "/srv/data", ID) == f"web1/%2Fsrv%2Fdata/{ID}/"
    with pytest.raises(UsageError):
        backup_prefix("web1", "db", "../../etc")


@pytest.mark.parametrize(
    "key",
    [
        "volback.json",
        f"h/v/{ID}",
        f"h/v/{ID}/data.tar.zst",
        f"h/v/{ID}/x/manifest.json",
        f"h/v/{ID}\n/manifest.json",
        f"h/%2e/{ID}/manifest.json",
        f"h//{ID}/manifest.json",
        "h/v/2026/manifest.json",
        "",
    ],
)
def test_other_keys_are_not_manifests(key: str) -> None:
    assert parse_manifest_key(key) is None


def test_an_id_is_in_utc() -> None:
    now = datetime(2026, 11, 23, 18, 2, 54, 999_999, timezone(timedelta(hours=2)))
    assert new_id(now, "3f9c") == ID


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 1)), st.integers(1, 10**6))
def test_ids_sort_by_time(then: datetime, later_s: int) -> None:
    then = then.replace(tzinfo=UTC)
    assert new_id(then, "ffff") < new_id(then + timedelta(seconds=later_s), "0000")


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-300, 2), st.integers(0, 0xFFFF)), max_size=40))
def test_ids_of_one_writer_increase_whatever_its_clock_does_within_minutes(steps: list[tuple[int, int]]) -> None:
    now, made = datetime(2026, 11, 23, 12, tzinfo=UTC), list[str]()
    for step_s, digits in steps:
        made.append(new_id(now + timedelta(seconds=step_s), f"{digits:04x}", after=made))
    assert made == sorted(set(made))


def test_the_last_id_of_a_second_is_followed_by_the_next_second() -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert new_id(now, "0001", after=["20261123T120000Z-ffff"]) == "20261123T120001Z-0001"
    assert new_id(now, "0001", after=["20261123T120000Z-00ff", "20261123T115959Z-ffff"]) == "20261123T120000Z-0101"


def test_an_id_does_not_follow_one_from_the_future() -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    there = ["20261123T115959Z-ffff", "20261123T121001Z-0000", "20271123T120000Z-0000", "99999999T999999Z-0000"]
    assert new_id(now, "0001", after=there) == "20261123T120000Z-0001"
    assert new_id(now, "0001", after=["20261123T121000Z-0000"]) == "20261123T121000Z-0002"


@pytest.mark.parametrize("random_hex", ["", "3F9C", "3f9", "3f9cc", "3f9c\n"])
def test_a_bad_random_part_is_refused(random_hex: str) -> None:
    with pytest.raises(UsageError):
        new_id(datetime(2026, 11, 23, tzinfo=UTC), random_hex)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(UsageError):
        new_id(datetime(2026, 11, 23), "3f9c")


def test_every_beginning_of_an_id_is_an_id_prefix() -> None:
    assert all(is_id_prefix(ID[:length]) for length in range(1, len(ID) + 1))
    assert not any(is_id_prefix(text) for text in ["", "x", ID + "0", "2026-", "20261123t", ID[:-1] + "F", "2026\n"])


@pytest.mark.parametrize("name", ["x" * 256, "é" * 43, "/srv/" + "ж" * 45, "/srv/" + "long/" * 100])
def test_a_long_name_is_shortened_by_a_digest(name: str) -> None:
    part = encode_part(name)
    assert len(part) <= 255
    assert part == encode_part(short_name(name)) != encode_part(name + "x")
    assert decode_part(part) == short_name(name) == short_name(short_name(name))
    assert short_name(name).startswith(name[:20])
    key = BackupKey("web1", name, ID)
    assert parse_manifest_key(key.manifest) == key


def test_the_short_form_stays_as_it_is() -> None:
    """Names in existing repositories depend on it."""
    assert short_name("é" * 43) == "é" * 30 + "\u2026" + hashlib.sha256(("é" * 43).encode()).hexdigest()[:32]
