"""Events: what an engine reports while something goes on, received as it comes.

An engine keeps its last 256 events, so who asks for past ones may ask too late: the stream is opened before that which
is waited for. Where the engine denies events (a proxy that allows few calls), none come.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import docker.errors
import requests.exceptions
import urllib3.exceptions

log = logging.getLogger(__name__)

_END_S = 5.0


class EventStream(ABC):
    """Notes events of some kinds from now on, in a thread; a context manager."""

    def __init__(self, client: Any, filters: dict[str, list[str]], *, since: float) -> None:
        """`since` is in seconds since 1970, by the engine's clock."""
        self._client = client
        self._filters = filters
        self._opened_since = since
        self._ended = threading.Event()
        self._stream: Any = None
        self._receiver: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._receiver = threading.Thread(target=self._receive, name="events", daemon=True)
        self._receiver.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._stream is not None:
            with suppress(OSError, ValueError, AttributeError):  # the connection may be gone already
                self._stream.close()
            if self._receiver is not None:
                self._receiver.join(_END_S)

    @abstractmethod
    def _note(self, event: dict[str, Any]) -> None:
        """Take one event, as it comes."""

    def _receive(self) -> None:
        try:
            self._stream = self._client.events(since=f"{self._opened_since:.6f}", filters=self._filters, decode=True)
            for event in self._stream:
                if self._ended.is_set():
                    return
                self._note(event)
        except (OSError, ValueError, AttributeError, requests.exceptions.RequestException,
                urllib3.exceptions.HTTPError, docker.errors.DockerException) as exc:  # fmt: skip
            log.debug("events end: %s", exc)


class Signals(EventStream):
    """Which containers are sent a signal in a block; a context manager."""

    def __init__(self, client: Any, *, clock_ahead_s: float) -> None:
        super().__init__(client, {"type": ["container"], "event": ["kill"]}, since=time.time() + clock_ahead_s)
        self._signalled: set[str] = set()

    def has(self, container_id: str) -> bool:
        """Whether that container was sent one."""
        return container_id in self._signalled

    def _note(self, event: dict[str, Any]) -> None:
        self._signalled.add((event.get("Actor") or {}).get("ID", ""))
