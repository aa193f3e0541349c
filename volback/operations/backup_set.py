"""Sets: several sources backed up as one - locked together, quiesced together, under one id.

One source that fails does not stop the others. Containers are quiesced from before the first of their sources is read
until the last has been read, whatever happens; sources without quiesce are read after that. A hook's command runs
before its sources are read, and its counterpart when they have been, also where something failed or the run was
killed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from volback.catalog.keys import new_id
from volback.catalog.model import SetOf, Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.containers import Container
from volback.engine.engine import Engine
from volback.errors import ConflictError, Interrupted, NotRunningError, VolbackError, because
from volback.live.guard import guarded
from volback.live.hooks import run_hook
from volback.live.plan import QuiesceRequest, QuiesceTarget, plan_quiesce, quiesce_candidates, short_graces
from volback.live.policies import SetHook, SetPolicy, SourcePolicy, read_policies
from volback.live.post_hooks import pending, run_pending
from volback.live.quiesce import Quiesced
from volback.live.resuming import HEALTH_LIMIT_S
from volback.live.services import Services
from volback.operations.backup import (
    BackupOptions,
    BackupResult,
    make_backup,
    preparing,
    read_prepared,
)
from volback.operations.beside import Beside
from volback.operations.compose_files import ComposeFiles
from volback.operations.hold import SourceHold, hold_of
from volback.operations.init import init
from volback.operations.locks import volume_lock
from volback.operations.prepare import Prepared, prepare
from volback.operations.recover import check_whole, half_restored, sweep
from volback.operations.set_result import SetResult
from volback.policy.excludes import exclusion
from volback.policy.hooks import Hook
from volback.policy.quiesce import Quiesce
from volback.state.runs import Run

HELPERS_AT_MOST = 8
"""How many helpers wait while containers are stopped. One takes about 15 MB: its shell, and the engine's process that
supervises it."""


@dataclass(frozen=True, slots=True)
class SetOptions:
    """How to back up a set. Labels decide what is None or empty here."""

    backup: BackupOptions = field(default_factory=BackupOptions)
    """Labels add to its excludes."""
    quiesce: Quiesce | None = None
    two_passes: bool | None = None
    """Whether what is quiesced is read before it, and again as far as it has changed; None: where that is cheap, and no
    hook's command waits for its counterpart."""
    stop_timeout_s: float | None = None
    """None without a label is each container's own grace time."""
    hooks_pre: tuple[Hook, ...] = ()
    """Run before those of labels."""
    hooks_post: tuple[Hook, ...] = ()
    health_timeout_s: float = HEALTH_LIMIT_S
    wait_s: float = 0.0
    """For locks of other runs."""
    create: bool = False
    """Whether a repository that does not exist yet is made."""


def backup_set(
    ctx: Context,
    engine: Engine,
    repository: Repository,
    sources: list[Source],
    options: SetOptions,
    *,
    project: str | None = None,
    files: ComposeFiles | None = None,
) -> SetResult:
    """Back up the sources. Errors of one source, and of containers that do not run again, are in the result.

    With `files`, the compose files of the project are backed up after them, as a part of the set.

    Raises what concerns all of them: EngineUnreachable, StoreError, UsageError for a pattern that is not valid.
    """
    exclusion(options.backup.excludes)
    left = sweep(ctx, engine, repository)
    if options.create:
        init(ctx, repository)
    _ = repository.info  # before anything is stopped
    # A container that an earlier run left down is reported as an error by every run until it runs.
    made = _Set(ctx, engine, repository, options, sources, project)
    return made.make(
        sources,
        files=files,
        earlier=left.errors,
        half_replaced={entry.volume for entry in left.replaced},
        half_restored=half_restored(ctx, engine),
    )


