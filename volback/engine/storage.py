"""Storage on one engine: which containers reach the bytes of a volume or directory, and which did while they were read.

The comparison itself is pure (`policy.storage`); here the engine is asked for volumes, containers and events.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import docker.errors
import requests.exceptions

from volback.engine import volumes
from volback.engine.connect import translated
from volback.engine.events import EventStream
from volback.engine.helper import LABEL
from volback.errors import EngineError, EngineUnreachable
from volback.policy.storage import Storage, storage_of_directory, storage_of_volume

log = logging.getLogger(__name__)

_LIVE = {"type": ["container", "volume"], "event": ["start", "mount"]}


@dataclass(frozen=True, slots=True)
class StorageUser:
    """A container that reaches a storage, by a volume or by a path of the host."""

    container_id: str
    name: str
    state: str
    """The engine's word: created, running, paused, restarting, exited, dead."""
    writable: bool
    broad: bool
    """Whether only by a mount that holds all volumes, such as `/`."""
    labels: Mapping[str, str]
    """The container's."""

    @property
    def is_active(self) -> bool:
        """Whether its processes may touch the storage now."""
        return self.state in ("running", "paused", "restarting")


def find_storage(client: Any, kind: str, name: str, *, all_volumes: str, on_this_host: bool) -> Storage:
    """Return the storage of a volume, or of a directory of the engine's host.

    `on_this_host`: that host's symbolic links can be followed here. Engines bind what a link points to, and report the
    link.
    """
    known, find = volumes.list_volumes(client), storage_of_volume if kind == "volume" else storage_of_directory
    resolve = os.path.realpath if on_this_host else os.fspath
    return find(name, known, all_volumes=all_volumes, resolve=resolve)


def storage_users(client: Any, storage: Storage) -> list[StorageUser]:
    """Return the containers that reach the storage, running or not, by name; no helpers."""
    with translated("containers"):
        containers = client.containers(all=True)
    found = [_user(facts, storage) for facts in containers if LABEL not in (facts["Labels"] or {})]
    return sorted((user for user in found if user is not None), key=lambda user: user.name)


class Arrivals(EventStream):
    """Containers that start in a block and can write to a storage, as the engine's events tell; a context manager.

    They are received as they come, and asked for once more at the end. Where the engine denies events (a proxy that
    allows few calls), none are found.
    """

    def __init__(self, client: Any, storage: Storage, *, clock_ahead_s: float) -> None:
        self._storage = storage
        self._clock: Callable[[], float] = lambda: time.time() + clock_ahead_s
        self._since = self._clock()
        super().__init__(client, _LIVE, since=self._since)
        self._started: dict[str, tuple[str, float]] = {}
        """Name, and when it started last, by id."""
        self._writing: set[str] = set()

    def begin(self) -> None:
        """Count from now on; what started earlier does not concern the caller."""
        self._since = self._clock()

    def names(self) -> list[str]:
        """Return the names of those that have started until now. Raises EngineUnreachable."""
        try:
            for event in self._past():
                self._note(event)
        except EngineUnreachable:
            raise
        except EngineError as exc:
            log.debug("the engine reports no events: %s", exc.message)
        started = list(self._started.items())
        return sorted(name for id_, (name, at) in started if id_ in self._writing and at >= self._since)

    def _past(self) -> list[dict[str, Any]]:
        """What the engine still knows. The library's own call has no time limit, and containers may be waiting."""
        client = self._client
        window = {"since": f"{self._since:.6f}", "until": f"{self._clock():.6f}", "filters": json.dumps(_LIVE)}
        with translated("events"):
            response = client._get(client._url("/events"), params=window, stream=True, timeout=client.timeout)
            return list(client._stream_helper(response, decode=True))

    def _note(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor") or {}
        facts = actor.get("Attributes") or {}
        if event.get("Type") == "volume":
            if actor.get("ID") in self._storage.volumes and facts.get("read/write") == "true":
                self._writing.add(facts.get("container", ""))
        elif LABEL not in facts:
            id_ = actor["ID"]
            is_new = id_ not in self._started
            at = event.get("timeNano")
            self._started[id_] = facts.get("name", id_[:12]), math.inf if at is None else at / 1e9
            if is_new and self._binds(id_):
                self._writing.add(id_)

    def _binds(self, container_id: str) -> bool:
        """Whether it mounts the storage by a path: asked at once, as it may be gone in a moment."""
        try:
            mounts = self._client.inspect_container(container_id).get("Mounts") or []
        except (docker.errors.DockerException, requests.exceptions.RequestException):
            return False
        return any(
            mount.get("RW") and self._storage.reach(mount.get("Type", ""), _source(mount)) == "near" for mount in mounts
        )


def _user(facts: dict[str, Any], storage: Storage) -> StorageUser | None:
    reaching = [
        (storage.reach(mount.get("Type", ""), _source(mount)), bool(mount.get("RW"))) for mount in facts["Mounts"]
    ]
    near, broad = ([writable for how, writable in reaching if how == word] for word in ("near", "broad"))
    if not near and not broad:
        return None
    return StorageUser(
        container_id=facts["Id"],
        name=facts["Names"][0].lstrip("/") if facts.get("Names") else facts["Id"][:12],
        state=facts["State"],
        writable=any(near or broad),
        broad=not near,
        labels=facts.get("Labels") or {},
    )


def _source(mount: dict[str, Any]) -> str:
    return str((mount.get("Name") if mount.get("Type") == "volume" else mount.get("Source")) or "")
