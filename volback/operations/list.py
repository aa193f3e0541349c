"""List: the backups of a repository. Reads manifests only; a damaged one is shown as such, never hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from volback.catalog.keys import BackupKey
from volback.catalog.listing import DamagedManifest, key_of
from volback.catalog.model import Manifest
from volback.catalog.notes import NO_NOTES, Notes
from volback.catalog.objects import StoredObject
from volback.catalog.reference import Reference
from volback.context import Context
from volback.context.naming import references_named
from volback.context.repository import Repository
from volback.errors import IntegrityError, NotFoundError, VolbackError
from volback.latest import created_at
from volback.operations.lines import Lines
from volback.operations.notes import text_for_people
from volback.policy.keep import has_tags
from volback.policy.projects import PROJECT


@dataclass(frozen=True, slots=True)
class Row:
    """One backup; `manifest` is None where it cannot be read, and `error` says why."""

    key: BackupKey
    name: str
    age_s: float
    manifest: Manifest | None
    error: VolbackError | None
    notes: Notes = NO_NOTES

    @property
    def tags(self) -> list[str]:
        """Those of the manifest, and those that were added later."""
        return [] if self.manifest is None else self.notes.tags_with(self.manifest.tags)

    @property
    def project(self) -> str | None:
        """The compose project of which the volume was, or as whose set it was backed up."""
        if self.manifest is None:
            return None
        made = self.manifest.set
        return (made.project if made else None) or self.manifest.source.labels.get(PROJECT)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which backups are listed."""

    tags: Sequence[str] = ()
    """Each is one, or several with commas, of which a backup must have all; one of them is enough."""
    projects: Sequence[str] = ()
    since: datetime | None = None
    last: int | None = None
    """So many of each volume, the newest."""

    def chosen(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield those of the rows, which are of one volume after the other, oldest first."""
        fitting = (row for row in rows if self._fits(row))
        for _, group in groupby(fitting, key=lambda row: (row.key.host, row.key.volume)):
            found = list(group)
            yield from found if self.last is None else found[-self.last :]

    def _fits(self, row: Row) -> bool:
        return (
            (not self.tags or any(has_tags(row.tags, tag) for tag in self.tags))
            and (not self.projects or row.project in self.projects)
            and (self.since is None or created_at(row.key.id) >= self.since)
        )


def list_backups(
    ctx: Context,
    repository: Repository,
    references: Sequence[str] = (),
    *,
    all_hosts: bool = False,
    wanted: Wanted | None = None,
) -> list[Row]:
    """Return the backups of this engine's host (or of every host), by volume, oldest first.

    Raises NotFoundError if a named volume has none.
    """
    named = [one for text in references for one in references_named(repository, text, all_hosts=all_hosts)]
    rows: dict[BackupKey, Row] = {}
    for one in named or [Reference(None, "")]:
        found = _rows(ctx, repository, one, all_hosts=all_hosts)
        if not found and named:
            raise NotFoundError(f"no backup of {one} in {repository.store.url}", _elsewhere(repository, one))
        rows |= {row.key: row for row in found}
    return list((wanted or Wanted()).chosen(rows.values()))


def _rows(ctx: Context, repository: Repository, named: Reference, *, all_hosts: bool) -> list[Row]:
    host = named.host or (None if all_hosts else repository.host)
    beside: list[StoredObject] = []
    rows = [
        _row(ctx, repository, found)
        for found in repository.catalog.manifests(host, named.volume or None, cached=True, beside=beside)
        if found.id.startswith(named.id_prefix or "")
    ]
    notes = repository.catalog.notes.listed(beside, cached=True)
    return [replace(row, notes=notes.get(row.key, row.notes)) for row in rows]


def text_of(repository: Repository, row: Row) -> str | None:
    """What was said about a backup; None where nothing was, or it cannot be read."""
    return text_for_people(repository, row.key, row.notes)


def counts_by_host(repository: Repository) -> dict[str, int]:
    """How many backups each host has."""
    return dict(sorted(Counter(key.host for key in repository.catalog.backups()).items()))


def shared_names(repository: Repository, rows: Sequence[Row]) -> list[str]:
    """One line for each volume of which several engines of one name have backups."""
    groups: dict[tuple[str, str], list[Manifest]] = {}
    for row in rows:
        if row.manifest is not None:
            groups.setdefault((row.key.host, row.key.volume), []).append(row.manifest)
    lines = Lines(repository)
    notices = (lines.notice(host, volume, made) for (host, volume), made in groups.items())
    return [notice for notice in notices if notice is not None]


def _elsewhere(repository: Repository, named: Reference) -> str:
    """The hint where a volume has no such backup: which hosts have one of that name."""
    hosts = sorted({key.host for key in repository.catalog.backups(volume=named.volume)})
    names = " or ".join(f"volback list {Reference(host, named.volume)}" for host in hosts)
    return f"there are some of {', '.join(hosts)}: {names}" if names else "see `volback list --all-hosts`"


def age_s(ctx: Context, id: str) -> float:
    """How long ago that was."""
    return (ctx.now() - created_at(id)).total_seconds()


def _row(ctx: Context, repository: Repository, found: Manifest | DamagedManifest) -> Row:
    key = key_of(found)
    name = str(Reference(found.host, found.volume, found.id))
    if isinstance(found, DamagedManifest):
        return Row(key, name, age_s(ctx, found.id), None, found.error)
    try:
        return Row(key, name, age_s(ctx, found.id), repository.shown(found), None)
    except IntegrityError as exc:
        return Row(key, name, age_s(ctx, found.id), None, exc)
