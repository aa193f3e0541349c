"""SIGINT, SIGTERM and SIGKILL at the steps of backup and restore, against the real engine: see tests.support.steps."""
# ruff: noqa: PLR0917 - fixtures

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fault.conftest import StepsOf
from tests.support.engine import EngineSession, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import struck
from volback.catalog.repository import Catalog
from volback.store.local import LocalStore

EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
Strike = Callable[..., int]


@pytest.fixture
def strike(run_volback: Volback) -> Strike:
    """Run volback, struck by a signal at a step; returns the exit code."""

    def run(number: int, step: int | str, *arguments: str, log: Path | None = None) -> int:
        return struck(run_volback, number, step, *arguments, env={"STRIKE_LOG": str(log)} if log else None)

    return run


@pytest.fixture
def source(volume_factory: Callable[..., str]) -> str:
    """A volume with some small files and one of several frames."""

    def fill(path: Path) -> None:
        (path / "directory").mkdir()
        for number in range(20):
            (path / "directory" / f"small-{number}").write_bytes(os.urandom(3000))
        (path / "large").write_bytes(os.urandom(6 << 20))

    return volume_factory("struck", fill=fill)


def _steps(log: Path) -> list[tuple[int, str]]:
    return list(enumerate(log.read_text().splitlines(), 1))


def _assert_nothing_is_left(run_volback: Volback, engine: EngineSession, at: str) -> None:
    label = f"volback.client={(run_volback.state / 'client-id').read_text()}"
    assert engine.client.containers.list(all=True, ignore_removed=True, filters={"label": label}) == [], at
    assert list((run_volback.state / "runs").iterdir()) == [], at
    if run_volback.repository.exists():
        assert Catalog(LocalStore(run_volback.repository)).litter() == [], at
        names = [path.name for path in run_volback.repository.rglob("*") if path.is_file()]
        known = {"volback.json", "manifest.json", "notes.json", "index.jsonl.zst", "data.tar.zst", "data.zst"}
        assert set(names) <= known, at


def _has_volume(engine: EngineSession, name: str) -> bool:
    return any(volume.name == name for volume in engine.client.volumes.list(filters={"name": name}))


def _begin(run_volback: Volback, source: str, root: Path, *options: str) -> list[str]:
    """The arguments of a backup with these options; if it is an increment, its parent has been made."""
    if "--full" not in options:
        run_volback("backup", source)
        _change(root)
    return ["backup", source, *options]


def _change(root: Path) -> None:
    """So that an increment has something to store, of several frames."""
    (root / "changing").write_bytes(os.urandom(3 << 20))


@pytest.mark.parametrize(
    ("number", "options"),
    [pytest.param(signal.SIGINT, ["--full"], marks=pytest.mark.long), (signal.SIGTERM, [])],
    ids=["INT-full", "TERM-increment"],
)
def test_interrupted_backup_leaves_nothing(
    number: signal.Signals, options: list[str], strike: Strike, run_volback: Volback, engine: EngineSession,
    source: str, volume_path: Callable[[str], Path], tmp_path: Path, some_of: StepsOf,
) -> None:  # fmt: skip
    command = _begin(run_volback, source, volume_path(source), *options)
    assert strike(number, 0, *command, log=tmp_path / "log") == 0
    steps = _steps(tmp_path / "log")
    assert len(steps) >= 30
    for nth, (step, name) in enumerate(some_of(steps[1:])):
        whole = len(run_volback("list", "--json").json["result"]["backups"]) if nth % 4 == 0 else None
        _change(volume_path(source))
        before = fingerprint(volume_path(source))
        assert strike(number, step, *command) in (EXIT[number], 0), name
        _assert_nothing_is_left(run_volback, engine, f"step {step}: {name}")
        if whole is not None:
            assert len(run_volback("list", "--json").json["result"]["backups"]) - whole in (0, 1), name
        assert differences(before, fingerprint(volume_path(source))) == [], name
    run_volback("verify", "--data")
    _assert_last_is_of_kind(run_volback, "full" if options else "incremental")


@pytest.mark.parametrize("options", [pytest.param(["--full"], marks=pytest.mark.long), []], ids=["full", "increment"])
def test_killed_backup_is_cleaned_up_by_the_next_run(
    options: list[str], strike: Strike, run_volback: Volback, engine: EngineSession, source: str,
    volume_path: Callable[[str], Path], tmp_path: Path, some_of: StepsOf,
) -> None:  # fmt: skip
    command = _begin(run_volback, source, volume_path(source), *options)
    assert strike(signal.SIGKILL, 0, *command, log=tmp_path / "log") == 0
    for step, name in some_of(_steps(tmp_path / "log")):
        _change(volume_path(source))
        before = fingerprint(volume_path(source))
        assert strike(signal.SIGKILL, step, *command) in (EXIT[signal.SIGKILL], 0), name
        for backup in run_volback("list", "--json").json["result"]["backups"]:
            assert backup["stored_bytes"] + backup["reused_bytes"] > 6 << 20, name
        run_volback(*command)
        _assert_nothing_is_left(run_volback, engine, f"step {step}: {name}")
        assert differences(before, fingerprint(volume_path(source))) == [], name
    run_volback("verify", "--data")
    _assert_last_is_of_kind(run_volback, "full" if options else "incremental")


