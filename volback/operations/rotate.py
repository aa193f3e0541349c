"""Rotate: a new identity for a repository. What is stored stays readable with earlier ones, which keys still hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from volback.archive.age_header import WORK_FACTOR
from volback.archive.age_keys import Identity
from volback.archive.primitives import is_signed
from volback.archive.signing import authority_of
from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.repository import Catalog
from volback.catalog.sealed import seal_document
from volback.catalog.successions import Succession, write_succession
from volback.context import Context
from volback.context.repository import Repository
from volback.encryption.sources import passphrase_in
from volback.errors import ConflictError
from volback.operations.keys import keys_of
from volback.operations.trust import certify, trusted_keys
from volback.state.pinned import Pin, write_pin


@dataclass(frozen=True, slots=True)
class Rotated:
    """The repository's new recipient."""

    recipient: str
    past: list[str]
    rewritten: list[str]
    """The keys that open what comes, too."""
    left: list[str]
    """Those that open only what there was before."""

    @property
    def warnings(self) -> list[str]:
        return [
            f"key {name} opens only the backups before this: its passphrase or its recipients are not known; to give it"
            f" the new identity: volback key remove {name}, then volback key add {name}"
            for name in self.left
        ]


def rotate(ctx: Context, repository: Repository, *, work_factor: int = WORK_FACTOR) -> Rotated:
    """Make a new identity, give it to each key whose holder is known, then make it the current one.

    Until the repository's document is replaced, nothing has changed for anybody. Raises IdentityNeeded, ConflictError
    where no key can get the new identity.
    """
    store, info = repository.stored, repository.info
    keys = keys_of(repository, work_factor=work_factor)
    current, new = keys.unlock(), Identity.new()
    _check_unchanged(repository)
    proven = keys.proven()
    found = keys.holders(lambda name: _passphrases(repository, name))
    known = {name: holder for name, holder in found.items() if holder is not None}
    if not known:
        raise ConflictError(
            "no key can get a new identity: neither recipients nor a passphrase of one are known",
            "add one first: volback key add NAME",
        )
    keys.rewrite(known, [new, *repository.identities()])
    trusted = trusted_keys(store, info.id, authority_of(current).public)
    for host, host_keys in trusted.keys.items():
        for key in sorted(host_keys):
            certify(store, info.id, new, host, key, now=ctx.now())
    _write_succession(ctx, repository, current, new)
    _replace_recipient(repository, new)
    write_pin(ctx.settings.state, info.id, Pin(str(new.recipient), authority_of(new).public.hex()))
    keys.sign_notes(dict.fromkeys([*known, *proven]), new)
    left = [name for name, holder in found.items() if holder is None]
    return Rotated(str(new.recipient), list(repository.recipients), list(known), left)


def _write_succession(ctx: Context, repository: Repository, current: Identity, new: Identity) -> None:
    """Before the document is replaced: hosts that see the new one follow it by this."""
    succession = Succession(
        repository=repository.info.id,
        former=str(current.recipient),
        recipient=str(new.recipient),
        authority=authority_of(new).public.hex(),
        made_at=ctx.now().isoformat(timespec="seconds"),
    )
    write_succession(repository.stored, succession, authority_of(current))


def _replace_recipient(repository: Repository, new: Identity) -> None:
    """Write the repository's document with the new recipient. Raises ConflictError where it was changed meanwhile."""
    _check_unchanged(repository)
    document = repository.info.rotated(str(new.recipient))
    repository.stored.put(REPOSITORY_KEY, [seal_document(document, authority_of(new))])


def _check_unchanged(repository: Repository) -> None:
    if Catalog(repository.stored, is_signed=is_signed).info() != repository.info:
        url = repository.store.url
        raise ConflictError(f"repository {url} was rotated by somebody else meanwhile", "see `volback key list`")


def _passphrases(repository: Repository, name: str) -> Iterator[str]:
    """What may be the passphrase of a key: those that are there, then what a person answers."""
    sources = repository.sources
    yield from map(passphrase_in, sources.passphrases)
    if sources.ask is not None and (answer := sources.ask(f"Passphrase of key {name} (empty: leave it out): ")):
        yield answer
