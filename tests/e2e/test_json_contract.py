"""The JSON contract, schema 1: programs rely on these keys and types. A key may be added; none goes or changes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineSession, Result, Volback

STORED = {
    "id": "str",
    "host": "str",
    "volume": "str",
    "kind": "str",
    "files": "int",
    "raw_bytes": "int",
    "stored_bytes": "int",
    "shared_bytes": "int",
    "reused_bytes": "int",
    "duration_s": "float",
    "consistency": "str",
    "digest": "str",
}
MADE = STORED | {"passes": "int", "unused_bytes": "int", "resumed_bytes": "int"}
NO_PROJECT = {"compose_files": "null", "left_out": []}
"""What `backup` shows beside backups; a project has more."""
LISTED = STORED | {
    "created_at": "str",
    "tags": ["str"],
    "set": "null",
    "held": "bool",
    "held_at": "null",
    "note": "null",
    "verified_at": "null",
    "proven_at": "null",
    "signed_by": "null",
    "certified": "null",
}
RESTORED = {
    "volume": "str",
    "files": "int",
    "raw_bytes": "int",
    "proven": "bool",
    "backup": "str",
    "safety_backup": "null",
    "signed_by": "null",
    "certified": "bool",
    "requests": "null",
}
COMPARED = {"identical": "bool", "different": [], "missing": [], "extra": [], "lacking": {}}
ERROR = {"kind": "str", "message": "str", "hint": "str", "exit_code": "int"}
VOLUME = {
    "name": "str",
    "driver": "str",
    "size_bytes": "int",
    "containers": [{"name": "str", "state": "str", "writable": "bool"}],
    "last_backup": {"id": "str", "age_s": "float"},
    "project": "str",
}
ENTRY = {
    "path": "str",
    "path_base64": "null",
    "type": "str",
    "size_bytes": "int",
    "mode": "str",
    "uid": "int",
    "gid": "int",
    "mtime_ns": "int",
    "link": "null",
}
SHOWN = {
    "backup": LISTED,
    "ended_at": "str",
    "source": {"kind": "str", "name": "str", "driver": "str", "options": {}, "labels": {"*": "str"}},
    "engine_id": "str",
    "containers": ["str"],
    "sockets_skipped": "int",
    "excludes": ["str"],
    "parent": "null",
    "depends_on": [],
    "uses": [],
    "data_bytes": "int",
    "index_bytes": "int",
    "encryption": "null",
    "format": "int",
    "volback": "str",
    "warnings": ["str"],
}


DIFFERENCE = {
    "path": "str",
    "path_base64": "null",
    "kind": "str",
    "changes": ["str"],
    "unclear": "null",
    "before": ENTRY,
    "after": ENTRY,
}
TOTALS = dict.fromkeys(
    [
        "added",
        "added_bytes",
        "removed",
        "removed_bytes",
        "changed",
        "changed_from_bytes",
        "changed_to_bytes",
        "unclear",
    ],
    "int",
)


def shape(value: Any) -> Any:
    """A value's keys and types; of a list, those of its first item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "null" if value is None else type(value).__name__


def result_of(said: Result, command: str) -> Any:
    """The result of a document that says that all went well; its frame is checked here."""
    document = said.json
    assert list(document) == ["schema", "command", "ok", "result", "warnings"]
    assert (document["schema"], document["command"], document["ok"]) == (1, command, True)
    assert all(isinstance(warning, str) for warning in document["warnings"])
    assert said.stderr == ""
    assert said.stdout.count("\n") == 1
    return document["result"]


@pytest.fixture
def volume(run_volback: Volback, volume_factory: Callable[..., str], container_factory: Callable[..., Any]) -> str:
    """A volume that a container uses, with a backup that has a tag."""

    def fill(path: Path) -> None:
        (path / "file").write_text("text")
        with open(os.fsencode(path) + b"/caf\xe9", "wb") as file:
            file.write(b"x")

    name = volume_factory("contract", fill=fill, labels={"com.docker.compose.project": "shop"})
    container_factory(volumes={name: "/data"})
    said = run_volback("backup", name, "--tag", "nightly", "--exclude", "*.tmp", "--json", check_exit=3)
    assert shape(result_of(said, "backup")) == {"backups": [MADE], **NO_PROJECT, "downtime_s": {}, "requests": "null"}
    assert ["may be written to" in warning for warning in said.json["warnings"]] == [True]
    return name


