"""Swarm services: scaled to 0 while their volumes are read. See `rescaling` for the way back.

A task's container is neither stopped nor started here: swarm would answer by starting another one. Its service is
scaled, through a manager of the swarm. That ends the tasks on all nodes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

from volback.engine.containers import Container, Mount
from volback.engine.engine import Engine
from volback.engine.services import DEFAULT_GRACE_S, Service
from volback.errors import ConflictError, EngineError, EngineUnreachable, NotFoundError, VolbackError
from volback.live.held import forget_left, held_by_others, service_lock
from volback.policy.schedulers import NODE_LABEL, SERVICE_LABEL, owner_of
from volback.state.journal import HeldService, HeldTask
from volback.state.runs import RecordedRun, live_journals

log = logging.getLogger(__name__)

TRIES = 20
"""How often a service is looked at anew because others have changed it meanwhile."""
_MARGIN_S = 30.0
_ELSEWHERE_MARGIN_S = 5.0
_POLL_S = 0.1
_MODES = {"Global": "runs on every node (global mode)", "ReplicatedJob": "is a job", "GlobalJob": "is a job"}


class Services:
    """The swarm's services, as far as containers belong to them; each is asked for once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, Service | None] = {}

    def scalable(self, container: Container) -> Service | None:
        """The service to scale in place of stopping the container; None where no manager of its swarm is reached.

        Raises ConflictError for one that cannot be scaled to 0 and back.
        """
        owner = owner_of(container.labels)
        if owner is None or not owner.service:
            return None
        if owner.service not in self._known:
            self._known[owner.service] = self._ask(owner.service)
        service = self._known[owner.service]
        if service is not None:
            _refuse_its_kind(service, container.labels.get(NODE_LABEL, "NODE"))
            _refuse_while_updated(service)
            self._refuse_own(service)
        return service

    def _ask(self, id: str) -> Service | None:
        try:
            return self._engine.service(id) if self._engine.is_swarm_manager else None
        except EngineUnreachable:
            raise
        except (NotFoundError, EngineError) as exc:
            log.info("%s", exc.message)
            return None

    def _refuse_own(self, service: Service) -> None:
        own = [self._engine.container(id_) for id_ in self._engine.own_container_ids]
        if any(container.labels.get(SERVICE_LABEL) == service.id for container in own):
            raise ConflictError(
                f"swarm service {service.name!r} is the one that volback itself runs in: it cannot be scaled to 0",
                "run volback in a service of its own, or use --pause instead",
            )


def _refuse_its_kind(service: Service, node: str) -> None:
    if service.mode == "Replicated":
        return
    constraint = f"docker service update --constraint-{{}} node.id!={node} {service.name}"
    raise ConflictError(
        f"swarm service {service.name!r} {_MODES.get(service.mode, service.mode)}: it cannot be scaled to 0 and back",
        f"run: {constraint.format('add')}; then back up without --stop, and run: {constraint.format('rm')};"
        " or use --pause instead"
        if service.mode == "Global"
        else "back up when it has ended, or use --pause instead",
    )


def _refuse_while_updated(service: Service) -> None:
    if service.update_state:
        raise ConflictError(
            f"swarm service {service.name!r} is being updated ({service.update_state}): scaled now, that would be lost",
            f"wait for its end (see docker service ps {service.name}), or use --pause instead",
        )


def planned_services(engine: Engine, targets: Iterable[tuple[Container, Service]]) -> list[HeldService]:
    """The entries for the journal: each service once, with those of its containers."""
    found: dict[str, HeldService] = {}
    for container, service in targets:
        node = container.labels.get(NODE_LABEL, "")
        held = HeldService(
            engine=engine.info.id, host=engine.info.name, id=service.id, name=service.name, node=node, containers=[]
        )
        mounts = [(mount.kind, mount.source, mount.path, mount.writable) for mount in container.mounts]
        task = HeldTask(id=container.id, name=container.name, mounts=mounts)
        found.setdefault(service.id, held).containers.append(task)
    return list(found.values())


