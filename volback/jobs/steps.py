"""Steps: what a job's run does in one repository - open it within the job's limits, back up, prune."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from volback.catalog.condemned import GRACE_S
from volback.catalog.keys import BackupKey
from volback.catalog.model import Source
from volback.catalog.reference import Reference
from volback.config.model import Job, Sources
from volback.config.times import zone_of
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import IntegrityError, VolbackError
from volback.latest import created_at, is_future, is_safety_copy
from volback.measures import named
from volback.notify.report import VolumeReport
from volback.operations.backup import BackupOptions, BackupResult
from volback.operations.backup_set import SetOptions, backup_set
from volback.operations.compose_files import ComposeFiles
from volback.operations.parent import Comparing
from volback.operations.project_parts import project_parts
from volback.operations.prune import Upcoming, prune
from volback.operations.prune_result import PruneResult
from volback.operations.repack_plan import Packing
from volback.operations.set_result import SetResult
from volback.operations.verify import verify_all
from volback.policy.keep import KeepRules
from volback.policy.labels import policy_of
from volback.policy.subset import part_of

_IDLE_WEIGHT = 10
"""Compared to the engine's 500 for other containers."""


def job_context(base: Context, job: Job) -> Context:
    """The context of a job's run: with the job's limits for helpers."""
    limits, settings = job.limits, base.settings
    settings = replace(
        settings,
        helper_cpus=limits.cpus or settings.helper_cpus,
        helper_memory_bytes=limits.memory_bytes or settings.helper_memory_bytes,
        helper_io_weight=_IDLE_WEIGHT if limits.io_class == "idle" else settings.helper_io_weight,
    )
    return replace(base, settings=settings)


def backup_options(job: Job) -> BackupOptions:
    """How the job's volumes are backed up."""
    return BackupOptions(
        excludes=list(job.excludes),
        level=job.level,
        tags=list(job.tags),
        shrink_ratio=job.shrink_ratio,
        live_wanted=job.live_wanted,
        comparing=Comparing(
            full=job.full,
            reread=job.reread,
            ignore_inode=job.ignore_inode,
            ignore_ctime=job.ignore_ctime,
            full_every_s=job.full_every_s,
            reread_every_s=job.reread_every_s,
        ),
    )


def back_up(
    ctx: Context, engine: Engine, repository: Repository, job: Job, sources: list[Source], *, wait_s: float
) -> SetResult:
    """Back up the selected sources, as one set; of a project with its compose files. Raises errors that concern all of
    them."""
    options = SetOptions(
        backup=backup_options(job),
        quiesce=job.quiesce,
        two_passes=job.two_pass,
        stop_timeout_s=job.stop_timeout_s,
        hooks_pre=job.hooks_pre,
        hooks_post=job.hooks_post,
        wait_s=wait_s,
        create=job.create,
    )
    project, files = _project(job), compose_files(ctx, engine, job)
    return backup_set(ctx, engine, repository, sources, options, project=project, files=files)


def compose_files(ctx: Context, engine: Engine, job: Job) -> ComposeFiles | None:
    """The compose files that the job keeps beside the volumes of its project."""
    project = _project(job)
    return None if project is None else project_parts(ctx, engine, project, with_binds=False).files


def with_files(ctx: Context, engine: Engine, job: Job, sources: Iterable[Source]) -> list[Source]:
    """These, and the compose files that the job keeps beside them: they are pruned like volumes."""
    files = compose_files(ctx, engine, job)
    return [*sources, *([files.source] if files is not None else [])]


