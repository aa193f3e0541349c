"""Aftercare: commands to be run in containers once these run again - by the run, its guard or `recover`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from volback.context import Session
from volback.errors import EngineUnreachable, Interrupted, NotFoundError, NotRunningError, StoreError, VolbackError
from volback.live.hooks import run_hook
from volback.policy.hooks import Hook
from volback.state.runs import Journal, PendingHook

log = logging.getLogger(__name__)


def pending(hook: Hook) -> PendingHook:
    """The hook as a journal holds it."""
    return PendingHook(container=hook.container, command=hook.command, user=hook.user, timeout_s=hook.timeout_s)


def run_pending(
    session: Session, journal: Journal, write: Callable[[], None], *, later: Iterable[PendingHook] = ()
) -> tuple[list[VolbackError], list[str]]:
    """Run the journal's hooks, but for those that are to come `later`; return errors and warnings.

    One that fails does not stop the next. Each is tried once; only where no engine answers it stays in the journal.
    """
    errors: list[VolbackError] = []
    warnings: list[str] = []
    waiting = list(later)
    for hook in [hook for hook in journal.hooks if hook not in waiting]:
        try:
            run_hook(session, Hook(hook.container, hook.command, hook.user, hook.timeout_s), what="exec-post")
        except Interrupted:
            raise
        except EngineUnreachable as exc:
            errors.append(exc)
            continue
        except (NotFoundError, NotRunningError) as exc:
            warnings.append(f"exec-post was not run: {exc.message}")
        except VolbackError as exc:
            errors.append(exc)
        _forget(journal, hook, write)
    return errors, warnings


def _forget(journal: Journal, hook: PendingHook, write: Callable[[], None]) -> None:
    journal.hooks = [other for other in journal.hooks if other is not hook]
    try:
        write()
    except StoreError as exc:
        log.warning("exec-post of container %s was run, which could not be noted: %s", hook.container, exc.message)
