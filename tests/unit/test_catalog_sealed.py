"""Sealed documents: every changed or missing byte is found, later formats are refused by name."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.documents import DIGEST, ID, KEY, MANIFEST, SET, reseal
from volback.catalog.check import check_manifest
from volback.catalog.model import INDEX_OBJECTS_MAX, Manifest, ObjectDigest, RepositoryInfo, SetOf, Source, UsedObject
from volback.catalog.sealed import DOCUMENT_MAX_BYTES, open_document, seal_document
from volback.errors import FormatError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
OTHERS = [f"20261122T160254Z-{number:04x}" for number in range(INDEX_OBJECTS_MAX + 1)]


def used(**changes: object) -> UsedObject:
    """Half of another backup's data object."""
    half = UsedObject(id=OTHERS[0], name="data.tar.zst", size_bytes=100, used_bytes=50)
    return msgspec.structs.replace(half, **changes)


NEEDING: dict[str, object] = {
    "kind": "incremental",
    "parent": OTHERS[0],
    "uses": [used(), used(name="index.jsonl.zst"), used(id=OTHERS[1], name="data.zst")],
    "index_table_bytes": 50,
}


def test_a_sealed_manifest_is_plain_json_with_its_digest_last() -> None:
    data = seal_document(MANIFEST)
    assert data.endswith(b'"\n}\n')
    fields = json.loads(data)
    assert list(fields)[-1] == "sha256"
    body, _, _ = data.rpartition(b',\n  "sha256": "')
    assert fields["sha256"] == hashlib.sha256(body).hexdigest()
    assert open_document(data, Manifest, "it") == MANIFEST


@settings(deadline=None)
@given(st.lists(TEXT), st.dictionaries(TEXT, TEXT), TEXT, st.integers(0, 2**63 - 1))
def test_every_manifest_comes_back(warnings: list[str], labels: dict[str, str], name: str, size: int) -> None:
    source = Source(kind="volume", name=name, labels=labels)
    manifest = msgspec.structs.replace(MANIFEST, warnings=warnings, source=source, raw_bytes=size)
    data = seal_document(manifest)
    assert open_document(data, Manifest, "it") == manifest
    assert seal_document(manifest) == data


def test_a_name_that_is_not_utf8_in_a_warning_does_not_fail_the_backup() -> None:
    data = seal_document(msgspec.structs.replace(MANIFEST, warnings=["vanished: a\udcff"]))
    assert open_document(data, Manifest, "it").warnings == ["vanished: a\\udcff"]


def test_every_flipped_byte_is_found() -> None:
    data = seal_document(MANIFEST)
    for position in range(len(data)):
        bits = range(8) if position % 16 == 0 or position > len(data) - 100 else [position % 8]
        for bit in bits:
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises(FormatError):
                open_document(bytes(flipped), Manifest, "it")


def test_every_truncation_is_found() -> None:
    data = seal_document(MANIFEST)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            open_document(data[:length], Manifest, "it")


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\0" * 1000, b"\n", b'{"format":1}', b"}" * 83])
def test_garbage_is_not_a_document(garbage: bytes) -> None:
    with pytest.raises(FormatError):
        open_document(garbage, Manifest, "it")


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(FormatError):
        open_document(seal_document(MANIFEST) + b"\n", Manifest, "it")


def test_a_huge_document_is_refused_unread() -> None:
    with pytest.raises(FormatError, match="larger"):
        open_document(b" " * (DOCUMENT_MAX_BYTES + 1), Manifest, "it")


def test_a_later_format_is_refused_by_name_even_if_its_fields_are_others() -> None:
    with pytest.raises(FormatError, match="format 2; this volback reads formats 1 to 1") as caught:
        open_document(reseal(format=2, files="three", source=[]), Manifest, "manifest X")
    assert "newer volback" in str(caught.value.hint)


@pytest.mark.parametrize("number", [0, -1, "1", None, True, 1.5, 10**30])
def test_what_is_no_known_format_number_is_refused(number: object) -> None:
    with pytest.raises(FormatError):
        open_document(reseal(format=number), Manifest, "it")


def test_an_increment_that_uses_other_backups_is_valid_and_comes_back() -> None:
    increment = msgspec.structs.replace(MANIFEST, **NEEDING)
    assert check_manifest(increment, KEY) == increment
    assert open_document(seal_document(increment), Manifest, "it") == increment
    assert increment.depends_on == OTHERS[:2]
    assert (increment.data_key, MANIFEST.data_key) == (KEY.prefix + "data.zst", KEY.prefix + "data.tar.zst")


