"""Fixtures of tests that call the operations on a real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import EngineSession
from tests.support.library import Library, open_library
from volback.operations.backup import BackupOptions, backup
from volback.operations.sources import volume_source


@pytest.fixture
def library(engine: EngineSession, tmp_path: Path) -> Library:
    """What operations work with: a repository and a state of the test's own."""
    return open_library(engine, tmp_path)


@pytest.fixture
def save(library: Library, volume_factory: Callable[..., str]) -> Callable[[Callable[[Path], None]], str]:
    """Makes a volume that a function has filled, and a backup of it; gives the volume's name."""

    def made(fill: Callable[[Path], None]) -> str:
        name = volume_factory("saved", fill=fill)
        backup(*library, volume_source(library.engine, name), BackupOptions())
        return name

    return made
