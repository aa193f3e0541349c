"""Fuzz of every parser of the catalog: garbage and mutated documents give VolbackError or a checked value, quickly."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections.abc import Callable, Iterator

import msgspec
import pytest

from tests.support.documents import MANIFEST, SET
from tests.unit.test_catalog_index import UNIT
from volback.catalog.check import check_manifest
from volback.catalog.index import decode_unit, encode_unit, read_units
from volback.catalog.keys import BackupKey, decode_part, parse_backup_key, parse_manifest_key
from volback.catalog.model import Manifest, RepositoryInfo
from volback.catalog.reference import parse_reference
from volback.catalog.sealed import open_document, seal_document
from volback.errors import VolbackError

SEED = 20261123
ROUNDS = 3000
MEMORY_MAX_BYTES = 64 * 1024 * 1024
SPICE = [
    b"\0",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"-1",
    b"9" * 40,
    b"1e999",
    b"null",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"\n",
]
SPICE += [b"../", b"//", b"@", b"%", b"%FF", b",", b"true", b"\xed\xa0\x80", b"[" * 3000, b"9" * 5000]

Parser = Callable[[bytes], object]


def mutated(seeds: list[bytes], rounds: int) -> Iterator[bytes]:
    """Seeds with bytes flipped, cut, doubled and spiced; every tenth is plain noise."""
    rng = random.Random(SEED)
    for number in range(rounds):
        if number % 10 == 0:
            yield rng.randbytes(rng.randrange(300))
            continue
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            action = rng.randrange(5)
            if action == 0 and data:
                data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
            elif action == 1:
                del data[at : min(to, at + 40)]
            elif action == 2:
                data[at:at] = data[at : min(to, at + 200)]
            else:
                data[at : min(to, at + rng.randrange(4))] = rng.choice(SPICE)
        yield bytes(data)


def resealed(body: bytes) -> bytes:
    """A good digest over bad bytes: what lies behind the digest is fuzzed, too."""
    return body + b',\n  "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def manifest(data: bytes) -> object:
    return check_manifest(open_document(data, Manifest, "it"), BackupKey(MANIFEST.host, MANIFEST.volume, MANIFEST.id))


def key(data: bytes) -> object:
    text = data.decode("utf-8", "surrogateescape")
    return parse_manifest_key(text), parse_backup_key(text), decode_part(text)


LINE = encode_unit(UNIT)
BODY = seal_document(msgspec.structs.replace(MANIFEST, set=SET)).rpartition(b",")[0]
REFERENCES = [b"db@2026", b"web1/db@20261123T160254Z-3f9c", b"web1//srv/data@2026", b"/srv/me%40home"]
KEYS = [f"web1/%2Fsrv/{MANIFEST.id}/manifest.json".encode(), b"%C3%A9", b"a.b-c_d"]
CASES: dict[str, tuple[Parser, list[bytes]]] = {
    "unit": (decode_unit, [LINE]),
    "units": (lambda data: list(read_units([data[:70], data[70:]])), [LINE * 3]),
    "manifest": (manifest, [seal_document(MANIFEST)]),
    "manifest behind a good digest": (lambda data: manifest(resealed(data)), [BODY]),
    "repository behind a good digest": (
        lambda data: open_document(resealed(data), RepositoryInfo, "it"),
        [b'{\n  "format": 1,\n  "id": "abc"'],
    ),
    "reference": (lambda data: parse_reference(data.decode("utf-8", "surrogateescape")), REFERENCES),
    "key": (key, KEYS),
}


@pytest.mark.parametrize("name", CASES)
def test_a_parser_of_stored_bytes_raises_only_our_errors(name: str) -> None:
    parse, seeds = CASES[name]
    accepted, messages = 0, list[str]()
    tracemalloc.start()
    try:
        for data in mutated(seeds, ROUNDS):
            try:
                parse(data)
                accepted += 1
            except VolbackError as error:
                messages.append(error.message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert accepted + len(messages) == ROUNDS
    assert len(messages) > ROUNDS // 10
    assert max(map(len, messages)) < 20_000
    assert peak < MEMORY_MAX_BYTES


@pytest.mark.parametrize("name", CASES)
def test_the_seeds_themselves_are_accepted(name: str) -> None:
    parse, seeds = CASES[name]
    if name == "key":
        assert parse_manifest_key(seeds[0].decode()) is not None
        seeds = seeds[1:]
    for seed in seeds:
        parse(seed)
