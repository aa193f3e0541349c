"""Who signed a backup: `show`, `list --json` and `verify` say it, without an identity where the authority is pinned."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.encrypted import IDENTITY, encrypted_copy, own_file
from tests.support.forged import sealed
from tests.support.repository import use_here
from tests.unit.test_golden import ALL, FORMAT_1, FULL, INCREMENT
from volback.archive.signing import SigningKey
from volback.catalog.keys import BackupKey
from volback.cli.main import run
from volback.operations.trust import certify
from volback.store.local import LocalStore

pytestmark = pytest.mark.unit

HOST = SigningKey(b"h" * 32)
NAME = "golden-host/golden@"
NOW = datetime(2026, 11, 26, tzinfo=UTC)


class Here:
    """A machine with a repository whose backups a host has signed; the full one is signed by nobody."""

    def __init__(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.place, self.store, self._capsys = place, LocalStore(place / "repository"), capsys
        encrypted_copy(FORMAT_1, self.store, signer=HOST)
        path = place / "repository" / BackupKey("golden-host", "golden", FULL).manifest
        fields = json.loads(path.read_bytes())
        path.write_bytes(sealed({name: fields[name] for name in list(fields)[:-3]}))
        self.identity = own_file(place)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        assert run([*arguments]) == code, self._capsys.readouterr().err
        return self._capsys.readouterr().out

    def json(self, *arguments: str) -> Any:
        return json.loads(self("--json", *arguments))["result"]

    def certify(self, host: str = "golden-host") -> None:
        certify(self.store, "e" * 32, IDENTITY, host, HOST.public.hex(), now=NOW)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    use_here(monkeypatch, tmp_path, "repository")
    return Here(tmp_path, capsys)


def shown(here: Here, id: str, *options: str) -> str:
    lines = here("show", f"{NAME}{id}", *options).splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("signed by"))


def test_show_says_who_signed_a_backup(here: Here) -> None:
    unknown = f"key {HOST.public.hex()[:16]}, which is not certified for host golden-host"
    assert shown(here, INCREMENT) == unknown
    here.certify("another-host")
    assert shown(here, INCREMENT) == unknown, "certified for another host"
    here.certify()
    assert shown(here, INCREMENT) == "certified host golden-host"
    assert shown(here, INCREMENT, "--identity", str(here.identity)) == "certified host golden-host"
    assert shown(here, FULL) == "nobody"


def test_list_says_it_to_programs(here: Here) -> None:
    here.certify()
    key = HOST.public.hex()
    found = {backup["id"]: backup for backup in here.json("list", "--all-hosts")["backups"]}
    assert {id: (found[id]["signed_by"], found[id]["certified"]) for id in ALL} == {
        id: (None, False) if id == FULL else (key, True) for id in ALL
    }
    backup = here.json("show", f"{NAME}{INCREMENT}")["backup"]
    assert (backup["signed_by"], backup["certified"]) == (key, True)


def test_a_certificate_of_a_stranger_certifies_nothing(here: Here) -> None:
    stranger = type(IDENTITY).new()
    certify(here.store, "e" * 32, stranger, "golden-host", HOST.public.hex(), now=NOW)
    assert "not certified" in shown(here, INCREMENT)
    assert not any(backup["certified"] for backup in here.json("list", "--all-hosts")["backups"])


def test_where_no_authority_is_pinned_it_is_not_known_without_an_identity(here: Here) -> None:
    here.certify()
    here("list", "--all-hosts")
    (pin,) = (here.place / "state" / "recipients").iterdir()
    pin.write_text(pin.read_text().splitlines()[0] + "\n")
    assert "whether it is certified is not known here: give --identity" in shown(here, INCREMENT)
    assert here.json("show", f"{NAME}{INCREMENT}")["backup"]["certified"] is None
    assert "who made them is not known here" in here("verify")
    assert here.json("verify")["signed"]["certified"] is None
    assert shown(here, INCREMENT, "--identity", str(here.identity)) == "certified host golden-host"


def test_verify_names_what_no_certified_host_has_signed(here: Here) -> None:
    assert "0 backups signed by certified hosts, 3 not" in here("verify")
    here.certify()
    lines = here("verify").splitlines()
    assert lines[-2:] == ["2 backups signed by certified hosts, 1 not", f"  {NAME}{FULL} is signed by nobody"]
    assert here.json("verify")["signed"] == {"certified": 2, "others": {f"{NAME}{FULL}": None}}


def test_a_backup_in_clear_does_not_slip_in_where_the_document_is_damaged(here: Here) -> None:
    """Who can write to the bucket damages the document, removes all that is encrypted, and puts a backup in clear."""
    here("list", "--all-hosts")
    for path in [path for path in (here.place / "repository").rglob("*.age") if "keys" not in path.parts]:
        path.unlink()
    (here.place / "repository" / "volback.json").write_text("{}")
    stranger = BackupKey("golden-host", "golden", INCREMENT).manifest
    (here.place / "repository" / stranger).write_bytes((FORMAT_1 / stranger).read_bytes())
    assert "is in clear, and the repository is encrypted" in here("list", "--all-hosts", "--json", code=7)
    here("show", f"{NAME}{INCREMENT}", code=7)
