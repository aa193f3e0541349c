"""What the tests say an engine did: all of it, however much else happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.engine import EngineSession
from tests.support.events import Events

pytestmark = pytest.mark.engine


def test_an_event_is_there_after_more_others_than_an_engine_keeps(
    engine: EngineSession, events: Events, volume_name: Callable[..., str], container_factory: Callable[..., Any]
) -> None:
    """An engine keeps 256."""
    since, volume = time.time(), volume_name("one")
    container = container_factory("true")
    for _ in range(130):
        engine.client.volumes.create(volume, labels=engine.labels).remove()
    assert events.actions(since, container)[0] == "start"
