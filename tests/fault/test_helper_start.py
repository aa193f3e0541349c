"""The helper of an increment starts while the repository is asked for earlier backups: what fails or strikes then
leaves neither a helper nor anything else, and says what failed first.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import EngineSession, Volback
from tests.support.halt import delayed
from tests.support.remote import wait_for
from volback.catalog.repository import Catalog
from volback.store.local import LocalStore

LISTING = "before Catalog.backups"
HELPER = "before a helper"


@pytest.fixture
def source(run_volback: Volback, volume_factory: Callable[..., str]) -> str:
    """A volume that has been backed up."""
    name = volume_factory("started", fill=lambda path: (path / "file").write_text("content"))
    run_volback("backup", name)
    return name


def _helpers(engine: EngineSession, run_volback: Volback) -> list[object]:
    label = f"volback.client={(run_volback.state / 'client-id').read_text()}"
    return list(engine.client.containers.list(all=True, ignore_removed=True, filters={"label": label}))


def _assert_nothing_is_left(engine: EngineSession, run_volback: Volback) -> None:
    assert _helpers(engine, run_volback) == []
    assert list((run_volback.state / "runs").iterdir()) == []
    assert Catalog(LocalStore(run_volback.repository)).litter() == []
    assert len(run_volback("list", "--json").json["result"]["backups"]) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_helper_is_about_to_start(
    number: int, code: int, engine: EngineSession, run_volback: Volback, source: str
) -> None:
    """The signal ends what the main thread does; the helper comes after it, and is removed."""
    with delayed(run_volback, HELPER, "backup", source) as run:
        assert _helpers(engine, run_volback) == []
        os.kill(run.pid, number)
    assert run.ended.exit_code == code, run.ended
    _assert_nothing_is_left(engine, run_volback)


def test_a_signal_while_the_backups_are_listed_beside_a_helper(
    engine: EngineSession, run_volback: Volback, source: str
) -> None:
    with delayed(run_volback, LISTING, "backup", source) as run:
        wait_for(lambda: bool(_helpers(engine, run_volback)), "the helper")
        os.kill(run.pid, signal.SIGTERM)
    assert run.ended.exit_code == 143, run.ended
    _assert_nothing_is_left(engine, run_volback)


def test_a_listing_that_fails_beside_a_helper(
    engine: EngineSession, run_volback: Volback, source: str, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    with delayed(run_volback, LISTING, "backup", source) as run:
        wait_for(lambda: bool(_helpers(engine, run_volback)), "the helper")
        run_volback.repository.rename(kept)
        run_volback.repository.write_text("a file")
    run_volback.repository.unlink()
    kept.rename(run_volback.repository)
    assert run.ended.exit_code == 9, run.ended
    assert run.ended.stderr.splitlines()[0] == f"error: repository {run_volback.repository} is not a directory"
    _assert_nothing_is_left(engine, run_volback)
