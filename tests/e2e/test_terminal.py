"""Names of others on a terminal: whatever a repository holds, no command prints a control character of it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.documents import MANIFEST
from tests.support.engine import Volback
from tests.support.forged import sealed
from tests.support.stored import store_units
from volback.archive.codec import ZstdCodec
from volback.catalog.index import encode_unit
from volback.catalog.keys import BackupKey
from volback.catalog.reference import Reference, parse_reference
from volback.catalog.units import Frame, Member, Piece, Unit
from volback.cli.complete import complete_backup
from volback.printable import has_control
from volback.store.local import LocalStore

EVIL = "a\x1b[2J\x1b]0;t\x07\x08\x9b31m\u202e\u2066\u200f\u2028\x7f\r\nerror: all is well\tz"
"""Escape sequences of one and of two characters, bidirectional and line controls, a line of its own."""
HOST, VOLUME = f"h{EVIL}", f"/srv/{EVIL}"
IDS = ["20261101T000000Z-aaaa", "20261102T000000Z-aaaa", "20261103T000000Z-aaaa"]
WELL, DAMAGED, ODD = (str(Reference(HOST, VOLUME, id_)) for id_ in IDS)
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]")


def fields(id_: str, **changes: Any) -> dict[str, Any]:
    """A manifest with something in each of its texts."""
    made: dict[str, Any] = msgspec.to_builtins(MANIFEST)
    source = {"kind": "directory", "name": VOLUME, "driver": EVIL, "options": {EVIL: EVIL}, "labels": {EVIL: EVIL}}
    texts = {"containers": [EVIL], "excludes": [EVIL], "warnings": [EVIL], "tags": [EVIL], "volback": EVIL}
    made_of = {"id": id_, "project": EVIL, "volumes": [VOLUME, EVIL]}
    made |= {"id": id_, "host": HOST, "volume": VOLUME, "source": source, "engine_id": EVIL, "set": made_of, **texts}
    return made | changes


@pytest.fixture
def run(run_volback: Volback) -> Volback:
    """With a repository whose every text is hostile: one backup is well formed, one damaged, one lies."""
    run_volback("init")
    store = LocalStore(run_volback.repository)
    raw = b"0" * 1024
    stored = ZstdCodec().seal(raw)
    frame = Frame(IDS[0], 0, len(stored), len(raw))
    piece = Piece(frame, 0, [len(raw)], hashlib.sha256(raw).digest())
    paths = sorted(f"{EVIL}{number}".encode() for number in range(2))
    members = [Member(path, "l", 0, 1, 1, 1, 0o777, 0, 0, EVIL.encode(), at) for at, path in enumerate(paths)]
    built = store_units(store, IDS[0], stored, [Unit("group", [piece], members)])
    index = b"".join(store.open(built.key.index))
    for id_ in IDS:
        key = BackupKey(HOST, VOLUME, id_)
        store.put(key.data, [stored])
        store.put(key.index, [index])
        store.put(key.manifest, [sealed(fields(id_, index=msgspec.to_builtins(built.index)))])
    store.put(BackupKey(HOST, VOLUME, IDS[1]).manifest, [b"{" + EVIL.encode() + b"}"])
    lies = fields(IDS[2], kind="full", started_at=EVIL, index=msgspec.to_builtins(built.index))
    store.put(BackupKey(HOST, VOLUME, IDS[2]).manifest, [sealed(lies)])
    assert encode_unit(Unit("group", [piece], members))
    return run_volback


COMMANDS = [
    ["list", "--all-hosts"],
    ["list", WELL],
    ["show", WELL],
    ["show", DAMAGED],
    ["show", ODD],
    ["show", str(Reference(HOST, VOLUME, "2027"))],
    ["cat", WELL, "no/such"],
    ["cat", WELL, EVIL],
    ["ls", WELL, "--check"],
    ["verify", "--data"],
    ["verify", "--data", WELL],
    ["prune", "--all-hosts", "--keep-last", "1", "--dry-run"],
    ["copy", WELL, "--to", "other"],
    ["remove", str(Reference(HOST, VOLUME, "2025"))],
    ["export", WELL, "x.tar"],
    ["restore", WELL, "--as", "volback-test-never"],
    ["restore", "--project", str(Reference(HOST, EVIL))],
    ["restore", "--project", EVIL],
    ["prove", WELL],
    ["doctor"],
    ["backup", EVIL],
    [EVIL],
    ["list", f"--{EVIL}"],
    ["remove", WELL, DAMAGED],
]
JSON = [["list", "--all-hosts"], ["show", WELL], ["ls", WELL], ["verify", "--data"], ["show", DAMAGED]]
CALLS = [
    *(["--verbose", *command] for command in COMMANDS),
    *(["--json", *command] for command in JSON),
    ["--debug", "show", DAMAGED],
    ["--log-format", "json", "verify"],
]


def test_no_command_prints_a_control_character(run: Volback) -> None:
    for call in CALLS:
        said = run(*call, check_exit=None)
        for stream in (said.stdout, said.stderr):
            assert RAW.findall(stream) == [], (call, stream)
            assert not any(line.startswith("error: all is well") for line in stream.splitlines()), call
        if "--json" in call:
            json.loads(said.stdout)


def test_what_is_printed_can_be_typed_again(run: Volback) -> None:
    for name in (WELL, DAMAGED, ODD):
        assert not has_control(name)
        assert parse_reference(name) == Reference(HOST, VOLUME, name.rpartition("@")[2])
    assert WELL in run("list", "--all-hosts", check_exit=7).stdout


def test_a_completion_offers_only_what_can_be_printed(
    run: Volback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key, value in run.environment().items():
        monkeypatch.setenv(key, value)
    offered = complete_backup("")
    assert offered != []
    assert not any(map(has_control, offered))
