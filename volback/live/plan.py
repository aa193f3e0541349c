"""Plans of a quiesce: which containers write to the sources, which of them are stopped or paused, and in which order.

Nothing is stopped here; see `quiesce`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from volback.catalog.model import Source
from volback.context import Context
from volback.engine.containers import Container
from volback.engine.engine import Engine
from volback.engine.services import Service
from volback.errors import ConflictError, NotFoundError
from volback.live.order import levels
from volback.live.services import Services, containers_held_by_others
from volback.policy.quiesce import How
from volback.policy.schedulers import SERVICE_LABEL, owner_of
from volback.policy.storage import Storage, is_tmpfs
from volback.state.journal import HeldContainer
from volback.state.runs import live_journals


@dataclass(frozen=True, slots=True)
class QuiesceTarget:
    """A container to be stopped or paused, and how."""

    container: Container
    how: How
    grace_s: int
    service: Service | None = None
    """What is scaled to 0 in place of stopping it."""


@dataclass(frozen=True, slots=True)
class QuiesceRequest:
    """How the writers of one source are quiesced; `grace_s` None is each container's own grace time."""

    source: Source
    how: How
    grace_s: int | None = None
    storage: Storage | None = None
    """Where the source's bytes are; None is what its name alone says."""

    @property
    def reached(self) -> Storage:
        """By which names and paths containers reach the source."""
        if self.storage is not None:
            return self.storage
        if self.source.kind == "volume":
            return Storage(frozenset({self.source.name}), frozenset())
        return Storage(frozenset(), frozenset({self.source.name}))


def quiesce_candidates(ctx: Context, engine: Engine) -> list[Container]:
    """Containers that run, and those that another run has quiesced: that run must not start them while this one reads.

    The container that this process runs in is not among them. Journals are read before the running ones are listed, and
    once more after that: a container that another run stops or starts again meanwhile is among one of the three.
    """
    state, own = ctx.settings.state, engine.own_container_ids
    held, tasks = _held(engine, state), containers_held_by_others(engine, state)
    found = {container.id: container for container in engine.containers() if container.id not in own}
    for id_ in (held | _held(engine, state)).difference(found):
        with suppress(NotFoundError):
            found[id_] = engine.container(id_)
    for container in [*tasks, *containers_held_by_others(engine, state)]:
        found.setdefault(container.id, container)
    return list(found.values())


def _held(engine: Engine, state: Path) -> set[str]:
    """Ids of the containers of this engine that runs in progress have stopped or paused, or are about to."""
    entries = (entry for _, journal in live_journals(state) for entry in journal.of(HeldContainer))
    return {entry.id for entry in entries if entry.engine == engine.info.id}


def plan_quiesce(
    containers: list[Container],
    requests: Iterable[QuiesceRequest],
    services: Services,
    *,
    also: Iterable[Container] = (),
) -> list[QuiesceTarget]:
    """Return the containers to quiesce, in the order in which they are to be stopped.

    Those are the running ones that have a source mounted writable, those that share a namespace with one that is
    stopped, and `also` some that are to be stopped whatever they mount. Raises ConflictError for a container that would
    be removed or replaced (by its scheduler) when it is stopped, or that cannot be paused.
    """
    targets: dict[str, QuiesceTarget] = {}
    for request in requests:
        _refuse_to_lose(request)
        for container in writers(request, containers):
            _add_request(targets, container, request.how, request.grace_s)
    for container in also:
        _add_request(targets, container, "stop", None)
    _add_sharers(targets, containers)
    _leave_to_services(targets, services)
    for item in targets.values():
        _refuse(item)
    _refuse_to_cut_off(targets, containers)
    return [item for level in stop_levels(list(targets.values())) for item in level]


def _refuse_to_lose(request: QuiesceRequest) -> None:
    source = request.source
    if request.how == "stop" and source.kind == "volume" and is_tmpfs(source.driver, source.options):
        raise ConflictError(
            f"volume {source.name!r} is in memory (tmpfs): its content is lost when its containers stop",
            "pause them instead with --pause",
        )