def test_an_increment_takes_its_index_from_a_few_others_at_most() -> None:
    uses = [used(id=id_, name="index.jsonl.zst") for id_ in OTHERS[:INDEX_OBJECTS_MAX]]
    increment = msgspec.structs.replace(MANIFEST, kind="incremental", uses=uses)
    assert check_manifest(increment, KEY) == increment


@pytest.mark.parametrize(
    "changes", [{"files": "x"}, {"kind": "partial"}, {"data": None}, {"tags": [1]}, {"id": 5}, {"set": {"id": "x"}}]
)
def test_wrong_types_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError, match="it cannot be read"):
        open_document(reseal(**changes), Manifest, "it")


def test_deep_nesting_is_refused() -> None:
    body = b'{\n  "format": 1,\n  "x": ' + b"[" * 500_000
    data = body + b',\n  "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'
    with pytest.raises(FormatError):
        open_document(data, RepositoryInfo, "it")


def test_unknown_fields_are_left_aside() -> None:
    assert open_document(reseal(colour="blue"), Manifest, "it") == MANIFEST


def test_a_sane_manifest_passes_the_check() -> None:
    assert check_manifest(MANIFEST, KEY) is MANIFEST


@pytest.mark.parametrize("made", [SET, msgspec.structs.replace(SET, project=None, volumes=["db"])])
def test_a_manifest_names_the_set_that_it_belongs_to(made: SetOf) -> None:
    manifest = msgspec.structs.replace(MANIFEST, set=made)
    assert check_manifest(open_document(seal_document(manifest), Manifest, "it"), KEY) == manifest


def test_a_manifest_from_before_there_were_sets_is_read() -> None:
    fields = msgspec.to_builtins(MANIFEST)
    del fields["set"]
    body = json.dumps(fields, indent=2).encode().removesuffix(b"\n}")
    data = body + b',\n  "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'
    assert open_document(data, Manifest, "it") == MANIFEST


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"id": "20261123T160254Z-0000"},
        {"host": "web2"},
        {"volume": "../db"},
        {"source": Source(kind="volume", name="uploads")},
        {"source": Source(kind="directory", name="db")},
        {"source": Source(kind="file", name="db")},
        {"files": -1},
        {"raw_bytes": 2**63},
        {"stored_bytes": -1},
        {"reused_bytes": -1},
        {"sockets_skipped": -5},
        {"data": ObjectDigest(size_bytes=-1, sha256=DIGEST)},
        {"index": ObjectDigest(size_bytes=1, sha256=DIGEST.upper())},
        {"data": ObjectDigest(size_bytes=1, sha256=DIGEST[1:])},
        {"digest": DIGEST + "\n"},
        {**NEEDING, "index_table_bytes": -1},
        {**NEEDING, "index_table_bytes": 2**63},
        {**NEEDING, "index_table_bytes": 51},
        {"index_table_bytes": 20},
        {**NEEDING, "kind": "full"},
        {"kind": "incremental", "uses": [used(id="../x")]},
        {"kind": "incremental", "uses": [used(id=ID)]},
        {"kind": "incremental", "uses": [used(size_bytes=-1, used_bytes=-1)]},
        {"kind": "incremental", "uses": [used(size_bytes=2**63)]},
        {"kind": "incremental", "uses": [used(used_bytes=-1)]},
        {"kind": "incremental", "uses": [used(used_bytes=101)]},
        {"kind": "incremental", "uses": [used(), used()]},
        {"kind": "incremental", "uses": [used(), used(name="data.zst")]},
        {"kind": "incremental", "uses": [used(id=id_, name="index.jsonl.zst") for id_ in OTHERS]},
        {**NEEDING, "parent": "../x"},
        {**NEEDING, "parent": ID},
        {"started_at": "yesterday"},
        {"ended_at": "2026-11-23T16:02:54"},
        {"ended_at": "2026-11-23T16:02:54+02:00"},
        {"set": SetOf(id="../x", volumes=["db"])},
        {"set": SetOf(id=ID, project="", volumes=["db"])},
        {"set": SetOf(id=ID, volumes=[])},
        {"set": SetOf(id=ID, volumes=["uploads"])},
        {"set": SetOf(id=ID, volumes=["db", "uploads", "db"])},
        {"set": SetOf(id=ID, volumes=["db", ""])},
    ],
    ids=str,
)
def test_an_impossible_manifest_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        check_manifest(msgspec.structs.replace(MANIFEST, **changes), KEY)
