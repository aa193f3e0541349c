"""Containers of the engine's users: facts about them, and stopping, pausing and starting them again.

live/ decides which containers are stopped, in which order and for how long, and ensures that all are started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from volback.engine.connect import translated
from volback.errors import ConflictError, EngineError, NotFoundError, NotRunningError

DEFAULT_GRACE_S = 10
"""The engine's default for a container without a setting."""
_RESTARTING = "is restarting, wait until the container is running"
"""https://github.com/moby/moby/blob/master/daemon/errors.go, errContainerIsRestarting."""
_POLL_S = 0.2
_DEPENDS_ON = "com.docker.compose.depends_on"
_SERVICE = "com.docker.compose.service"
_PROJECT = "com.docker.compose.project"
_NUMBER = "com.docker.compose.container-number"
_ONE_OFF = "com.docker.compose.oneoff"
_NEVER = "0001-"
"""How the engine's text begins for the start of a container that was never started."""


RestartPolicy = tuple[str, int]
"""When the engine starts a container by itself (no, always, unless-stopped, on-failure), and after how many failures
it gives up; 0: never."""
NO_RESTART: RestartPolicy = ("no", 0)


@dataclass(frozen=True, slots=True)
class Mount:
    """What a container mounts; `source` is a volume's name, or a path of the engine's host."""

    kind: str
    source: str
    path: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine describes it at one moment."""

    id: str
    name: str
    state: str
    """The engine's state: created, running, paused, restarting, removing, exited, dead."""
    started_at: str
    """The engine's text; it changes with each start."""
    health: str | None
    """starting, healthy or unhealthy; None without a health check."""
    auto_remove: bool
    grace_s: int
    labels: dict[str, str]
    mounts: tuple[Mount, ...]
    shares: tuple[str, ...]
    """Ids or names of containers whose network, PID or IPC namespace it uses, or to which it is linked."""
    restart_policy: RestartPolicy = NO_RESTART
    image: str = ""
    """As it was named when the container was made."""

    @property
    def is_active(self) -> bool:
        """Whether it has processes now, or will have in a moment."""
        return self.state in ("running", "paused", "restarting")

    @property
    def service(self) -> tuple[str, str] | None:
        """Its compose project and service."""
        if _PROJECT in self.labels and _SERVICE in self.labels:
            return self.labels[_PROJECT], self.labels[_SERVICE]
        return None

    @property
    def replica(self) -> tuple[str, str, str] | None:
        """Its compose project, service and number, which a container has that compose makes in its place."""
        if self.service is None or _NUMBER not in self.labels or self.labels.get(_ONE_OFF) == "True":
            return None
        return *self.service, self.labels[_NUMBER]

    @property
    def has_run(self) -> bool:
        """Whether it was ever started."""
        return bool(self.started_at) and not self.started_at.startswith(_NEVER)

    def needs(self, other: Container) -> bool:
        """Whether `other` has to run before this one can: by a shared namespace, a link, or compose's depends_on."""
        if any(other.id.startswith(shared) or other.name == shared for shared in self.shares):
            return True
        mine, theirs = self.service, other.service
        if mine is None or theirs is None or mine[0] != theirs[0]:
            return False
        # https://github.com/docker/compose/blob/main/pkg/api/labels.go: "db:service_healthy:false,cache:..."
        listed = (item.partition(":")[0] for item in self.labels.get(_DEPENDS_ON, "").split(","))
        return theirs[1] in listed

    def shares_with(self, other: Container) -> bool:
        """Whether a restart of `other` would cut it off permanently, because it uses the namespace of `other`."""
        return any(other.id.startswith(shared) or other.name == shared for shared in self.shares)


def inspect(client: Any, container: str) -> Container:
    """Describe one container. Raises NotFoundError."""
    try:
        with translated(f"container {container!r}"):
            return _container(client.inspect_container(container))
    except NotFoundError:
        raise NotFoundError(f"container {container!r} does not exist", "see docker ps --all") from None


def successor(client: Any, id: str, name: str, replica: tuple[str, str, str] | None) -> Container | None:
    """Describe the container that was made in place of that one: it has its name, or else its place in compose.

    Compose gives it the name last. None: there is no other.
    """
    with suppress(NotFoundError):
        found = inspect(client, name)
        if found.name == name and found.id != id:
            return found
    if replica is None:
        return None
    labels = [f"{key}={value}" for key, value in zip((_PROJECT, _SERVICE, _NUMBER), replica, strict=True)]
    with translated("containers"):
        ids = [facts["Id"] for facts in client.containers(all=True, filters={"label": labels})]
    others = _inspected(client, [other for other in ids if other != id])
    others = [container for container in others if container.replica is not None]
    return min(others, key=lambda container: not container.is_active, default=None)


