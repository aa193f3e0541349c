"""Services of a swarm, as a manager describes them: how many replicas they are to have, and what became of their tasks.

live/ decides which services are scaled, and when. Of a service's specification only the number of replicas is changed:
all else is sent back as the manager gave it, also what the library does not know.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker.errors

from volback.engine.connect import translated
from volback.engine.containers import Container, list_containers
from volback.errors import ConflictError, EngineUnreachable, NotFoundError
from volback.policy.schedulers import SERVICE_LABEL

DEFAULT_GRACE_S = 10
"""The engine's default for a service without a setting."""
_NO_LEADER = ("does not have a leader", "lost leader status", "deadline exceeded")
"""Parts of the messages of managers that lose their majority, or have just been started: status 500. What was asked may
be done all the same."""
_POLL_S = 0.2
_OUT_OF_SEQUENCE = "out of sequence"
"""https://github.com/moby/swarmkit/blob/master/manager/state/store/memory.go, ErrSequenceConflict: status 500."""
_SETTLED = frozenset({"", "completed", "rollback_completed"})
_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})


@dataclass(frozen=True, slots=True)
class Service:
    """A service as the swarm describes it at one moment."""

    id: str
    name: str
    version: int
    """It changes with each change of the service; the swarm refuses a change that was made for an older one."""
    mode: str
    """Replicated, Global, ReplicatedJob or GlobalJob."""
    replicas: int
    """How many it is to have; 0 also where its mode has no such number."""
    is_reaffirmed: bool
    """Whether the last change of its specification changed nothing: somebody asked again for what it was."""
    update_state: str
    """Of its update, if there is one in progress: updating, paused, rollback_started or rollback_paused."""
    grace_s: int


@dataclass(frozen=True, slots=True)
class Tasks:
    """How many tasks one service has."""

    running: int
    """On all nodes; those whose health check passes, if they have one."""
    elsewhere: int
    """Those on other nodes that have not ended."""


def is_manager(client: Any) -> bool:
    """Whether the engine manages a swarm now: only a manager changes services."""
    with translated("engine"):
        return bool((client.info().get("Swarm") or {}).get("ControlAvailable"))


def inspect_service(client: Any, id: str, *, leader_wait_s: float) -> Service:
    """Describe a service; for `leader_wait_s`, wait for a leader of the swarm: after an engine's start there is none.

    Raises NotFoundError, EngineError.
    """
    return _service(_specified(client, id, leader_wait_s=leader_wait_s))


def scale_service(client: Any, service: Service, replicas: int) -> None:
    """Let a service have that many replicas, if it did not change since it was described.

    Raises ConflictError if it did, NotFoundError, EngineError; after EngineUnreachable it may be done all the same.
    """
    what = f"service {service.name!r}"
    facts = _specified(client, service.id)
    specification, version = facts["Spec"], facts["Version"]["Index"]
    if version != service.version:
        raise ConflictError(f"{what} was changed meanwhile")
    specification["Mode"]["Replicated"]["Replicas"] = replicas
    url = f"{client.base_url}/v{client.api_version}/services/{service.id}/update"
    with _asked(what):
        response = client.post(url, params={"version": version}, json=specification, timeout=client.timeout)
        client._raise_for_status(response)


def count_tasks(client: Any, service: str, *, node: str) -> Tasks:
    """Count the tasks of a service, by its id and that of this engine's node.

    A task that the swarm has given up runs on, in its records, where its node does not answer.
    """
    with _asked("tasks"):
        found = client.tasks(filters={"service": service})
    running = [task for task in found if task["Status"]["State"] == task["DesiredState"] == "running"]
    unfinished = [task for task in found if task["Status"]["State"] not in _ENDED]
    return Tasks(len(running), sum(task.get("NodeID") not in (None, "", node) for task in unfinished))


def containers_of_service(client: Any, service: str) -> list[Container]:
    """Describe the active containers that this engine runs for a service, by name."""
    return list_containers(client, labels=[f"{SERVICE_LABEL}={service}"])


def _specified(client: Any, id: str, *, leader_wait_s: float = 0.0) -> dict[str, Any]:
    deadline = time.monotonic() + leader_wait_s
    while True:
        try:
            with _asked(f"service {id!r}"):
                facts: dict[str, Any] = client.inspect_service(id)
                return facts
        except NotFoundError:
            raise NotFoundError(f"service {id!r} does not exist", "see docker service ls") from None
        except EngineUnreachable as exc:
            if time.monotonic() >= deadline or not isinstance(exc.__cause__, docker.errors.APIError):
                raise
        time.sleep(_POLL_S)


@contextmanager
def _asked(what: str) -> Iterator[None]:
    """Translate the library's errors, and those of a swarm that answers for itself."""
    with translated(what):
        try:
            yield
        except docker.errors.APIError as exc:
            if _OUT_OF_SEQUENCE in str(exc.explanation):
                raise ConflictError(f"{what} was changed meanwhile") from exc
            if any(part in str(exc.explanation) for part in _NO_LEADER):
                raise EngineUnreachable(f"{what}: the swarm has no leader", "see docker node ls") from exc
            raise


def _service(facts: dict[str, Any]) -> Service:
    specification = facts["Spec"]
    container = specification["TaskTemplate"].get("ContainerSpec") or {}
    grace_ns = container.get("StopGracePeriod")
    update_state = (facts.get("UpdateStatus") or {}).get("State") or ""
    return Service(
        id=facts["ID"],
        name=specification["Name"],
        version=facts["Version"]["Index"],
        mode=next(iter(specification["Mode"])),
        replicas=int((specification["Mode"].get("Replicated") or {}).get("Replicas") or 0),
        is_reaffirmed=specification == facts.get("PreviousSpec"),
        update_state="" if update_state in _SETTLED else update_state,
        grace_s=DEFAULT_GRACE_S if grace_ns is None else -(-grace_ns // 10**9),
    )
