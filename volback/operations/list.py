"""List: the backups of a repository. Reads manifests only; a damaged one is shown as such, never hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from volback.catalog.keys import BackupKey
from volback.catalog.listing import DamagedManifest, key_of
from volback.catalog.model import Manifest
from volback.catalog.notes import NO_NOTES, Notes
from volback.catalog.objects import StoredObject
from volback.catalog.reference import Reference, parse_reference
from volback.context import Context
from volback.context.repository import Repository
from volback.errors import IntegrityError, NotFoundError, VolbackError
from volback.latest import created_at
from volback.operations.lines import Lines
from volback.operations.notes import text_for_people
from volback.policy.keep import has_tags


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


def list_backups(
    ctx: Context,
    repository: Repository,
    reference: str | None = None,
    *,
    all_hosts: bool = False,
    tags: Sequence[str] = (),
) -> list[Row]:
    """Return the backups of this engine's host (or of every host), by volume, oldest first.

    Of `tags` each is one, or several with commas, of which a backup must have all; one of them is
    enough. Raises NotFoundError if the named volume has none.
    """
    named = parse_reference(reference) if reference is not None else None
    host = named.host if named and named.host else None if all_hosts else repository.host
    volume, id_prefix = (named.volume, named.id_prefix or "") if named else (None, "")
    beside: list[StoredObject] = []
    rows = [
        _row(ctx, repository, found)
        for found in repository.catalog.manifests(host, volume, cached=True, beside=beside)
        if found.id.startswith(id_prefix)
    ]  # fmt: skip
    notes = repository.catalog.notes.listed(beside, cached=True)
    rows = [replace(row, notes=notes.get(row.key, row.notes)) for row in rows]
    if not rows and named is not None:
        raise NotFoundError(f"no backup of {reference} in {repository.store.url}", _elsewhere(repository, named))
    return [row for row in rows if not tags or any(has_tags(row.tags, wanted) for wanted in tags)]


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
