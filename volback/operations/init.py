"""Init: makes a repository, on purpose; needs no engine."""

from __future__ import annotations

from dataclasses import dataclass

from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.repository import Catalog
from volback.context import Context, Repository
from volback.errors import ConflictError, NoRepository


@dataclass(frozen=True, slots=True)
class InitResult:
    """The repository that is there now; `made` is False if it was there before."""

    url: str
    id: str
    format: int
    made: bool


def init(ctx: Context, repository: Repository) -> InitResult:
    """Make a repository where nothing is; one that is there already stays as it is.

    If two make it at the same time, both get the id of the same one. Raises ConflictError where something else is,
    NoRepository where another one was before, unless the context accepts that.
    """
    wanted = ""
    try:
        _ = repository.info
    except NoRepository:
        if repository.expected and not ctx.accept_repository:
            raise
        wanted = ctx.random_hex(16)
        _make(ctx, repository, wanted)
    info = repository.info
    return InitResult(repository.store.url, info.id, info.format, made=info.id == wanted)


def _make(ctx: Context, repository: Repository, id: str) -> None:
    store, catalog = repository.store, Catalog(repository.store)
    found = store.holds()
    if found not in (None, REPOSITORY_KEY):
        is_lost = bool(catalog.backups())
        if not (is_lost and ctx.accept_repository):
            message = f"{store.url} is not a repository, and not empty: it holds {found!r}"
            hint = "name an empty directory, or a new one, with --repo"
            if is_lost:
                message = f"{store.url} holds backups, but its {REPOSITORY_KEY} is lost"
                hint = "copy that back from where it is; or give it a new one: volback init --accept-repository"
            raise ConflictError(message, hint)
    catalog.ensure_repository(lambda: id)