def list_containers(client: Any, *, every: bool = False, labels: Sequence[str] = ()) -> list[Container]:
    """Describe the containers that are active (or all), by name; one that is removed meanwhile is left out.

    Each of the `labels`, `KEY=VALUE`, has to be theirs.
    """
    with translated("containers"):
        ids = [
            facts["Id"] for facts in client.containers(all=every, filters={"label": list(labels)} if labels else None)
        ]
    return sorted(_inspected(client, ids), key=lambda container: container.name)


def _inspected(client: Any, ids: list[str]) -> list[Container]:
    found = []
    for id_ in ids:
        with suppress(NotFoundError):
            found.append(inspect(client, id_))
    return found


def stop(client: Any, container: str, *, grace_s: int) -> None:
    """Stop it by its own signal, and kill it when `grace_s` have passed. Returns when it has ended."""
    with translated(f"container {container!r}"):
        client.stop(container, timeout=grace_s)


def was_signalled(client: Any, container: str, *, since: float, clock_ahead_s: float) -> bool:
    """Whether it was sent a signal since then (seconds since 1970, by this machine's clock): it may be stopping.

    The engine reports each signal as an event, also that of a stop; of those that are past, only its last 256. Where it
    does not report events (a proxy that allows few calls), the answer is False.
    """
    asked = {"container": container, "event": "kill"}
    begin, end = (f"{at + clock_ahead_s:.6f}" for at in (since, time.time()))
    try:
        with translated(f"container {container!r}"):
            return any(True for _ in client.events(since=begin, until=end, filters=asked))
    except EngineError:
        return False


def set_restart_policy(client: Any, container: str, policy: RestartPolicy) -> None:
    """Change when the engine starts it by itself; it is neither started nor stopped. Raises NotFoundError."""
    name, retries = policy
    with translated(f"container {container!r}"):
        client.update_container(container, restart_policy={"Name": name, "MaximumRetryCount": retries})


def pause(client: Any, container: str) -> None:
    """Freeze its processes. Raises NotRunningError while the engine waits to restart it."""
    try:
        with translated(f"container {container!r}"):
            client.pause(container)
    except ConflictError as exc:
        if _RESTARTING in exc.message:
            raise NotRunningError(exc.message) from exc
        raise


def resume(client: Any, container: str, *, may_start: bool) -> bool:
    """Make it run: thaw it, or start it; False if it ran already, or may not be started.

    Raises NotFoundError, EngineError.
    """
    state = inspect(client, container).state
    if state in ("running", "restarting") or not (may_start or state == "paused"):
        return False
    with translated(f"container {container!r}"):
        if state == "paused":
            client.unpause(container)
        else:
            client.start(container)
    return True


def wait_healthy(client: Any, container: str, *, limit_s: float, hurry: Callable[[], bool]) -> str | None:
    """Wait until its health check passes; return its health then, or its health after `limit_s` or when `hurry`
    returns true.

    None where there is no check any more, or it does not run.
    """
    deadline = time.monotonic() + limit_s
    while True:
        seen = inspect(client, container)
        if seen.health in (None, "healthy") or not seen.is_active:
            return seen.health if seen.is_active else None
        if time.monotonic() >= deadline or hurry():
            return seen.health
        time.sleep(_POLL_S)


def _container(facts: dict[str, Any]) -> Container:
    config, host, state = facts["Config"], facts["HostConfig"], facts["State"]
    return Container(
        id=facts["Id"],
        name=facts["Name"].lstrip("/"),
        state=state["Status"],
        started_at=state.get("StartedAt") or "",
        health=_health(state),
        auto_remove=bool(host.get("AutoRemove")),
        grace_s=DEFAULT_GRACE_S if config.get("StopTimeout") is None else int(config["StopTimeout"]),
        labels=config.get("Labels") or {},
        mounts=tuple(_mount(mount) for mount in facts.get("Mounts") or []),
        shares=tuple(_shared(host)),
        restart_policy=_restart_policy(host),
        image=config.get("Image") or "",
    )


def _restart_policy(host: dict[str, Any]) -> RestartPolicy:
    policy = host.get("RestartPolicy") or {}
    return policy.get("Name") or "no", int(policy.get("MaximumRetryCount") or 0)


def _health(state: dict[str, Any]) -> str | None:
    status = (state.get("Health") or {}).get("Status")
    return None if status in (None, "", "none") else str(status)


def _mount(facts: dict[str, Any]) -> Mount:
    source = facts.get("Name") if facts.get("Type") == "volume" else facts.get("Source")
    return Mount(facts.get("Type", ""), source or "", facts.get("Destination", ""), bool(facts.get("RW")))


def _shared(host: dict[str, Any]) -> list[str]:
    modes = [host.get(key) or "" for key in ("NetworkMode", "PidMode", "IpcMode")]
    shared = [mode.partition(":")[2] for mode in modes if mode.startswith("container:")]
    return shared + [link.partition(":")[0].lstrip("/") for link in host.get("Links") or []]
