"""What the engine room's tests share: engines of ours in every transport, and directories for their pipes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.engine import EngineSession
from tests.support.remote import SecondEngine, second_engine
from volback.engine.engine import Engine
from volback.engine.helper import Limits
from volback.settings import Transport

Opener = Callable[..., Engine]
Directory = Callable[[], Path]


class Target(NamedTuple):
    """A volume or a directory that a helper mounts."""

    kind: str
    name: str


@pytest.fixture(params=["pipe", "attach"])
def transport(request: pytest.FixtureRequest) -> Transport:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def open_engine(engine: EngineSession) -> Callable[..., Engine]:
    """Connects: `open_engine("attach", url=...)`; what it leaves counts against the test session."""

    def connect(
        transport: Transport | None = None, url: str | None = None, limits: Limits | None = None, timeout_s: float = 30
    ) -> Engine:
        client_id = f"test-{engine.id}-{secrets.token_hex(4)}"
        engine.client_ids.add(client_id)
        return Engine(url, client_id=lambda: client_id, transport=transport, limits=limits, timeout_s=timeout_s)

    return connect


@pytest.fixture
def directory(tmp_path: Path) -> Callable[[], Path]:
    """Gives paths for a helper's pipes."""
    return lambda: tmp_path / secrets.token_hex(8)


@pytest.fixture(scope="module")
def second() -> Iterator[SecondEngine]:
    """A second engine that looks like another host."""
    with second_engine() as running:
        yield running
