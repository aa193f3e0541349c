"""Session: what one command works with - settings, store, catalog, engine - each opened when first needed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from volback.catalog.model import Manifest
from volback.catalog.reference import Reference, parse_reference
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
    """How one repository's store is reached: what counts for it alone."""

    environment: Mapping[str, str] | None = field(default=None, repr=False)
    """Where the store's settings (VOLBACK_S3_...) are looked up; None is the process's own."""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By the names that `store.locate.keys_of` has; without them the store looks where it always does."""
    bandwidth_bytes_s: float | None = None


@dataclass
class Session:
    """One command's surroundings. `now` and `random_hex` are passed in so that tests can fix them."""

    settings: Settings
    progress: Progress = field(default_factory=Silent)
    now: Callable[[], datetime] = _now
    random_hex: Callable[[int], str] = secrets.token_hex
    access: Access = Access()
    """Of the repository's store."""

    @cached_property
    def store(self) -> Store:
        """The repository's store."""
        return open_store(
            self.settings.repository,
            self.access.environment,
            credentials=self.access.credentials,
            bandwidth_bytes_s=self.access.bandwidth_bytes_s,
        )

    @cached_property
    def catalog(self) -> Catalog:
        """The repository's catalog."""
        return Catalog(self.store)

    @cached_property
    def engine(self) -> Engine:
        """The connected engine. Raises EngineUnreachable."""
        from volback.engine.engine import Engine
        from volback.engine.helper import Limits

        return Engine(
            self.settings.engine,
            client_id=client_id(self.settings.state),
            image=self.settings.helper_image,
            limits=Limits(self.settings.helper_cpus, self.settings.helper_memory_bytes, self.settings.helper_io_weight),
            timeout_s=self.settings.engine_timeout_s,
            transport=self.settings.transport,
        )

    @cached_property
    def host(self) -> str:
        """The name that this engine's backups are filed under.

        Without an engine (the worst day) it is the repository's only host. Raises EngineUnreachable where there
        are several.
        """
        if self.settings.host:
            return self.settings.host
        try:
            return self.engine.info.name
        except EngineUnreachable as exc:
            hosts = {key.host for key in self.catalog.backups()}
            if len(hosts) == 1:
                return hosts.pop()
            if not hosts:
                raise NotFoundError("no backup in the repository", "check --repo") from exc
            raise EngineUnreachable(
                exc.message, f"say which host is meant, like HOST/VOLUME; there are {', '.join(sorted(hosts))}"
            ) from exc

    def find(self, reference: str) -> Manifest:
        """Return the backup that `VOLUME`, `VOLUME@ID-PREFIX` or `HOST/VOLUME@ID-PREFIX` names."""
        parsed = parse_reference(reference)
        return self.catalog.find(parsed, parsed.host or self.host)


def name_of(manifest: Manifest) -> str:
    """A backup's full name."""
    return str(Reference(manifest.host, manifest.volume, manifest.id))
