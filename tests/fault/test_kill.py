"""SIGINT, SIGTERM and SIGKILL at the steps of backup and restore, against the real engine: see tests.support.steps."""
# ruff: noqa: PLR0917 - fixtures

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

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
    assert engine.client.containers.list(all=True, filters={"label": label}) == [], at
    assert list((run_volback.state / "runs").iterdir()) == [], at
    if run_volback.repository.exists():
        assert Catalog(LocalStore(run_volback.repository)).litter() == [], at
        names = [path.name for path in run_volback.repository.rglob("*") if path.is_file()]
        assert set(names) <= {"volback.json", "manifest.json", "index.jsonl.zst", "data.tar.zst"}, at


def _has_volume(engine: EngineSession, name: str) -> bool:
    return any(volume.name == name for volume in engine.client.volumes.list(filters={"name": name}))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_backup_leaves_nothing(
    number: signal.Signals, strike: Strike, run_volback: Volback, engine: EngineSession, source: str,
    volume_path: Callable[[str], Path], tmp_path: Path, some_of: StepsOf,
) -> None:  # fmt: skip
    before = fingerprint(volume_path(source))
    assert strike(number, 0, "backup", source, log=tmp_path / "log") == 0
    steps = _steps(tmp_path / "log")
    assert len(steps) >= 30
    for nth, (step, name) in enumerate(some_of(steps[1:])):
        whole = len(run_volback("list", "--json").json["result"]["backups"]) if nth % 4 == 0 else None
        assert strike(number, step, "backup", source) in (EXIT[number], 0), name
        _assert_nothing_is_left(run_volback, engine, f"step {step}: {name}")
        if whole is not None:
            assert len(run_volback("list", "--json").json["result"]["backups"]) - whole in (0, 1), name
    run_volback("verify", "--data")
    assert differences(before, fingerprint(volume_path(source))) == []


def test_killed_backup_is_cleaned_up_by_the_next_run(
    strike: Strike, run_volback: Volback, engine: EngineSession, source: str,
    volume_path: Callable[[str], Path], tmp_path: Path, some_of: StepsOf,
) -> None:  # fmt: skip
    before = fingerprint(volume_path(source))
    assert strike(signal.SIGKILL, 0, "backup", source, log=tmp_path / "log") == 0
    for step, name in some_of(_steps(tmp_path / "log")):
        assert strike(signal.SIGKILL, step, "backup", source) in (EXIT[signal.SIGKILL], 0), name
        for backup in run_volback("list", "--json").json["result"]["backups"]:
            assert backup["stored_bytes"] > 6 << 20, name
        run_volback("backup", source)
        _assert_nothing_is_left(run_volback, engine, f"step {step}: {name}")
    run_volback("verify", "--data")
    assert differences(before, fingerprint(volume_path(source))) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
    assert "is not empty" in run_volback("restore", source, "--to", target, check_exit=5).stderr
    shutil.rmtree(target)
    run_volback("restore", source, "--to", target, "--prove")


def _remove(engine: EngineSession, name: str) -> None:
    if _has_volume(engine, name):
        engine.client.volumes.get(name).remove()
