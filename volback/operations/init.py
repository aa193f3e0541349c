"""Init: makes a repository, on purpose, encrypted or not; needs no engine."""

from __future__ import annotations

from dataclasses import dataclass

from volback.archive.age_keys import Identity
from volback.archive.signing import SigningKey, authority_of
from volback.catalog.key_files import delete_key
from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.model import RepositoryEncryption
from volback.catalog.repository import Catalog
from volback.context import Context
from volback.context.repository import Repository
from volback.encryption.store import holds_encrypted
from volback.errors import ConflictError, NoRepository
from volback.operations.document import encryption_of, own_identities
from volback.operations.keys import Holder, first_key


@dataclass(frozen=True, slots=True)
class InitResult:
    """The repository that is there now; `made` is False if it was there before."""

    url: str
    id: str
    format: int
    made: bool
    recipient: str | None = None
    """For whom it is encrypted; None for a repository in clear."""


@dataclass(frozen=True, slots=True)
class FirstKey:
    """The key with which an encrypted repository begins."""

    name: str
    holder: Holder


def init(ctx: Context, repository: Repository, first: FirstKey | None = None) -> InitResult:
    """Make a repository where nothing is; with a first key it is encrypted. One that is there already stays as it is.

    If two make it at the same time, both get the id of the same one. Raises ConflictError where something else is, or
    a repository that does not get that key; NoRepository where another one was before, unless the context accepts that.
    """
    wanted = ""
    try:
        _ = repository.info
    except NoRepository:
        if repository.expected and not ctx.accept_repository:
            raise
        wanted = ctx.random_hex(16)
        _make(ctx, repository, wanted, first)
    info = repository.info
    if first is not None and info.id != wanted:
        raise _exists(repository)
    recipient = None if info.encryption is None else info.encryption.recipient
    return InitResult(repository.store.url, info.id, info.format, made=info.id == wanted, recipient=recipient)


def _exists(repository: Repository) -> ConflictError:
    url = repository.store.url
    if repository.info.encryption is None:
        message = f"{url} is a repository already, and it is not encrypted: that is decided when it is made"
        return ConflictError(message, "make another one, and copy the backups into it with `volback copy`")
    return ConflictError(f"{url} is an encrypted repository already", "to add a key to it: volback key add NAME")


def _make(ctx: Context, repository: Repository, id: str, first: FirstKey | None) -> None:
    store, catalog = repository.store, Catalog(repository.store)
    found = store.holds()
    if found not in (None, REPOSITORY_KEY):
        is_lost = bool(catalog.backups())
        if not (is_lost and ctx.accept_repository):
            message = f"{store.url} is not a repository, and not empty: it holds {found!r}"
            hint = "name an empty directory, or a new one, with --repo"
            if is_lost:
                message = f"{store.url} holds backups, but its {REPOSITORY_KEY} is lost"
                hint = "volback repair puts it back; or give it a new one: volback init --accept-repository"
            raise ConflictError(message, hint)
        if first is None:
            catalog.ensure_repository(lambda: id, *_former_encryption(repository))
            return
        raise _holds_backups(repository)
    if first is None:
        catalog.ensure_repository(lambda: id)
        return
    _make_encrypted(ctx, catalog, repository, id, first)


def _make_encrypted(ctx: Context, catalog: Catalog, repository: Repository, id: str, first: FirstKey) -> None:
    """The key is there before the repository is: so no data is encrypted for an identity that is lost."""
    identity = Identity.new()
    encryption = RepositoryEncryption(recipient=str(identity.recipient))
    first_key(repository.stored, identity, first.name, first.holder, now=ctx.now())
    is_made = False
    try:
        is_made = catalog.ensure_repository(lambda: id, encryption, authority_of(identity)).id == id
    finally:
        if not is_made:
            delete_key(repository.stored, first.name)


def _former_encryption(repository: Repository) -> tuple[RepositoryEncryption | None, SigningKey | None]:
    """How the backups of a repository that lost its document are encrypted, and its authority.

    Raises IdentityNeeded, ConflictError, IntegrityError.
    """
    if not holds_encrypted(repository.stored):
        return None, None
    line = own_identities(repository)
    return encryption_of(line), authority_of(line[0])


def _holds_backups(repository: Repository) -> ConflictError:
    return ConflictError(
        f"{repository.store.url} holds backups already, so whether it is encrypted is decided",
        "leave out --encrypt, and give --identity if they are encrypted",
    )
