"""List: the backups of a repository. Reads manifests only; a damaged one is shown as such, never hidden."""

from __future__ import annotations

from dataclasses import dataclass

from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.catalog.reference import Reference, parse_reference
from volback.catalog.repository import DamagedManifest
from volback.context import Context, Repository
from volback.errors import NotFoundError, VolbackError
from volback.latest import created_at


@dataclass(frozen=True, slots=True)
class Row:
    """One backup; `manifest` is None where it cannot be read, and `error` says why."""

    key: BackupKey
    name: str
    age_s: float
    manifest: Manifest | None
    error: VolbackError | None


def list_backups(
    ctx: Context, repository: Repository, reference: str | None = None, *, all_hosts: bool = False
) -> list[Row]:
    """Return the backups of this engine's host (or of every host), by volume, oldest first.

    Raises NotFoundError if the named volume has none.
    """
    named = parse_reference(reference) if reference is not None else None
    host = named.host if named and named.host else None if all_hosts else repository.host
    volume, id_prefix = (named.volume, named.id_prefix or "") if named else (None, "")
    rows = [
        _row(ctx, found)
        for found in repository.catalog.manifests(host, volume)
        if found.id.startswith(id_prefix)
    ]  # fmt: skip
    if not rows and named is not None:
        raise NotFoundError(f"no backup of {reference} in {repository.store.url}", "see `volback list --all-hosts`")
    return rows


def age_s(ctx: Context, id: str) -> float:
    """How long ago that was."""
    return (ctx.now() - created_at(id)).total_seconds()


def _row(ctx: Context, found: Manifest | DamagedManifest) -> Row:
    key = BackupKey(found.host, found.volume, found.id)
    name = str(Reference(found.host, found.volume, found.id))
    if isinstance(found, DamagedManifest):
        return Row(key, name, age_s(ctx, found.id), None, found.error)
    return Row(key, name, age_s(ctx, found.id), found, None)
