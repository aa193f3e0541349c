"""Init: makes a repository, on purpose; needs no engine."""

from __future__ import annotations

from dataclasses import dataclass

from volback.catalog.keys import REPOSITORY_KEY
from volback.context import Context, Repository
from volback.errors import ConflictError, NotFoundError


@dataclass(frozen=True, slots=True)
class InitResult:
    """The repository that is there now; `made` is False if it was there before."""

    url: str
    id: str
    format: int
    made: bool


def init(ctx: Context, repository: Repository) -> InitResult:
    """Make a repository where nothing is; one that is there already stays as it is.

    If two make it at the same time, both get the id of the same one. Raises ConflictError where something else is.
    """
    store, catalog, made = repository.store, repository.catalog, False
    try:
        info = catalog.info()
    except NotFoundError:
        found = store.holds()
        if found not in (None, REPOSITORY_KEY):
            raise ConflictError(
                f"{store.url} is not a repository, and not empty: it holds {found!r}",
                "name an empty directory, or a new one, with --repo",
            ) from None
        wanted = ctx.random_hex(16)
        info = catalog.ensure_repository(lambda: wanted)
        made = info.id == wanted
    return InitResult(store.url, info.id, info.format, made)
