"""Context: what operations work with. A context, an engine and a repository are passed to those that need them.

So one operation can use two repositories (copy) or two engines (migrate).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from volback.encryption.sources import NO_SOURCES, Sources
from volback.progress import Progress, Silent
from volback.settings import Settings
from volback.state.client import client_id

if TYPE_CHECKING:
    from volback.context.repository import Repository
    from volback.engine.engine import Engine


log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


def to_log(line: str) -> None:
    """Say it to those who read the log alone."""
    log.info("%s", line)


@dataclass(frozen=True, slots=True)
class Access:
    """How one repository's store is reached: settings that apply to this repository only."""

    environment: Mapping[str, str] | None = field(default=None, repr=False)
    """Where the store's settings (VOLBACK_S3_...) are looked up; None is the process's own."""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By the names that `store.locate.keys_of` returns. Where it is empty, the store looks in its usual places."""
    bandwidth_bytes_s: float | None = None
    name: str | None = None
    """The repository's name in the configuration, if it has one."""
    sources: Sources = NO_SOURCES
    """Where its identities and passphrases come from, after those of the command."""
    recipient: str | None = None
    """For whom it must be encrypted; None: for whom it was at the first use."""


@dataclass(frozen=True, slots=True)
class Context:
    """What one command works with. `now` and `random_hex` are passed in so that tests can fix them."""

    settings: Settings
    progress: Progress = field(default_factory=Silent)
    now: Callable[[], datetime] = _now
    random_hex: Callable[[int], str] = secrets.token_hex
    say: Callable[[str], None] = to_log
    """Says what an operation is about to do, before it does it."""
    accept_repository: bool = False
    """Whether a repository is used although another one was at its address before."""
    sources: Sources = NO_SOURCES
    """Where identities and passphrases come from: options, the environment, a person at a terminal."""


def open_engine(ctx: Context, address: str | None = None, *, helper_image: str | None = None) -> Engine:
    """The engine at an address (also a docker context's name), else the one that the settings name.

    It is connected when it is first used. `helper_image`: what its helpers run on, instead of the settings' one.
    """
    # Only here: docker takes 0.2 s to import, which a command that needs no engine would pay.
    from volback.engine.engine import Engine
    from volback.engine.helper import Limits

    settings = ctx.settings
    return Engine(
        settings.engine if address is None else address,
        client_id=lambda: client_id(settings.state),
        image=helper_image or settings.helper_image,
        limits=Limits(settings.helper_cpus, settings.helper_memory_bytes, settings.helper_io_weight),
        timeout_s=settings.engine_timeout_s,
        transport=settings.transport,
    )


def open_repository(
    ctx: Context, engine: Engine | None = None, *, url: str | None = None, access: Access = Access()
) -> Repository:
    """The repository at `url`, or the one that the settings name.

    `engine` gives the host that a reference without a host refers to; None connects to one when that host is needed.

    Raises UsageError for an address that no store has.
    """
    # Only here: a guard, which needs no repository, is to be there soon.
    from volback.context.repository import Repository
    from volback.state.memory import Memory
    from volback.store.locate import address_of, open_store

    url = ctx.settings.repository if url is None else url
    store = open_store(
        url, access.environment, credentials=access.credentials, bandwidth_bytes_s=access.bandwidth_bytes_s
    )
    return Repository(
        store,
        lambda: ctx.settings.host or (engine or open_engine(ctx)).info.name,
        ctx.now,
        memory=Memory(
            ctx.settings.state,
            address_of(url, access.environment),
            ctx.accept_repository,
            ctx.settings.cache,
            ctx.settings.cache_bytes,
            access.recipient,
        ),
        name=access.name,
        sources=ctx.sources.before(access.sources),
    )
