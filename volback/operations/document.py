"""Document: puts back the repository's own document, volback.json, where it is lost or damaged; never with another id.

This machine keeps a copy of the document of each repository that it has used, signature and all. Where it has none, or
the identity was changed since, who holds the identity of an encrypted repository makes it anew: what that identity has
certified names the repository.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from volback.archive.age_keys import Identity
from volback.archive.primitives import is_signed
from volback.archive.signing import authority_of, is_signed_by
from volback.catalog.certificates import read_certificates
from volback.catalog.keys import REPOSITORY_KEY
from volback.catalog.listing import current
from volback.catalog.model import Manifest, RepositoryEncryption, RepositoryInfo
from volback.catalog.private import opened
from volback.catalog.repository import Catalog, info_of, new_info
from volback.catalog.sealed import is_whole, read_document, seal_document
from volback.catalog.successions import Succession, read_succession
from volback.context.repository import Repository
from volback.encryption.store import Encryption, holds_encrypted
from volback.errors import ConflictError, FormatError, IdentityNeeded, NoRepository, NotFoundError

log = logging.getLogger(__name__)

_NEW = "copy it back from where it is; or give the repository a new id: volback init --accept-repository"


@dataclass(frozen=True, slots=True)
class PutBack:
    """The document that was put back, or would be."""

    id: str
    recipient: str | None
    """For whom the repository is encrypted; None for one in clear."""
    is_copy: bool
    """Whether this machine had a copy; else it was made anew with the identity."""


def put_back_document(repository: Repository, *, dry_run: bool = False) -> PutBack | None:
    """Put the document back where it is lost or damaged; None where it is there, or where no repository is.

    One whose digest is right is never replaced, whatever it says. Raises NoRepository where this machine does not know
    the repository, or another one was here; RecipientChanged, IdentityNeeded, ConflictError where it is not certain
    which repository this is, IntegrityError where a given identity does not open the backups.
    """
    damaged = _damaged(repository)
    if damaged is None or not (damaged or Catalog(repository.stored).backups()):
        return None
    kept = _kept(repository, damaged)
    info, document = kept if kept is not None else _made_anew(repository)
    repository.check_remembered(info)
    if not dry_run:
        _put(repository, document, is_absent=not damaged)
    recipient = None if info.encryption is None else info.encryption.recipient
    return PutBack(info.id, recipient, is_copy=kept is not None)


def _damaged(repository: Repository) -> bytes | None:
    """The damaged document; empty where there is none, None where one is whole."""
    try:
        found = read_document(repository.stored, REPOSITORY_KEY)
    except NotFoundError:
        return b""
    return None if is_whole(found) else found or b" "


def _put(repository: Repository, document: bytes, *, is_absent: bool) -> None:
    try:
        repository.stored.put(REPOSITORY_KEY, [document], if_absent=is_absent)
    except ConflictError:
        log.debug("another run has put it back first")
    repository.forget_document()
    _ = repository.info


def _kept(repository: Repository, damaged: bytes) -> tuple[RepositoryInfo, bytes] | None:
    """The copy of this repository's document; None where there is none, or it is out of date.

    Several repositories may have been at this address, as of disks that take turns: what lies there says which it is.
    """
    is_encrypted = holds_encrypted(repository.stored)
    fit = [copy for copy in _copies(repository) if _is_current(repository, copy[0], is_encrypted=is_encrypted)]
    named = {certificate.repository for certificate, _ in read_certificates(repository.stored)}
    fit = [copy for copy in fit if copy[0].id in named] or fit
    fit = [copy for copy in fit if copy[0].id.encode() in damaged] or fit
    if len(fit) > 1:
        ids = " or ".join(info.id for info, _ in fit)
        raise ConflictError(f"repository {repository.store.url} has lost its {REPOSITORY_KEY}: its id was {ids}", _NEW)
    return fit[0] if fit else None


def _copies(repository: Repository) -> Iterator[tuple[RepositoryInfo, bytes]]:
    for kept in repository.kept_documents:
        try:
            yield info_of(kept, is_signed), kept
        except FormatError as exc:
            log.warning("this machine's copy of the document is damaged: %s", exc.message)


def _is_current(repository: Repository, info: RepositoryInfo, *, is_encrypted: bool) -> bool:
    """Whether a copy can be that of what lies there, which was not rotated since."""
    if info.encryption is None:
        return not is_encrypted
    found = read_succession(repository.stored, info.encryption.recipient)
    return found is None or info.authority is None or not is_signed_by(bytes.fromhex(info.authority), found[1])


def _made_anew(repository: Repository) -> tuple[RepositoryInfo, bytes]:
    url = repository.store.url
    if not holds_encrypted(repository.stored):
        raise NoRepository(
            f"the {REPOSITORY_KEY} of {url} is lost or damaged, and this machine does not know its id",
            f"run volback repair on a machine that has used it; or {_NEW}",
        )
    line = own_identities(repository)
    info = new_info(_certified_id(repository, line), encryption_of(line))
    authority = authority_of(line[0])
    document = seal_document(info, authority)
    return info_of(document, is_signed), document


def encryption_of(line: list[Identity]) -> RepositoryEncryption:
    """For whom a repository with these identities is encrypted; the current one is the first."""
    recipient, *past = [str(identity.recipient) for identity in line]
    return RepositoryEncryption(recipient=recipient, past=past)


def own_identities(repository: Repository) -> list[Identity]:
    """The identities of an encrypted repository without its document, the current one first.

    Whoever can write to it can add a key, and backups for it. So they must follow one another by rotations that are
    signed, and open the newest backup of each volume. Raises IdentityNeeded, ConflictError, IntegrityError.
    """
    found = {str(identity.recipient): identity for identity in repository.keyring()}
    after = {former: _proven_succession(repository, identity) for former, identity in found.items()}
    missing = [one.recipient for one in after.values() if one is not None and one.recipient not in found]
    if missing:
        message = f"repository {repository.store.url} was rotated since: it is encrypted for {missing[0]}"
        raise IdentityNeeded(message, "give the current identity: see `volback key list`")
    last = [recipient for recipient, one in after.items() if one is None]
    if len(last) != 1:
        raise ConflictError(
            f"the keys of repository {repository.store.url} hold identities that do not follow one another:"
            f" {', '.join(last)}",
            "give a file with its own identity alone, as the disaster sheet has it",
        )
    before = {one.recipient: former for former, one in after.items() if one is not None}
    line, at = list[Identity](), last[0] if last else None
    while at is not None:
        line.append(found[at])
        at = before.get(at)
    _check_opens(repository, line)
    return line


def _proven_succession(repository: Repository, identity: Identity) -> Succession | None:
    found = read_succession(repository.stored, str(identity.recipient))
    if found is None or not is_signed_by(authority_of(identity).public, found[1]):
        return None
    return found[0]


def _check_opens(repository: Repository, line: list[Identity]) -> None:
    """Raises IntegrityError where they do not open the newest backup of each volume."""
    newest = {
        (one.host, one.volume): one
        for one in current(Catalog(repository.stored).revisions())
        if isinstance(one, Manifest) and one.is_closed
    }
    encryption = Encryption(None, lambda: line, len(line))
    for manifest in newest.values():
        opened(manifest, encryption)
    if not newest:
        raise FormatError(f"no backup in {repository.store.url} shows that an identity is its own", _NEW)


def _certified_id(repository: Repository, line: list[Identity]) -> str:
    """The id for which they have certified hosts, or other identities. Raises NoRepository where they have not."""
    authorities = [authority_of(identity).public for identity in line]
    certified = {
        certificate.repository
        for certificate, signature in read_certificates(repository.stored)
        if any(is_signed_by(authority, signature) for authority in authorities)
    }
    successions = (_proven_succession(repository, identity) for identity in line)
    ids = certified | {one.repository for one in successions if one is not None}
    ids = ids or set(repository.expected)
    if len(ids) != 1:
        raise NoRepository(
            f"the {REPOSITORY_KEY} of {repository.store.url} is lost or damaged, and nothing that its identity signed"
            " names its id",
            f"run volback repair on a machine that has used it; or {_NEW}",
        )
    return ids.pop()