def test_backup_dry_run(run_volback: Volback, volume: str) -> None:
    result = result_of(run_volback("backup", volume, "--dry-run", "--json"), "backup")
    planned = {"volume": "str", "files": "int", "raw_bytes": "int", "excluded": "int", "sockets_skipped": "int"}
    assert shape(result) == {"planned": [planned], "left_out": []}


def test_list(run_volback: Volback, volume: str) -> None:
    assert shape(result_of(run_volback("list", "--json"), "list")) == {"backups": [LISTED], "damaged": []}
    manifest = next(run_volback.repository.rglob("manifest.json"))
    manifest.write_text("{}")
    damaged = {"id": "str", "host": "str", "volume": "str", "error": "str"}
    document = run_volback("list", "--json", check_exit=7).json
    assert list(document) == ["schema", "command", "ok", "result", "warnings", "error"]
    assert document["ok"] is False
    assert shape(document["result"]) == {"backups": [], "damaged": [damaged]}
    assert shape(document["error"]) == ERROR


def test_show(run_volback: Volback, volume: str) -> None:
    result = result_of(run_volback("show", volume, "--json"), "show")
    result["source"]["labels"] = {"*": next(iter(result["source"]["labels"].values()))}
    assert shape(result) == SHOWN


def test_show_of_an_increment(run_volback: Volback, volume: str) -> None:
    full = result_of(run_volback("show", volume, "--json"), "show")["backup"]
    made = run_volback("backup", volume, "--live", "--json").json["result"]["backups"]
    assert shape(made) == [MADE]
    result = result_of(run_volback("show", volume, "--json"), "show")
    assert result["backup"]["kind"] == "incremental"
    assert (result["parent"], result["depends_on"]) == (full["id"], [full["id"]])
    assert shape(result["uses"]) == [{"id": "str", "name": "str", "size_bytes": "int", "used_bytes": "int"}]
    assert result["backup"]["shared_bytes"] == sum(used["used_bytes"] for used in result["uses"]) > 0
    assert (full["shared_bytes"], result["backup"]["digest"]) == (0, full["digest"])


def test_ls(run_volback: Volback, volume: str) -> None:
    result = result_of(run_volback("ls", volume, "--json"), "ls")
    assert shape(result) == {"backup": "str", "entries": [ENTRY]}
    odd = [entry for entry in result["entries"] if entry["path_base64"] is not None]
    assert [(entry["path"], entry["path_base64"]) for entry in odd] == [("caf\\xe9", "Y2Fm6Q==")]


def test_restore(run_volback: Volback, volume: str, volume_name: Callable[..., str]) -> None:
    said = run_volback("restore", volume, "--as", volume_name("copy"), "--prove", "--json")
    assert shape(result_of(said, "restore")) == RESTORED
    assert said.json["result"]["proven"] is True


def test_restore_dry_run(run_volback: Volback, volume: str, volume_name: Callable[..., str]) -> None:
    planned: dict[str, Any] = {"volume": "str", "backup": "str", "files": "int", "raw_bytes": "int", "exists": "bool"}
    several = {"project": "null", "set": "null", "whole": "bool", "as_project": "null", "compose_files": "null"}
    new = volume_name("copy")
    said = run_volback("restore", volume, "--as", new, "--dry-run", "--json")
    assert shape(result_of(said, "restore")) == {**several, "planned": [planned], "requests": "null"}
    assert (said.json["result"]["planned"][0]["volume"], said.json["result"]["planned"][0]["exists"]) == (new, False)
    said = run_volback("restore", volume, "--dry-run", "--json", check_exit=5)
    assert said.json["result"]["planned"][0]["exists"] is True
    assert said.json["error"]["message"] == f"volume {volume!r} exists already"
    said = run_volback("restore", "--all", "--json", check_exit=3)
    nothing: dict[str, Any] = {"restored": [], "not_restored": ["str"], "requests": "null"}
    assert shape(result_of(said, "restore")) == {**several, **nothing}