def prune_sources(
    ctx: Context,
    engine: Engine,
    repository: Repository,
    job: Job,
    sources: list[Source],
    *,
    dry_run: bool = False,
    upcoming: bool = False,
) -> Iterator[PruneResult]:
    """Remove what the job's rules, or else the labels', do not keep; yields one result for each set of rules.

    A dry run removes nothing; with `upcoming` the backups count, too, that the job would make before.
    """
    zone = None if job.timezone is None else zone_of(job.timezone)
    for rules, ruled in _ruled(engine, job, sources):
        names = [str(Reference(repository.host, source.name)) for source in ruled]
        grace_s = GRACE_S if job.grace_s is None else job.grace_s
        packing = Packing(job.repack_below, job.max_repack_bytes) if job.repack else None
        yield prune(
            ctx, engine, repository, rules,
            volumes=names, zone=zone, engine_id=engine.info.id, grace_s=grace_s, packing=packing,
            dry_run=dry_run, upcoming=Upcoming(job.tags) if upcoming else None,
        )  # fmt: skip


def verify_sources(
    ctx: Context, repository: Repository, job: Job, sources: list[Source], of: int
) -> Iterator[VolbackError]:
    """Read the part of these volumes' stored data whose turn it is today; yields what is damaged, or cannot be read."""
    zone = None if job.timezone is None else zone_of(job.timezone)
    part = part_of(ctx.now().astimezone(zone).date(), of)
    made = [found for source in sources for found in repository.catalog.manifests(repository.host, source.name)]
    for damage in verify_all(ctx, repository, made, data=True, subset=part).damaged:
        lost = f"; lost: {named(damage.paths)}" if damage.paths else ""
        hint = "restore from an older backup; create a new one now"
        what = f"backup {damage.backup}: {damage.message}{lost}"
        yield IntegrityError(what, hint) if damage.error is None else type(damage.error)(what, damage.error.hint)


def has_rules(engine: Engine, job: Job, sources: list[Source]) -> bool:
    """Whether the job, or a label of one of its volumes, says what to keep."""
    return any(True for _ in _ruled(engine, job, sources))


def _ruled(engine: Engine, job: Job, sources: list[Source]) -> Iterator[tuple[KeepRules, list[Source]]]:
    if job.keep is not None:
        if sources:  # none stands for all of the host, where volumes are named
            yield job.keep, sources
        return
    for source in sources:
        rules = _rules_of_labels(engine, source)
        if rules is not None:
            yield rules, [source]


def _rules_of_labels(engine: Engine, source: Source) -> KeepRules | None:
    users = engine.users(source.name) if source.kind == "volume" else []
    policy, _ = policy_of(source.name, source.labels, [(user.name, user.labels) for user in users])
    return policy.keep


def _project(job: Job) -> str | None:
    """The set belongs to a project if the job has no other source; labels may add volumes."""
    only = Sources(projects=job.sources.projects)
    return job.sources.projects[0] if job.sources == only and len(job.sources.projects) == 1 else None


def volume_report(made: BackupResult, downtime_s: dict[str, float]) -> VolumeReport:
    manifest = made.manifest
    downtimes = [downtime_s[name] for name in manifest.containers if name in downtime_s]
    return VolumeReport(
        name=manifest.volume,
        ok=True,
        files=manifest.files,
        raw_bytes=manifest.raw_bytes,
        stored_bytes=manifest.stored_bytes,
        duration_s=made.duration_s,
        consistency=manifest.consistency,
        downtime_s=max(downtimes, default=None),
    )


def to_copy(ctx: Context, source: Repository, target: Repository, volume: str, made: set[str]) -> list[str]:
    """All backups of a volume newer than the newest one there; for an empty repository only those just `made` (ids).

    Never a safety copy; one from the future does not hide those that are not there yet.
    """
    there = {key.id for key in target.catalog.backups(source.host, volume)}
    past = [id_ for id_ in there if not is_future(created_at(id_), ctx.now())]
    newest = max(past, default=min(made, default="~"))
    return [
        str(Reference(key.host, key.volume, key.id))
        for key in source.catalog.backups(source.host, volume)
        if key.id in made or (key.id > newest and key.id not in there and not _is_safety_copy(source, key))
    ]


def _is_safety_copy(repository: Repository, key: BackupKey) -> bool:
    """Whether it is one, as far as its manifest can be read: to copy one that is damaged is refused, and said."""
    try:
        return is_safety_copy(repository.catalog.read(key).tags)
    except IntegrityError:
        return False
