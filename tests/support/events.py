"""What happens to an engine's containers, written down from the start of a session.

An engine keeps its last 256 events, of everybody's containers and volumes: what is asked for afterwards may be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Condition, Thread
from typing import Any, NamedTuple

import docker

from tests.support.engine import CLIENT_LABEL, EngineSession, connect, remove_volume

_WAIT_S = 120.0
_FOLLOWED = ["create", "die", "start", "pause", "unpause"]


class Event(NamedTuple):
    """One of a container."""

    container: str
    """Its id."""
    name: str
    labels: dict[str, str]
    action: str
    time_ns: int


class Events:
    """Each container's die, start, pause and unpause, as they come."""

    def __init__(self, engine: EngineSession, client: docker.DockerClient) -> None:
        """`client` is one of its own for the same engine, and is closed with it."""
        self._engine = engine
        self._client = client
        self._came: list[Event] = []
        self._marks: set[str] = set()
        self._changed = Condition()
        self._stream = self._client.events(decode=True, filters={"type": ["container", "volume"], "event": _FOLLOWED})
        self._thread = Thread(target=self._follow, daemon=True)
        self._thread.start()

    def since(self, since_s: float) -> list[Event]:
        """All that were reported from then until now, in order.

        Raises AssertionError where the engine does not report what is made to mark the end.
        """
        mark = self._engine.new_name("mark")
        self._engine.client.volumes.create(mark, labels=self._engine.labels)
        try:
            with self._changed:
                assert self._changed.wait_for(lambda: mark in self._marks, _WAIT_S), "the engine's events ended"
                return [event for event in self._came if event.time_ns >= since_s * 1e9]
        finally:
            remove_volume(self._engine.client, mark)

    def actions(self, since_s: float, container: Any) -> list[str]:
        """What happened to one container, as `since` says it."""
        return [event.action for event in self.since(since_s) if event.container == container.id]

    def close(self) -> None:
        self._stream.close()
        self._thread.join()
        self._client.close()

    def _follow(self) -> None:
        for event in self._stream:
            with self._changed:
                self._note(event)
                self._changed.notify_all()

    def _note(self, event: dict[str, Any]) -> None:
        actor, action = event["Actor"], str(event["Action"])
        if event["Type"] == "volume":
            self._marks.add(str(actor["ID"] or actor["Attributes"]["name"]))  # Podman gives volumes no id
        elif action != "create":
            labels = actor["Attributes"]
            self._came.append(Event(str(actor["ID"]), labels["name"], labels, action, int(event["timeNano"])))


def of_client(events: Iterable[Event], client: str) -> list[Event]:
    """Those of a volback's helpers, by the id in its state directory."""
    return [event for event in events if event.labels.get(CLIENT_LABEL) == client]


@contextmanager
def followed(engine: EngineSession, client: docker.DockerClient | None = None) -> Iterator[Events]:
    """`client`: for another engine than that of the tests."""
    events = Events(engine, client or connect())
    try:
        yield events
    finally:
        events.close()