def test_clone(run_volback: Volback, volume: str, volume_name: Callable[..., str]) -> None:
    cloned: dict[str, Any] = {
        "source": "str",
        "volume": "str",
        "files": "int",
        "raw_bytes": "int",
        "sockets_skipped": "int",
    }
    cloned |= {"consistency": "str", "containers": ["str"], "proven": "bool", "proof": COMPARED, "duration_s": "float"}
    result = result_of(run_volback("clone", volume, volume_name("copy"), "--json"), "clone")
    assert shape(result) == cloned
    result = result_of(run_volback("clone", volume, volume_name("copy"), "--no-prove", "--json"), "clone")
    assert shape(result) == cloned | {"proof": "null"}


def test_verify(run_volback: Volback, volume: str) -> None:
    result = result_of(run_volback("verify", "--data", "--json"), "verify")
    assert shape(result) == {"checked": "int", "damaged": [], "subset": "null", "signed": "null"}
    result = result_of(run_volback("verify", "--subset", "1/1", "--json"), "verify")
    assert shape(result) == {"checked": "int", "damaged": [], "subset": "str", "signed": "null"}
    data = next(run_volback.repository.rglob("data.tar.zst"))
    data.write_bytes(data.read_bytes()[:-30])
    said = run_volback("verify", "--json", check_exit=7)
    assert list(said.json) == ["schema", "command", "ok", "result", "warnings", "error"]
    assert said.json["ok"] is False
    assert shape(said.json["error"]) == ERROR
    assert shape(said.json["result"])["damaged"][0].keys() == {"backup", "object", "paths"}


def test_prove(run_volback: Volback, volume: str, volume_path: Callable[[str], Path]) -> None:
    assert shape(result_of(run_volback("prove", volume, "--json"), "prove")) == COMPARED
    (volume_path(volume) / "file").write_text("other")
    said = run_volback("prove", volume, "--json", check_exit=7)
    assert shape(said.json["result"]) == COMPARED | {"different": ["str"]}
    assert said.json["error"]["kind"] == "integrity"


def test_diff(run_volback: Volback, volume: str, volume_path: Callable[[str], Path]) -> None:
    (volume_path(volume) / "file").write_text("longer text")
    result = result_of(run_volback("diff", volume, "--json"), "diff")
    compared = {"before": "str", "after": "str", "after_kind": "str", "differences": [DIFFERENCE], "totals": TOTALS}
    assert shape(result) == compared
    result = result_of(run_volback("diff", volume, volume, "--json"), "diff")
    assert shape(result) == compared | {"differences": []}
    assert result["after_kind"] == "backup"


def test_find_and_history(run_volback: Volback, volume: str) -> None:
    found = {"host": "str", "volume": "str", "backups": ["str"], "entry": ENTRY}
    assert shape(result_of(run_volback("find", "file", "--json"), "find")) == {"versions": [found]}
    result = result_of(run_volback("history", volume, "file", "--json"), "history")
    assert shape(result) == {"path": "str", "states": [{"backups": ["str"], "changes": [], "entry": ENTRY}]}


def test_du(run_volback: Volback, volume: str) -> None:
    backup = {"id": "str", "host": "str", "volume": "str", "stored_bytes": "int", "frees_bytes": "int", "needed_by": []}
    assert shape(result_of(run_volback("du", "--json"), "du")) == {
        "backups": [backup],
        "volumes": [{"host": "str", "volume": "str", "stored_bytes": "int", "condemned_bytes": "int"}],
        "stored_bytes": "int",
    }


def test_volumes(run_volback: Volback, volume: str, volume_factory: Callable[..., str]) -> None:
    unused = volume_factory("unused")
    result = result_of(run_volback("volumes", "--json"), "volumes")
    found = {item["name"]: item for item in result["volumes"]}
    assert shape(found[volume]) == VOLUME
    assert shape(found[unused]) == VOLUME | {"containers": [], "last_backup": "null", "project": "null"}


def test_export_and_import(
    run_volback: Volback, volume: str, volume_name: Callable[..., str], tmp_path: Path, engine: EngineSession
) -> None:
    said = run_volback("export", volume, tmp_path / "out.tar", "--json")
    assert shape(result_of(said, "export")) == {"backup": "str", "file": "str", "size_bytes": "int"}
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("empty"), io.BytesIO())
    said = run_volback("import", tmp_path / "in.tar", "--as", volume_name("imported"), "--json")
    imported = {"volume": "str", "files": "int", "raw_bytes": "int", "compression": "null"}
    assert shape(result_of(said, "import")) == imported


