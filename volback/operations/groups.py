"""Groups: the backups that references name, by volume. Called by what looks at many backups at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from volback.catalog.listing import DamagedManifest
from volback.catalog.model import Manifest
from volback.catalog.reference import Reference
from volback.context.naming import references_named
from volback.context.repository import Repository
from volback.errors import NotFoundError

Found = Manifest | DamagedManifest


@dataclass(frozen=True, slots=True)
class Group:
    """The backups of one volume, oldest first."""

    host: str
    volume: str
    backups: list[Found]
    wanted: list[Found]
    """Those of them that were named."""


def grouped(repository: Repository, references: list[str], *, all_hosts: bool = False) -> Iterator[Group]:
    """Yield the volumes of which backups are named; without references, all volumes.

    A reference without a host means this one, or every host; it may stand for several backups. Raises UsageError,
    NotFoundError for a reference that names no backup.
    """
    host = None if all_hosts else repository.host
    places: dict[tuple[str | None, str | None], list[Reference]] = {}
    for one in (one for text in references for one in references_named(repository, text, all_hosts=all_hosts)):
        places.setdefault((one.host or host, one.volume), []).append(one)
    for place, named in (places or {(host, None): []}).items():
        found = list(repository.catalog.manifests(*place))
        for one in named:
            if not any(backup.id.startswith(one.id_prefix or "") for backup in found):
                where = "any host" if place[0] is None else f"host {place[0]}"
                raise NotFoundError(f"no backup of {one} on {where}", "volback list --all-hosts shows every backup")
        prefixes = tuple(one.id_prefix or "" for one in named) or ("",)
        for (host_of, volume), group in groupby(found, key=lambda backup: (backup.host, backup.volume)):
            backups = list(group)
            if wanted := [backup for backup in backups if backup.id.startswith(prefixes)]:
                yield Group(host_of, volume, backups, wanted)
