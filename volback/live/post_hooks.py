"""Post-hooks: commands to be run in containers once these run again - by the run, its guard or `recover`."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from volback.engine.engine import Engine
from volback.errors import EngineError, EngineUnreachable, NotFoundError, NotRunningError, VolbackError
from volback.live.hooks import run_hook
from volback.policy.hooks import Hook
from volback.policy.schedulers import SERVICE_LABEL
from volback.state.journal import PendingHook
from volback.state.runs import RecordedRun

_TASK_S = 60.0
"""How long a service's container may take to run again; where the run itself goes on, it runs by now."""
_POLL_S = 0.2


def pending(engine: Engine, hook: Hook) -> PendingHook:
    """The hook as a journal entry."""
    service = ""
    with suppress(NotFoundError):
        service = engine.container(hook.container).labels.get(SERVICE_LABEL, "")
    return PendingHook(engine=engine.info.id, host=engine.info.name, hook=hook, service=service)


def run_pending(
    engine: Engine, run: RecordedRun, *, later: Collection[Hook] = ()
) -> tuple[list[VolbackError], list[str]]:
    """Run the run's hooks on this engine, except those in `later`; return errors and warnings.

    One that fails does not stop the next. Each is tried once; it stays in the journal only if the engine does not
    answer.
    """
    errors: list[VolbackError] = []
    warnings: list[str] = []
    here = [entry for entry in run.journal.of(PendingHook) if entry.engine == engine.info.id]
    for entry in [entry for entry in here if entry.hook not in later]:
        try:
            run_hook(engine, _in_its_place(engine, entry), what="exec-post")
        except EngineUnreachable as exc:
            errors.append(exc)
            continue
        except (NotFoundError, NotRunningError) as exc:
            warnings.append(f"exec-post was not run: {exc.message}")
        except VolbackError as exc:
            errors.append(exc)
        run.drop(entry)
    return errors, warnings


def _in_its_place(engine: Engine, entry: PendingHook) -> Hook:
    """The hook in the container that has the place of its own: a service's containers are made anew."""
    if not entry.service or _is_there(engine, entry.hook.container):
        return entry.hook
    deadline = time.monotonic() + _TASK_S
    while not (running := engine.service_containers(entry.service)):
        if time.monotonic() >= deadline or not _is_to_run(engine, entry.service):
            return entry.hook
        time.sleep(_POLL_S)
    slot = entry.hook.container.rpartition(".")[0]  # a task's container is SERVICE.SLOT.TASK
    found = min(running, key=lambda container: container.name.rpartition(".")[0] != slot)
    return replace(entry.hook, container=found.name)


def _is_to_run(engine: Engine, service: str) -> bool:
    try:
        return engine.service(service).replicas > 0
    except EngineUnreachable:
        raise
    except (NotFoundError, EngineError):  # removed, or known to the swarm's managers only
        return False


def _is_there(engine: Engine, container: str) -> bool:
    try:
        return engine.container(container).is_active
    except NotFoundError:
        return False