def test_init_and_copy(run_volback: Volback, volume: str, tmp_path: Path) -> None:
    listed = run_volback("list", "--json").json["result"]["backups"][0]
    name = f"{listed['host']}/{volume}@{listed['id']}"
    for made in (True, False):
        result = result_of(run_volback("init", "--repo", tmp_path / "other", "--json"), "init")
        assert shape(result) == {"url": "str", "id": "str", "format": "int", "made": "bool", "recipient": "null"}
        assert result["made"] is made
    said = run_volback("copy", volume, "--to", tmp_path / "other", "--json")
    assert result_of(said, "copy") == {"copied": [name], "skipped": [], "requests": None}
    said = run_volback("copy", volume, "--to", tmp_path / "other", "--json")
    assert result_of(said, "copy") == {"copied": [], "skipped": [name], "requests": None}


def test_adopt(run_volback: Volback, volume: str) -> None:
    host = run_volback("list", "--json").json["result"]["backups"][0]["host"]
    result = result_of(run_volback("adopt", host, "--json"), "adopt")
    assert shape(result) == {"host": "str", "engine_id": "str", "adopted": []}


def test_remove(run_volback: Volback, volume: str) -> None:
    listed = run_volback("list", "--json").json["result"]["backups"][0]
    said = run_volback("remove", f"{volume}@{listed['id']}", "--json")
    result = result_of(said, "remove")
    assert shape(result) == {
        "removed": ["str"],
        "freed_bytes": "int",
        "condemned_bytes": "int",
        "until": "null",
    }
    assert result["removed"] == [f"{listed['host']}/{volume}@{listed['id']}"]


def test_prune(run_volback: Volback, volume: str) -> None:
    run_volback("backup", volume, "--full", "--live")
    result = result_of(run_volback("prune", volume, "--keep-last", "1", "--json"), "prune")
    judged = {"id": "str", "host": "str", "volume": "str", "created_at": "str", "tags": [], "bytes": "int"}
    judged |= {"reasons": ["str"], "damaged": "bool"}
    group = {"host": "str", "volume": "str", "kept": "int", "removed": "int", "freed_bytes": "int"}
    assert shape(result) == {
        "kept": [judged],
        "removed": [judged | {"tags": ["str"]}],
        "half_made": [],
        "freed_bytes": "int",
        "still_used_bytes": "int",
        "left": {"backups": "int", "objects": "int", "bytes": "int"},
        "condemned_bytes": "int",
        "locked": [],
        "condemned": [],
        "repacked": [],
        "groups": [group],
        "dry_run": "bool",
        "requests": "null",
        "job": "null",
        "repositories": [],
    }
    result = result_of(run_volback("repack", volume, "--json"), "repack")
    assert shape(result) == {"repacked": [], "dry_run": "bool", "requests": "null"}


def test_status(run_volback: Volback, volume: str) -> None:
    """Of the volumes and containers of others nothing is asked: they may change at any time."""
    document = run_volback("status", "--json", check_exit=None).json
    result = document["result"]
    assert list(result) == ["problems", "jobs", "volumes", "repositories", "held", "unprotected"]
    listed = {"volume": "str", "job": "null", "repository": "str", "last_backup": {"id": "str", "age_s": "float"}}
    listed |= {"raw_bytes": "int", "late": "bool", "missed": "int", "verified_at": "null", "proven_at": "null"}
    assert [shape(one) for one in result["volumes"] if one["volume"] == volume] == [listed]
    there = {"name": "str", "url": "str", "backups": "int", "size_bytes": "int", "free_bytes": "int", "error": "null"}
    assert shape(result["repositories"]) == [there]


def test_check(run_volback: Volback, volume: str) -> None:
    result = result_of(run_volback("check", "--json"), "check")
    checked = {"backups": "int", "objects": "int", "unreferenced_bytes": "int", "findings": [], "requests": "null"}
    assert shape(result) == checked
    (run_volback.repository / "host" / volume / "20261123T160254Z-3f9c").mkdir(parents=True)
    (run_volback.repository / "host" / volume / "20261123T160254Z-3f9c" / "data.zst").write_bytes(b"x")
    result = result_of(run_volback("check", "--all-hosts", "--json"), "check")
    finding = {"kind": "str", "object": "str", "message": "str", "backups": [], "wrong": "bool"}
    assert shape(result) == checked | {"findings": [finding]}


