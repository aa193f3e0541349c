"""The library as tests call it: operations rather than the program."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.support.engine import EngineSession
from tests.support.repository import new_repository
from volback.context import Context, open_engine, open_repository
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.settings import Settings
from volback.state.client import client_id
from volback.store.base import Store


class Library(NamedTuple):
    """What operations work with, in the order in which they take it."""

    ctx: Context
    engine: Engine
    repository: Repository

    def on(self, store: Store) -> Library:
        """The same, on another store; a new repository, if there is none."""
        new_repository(store)
        return self._replace(repository=Repository(store, lambda: self.repository.host))


def open_from(settings: Settings, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Library:
    """What the settings name; a directory becomes a repository if it does not exist yet."""
    if settings.repository.startswith("/") and not Path(settings.repository).exists():
        new_repository(Path(settings.repository))
    ctx = Context(settings, now=now)
    engine = open_engine(ctx)
    return Library(ctx, engine, open_repository(ctx, engine))


def open_library(engine: EngineSession, directory: Path) -> Library:
    """With a repository and state of its own in `directory`; the engine knows its helpers."""
    settings = Settings(repository=str(directory / "repository"), state=directory / "state")
    engine.client_ids.add(client_id(settings.state))
    return open_from(settings)