def _assert_last_is_of_kind(run_volback: Volback, kind: str) -> None:
    backups = run_volback("list", "--json").json["result"]["backups"]
    assert max(backups, key=lambda backup: str(backup["id"]))["kind"] == kind


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_interrupted_restore_leaves_no_half_volume(
    number: signal.Signals, strike: Strike, run_volback: Volback, engine: EngineSession, source: str,
    volume_name: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path, some_of: StepsOf,
) -> None:  # fmt: skip
    run_volback("backup", source)
    expected = fingerprint(volume_path(source))
    target = volume_name("target")
    assert strike(number, 0, "restore", source, "--as", target, log=tmp_path / "log") == 0
    steps = _steps(tmp_path / "log")
    assert len(steps) >= 15
    for step, name in some_of(steps):
        _remove(engine, target)
        strike(number, step, "restore", source, "--as", target)
        _assert_nothing_is_left(run_volback, engine, f"step {step}: {name}")
        if _has_volume(engine, target):
            assert differences(expected, fingerprint(volume_path(target))) == [], name


def test_killed_restore_is_cleaned_up_by_the_next_run(
    strike: Strike, run_volback: Volback, engine: EngineSession, source: str,
    volume_name: Callable[..., str], volume_path: Callable[[str], Path], tmp_path: Path, some_of: StepsOf,
) -> None:  # fmt: skip
    run_volback("backup", source)
    expected = fingerprint(volume_path(source))
    target = volume_name("target")
    assert strike(signal.SIGKILL, 0, "restore", source, "--as", target, log=tmp_path / "log") == 0
    for step, name in some_of(_steps(tmp_path / "log")):
        _remove(engine, target)
        assert strike(signal.SIGKILL, step, "restore", source, "--as", target) in (EXIT[signal.SIGKILL], 0), name
        run_volback("backup", source)
        _assert_nothing_is_left(run_volback, engine, f"step {step}: {name}")
        if _has_volume(engine, target):
            assert differences(expected, fingerprint(volume_path(target))) == [], name


def test_a_directory_that_a_killed_restore_made_stays_and_is_named_once(
    strike: Strike, run_volback: Volback, source: str, tmp_path: Path
) -> None:
    """Nothing tells it from one that somebody filled since, so it is never removed."""
    run_volback("backup", source)
    target = tmp_path / "target"
    assert strike(signal.SIGKILL, "buffer 1 of write", "restore", source, "--to", str(target)) == EXIT[signal.SIGKILL]
    assert target.is_dir()
    for options in ((), ("--fix",)):
        checks = run_volback("doctor", *options, "--json").json["result"]["checks"]
        (check,) = (check for check in checks if check["name"] == "leftovers")
        assert f"died while it restored into {target}" in check["text"]
        assert check["hint"].endswith(f"rm -r {target}")
    assert "crashed runs left nothing" in run_volback("doctor").stdout
    (target / "file").touch()  # the helper may have died before it had written anything
    assert "is not empty" in run_volback("restore", source, "--to", target, check_exit=5).stderr
    shutil.rmtree(target)
    run_volback("restore", source, "--to", target, "--prove")


def test_a_volume_that_adopted_a_directory_is_not_removed_with_it(
    strike: Strike, run_volback: Volback, engine: EngineSession, source: str,
    volume_name: Callable[..., str], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    """The engine takes a directory that lies where a volume's would be; the run died before it looked into it."""
    run_volback("backup", source)
    target = volume_name("target")
    directory = volume_path(source).parents[1] / target / "_data"
    directory.mkdir(parents=True)
    (directory / "precious").write_text("data")
    assert (
        strike(signal.SIGKILL, "after Engine.create_volume", "restore", source, "--as", target) == EXIT[signal.SIGKILL]
    )
    assert f"volume {target} stays" in run_volback("backup", source).stderr
    assert (directory / "precious").read_text() == "data"
    assert "stays" not in run_volback("backup", source).stderr
    run_volback("backup", target)


def test_a_half_restored_volume_that_cannot_be_removed_is_not_backed_up(
    strike: Strike, run_volback: Volback, source: str, volume_name: Callable[..., str],
    create_container: Callable[..., Any],
) -> None:  # fmt: skip
    run_volback("backup", source)
    target = volume_name("target")
    assert strike(signal.SIGKILL, "buffer 1 of write", "restore", source, "--as", target) == EXIT[signal.SIGKILL]
    create_container(volumes={target: "/data"})
    refused = run_volback("backup", target, check_exit=5).stderr
    assert f"half-restored volume {target} stays: " in refused
    assert f"error: volume '{target}' holds a part of a backup: the run that restored it died" in refused
    assert f"volback restore BACKUP --as {target} --replace" in refused
    run_volback("restore", source, "--as", target, "--replace", "--prove")
    assert "stays" not in run_volback("backup", target).stderr


@pytest.mark.parametrize("part", [(), ("--path", "etc/a b")])
def test_a_killed_replacement_without_a_safety_backup_names_the_backup_to_restore(
    strike: Strike, run_volback: Volback, volume_factory: Callable[..., str], part: tuple[str, ...]
) -> None:
    def fill(root: Path) -> None:
        (root / "etc").mkdir()
        (root / "etc" / "a b").write_text("text")

    name = volume_factory("replaced", fill=fill)
    for _ in range(2):
        run_volback("backup", name)
    backups = run_volback("list", name, "--json").json["result"]["backups"]
    oldest = min(backups, key=lambda backup: backup["id"])
    reference = f"{oldest['host']}/{name}@{oldest['id']}"
    arguments = ("restore", reference, "--replace", "--no-safety-backup", *part)
    assert strike(signal.SIGKILL, "buffer 0 of write", *arguments) == EXIT[signal.SIGKILL]
    checks = run_volback("doctor", "--json").json["result"]["checks"]
    (check,) = (check for check in checks if check["name"] == "replaced volumes")
    path = "--path 'etc/a b' " if part else ""
    assert check["hint"] == f"get it back: volback restore {reference} --as {name} {path}--replace"


def _remove(engine: EngineSession, name: str) -> None:
    if _has_volume(engine, name):
        engine.client.volumes.get(name).remove()
