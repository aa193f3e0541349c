"""Post-hooks: commands to be run in containers once these run again - by the run, its guard or `recover`."""

from __future__ import annotations

from collections.abc import Iterable

from volback.engine.engine import Engine
from volback.errors import EngineUnreachable, NotFoundError, NotRunningError, VolbackError
from volback.live.hooks import run_hook
from volback.policy.hooks import Hook
from volback.state.journal import PendingHook
from volback.state.runs import RecordedRun


def pending(engine: Engine, hook: Hook) -> PendingHook:
    """The hook as a journal entry."""
    return PendingHook(engine=engine.info.id, host=engine.info.name, hook=hook)


def run_pending(
    engine: Engine, run: RecordedRun, *, later: Iterable[PendingHook] = ()
) -> tuple[list[VolbackError], list[str]]:
    """Run the run's hooks on this engine, except those in `later`; return errors and warnings.

    One that fails does not stop the next. Each is tried once; it stays in the journal only if the engine does not
    answer.
    """
    errors: list[VolbackError] = []
    warnings: list[str] = []
    waiting = list(later)
    here = [entry for entry in run.journal.of(PendingHook) if entry.engine == engine.info.id]
    for entry in [entry for entry in here if entry not in waiting]:
        try:
            run_hook(engine, entry.hook, what="exec-post")
        except EngineUnreachable as exc:
            errors.append(exc)
            continue
        except (NotFoundError, NotRunningError) as exc:
            warnings.append(f"exec-post was not run: {exc.message}")
        except VolbackError as exc:
            errors.append(exc)
        run.drop(entry)
    return errors, warnings