def test_repair(run_volback: Volback, volume: str) -> None:
    result = result_of(run_volback("repair", "--json"), "repair")
    repaired = {
        "document": "null",
        "backups": "int",
        "rebuilt": [],
        "lifted": [],
        "healed": [],
        "lost": [],
        "dry_run": "bool",
        "requests": "null",
    }
    assert shape(result) == repaired
    next((run_volback.repository).glob(f"*/{volume}/*/manifest.json")).write_text("garbage")
    said = run_volback("repair", "--json", check_exit=7)
    lost = {"backup": "str", "message": "str", "paths": "null"}
    assert shape(said.json["result"]) == repaired | {"lost": [lost]}


@pytest.mark.parametrize(
    ("words", "held_at"),
    [
        (["hold"], "str"), (["release"], "null"), (["tag", "add", "more"], "null"), (["tag", "remove", "more"], "null"),
        (["note", "a text"], "null"),
    ],
)  # fmt: skip
def test_notes(run_volback: Volback, volume: str, words: list[str], held_at: str) -> None:
    command, arguments = (" ".join(words[:2]), words[2:]) if words[0] == "tag" else (words[0], words[1:])
    result = result_of(run_volback(*command.split(), volume, *arguments, "--json"), command)
    noted = {"tags": ["str"], "held": "bool", "held_at": held_at, "verified_at": "null", "proven_at": "null"}
    assert shape(result) == {"backups": [{"id": "str", "host": "str", "volume": "str"} | noted]}


def test_doctor(run_volback: Volback) -> None:
    result = result_of(run_volback("doctor", "--json"), "doctor")
    assert result["checks"]
    for check in result["checks"]:
        assert list(check) == ["name", "status", "text", "hint", "facts"]
        assert check["status"] in ("ok", "warning", "failed")


def test_version(run_volback: Volback) -> None:
    result = result_of(run_volback("version", "--json"), "version")
    assert shape(result) == {"version": "str", "format": "int", "python": "str"}


@pytest.mark.parametrize(
    ("arguments", "command", "kind", "code"),
    [
        (["backup", "--level", "99", "x"], "backup", "usage", 2),
        (["backup", "no-such-volume"], "backup", "not_found", 4),
        (["restore", "no-such-volume"], "restore", "not_found", 4),
        (["--host", "unix:///nobody.sock", "volumes"], "volumes", "engine_unreachable", 8),
        (["nonsense"], "", "usage", 2),
    ],
)
def test_failure(run_volback: Volback, arguments: list[str], command: str, kind: str, code: int) -> None:
    said = run_volback(*arguments, "--json", check_exit=code)
    assert list(said.json) == ["schema", "command", "ok", "error"]
    assert said.json["command"] == command
    assert said.json["ok"] is False
    assert shape(said.json["error"]) in (ERROR, ERROR | {"hint": "null"})
    assert (said.json["error"]["kind"], said.json["error"]["exit_code"]) == (kind, code)
    assert said.stderr == ""


def test_what_was_done_is_reported_also_when_a_part_failed(run_volback: Volback, volume: str) -> None:
    said = run_volback("backup", volume, "no-such-volume", "--json", check_exit=4)
    assert list(said.json) == ["schema", "command", "ok", "result", "warnings", "error"]
    assert shape(said.json["result"]) == {"backups": [MADE], **NO_PROJECT, "downtime_s": {}, "requests": "null"}
    assert shape(said.json["error"]) == ERROR


def test_backup_that_stops_containers_and_recover(run_volback: Volback, volume: str, engine: EngineSession) -> None:
    result = result_of(run_volback("backup", volume, "--pause", "--json"), "backup")
    assert shape(result) == {
        "backups": [MADE],
        **NO_PROJECT,
        "downtime_s": {next(iter(result["downtime_s"])): "float"},
        "requests": "null",
    }
    assert result_of(run_volback("recover", "--json"), "recover") == {"resumed": [], "rescaled": []}
