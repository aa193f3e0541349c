"""The conformance suite over every store; a new store is one more entry of STORES."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.conformance import StoreConformance
from volback.store.base import Store
from volback.store.faults import FaultStore
from volback.store.local import LocalStore
from volback.store.memory import MemoryStore

STORES: dict[str, Callable[[Path], Store]] = {
    "local": lambda directory: LocalStore(directory / "repository"),
    "memory": lambda directory: MemoryStore(directory.name),
    "faults-local": lambda directory: FaultStore(LocalStore(directory / "repository")),
    "faults-memory": lambda directory: FaultStore(MemoryStore(directory.name)),
}


class TestConformance(StoreConformance):
    @pytest.fixture(params=STORES)
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
        return STORES[request.param](tmp_path)