def containers_held_by_others(engine: Engine, state: Path) -> list[Container]:
    """The containers that services had on this engine before other runs scaled them to 0."""
    return [
        _as_it_was(held, task)
        for _, journal in live_journals(state)
        for held in journal.of(HeldService)
        if held.engine == engine.info.id
        for task in held.containers
    ]


def _as_it_was(held: HeldService, task: HeldTask) -> Container:
    labels = {SERVICE_LABEL: held.id, "com.docker.swarm.service.name": held.name, NODE_LABEL: held.node}
    return Container(
        id=task.id, name=task.name, state="exited", started_at="", health=None, auto_remove=False,
        grace_s=DEFAULT_GRACE_S, labels=labels, mounts=tuple(Mount(*mount) for mount in task.mounts), shares=(),
    )  # fmt: skip


def scale_down(engine: Engine, state: Path, run: RecordedRun, held: HeldService) -> list[str]:
    """Scale a service to 0 and wait until its containers on this engine have ended; return warnings.

    Tasks on other nodes are waited for too, but only warned of: their local volumes are not those of this engine. A
    service that is at 0 already is not the run's to scale back. Raises ConflictError, EngineError.
    """
    with service_lock(state, held.id):
        grace_s = _scale(engine, state, run, held)
        _await_end_here(engine, held, grace_s + _MARGIN_S)
        if held.phase == "stopping":
            held.phase = "held"
            run.write_journal()
    log.info("service %s scaled to 0", held.name)
    return _await_end_elsewhere(engine, held, grace_s + _ELSEWHERE_MARGIN_S)


def _scale(engine: Engine, state: Path, run: RecordedRun, held: HeldService) -> int:
    """Return how long its containers may take to end."""
    for _ in range(TRIES):
        try:
            service = engine.service(held.id)
        except NotFoundError:  # removed just now: its containers end
            return DEFAULT_GRACE_S
        others = held_by_others(state, run.id).get(held.id)
        if not service.replicas and others is None:
            return service.grace_s
        if service.replicas:
            _refuse_while_updated(service)
            forget_left(state, held.id)
            held.replicas, held.running = service.replicas, engine.tasks(held.id, node=held.node).running
        elif isinstance(others, HeldService):
            held.replicas, held.running = others.replicas, others.running
        held.phase, held.version = "stopping", service.version
        run.write_journal()
        if _is_scaled(engine, run, held, service):
            return service.grace_s
    raise ConflictError(f"service {held.name!r} is changed by others again and again")


def _is_scaled(engine: Engine, run: RecordedRun, held: HeldService, service: Service) -> bool:
    """False if others have changed the service meanwhile."""
    if not service.replicas:
        return True
    try:
        engine.scale_service(service, 0)
    except EngineUnreachable:  # it may be done all the same
        raise
    except VolbackError as exc:
        held.phase = "planned"
        run.write_journal()
        if isinstance(exc, ConflictError):
            return False
        raise
    return True


def _await_end_here(engine: Engine, held: HeldService, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while left := engine.service_containers(held.id):
        if time.monotonic() >= deadline:
            names = ", ".join(container.name for container in left)
            raise EngineError(
                f"service {held.name!r} was scaled to 0, but still runs after {limit_s:.0f} s: {names}",
                f"see docker service ps {held.name}, or use --pause instead",
            )
        time.sleep(_POLL_S)


def _await_end_elsewhere(engine: Engine, held: HeldService, limit_s: float) -> list[str]:
    deadline = time.monotonic() + limit_s
    while left := engine.tasks(held.id, node=held.node).elsewhere:
        if time.monotonic() >= deadline:
            return [f"service {held.name!r} was scaled to 0, but {left} of its tasks on other nodes have not ended"]
        time.sleep(_POLL_S)
    return []