class _Set:
    def __init__(
        self,
        ctx: Context,
        engine: Engine,
        repository: Repository,
        options: SetOptions,
        sources: list[Source],
        project: str | None,
    ) -> None:
        self._ctx = ctx
        self._engine = engine
        self._repository = repository
        self._options = options
        self._id = new_id(ctx.now(), ctx.random_hex(2))
        self._backups: list[BackupResult] = []
        self._errors: list[VolbackError] = []
        self._failed: dict[str, VolbackError] = {}
        self._warnings: list[str] = []
        self._downtime_s: dict[str, float] = {}
        self._services = Services(engine)
        self._hooked_sources = set[str]()
        self._commits: list[tuple[SourcePolicy, Future[BackupResult]]] = []
        """Of sources that were read, in order."""
        self._files: BackupResult | None = None
        self._set = None
        if project is not None or len(sources) > 1:
            self._set = SetOf(id=self._id, project=project, volumes=[source.name for source in sources])

    def make(
        self,
        sources: list[Source],
        *,
        files: ComposeFiles | None,
        earlier: Iterable[VolbackError],
        half_replaced: Collection[str],
        half_restored: Collection[str],
    ) -> SetResult:
        interrupted = None
        self._warnings.extend(
            f"volume {source.name!r} may be incomplete: a run died while it replaced its content; see `volback doctor`"
            for source in sources
            if source.kind == "volume" and source.name in half_replaced
        )
        try:
            with ExitStack() as locks:
                self._make([source for source in sources if self._locked(locks, source, half_restored)])
            if files is not None:
                self._back_up_files(files)
        except Interrupted as exc:
            interrupted = exc
        return SetResult(
            id=self._id,
            backups=tuple(self._backups),
            errors=(*self._errors, *earlier),
            interrupted=interrupted,
            failed=self._failed,
            warnings=tuple(self._warnings),
            downtime_s=self._downtime_s,
            files=self._files,
        )

    def _locked(self, locks: ExitStack, source: Source, half_restored: Collection[str]) -> bool:
        try:
            check_whole(source, half_restored)
            locks.enter_context(volume_lock(self._ctx, self._engine.info.id, source, wait_s=self._options.wait_s))
        except VolbackError as exc:
            self._fail([source.name], exc)
            return False
        return True

    def _fail(self, sources: Iterable[str], exc: VolbackError) -> None:
        """Add one error, for any number of sources."""
        self._errors.append(exc)
        for name in sources:
            self._failed.setdefault(name, exc)

    def _make(self, sources: list[Source]) -> None:
        options = self._options
        policy = read_policies(
            self._engine, sources, quiesce=options.quiesce, stop_timeout_s=options.stop_timeout_s,
            before=options.hooks_pre, after=options.hooks_post,
        )  # fmt: skip
        self._warnings.extend(policy.complaints)
        candidates = quiesce_candidates(self._ctx, self._engine) if any(item.request for item in policy.sources) else []
        still = [item for item in policy.sources if self._can_quiesce(item.request, candidates)]
        live = [item for item in policy.sources if item.request is None]
        if not (still or policy.before or policy.after):
            self._back_up_live(live)
            return
        self._engine.ensure_image()  # what can be done before is not done while the containers are down
        with (
            Run(self._ctx.settings.state, "quiesce") as run,
            self._hooked(run, policy, needed=bool(still or policy.after)),
        ):
            if still:
                self._back_up_quiesced(run, still, candidates)
                self._run_after(run, policy, {item.source.name for item in live})
            self._back_up_live(live)

    def _can_quiesce(self, request: QuiesceRequest | None, candidates: list[Container]) -> bool:
        """Whether its containers can be stopped or paused; if not, only this source fails."""
        if request is None:
            return False
        try:
            plan_quiesce(candidates, [request], self._services)
        except ConflictError as exc:
            self._fail([request.source.name], exc)
            return False
        return True

    @contextmanager
    def _hooked(self, run: Run, policy: SetPolicy, *, needed: bool) -> Iterator[None]:
        """Run the hooks around the block; meanwhile a guard is responsible for the later ones, and for the
        containers."""
        with guarded(self._ctx, run, needed=needed):
            try:
                run.note(*(pending(self._engine, item.hook) for item in policy.after))
                for item in policy.before:
                    self._hooked_sources |= item.sources
                    self._run_before(item)
                yield
            finally:
                self._run_after(run, policy, set())

    def _run_before(self, item: SetHook) -> None:
        """If a command fails, its sources fail; if its container does not run, there is nothing to dump."""
        try:
            run_hook(self._engine, item.hook, what="exec-pre")
        except NotRunningError as exc:
            self._warnings.append(f"exec-pre was not run: {exc.message}")
        except VolbackError as exc:
            lost = ", ".join(sorted(item.sources))
            self._fail(item.sources, because(exc, f"{lost} not backed up"))

    def _run_after(self, run: Run, policy: SetPolicy, waiting: set[str]) -> None:
        """Run the later hooks, except those whose sources are not all read yet."""
        later = [item.hook for item in policy.after if item.sources & waiting]
        errors, warnings = run_pending(self._engine, run, later=later)
        self._errors.extend(errors)
        self._warnings.extend(warnings)

    def _back_up_quiesced(self, run: Run, items: list[SourcePolicy], candidates: list[Container]) -> None:
        try:
            with ExitStack() as waiting, Beside() as beside:
                ready = self._prepared(waiting, [item for item in items if item.source.name not in self._failed])
                if any(made.first for _, made in ready):  # that took a while: others may run now
                    candidates = quiesce_candidates(self._ctx, self._engine)
                    ready = [(item, made) for item, made in ready if self._can_quiesce(item.request, candidates)]
                requests = [item.request for item, _ in ready if item.request]
                if not requests:
                    return
                try:
                    targets = plan_quiesce(candidates, requests, self._services)
                    self._warnings.extend(short_graces(targets, requests))
                    with self._quiesced(run, targets) as quiesced:
                        self._read_all(ready, [hold_of(request, quiesced) for request in requests], quiesced, beside)
                except VolbackError as exc:  # a container that cannot be stopped: nothing has been read
                    self._fail([item.source.name for item, _ in ready], exc)
        finally:
            self._await_commits()

    def _read_all(
        self, ready: list[tuple[SourcePolicy, Prepared]], holds: list[SourceHold], quiesced: Quiesced, beside: Beside
    ) -> None:
        holds[-1] = replace(holds[-1], on_read_end=quiesced.release)
        for number, ((item, prepared), hold) in enumerate(zip(ready, holds, strict=True)):
            for _, later in ready[number + HELPERS_AT_MOST :][:1]:
                later.open_soon(beside.helpers)
            with self._kept(item):
                options = self._options_of(item)
                commit = read_prepared(self._ctx, self._engine, self._repository, prepared, options, hold)
                if hold is not holds[-1]:
                    self._commits.append((item, beside.commits.submit(commit)))
                else:
                    self._await_commits()
                    self._backups.append(commit())
        quiesced.release()

    def _await_commits(self) -> None:
        """Wait for those that are under way, also after an interruption: what they commit is done."""
        while self._commits:
            item, commit = self._commits.pop(0)
            with self._kept(item):
                self._backups.append(commit.result())

    def _prepared(self, waiting: ExitStack, items: list[SourcePolicy]) -> list[tuple[SourcePolicy, Prepared]]:
        """Prepare each source; return those that are ready when all are, which `waiting` closes in the end."""
        prepared: list[tuple[SourcePolicy, Prepared]] = []
        for item in items:
            wanted = replace(
                preparing(self._ctx, self._options_of(item)),
                storage=item.request.storage if item.request else None,
                scan_first=True,
                two_passes=self._two_passes(item),
                helper_waits=len(prepared) < HELPERS_AT_MOST,
            )
            with self._kept(item):
                made = prepare(self._ctx, self._engine, self._repository, item.source, wanted)
                prepared.append((item, waiting.enter_context(made)))
        for item, made in prepared:
            with self._kept(item):
                made.check()
        return [(item, made) for item, made in prepared if item.source.name not in self._failed]

    def _two_passes(self, item: SourcePolicy) -> bool | None:
        is_hooked = item.source.name in self._hooked_sources
        return False if is_hooked and self._options.two_passes is None else self._options.two_passes

    @contextmanager
    def _quiesced(self, run: Run, wanted: list[QuiesceTarget]) -> Iterator[Quiesced]:
        """Quiesce them for the block; the outcome is in the result, also after an error."""
        quiesced = Quiesced(self._ctx, self._engine, run, wanted, health_limit_s=self._options.health_timeout_s)
        try:
            with quiesced:
                yield quiesced
        finally:
            self._errors.extend(quiesced.errors)
            self._warnings.extend(quiesced.warnings)
            self._downtime_s.update(quiesced.downtime_s)

    def _back_up_live(self, items: list[SourcePolicy]) -> None:
        for item in items:
            if item.source.name not in self._failed:
                self._back_up(item)

    def _back_up(self, item: SourcePolicy) -> None:
        options = self._options_of(item)
        with self._kept(item):
            self._backups.append(make_backup(self._ctx, self._engine, self._repository, item.source, options))

    def _back_up_files(self, files: ComposeFiles) -> None:
        """Without containers that are held: nothing of the project writes to them. Their set is of the same id, and
        lists them alone: that of the volumes is whole without them."""
        source, options = files.source, self._options.backup
        made = SetOf(id=self._id, project=files.project, volumes=[source.name])
        options = replace(options, excludes=[], set=made, files=files, shrink_ratio=0.0)
        try:
            with volume_lock(self._ctx, self._engine.info.id, source, wait_s=self._options.wait_s):
                self._files = make_backup(self._ctx, self._engine, self._repository, source, options)
        except VolbackError as exc:
            self._fail([source.name], because(exc, f"compose files of project {files.project!r} were not kept"))

    def _options_of(self, item: SourcePolicy) -> BackupOptions:
        options = self._options.backup
        excludes = list(dict.fromkeys([*options.excludes, *item.excludes]))
        # Where a command has made a dump, for example, its container goes on.
        live_wanted = options.live_wanted or item.is_live_wanted or item.source.name in self._hooked_sources
        return replace(options, excludes=excludes, set=self._set, live_wanted=live_wanted)

    @contextmanager
    def _kept(self, item: SourcePolicy) -> Iterator[None]:
        """An error of the block is that of one source."""
        try:
            yield
        except VolbackError as exc:
            self._fail([item.source.name], exc)
