"""Migrate set: several volumes go to another engine together - those of a compose project, some that are named, or all.

What they have in common is the stop: first passes of all while containers run, then one stop over all, the last passes
and proofs. What is proven stays there, whatever becomes of the others. Containers stay stopped if all that belongs to
them was moved; else they run again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from volback.catalog.model import Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.containers import NO_RESTART, Container
from volback.engine.engine import Engine
from volback.errors import ConflictError, EngineUnreachable, Interrupted, UsageError, VolbackError, because
from volback.interrupts import deferred_signals
from volback.live.guard import guarded
from volback.live.leaving import Left, idle_users
from volback.live.plan import QuiesceTarget, plan_quiesce, quiesce_candidates, writers
from volback.live.quiesce import Quiesced
from volback.live.services import Services
from volback.moving.crew import Crew, SharedProgress
from volback.moving.files import FileMember
from volback.moving.grouping import Group, group_of, joined
from volback.moving.member import Member
from volback.moving.migrate import MigrateOptions, make_ready, without_source
from volback.moving.move import Moved
from volback.moving.sides import Side, source_side
from volback.moving.targets import Replacement, wanted_volume
from volback.moving.transfer import Wires
from volback.operations.recover import check_whole, half_restored
from volback.operations.single_files import single_file
from volback.policy.projects import PROJECT
from volback.policy.schedulers import owner_of
from volback.state.runs import Run, live_runs

log = logging.getLogger(__name__)

WAITING_AT_MOST = 8
"""For how many of them helpers wait while containers are stopped: four each, of about 15 MB."""


@dataclass(frozen=True, slots=True)
class SetMoved:
    """What came of several."""

    moved: tuple[Moved, ...]
    not_moved: tuple[str, ...]
    errors: tuple[VolbackError, ...]
    interrupted: Interrupted | None
    warnings: tuple[str, ...]
    left: Left
    """What stays stopped."""
    running_again: tuple[str, ...]
    """Names of the containers that were stopped, and run again."""
    downtime_s: float | None
    """Of those that stay stopped; None where none was."""


def migrate_set(
    ctx: Context, source: Engine, target: Engine, repository: Repository, names: Sequence[str],
    options: MigrateOptions, *, directories: Mapping[str, str] = {}, files: Mapping[str, str] = {},
    project: str | None = None, jobs: int = 2,
) -> SetMoved:  # fmt: skip
    """Move the volumes of these names; one that fails does not undo the others.

    `directories`, `files`: paths here, and where each goes there. `project`: all containers of it are stopped, also
    those that mount nothing. `repository`: see `migrate`.
    Raises NotFoundError, UsageError, EngineError before anything is done.
    """
    if options.remove_source and not options.prove:
        raise UsageError("--remove-source needs the proof", "leave out --no-prove")
    progress = SharedProgress(ctx.progress)
    shared = replace(ctx, progress=progress)
    sides = [
        (side, Side(target, wanted_volume(side.volume, side.volume.name, options)))
        for side in (source_side(source, name) for name in names)
    ]
    sides += [(_directory(source, here), _directory(target, there)) for here, there in directories.items()]
    sides += [(Side(source, single_file(here)), Side(target, single_file(there))) for here, there in files.items()]
    make_ready(ctx, source, target, repository, sides, retry_s=options.retry_s)
    wires = Wires.between(source, target, compress=options.compress, bytes_s=options.bytes_s)
    refill = Replacement(repository, safety_backup=False)
    members = [
        (FileMember if here.volume.kind == "file" else Member)(shared, here, there, wires, options, refill)
        for here, there in sides
    ]
    half = half_restored(ctx, source)
    moving = _SetMoving(ctx, source, target, members, options, project=project)
    return moving.moved(Crew(jobs, progress, moving.wake), half)


def _directory(engine: Engine, path: str) -> Side:
    return Side(engine, Source(kind="directory", name=path))


class _SetMoving:
    def __init__(
        self, ctx: Context, source: Engine, target: Engine, members: list[Member], options: MigrateOptions,
        *, project: str | None,
    ) -> None:  # fmt: skip
        self._ctx = ctx
        self._source = source
        self._target = target
        self._members = members
        self._options = options
        self._project = project
        self._services = Services(source)
        self._left = Left()
        self._warnings: list[str] = []
        self._errors: list[VolbackError] = []
        self._with_others = set[str]()
        """Names of those that failed only because another one did."""
        self._running_again: list[str] = []
        self._downtime_s: float | None = None

    def moved(self, crew: Crew, half: set[str]) -> SetMoved:
        interrupted = None
        try:
            for member in self._members:
                try:
                    check_whole(member.source.volume, half)
                except ConflictError as exc:
                    member.fail(exc)
                member.open()
            if self._options.stopping is None:
                crew.work_off(self._stage, [member.finish for member in self._unfinished])
            else:
                self._move_stopped(crew)
        except Interrupted as exc:
            interrupted = exc
        finally:
            with deferred_signals():
                self._end(interrupted)
        if self._options.remove_source and interrupted is None:
            self._remove_sources()
        return self._result(interrupted)

    def wake(self) -> None:
        """End the helpers of those that are at work, so that nobody waits for them any more."""

        def others() -> set[str]:
            working = {member.run_id for member in self._members if member.is_working}
            return {run for run in live_runs(self._ctx.settings.state) if run not in working}

        for engine in (self._source, self._target):
            try:
                for helper in engine.leftover_helpers(running=others):
                    engine.remove_helper(helper)
            except VolbackError as exc:  # what waits for that engine ends by itself
                log.debug("helpers on %s: %s", engine.info.name, exc.message)

    @property
    def _stage(self) -> str:
        return f"move {len(self._members)} volumes"

    @property
    def _unfinished(self) -> list[Member]:
        return [member for member in self._members if member.is_left]

    def _move_stopped(self, crew: Crew) -> None:
        self._check_stoppable()
        self._check_complete()
        is_live = self._options.stopping is not None and self._options.stopping.live
        crew.work_off(self._stage, [one.begin for one in self._unfinished[: None if is_live else WAITING_AT_MOST]])
        self._check_complete()
        crew.work_off("start helpers", [one.get_ready for one in self._unfinished[:WAITING_AT_MOST]])
        self._check_complete()
        if not self._unfinished:
            return
        with Run(self._ctx.settings.state, "quiesce", self._project or "") as run:
            try:
                self._finish_stopped(crew, run)
            except VolbackError as exc:
                unfinished = self._unfinished
                for member in unfinished:  # a container that cannot be stopped: nothing has been read
                    member.fail(
                        because(exc, f"{member.source.what} was not moved"), keep=isinstance(exc, EngineUnreachable)
                    )
                if not unfinished:
                    self._errors.append(exc)

    def _finish_stopped(self, crew: Crew, run: Run) -> None:
        targets = self._planned(self._unfinished)
        groups = self._groups([target.container for target in targets])
        may_stay = self._options.stopping is not None and not self._options.stopping.restart
        with guarded(self._ctx, run, needed=bool(targets)):
            held = Quiesced(self._ctx, self._source, run, targets, may_stay=may_stay)
            try:
                with held as quiesced, self._deciding(quiesced, groups if may_stay else []):
                    steps = [partial(member.finish, quiesced) for member in self._unfinished]
                    crew.work_off(self._stage, steps)
            finally:
                self._errors += held.errors
                self._warnings += held.warnings
                stays = {container.name for container in self._left.containers}
                self._running_again = [one.name for one in held.containers if one.name not in stays]
                self._downtime_s = max(held.downtime_s.values(), default=None)

    def _planned(self, members: Sequence[Member]) -> list[QuiesceTarget]:
        """The containers to stop for them. Raises ConflictError, EngineError."""
        candidates = quiesce_candidates(self._ctx, self._source)
        also = [one for one in candidates if self._is_of_project(one)] if members else []
        return plan_quiesce(candidates, [member.request for member in members], self._services, also=also)

    def _is_of_project(self, container: Container) -> bool:
        """Whether it is stopped although it may mount nothing: what its project needs is not there any more."""
        labels = container.labels
        mine = self._project is not None and labels.get(PROJECT) == self._project
        return mine and not container.auto_remove and owner_of(labels) is None

    def _check_stoppable(self) -> None:
        """One whose containers cannot be stopped fails now, and not once others are stopped."""
        for member in self._unfinished:
            try:
                self._planned([member])
            except VolbackError as exc:
                member.fail(because(exc, f"{member.source.what} was not moved"))

    def _check_complete(self) -> None:
        """Nothing is stopped for a part: where one has failed, those that belong to it go on where they are."""
        failed = {member.name: member.error for member in self._members if isinstance(member.error, VolbackError)}
        if not failed or not self._unfinished:
            return
        containers = quiesce_candidates(self._ctx, self._source)
        for group in self._groups([one for one in containers if one.is_active]):
            lost = sorted(group.members & failed.keys())
            if lost and group.containers:
                for member in self._unfinished:
                    if member.name in group.members:
                        why = f"{member.source.what} was not moved, and nothing stopped, as what belongs to it failed"
                        member.fail(because(failed[lost[0]], why))
                        self._with_others.add(member.name)

    def _groups(self, stopped: Sequence[Container]) -> list[Group]:
        """What belongs together, of all members, and the containers among `stopped` that concern them."""
        of_members = [
            group_of(member.name, writers(member.request, stopped), self._project_of(member))
            for member in self._members
        ]
        others = [group_of(None, [one], None) for one in stopped if self._is_of_project(one)]
        return joined([*of_members, *others])

    def _project_of(self, member: Member) -> str | None:
        return self._project or member.source.volume.labels.get(PROJECT)

    @contextmanager
    def _deciding(self, quiesced: Quiesced, groups: list[Group]) -> Iterator[None]:
        """After the block, whatever happens in it: what was moved as a whole stays stopped."""
        try:
            yield
        finally:
            with deferred_signals():
                whole = [group for group in groups if self._is_whole(group, quiesced)]
                idle = {one.id: one for group in whole for one in self._idle(group)}
                only = {container.id for group in whole for container in group.containers}
                if only or idle:
                    self._left = quiesced.leave_stopped(idle.values(), only=only)

    def _is_whole(self, group: Group, quiesced: Quiesced) -> bool:
        members = [member for member in self._members if member.name in group.members]
        if not members or not all(member.is_good for member in members):
            return False
        disturbers = quiesced.disturbed({container.name for container in group.containers})
        if disturbers:
            names = ", ".join(member.source.what for member in members)
            self._errors.append(
                ConflictError(
                    f"container {disturbers[0]!r} was started by others while {names} were moved",
                    "find out what starts it, and move them again",
                )
            )
        return not disturbers

    def _idle(self, group: Group) -> list[Container]:
        """Those that do not run, and that the engine might start."""
        found = [one for member in self._members if member.name in group.members for one in self._idle_users(member)]
        if self._project is not None and self._project in group.projects:
            found += [
                one for one in self._source.project_containers(self._project)
                if not one.is_active and one.restart_policy[0] != NO_RESTART[0] and self._is_of_project(one)
            ]  # fmt: skip
        stopped = {container.id for container in group.containers}
        return [container for container in found if container.id not in stopped]

    def _idle_users(self, member: Member) -> list[Container]:
        return idle_users(self._source, member.request.reached)

    def _end(self, interrupted: Interrupted | None) -> None:
        """What was not finished is undone."""
        for member in self._members:
            if member.is_left:
                member.fail(interrupted or VolbackError(f"{member.source.what} was not moved"))
            elif member.moved is not None and set(member.moved.containers) & set(self._running_again):
                member.goes_on()
            member.close()

    def _remove_sources(self) -> None:
        """Those that are proven, and whose containers do not run again."""
        for member in self._members:
            if member.moved is None or not member.is_good or member.source.volume.kind != "volume":
                continue
            running = sorted(set(member.moved.containers) & set(self._running_again))
            if running:
                self._warnings.append(f"{member.source.what} is not removed: container {running[0]!r} runs again")
            else:
                member.moved = without_source(member.source, member.moved)

    def _result(self, interrupted: Interrupted | None) -> SetMoved:
        failed = [member for member in self._members if member.moved is None]
        failed.sort(key=lambda member: member.name in self._with_others)  # what it was because of comes first
        errors = [member.error for member in failed if isinstance(member.error, VolbackError)]
        warnings = [*self._warnings, *self._left.warnings, *self._stale()]
        return SetMoved(
            tuple(member.moved for member in self._members if member.moved is not None),
            tuple(member.name for member in failed),
            (*errors, *self._errors),
            interrupted,
            tuple(warnings),
            self._left,
            tuple(self._running_again),
            self._downtime_s,
        )

    def _stale(self) -> Iterator[str]:
        """Warn of what is there, while its containers run again here although they were to stay stopped."""
        if self._options.stopping is None or self._options.stopping.restart:
            return
        again = set(self._running_again)
        for member in self._members:
            if member.moved is not None and (running := sorted(again & set(member.moved.containers))):
                yield (
                    f"{member.source.what} is there as it was when container {running[0]!r} was stopped, which runs"
                    " again here: move it again"
                )
