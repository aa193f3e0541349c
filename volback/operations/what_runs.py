"""What runs: the volumes of an engine as jobs would back them up, and which database servers use them."""

from __future__ import annotations

from collections import defaultdict

from volback.config.draft import DraftDatabase, DraftJob, jobs_of
from volback.context import Context
from volback.engine.engine import Engine
from volback.operations.sources import resolve_sources, volumes_by_project
from volback.policy.anonymous import is_anonymous
from volback.policy.databases import database_of


def what_runs(ctx: Context, engine: Engine) -> list[DraftJob]:
    """The jobs for all that runs; anonymous volumes, and what says `volback.enable=false`, are left out.

    Raises EngineUnreachable.
    """
    found = [source.name for source in resolve_sources(ctx, engine, [], every=True)]
    volumes = [name for name in found if not is_anonymous(name)]
    projects: dict[str, list[str]] = {}
    taken: set[str] = set()
    for project, names in sorted(volumes_by_project(engine).items()):
        own = [name for name in volumes if name in names and name not in taken]
        taken.update(own)
        if own:
            projects[project] = own
    servers: defaultdict[str, list[DraftDatabase]] = defaultdict(list)
    for container in engine.containers():
        database = database_of(container.image)
        for mount in container.mounts if database is not None else ():
            if database is not None and mount.kind == "volume" and mount.writable:
                servers[mount.source].append(DraftDatabase(container.name, container.image, database))
    return jobs_of(projects, [name for name in volumes if name not in taken], dict(servers))
