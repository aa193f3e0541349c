"""Context: what operations work with. A context, an engine and a repository are passed to those that need them.

So one operation can use two repositories (copy) or two engines (migrate).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from volback.catalog.model import Manifest
from volback.catalog.reference import parse_reference
from volback.catalog.repository import Catalog
from volback.errors import EngineUnreachable, NotFoundError
from volback.progress import Progress, Silent
from volback.settings import Settings
from volback.state.client import client_id
from volback.store.base import Store
from volback.store.locate import open_store

if TYPE_CHECKING:
    from volback.engine.engine import Engine


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Access:
    """How one repository's store is reached: settings that apply to this repository only."""

    environment: Mapping[str, str] | None = field(default=None, repr=False)
    """Where the store's settings (VOLBACK_S3_...) are looked up; None is the process's own."""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By the names that `store.locate.keys_of` returns. Where it is empty, the store looks in its usual places."""
    bandwidth_bytes_s: float | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What one command works with. `now` and `random_hex` are passed in so that tests can fix them."""

    settings: Settings
    progress: Progress = field(default_factory=Silent)
    now: Callable[[], datetime] = _now
    random_hex: Callable[[int], str] = secrets.token_hex


class Repository:
    """One repository: its store, its catalog, and the lookup of backups by reference. Opened when it is first used."""

    def __init__(self, store: Store, own_host: Callable[[], str], now: Callable[[], datetime] = _now) -> None:
        """`own_host` gives the name under which backups of the current engine are filed. Raises EngineUnreachable."""
        self.store = store
        self.catalog = Catalog(store)
        self._own_host = own_host
        self.now = now

    @cached_property
    def host(self) -> str:
        """The host that a reference without a host refers to.

        Without an engine (after a disaster) it is the repository's only host. Raises EngineUnreachable where there
        are several.
        """
        try:
            return self._own_host()
        except EngineUnreachable as exc:
            hosts = {key.host for key in self.catalog.backups()}
            if len(hosts) == 1:
                return hosts.pop()
            if not hosts:
                raise NotFoundError("no backup in the repository", "check --repo") from exc
            raise EngineUnreachable(
                exc.message, f"name the host, like HOST/VOLUME; the hosts are {', '.join(sorted(hosts))}"
            ) from exc

    def find(self, reference: str) -> Manifest:
        """Return the backup that `VOLUME`, `VOLUME@ID-PREFIX` or `HOST/VOLUME@ID-PREFIX` names."""
        parsed = parse_reference(reference)
        return self.catalog.find(parsed, parsed.host or self.host, now=self.now())


def open_engine(ctx: Context) -> Engine:
    """The engine that the settings name; it is connected when it is first used."""
    # Only here: docker takes 0.2 s to import, which a command that needs no engine would pay.
    from volback.engine.engine import Engine
    from volback.engine.helper import Limits

    settings = ctx.settings
    return Engine(
        settings.engine,
        client_id=lambda: client_id(settings.state),
        image=settings.helper_image,
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
    store = open_store(
        ctx.settings.repository if url is None else url,
        access.environment,
        credentials=access.credentials,
        bandwidth_bytes_s=access.bandwidth_bytes_s,
    )
    return Repository(store, lambda: ctx.settings.host or (engine or open_engine(ctx)).info.name, ctx.now)
