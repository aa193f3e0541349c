"""Sessions of the library for tests that call operations rather than the program."""

from __future__ import annotations

from pathlib import Path

from tests.support.engine import EngineSession
from volback.context import Session
from volback.settings import Settings
from volback.state.client import client_id


def open_session(engine: EngineSession, directory: Path) -> Session:
    """A session with a repository and state of its own in `directory`; the engine knows its helpers."""
    session = Session(Settings(repository=str(directory / "repository"), state=directory / "state"))
    engine.client_ids.add(client_id(session.settings.state))
    return session
