"""Clones that fail or die half-way: no half-made volume looks like a whole one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.conftest import StepsOf
from tests.support.engine import EngineSession, Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.halt import struck
from tests.support.library import open_library
from volback.errors import EngineError
from volback.moving.clone import clone
from volback.moving.move import MoveOptions

LABEL = "volback.restore"


def _fill(path: Path) -> None:
    (path / "directory").mkdir()
    for number in range(20):
        (path / "directory" / f"small-{number}").write_bytes(os.urandom(3000))
    (path / "large").write_bytes(os.urandom(6 << 20))


def _volumes(engine: EngineSession) -> dict[str, dict[str, str]]:
    """Labels of this session's volumes."""
    return {volume.name: volume.attrs["Labels"] or {} for volume in engine.volumes()}


def _assert_nothing_is_left(run_volback: Volback, engine: EngineSession, at: str) -> None:
    label = f"volback.client={(run_volback.state / 'client-id').read_text()}"
    assert engine.client.containers.list(all=True, ignore_removed=True, filters={"label": label}) == [], at
    assert list((run_volback.state / "runs").iterdir()) == [], at


@pytest.fixture
def commands(
    run_volback: Volback, volume_factory: Callable[..., str], volume_name: Callable[..., str], tmp_path: Path
) -> tuple[str, str, list[str]]:
    """The volume, the name of its clone, and the steps of cloning it."""
    source, target = volume_factory("struck", fill=_fill), volume_name("target")
    log = tmp_path / "log"
    assert struck(run_volback, signal.SIGTERM, 0, "clone", source, target, env={"STRIKE_LOG": str(log)}) == 0
    return source, target, log.read_text().splitlines()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
def test_a_clone_that_dies_leaves_a_whole_volume_or_a_marked_one(
    number: signal.Signals, run_volback: Volback, engine: EngineSession, commands: tuple[str, str, list[str]],
    volume_path: Callable[[str], Path], some_of: StepsOf,
) -> None:  # fmt: skip
    source, target, steps = commands
    expected = fingerprint(volume_path(source))
    assert len(steps) >= 15
    for step, name in some_of(list(enumerate(steps, 1))):
        if target in _volumes(engine):
            engine.client.volumes.get(target).remove()
        struck(run_volback, number, step, "clone", source, target)
        if number == signal.SIGKILL:
            assert LABEL in _volumes(engine).get(target, LABEL), name
            run_volback("doctor", "--fix", check_exit=None)
        _assert_nothing_is_left(run_volback, engine, f"step {step}: {name}")
        if target in _volumes(engine):
            assert differences(expected, fingerprint(volume_path(target))) == [], name
    assert differences(expected, fingerprint(volume_path(source))) == []


def test_a_clone_into_an_empty_volume_that_was_killed_is_remembered(
    run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    source, target = volume_factory("source", fill=_fill), volume_factory("empty")
    assert struck(run_volback, signal.SIGKILL, "buffer 0 of read", "clone", source, target) == -9
    said = run_volback("doctor", "--json", check_exit=None).json["result"]["checks"]
    (check,) = (check for check in said if check["name"] == "replaced volumes")
    assert f"'{target}'" in check["text"]
    assert check["hint"] == f"remove it (docker volume rm {target}), and copy the other volume again"
    (volume_path(target) / "file").touch()  # the helper may have died before it had written anything
    assert "is not empty" in run_volback("clone", source, target, check_exit=5).stderr


def test_a_clone_that_has_no_room_is_refused_and_leaves_no_volume(
    engine: EngineSession,
    tmp_path: Path,
    volume_factory: Callable[..., str],
    volume_name: Callable[..., str],
    mount_small: Callable[[int], Path],
) -> None:
    library = open_library(engine, tmp_path)
    original = volume_factory("large", fill=lambda path: (path / "large").write_bytes(os.urandom(8 << 20)))
    small, new = mount_small(4 << 20), volume_name("new")
    options = {"type": "none", "o": "bind", "device": str(small)}
    with pytest.raises(EngineError, match=f"volume '{original}' does not fit: it takes 8.0 MiB, and on the tmpfs"):
        clone(*library, original, new, MoveOptions(driver_options=options))
    assert new not in {volume.name for volume in engine.client.volumes.list()}
    assert list(small.iterdir()) == []
    assert list((library.ctx.settings.state / "runs").iterdir()) == []


def test_a_volume_that_was_empty_is_empty_after_an_interrupted_clone(
    run_volback: Volback, volume_factory: Callable[..., str], volume_path: Callable[[str], Path]
) -> None:
    source, target = volume_factory("source", fill=_fill), volume_factory("empty")
    assert struck(run_volback, signal.SIGTERM, "buffer 0 of read", "clone", source, target) == 143
    assert list(volume_path(target).iterdir()) == []
    assert list((run_volback.state / "runs").iterdir()) == []
    run_volback("clone", source, target)
