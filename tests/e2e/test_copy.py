"""`copy`: backups into another repository, byte for byte; what is there is skipped."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.documents import reseal
from tests.support.engine import Result, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.repository import IDS, make_backup, manifest_of, new_repository, objects_of
from volback.catalog.keys import BackupKey
from volback.catalog.reference import Reference
from volback.store.local import LocalStore

NO_ENGINE = ["--host", "unix:///nonexistent"]


@pytest.fixture
def source(run_volback: Volback) -> LocalStore:
    return LocalStore(run_volback.repository)


@pytest.fixture
def target(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "target")
    new_repository(store)
    return store


@pytest.fixture
def copy(run_volback: Volback, target: LocalStore) -> Callable[..., Result]:
    """Copies into the target, on a machine without an engine."""

    def run(*references: str, check_exit: int = 0) -> Result:
        return run_volback(*NO_ENGINE, "--json", "copy", *references, "--to", target.url, check_exit=check_exit)

    return run


def name(key: BackupKey) -> str:
    return str(Reference(key.host, key.volume, key.id))


def _done(result: dict[str, Any]) -> dict[str, Any]:
    return {what: result[what] for what in ("copied", "skipped")}


def test_a_copy_restores_to_the_volume_that_was_backed_up(
    run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str],
    volume_path: Callable[[str], Path], source: LocalStore, target: LocalStore,
) -> None:  # fmt: skip
    def fill(path: Path) -> None:
        (path / "large").write_bytes(os.urandom(3_000_000))
        (path / "small").write_text("text")

    volume, restored = volume_factory("copied", fill=fill), volume_name("restored")
    made = run_volback("backup", volume, "--json").json["result"]["backups"][0]
    full = f"{made['host']}/{volume}@{made['id']}"
    said = run_volback("copy", volume, "--to", target.url)
    assert said.stdout.startswith(f"{full} -> {target.url}: 2.9 MiB")
    assert said.stderr == ""
    key = BackupKey(made["host"], volume, made["id"])
    assert objects_of(source, key) == objects_of(target, key)
    run_volback("--repo", target.url, "restore", volume, "--as", restored, "--prove")
    assert differences(fingerprint(volume_path(volume)), fingerprint(volume_path(restored))) == []
    assert run_volback("--repo", target.url, "verify", "--data").stdout == "1 backup checked (every byte), 1 intact\n"
    assert run_volback("copy", volume, "--to", target.url).stdout == f"{full} is in {target.url} already\n"
    infos = [b"".join(store.open("volback.json")) for store in (source, target)]
    assert infos[0] != infos[1], "a repository of its own"


def test_a_chain_is_copied_byte_for_byte_and_what_is_used_first(
    copy: Callable[..., Result], source: LocalStore, target: LocalStore
) -> None:
    full = make_backup(source, IDS[0])
    other = make_backup(source, IDS[3])
    second = make_backup(source, IDS[1], depends_on=[IDS[0]])
    third = make_backup(source, IDS[2], depends_on=[IDS[0], IDS[1]])
    said = copy(*(name(key) for key in (third, full, second))).json["result"]
    assert _done(said) == {"copied": [name(full), name(second), name(third)], "skipped": []}
    for key in (full, second, third):
        assert objects_of(source, key) == objects_of(target, key)
    assert objects_of(target, other) == {}
    said = copy(name(third), f"db@{IDS[3]}").json["result"]
    assert _done(said) == {"copied": [name(other)], "skipped": [name(third)]}


def test_a_later_versions_fields_of_a_manifest_are_copied_too(
    copy: Callable[..., Result], source: LocalStore, target: LocalStore
) -> None:
    key = make_backup(source)
    later = reseal(**msgspec.to_builtins(manifest_of(source, key)), a_field_of_2030=[1, 2])
    source.put(key.manifest, [later])
    copy("db")
    assert b"a_field_of_2030" in later
    assert b"".join(target.open(key.manifest)) == later


def test_a_damaged_backup_does_not_stop_others(
    copy: Callable[..., Result], source: LocalStore, target: LocalStore
) -> None:
    bad = make_backup(source, IDS[0], volume="a")
    good = make_backup(source, IDS[2], volume="b")
    source.put(bad.data, [b"x" * 3_000_000])
    said = copy("a", "b", check_exit=7).json
    assert _done(said["result"]) == {"copied": [name(good)], "skipped": []}
    assert said["error"]["message"] == f"backup {name(bad)} is damaged: {bad.data} is not what was written"
    assert {found.key.split("/")[0] for found in target.list()} == {"volback.json", "web1"}
    assert [found.key for found in target.list("web1/a/")] == []


def test_another_backup_of_that_name_is_left_alone(
    copy: Callable[..., Result], source: LocalStore, target: LocalStore
) -> None:
    key = make_backup(source)
    make_backup(target, data_bytes=100)
    before = objects_of(target, key)
    error = copy("db", check_exit=5).json["error"]
    assert error["message"] == f"repository {target.url} has another backup {name(key)}"
    assert objects_of(target, key) == before


def test_what_is_there_but_not_whole_is_not_skipped(
    copy: Callable[..., Result], source: LocalStore, target: LocalStore
) -> None:
    key = make_backup(source)
    copy("db")
    target.delete(key.data)
    error = copy("db", check_exit=7).json["error"]
    assert error["message"] == f"backup {name(key)} in {target.url} is damaged: {key.data} is missing"
    assert f"remove {name(key)}" in error["hint"]


@pytest.mark.parametrize("how", ["path", "url", "same id"])
def test_a_repository_is_not_copied_to_itself(
    run_volback: Volback, source: LocalStore, tmp_path: Path, how: str
) -> None:
    make_backup(source)
    before = {found.key for found in source.list()}
    alias = tmp_path / "alias"
    alias.symlink_to(source.url)
    to = {"path": source.url, "url": f"file://{source.url}", "same id": str(alias)}[how]
    refused = run_volback(*NO_ENGINE, "copy", "db", "--to", to, check_exit=2)
    assert refused.stderr.startswith("error: repository ")
    assert "is the one to copy from" in refused.stderr
    assert {found.key for found in source.list()} == before


def test_without_a_backup_or_a_target_nothing_is_made(
    run_volback: Volback, copy: Callable[..., Result], source: LocalStore, target: LocalStore
) -> None:
    make_backup(source)
    assert copy("other", check_exit=4).json["error"]["kind"] == "not_found"
    assert run_volback(*NO_ENGINE, "copy", "db", check_exit=2).stderr.startswith("error: Missing option '--to'")
    assert [found.key for found in target.list()] == ["volback.json"]


def test_progress_is_drawn_on_a_terminal(run_volback: Volback, source: LocalStore, target: LocalStore) -> None:
    key = make_backup(source)
    ours, theirs = pty.openpty()
    arguments: list[Any] = [*NO_ENGINE, "copy", "db", "--to", target.url]
    with open(ours, "rb", buffering=0) as terminal:
        try:
            done = subprocess.run(
                run_volback.command(*arguments), env=run_volback.environment({"TERM": "xterm", "COLUMNS": "100"}),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True,
            )  # fmt: skip
        finally:
            os.close(theirs)
        drawn = terminal.read(100_000)
    assert b"copy db" in drawn
    assert done.stdout.decode() == f"{name(key)} -> {target.url}: 2.9 MiB\n"
