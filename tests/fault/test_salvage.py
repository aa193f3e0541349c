"""A first backup that is killed: what it had stored is used by the next one, and is never a backup."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fault.conftest import StepsOf
from tests.fault.test_kill import _assert_nothing_is_left, _steps
from tests.support.engine import EngineSession, Volback
from tests.support.halt import struck
from volback.store.local_draft import TEMP

MIB = 1 << 20
FILES = 18
TOTAL = FILES * 4 * MIB
"""More than the 16 MiB after which what is stored is noted, beside what two stages and the upload may hold."""
LAST = "before Catalog.commit"


@pytest.fixture
def source(volume_factory: Callable[..., str]) -> str:
    def fill(path: Path) -> None:
        for number in range(FILES):
            (path / f"file-{number}").write_bytes(os.urandom(4 * MIB))

    return volume_factory("salvaged", fill=fill)


def _backups(run_volback: Volback) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_volback("list", "--json").json["result"]["backups"]
    return found


def _made(run_volback: Volback, *arguments: str) -> dict[str, Any]:
    (made,) = run_volback("backup", *arguments, "--json").json["result"]["backups"]
    assert isinstance(made, dict)
    return made


def _killed(run_volback: Volback, step: str | int, *arguments: str, log: Path | None = None) -> None:
    env = {"STRIKE_LOG": str(log)} if log else None
    assert struck(run_volback, signal.SIGKILL, step, "backup", *arguments, env=env) == -9, step


def _drafts(run_volback: Volback) -> list[Path]:
    return [path for path in run_volback.repository.rglob("*") if TEMP.fullmatch(path.name)]


@pytest.mark.parametrize(
    "step", ["end of put data.tar.zst", pytest.param("after LocalStore.put", marks=pytest.mark.long)]
)
def test_what_a_killed_first_backup_stored_is_used(
    step: str, run_volback: Volback, engine: EngineSession, source: str
) -> None:
    _killed(run_volback, step, source)
    assert _backups(run_volback) == []
    made = _made(run_volback, source)
    assert made["resumed_bytes"] >= 16 * MIB
    assert made["unused_bytes"] == 0
    assert made["stored_bytes"] < TOTAL + MIB
    run_volback("verify", "--data")
    run_volback("prove", source)
    _made(run_volback, source)
    _assert_nothing_is_left(run_volback, engine, step)


def test_a_salvage_that_is_killed_at_any_step_is_gone_on_with(
    run_volback: Volback, engine: EngineSession, source: str, tmp_path: Path, some_of: StepsOf
) -> None:
    _killed(run_volback, "end of read", source)
    log = tmp_path / "log"
    _killed(run_volback, LAST, source, log=log)
    steps = _steps(log)
    assert "end of extend" in [name for _, name in steps]
    for step, name in some_of(steps):
        _killed(run_volback, step, source)
        assert _backups(run_volback) == [], name
    made = _made(run_volback, source)
    assert made["resumed_bytes"] >= 8 * MIB
    assert made["stored_bytes"] < TOTAL + 2 * MIB
    run_volback("verify", "--data")
    _made(run_volback, source)
    _assert_nothing_is_left(run_volback, engine, "the end")


def test_a_large_file_is_read_again_and_not_stored_again(
    run_volback: Volback, volume_factory: Callable[..., str]
) -> None:
    source = volume_factory("large", fill=lambda path: (path / "file").write_bytes(os.urandom(TOTAL)) and None)
    _killed(run_volback, "end of read", source)
    made = _made(run_volback, source)
    assert made["resumed_bytes"] >= 10 * MIB
    assert made["stored_bytes"] < TOTAL + 2 * MIB
    run_volback("verify", "--data")
    run_volback("prove", source)


def test_what_a_committed_backup_stores_stays_its_own(run_volback: Volback, source: str) -> None:
    _killed(run_volback, "after Catalog.commit", source)
    assert len(_backups(run_volback)) == 1
    made = _made(run_volback, source, "--full")
    assert made["resumed_bytes"] == 0
    assert len(_backups(run_volback)) == 2
    run_volback("verify", "--data")


@pytest.mark.parametrize("how", ["increment", "doctor", pytest.param("interrupt", marks=pytest.mark.long)])
def test_what_is_not_used_is_removed(how: str, run_volback: Volback, engine: EngineSession, source: str) -> None:
    _made(run_volback, source)
    _killed(run_volback, "end of put data.tar.zst", source, "--full")
    run_volback("prune", "--keep-last", "9")
    assert len(_drafts(run_volback)) == 1
    if how == "increment":
        assert _made(run_volback, source)["resumed_bytes"] == 0
    elif how == "doctor":
        run_volback("doctor", "--fix")
    else:
        assert struck(run_volback, signal.SIGINT, LAST, "backup", source, "--full") == 130
    assert _drafts(run_volback) == []
    assert list((run_volback.state / "unfinished").iterdir()) == []
    _made(run_volback, source)
    _assert_nothing_is_left(run_volback, engine, how)
