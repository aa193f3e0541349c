"""Locks of operations: who works on a volume, or on one backup's place in a repository, does so alone."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager

from volback.catalog.model import Source
from volback.context import Context
from volback.context.repository import Repository
from volback.state.locks import lock


def volume_lock(
    ctx: Context, engine_id: str, source: Source | str, *, wait_s: float = 0.0
) -> AbstractContextManager[None]:
    """Hold a volume (by its name) or a directory of an engine; it need not answer. Raises LockedError, StoreError."""
    kind, name = ("volume", source) if isinstance(source, str) else (source.kind, source.name)
    return lock(ctx.settings.state, f"{engine_id}-{name}", f"{kind} {name!r}", wait_s=wait_s)


def prefix_lock(ctx: Context, repository: Repository, prefix: str) -> AbstractContextManager[None]:
    """Lock one backup's prefix in a repository. A new backup has a new prefix; a copy and its sweep can share one."""
    name = hashlib.sha256(f"{repository.id or repository.store.url}\n{prefix}".encode()).hexdigest()
    return lock(ctx.settings.state, f"prefix-{name}", f"backup {prefix.rstrip('/')} in {repository.store.url}")