def short_graces(targets: Iterable[QuiesceTarget], requests: Iterable[QuiesceRequest]) -> list[str]:
    """Warnings about services that have less time to end than a request gives: scaling changes nothing else of them."""
    found = {
        f"service {item.service.name!r} has its own {item.service.grace_s} s to end, not {request.grace_s}:"
        f" see docker service update --stop-grace-period"
        for item in targets
        for request in requests
        if item.service and request.grace_s is not None and request.grace_s > item.service.grace_s
        if writers(request, [item.container])
    }
    return sorted(found)


def _leave_to_services(targets: dict[str, QuiesceTarget], services: Services) -> None:
    """Note the services of those to be stopped: with one of its containers, all of them end.

    One that another run has scaled to 0 has nothing left to pause.
    """
    scaled = {}
    for item in targets.values():
        if item.how == "stop" or not item.container.is_active:
            service = services.scalable(item.container)
            if service is not None:
                scaled[service.id] = service
    for id_, item in targets.items():
        if service := scaled.get(item.container.labels.get(SERVICE_LABEL, "")):
            targets[id_] = replace(item, how="stop", service=service)


def _refuse(item: QuiesceTarget) -> None:
    if item.service is not None:
        return
    name = item.container.name
    owner = owner_of(item.container.labels)
    if item.how == "stop" and owner is not None:
        raise ConflictError(
            f"container {name!r} belongs to {owner.what}, which starts another one when it is stopped",
            f"run{owner.where}: {owner.stop_command}; then back up without --stop, and run: {owner.start_command};"
            " or use --pause instead",
        )
    if item.how == "stop" and item.container.auto_remove:
        raise ConflictError(
            f"container {name!r} would be removed as soon as it stops (--rm)",
            "pause it instead with --pause, or start it without the --rm of `docker run`",
        )
    if item.how == "pause" and item.container.state == "restarting":
        raise never_pausable(name)


def _refuse_to_cut_off(targets: dict[str, QuiesceTarget], containers: Iterable[Container]) -> None:
    """A container in the namespace of a service's container could not be started again: that one does not come back."""
    services = {item.service.id: item.service.name for item in targets.values() if item.service is not None}
    ending = [other for other in containers if other.labels.get(SERVICE_LABEL) in services]
    for container in containers:
        for other in ending:
            if container.shares_with(other):
                raise ConflictError(
                    f"container {container.name!r} uses a namespace of container {other.name!r}, which does not come"
                    f" back when swarm service {services[other.labels[SERVICE_LABEL]]!r} is scaled to 0",
                    "use --pause instead",
                )


def never_pausable(name: str) -> ConflictError:
    """The error for a container that crashes again and again."""
    return ConflictError(
        f"container {name!r} ends and is restarted again and again, so it cannot be paused",
        f"stop it instead with --stop; see docker logs {name}",
    )


def writers(request: QuiesceRequest, containers: Iterable[Container]) -> list[Container]:
    """Those of the containers that can write to the source, but for those that mount all volumes at once."""
    return [
        item
        for item in containers
        if any(mount.writable and request.reached.reach(mount.kind, mount.source) == "near" for mount in item.mounts)
    ]


def _add_request(targets: dict[str, QuiesceTarget], container: Container, how: How, grace_s: int | None) -> None:
    """Add a request; of two for one container the stronger applies, and the longer grace time."""
    grace_s = container.grace_s if grace_s is None else grace_s
    before = targets.get(container.id)
    if before is not None:
        how = "stop" if "stop" in (how, before.how) else "pause"
        grace_s = max(grace_s, before.grace_s)
    targets[container.id] = QuiesceTarget(container, how, grace_s)


def _add_sharers(targets: dict[str, QuiesceTarget], active: list[Container]) -> None:
    """A container in another's namespace would be cut off from it by a restart, so it is stopped with it."""
    while True:
        stopped = [item.container for item in targets.values() if item.how == "stop"]
        more = [
            container
            for container in active
            if (container.id not in targets or targets[container.id].how != "stop")
            and any(container.shares_with(other) for other in stopped)
        ]
        if not more:
            return
        for container in more:
            _add_request(targets, container, "stop", None)


def stop_levels(targets: list[QuiesceTarget]) -> list[list[QuiesceTarget]]:
    """Those that can be stopped at the same time, level by level: each before what it needs."""
    by_id = {item.container.id: item for item in targets}
    users = {
        id_: [other.container.id for other in targets if other is not item and other.container.needs(item.container)]
        for id_, item in by_id.items()
    }
    return [[by_id[id_] for id_ in level] for level in levels(users)]
