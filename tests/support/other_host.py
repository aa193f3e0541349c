"""Fixtures: another host's engine for the tests of a module, and a state directory that it cannot see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.engine import Volback
from tests.support.remote import SecondEngine, own_filesystem, second_engine


@pytest.fixture(scope="module")
def running() -> Iterator[SecondEngine]:
    """Another host's engine."""
    with second_engine() as engine:
        yield engine


@pytest.fixture
def second(running: SecondEngine) -> Iterator[SecondEngine]:
    """It, without volumes; after the test it has no helpers."""
    yield running
    with closing(running.client()) as client:
        assert client.containers.list(all=True, ignore_removed=True) == []
        for left in client.volumes.list():
            left.remove()


@pytest.fixture
def far_state(run_volback: Volback) -> Iterator[dict[str, str]]:
    """An environment whose state directory the second engine cannot see, as if it were on another machine."""
    with own_filesystem(run_volback.directory / "own") as own:
        yield {"VOLBACK_STATE_DIR": str(own / "state")}
