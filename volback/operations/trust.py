"""Trust: which keys are certified for which hosts of a repository, by who holds its identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from volback.archive.age_keys import Identity
from volback.archive.signing import authority_of, is_signed_by
from volback.catalog.certificates import Certificate, read_certificates, write_certificate
from volback.catalog.model import Manifest
from volback.catalog.objects import Objects
from volback.catalog.repository import Catalog
from volback.context.repository import Repository
from volback.errors import ConflictError, NotFoundError, UsageError

_SHOWN_CHARS = 16


def fingerprint(key: str) -> str:
    """A public key (hex) as people compare it: groups of eight digits."""
    return " ".join(key[start : start + 8] for start in range(0, len(key), 8))


@dataclass(frozen=True, slots=True)
class Trusted:
    """The keys that are certified, by host."""

    keys: dict[str, frozenset[str]]

    def is_certified(self, manifest: Manifest) -> bool:
        """Whether a certified key of the backup's host has signed it."""
        return manifest.signer is not None and manifest.signer in self.keys.get(manifest.host, frozenset())

    def said(self, manifest: Manifest) -> str:
        """Who signed the backup, in words."""
        if self.is_certified(manifest):
            return f"certified host {manifest.host}"
        if manifest.signer is None:
            return "nobody"
        return f"key {manifest.signer[:_SHOWN_CHARS]}, which is not certified for host {manifest.host}"

    def warning(self, manifest: Manifest) -> str | None:
        """What is to be said of a backup that is not signed by a certified key of its host."""
        if self.is_certified(manifest):
            return None
        if not self.keys:
            said = "may be that of a stranger: no host is certified for the repository (`volback key trust HOST`)"
            return f"backup {manifest.name} {said}"
        if manifest.signer is None:
            said = "is not signed"
        else:
            said = (
                f"is signed by a key that is not certified for host {manifest.host} ({manifest.signer[:_SHOWN_CHARS]})"
            )
        return f"backup {manifest.name} {said}: whoever can write to the repository can have made it"


@dataclass(frozen=True, slots=True)
class Authorship:
    """Who has made a backup, as far as that is proven."""

    signed_by: str | None = None
    """The public key (hex) that has signed it; None in a repository in clear."""
    is_certified: bool = False
    """Whether that is a certified key of the backup's host."""
    warnings: tuple[str, ...] = ()

    def vouches_or(self, is_known: Callable[[str, str], bool]) -> Callable[[str, str], bool]:
        """Whether a label of the volume is confirmed: what a certified host says of its volume is as good as what this
        machine has seen of it."""
        return lambda key, value: self.is_certified or is_known(key, value)


def trusted_keys(objects: Objects, repository_id: str, authority: bytes) -> Trusted:
    """What the holder of the identity with that public key has certified. Other certificates count for nothing."""
    keys = dict[str, set[str]]()
    for certificate, signature in read_certificates(objects):
        if certificate.repository == repository_id and is_signed_by(authority, signature):
            keys.setdefault(certificate.host, set()).add(certificate.key)
    return Trusted({host: frozenset(found) for host, found in keys.items()})


def authorship(repository: Repository, manifest: Manifest) -> Authorship:
    """Who made a backup that is about to be used. Raises IdentityNeeded."""
    if repository.encryption is None:
        return Authorship()
    authority = authority_of(repository.encryption.identities()[0]).public
    trusted = trusted_keys(repository.stored, repository.id, authority)
    warning = trusted.warning(manifest)
    return Authorship(manifest.signer, warning is None, () if warning is None else (warning,))


def known_trust(repository: Repository) -> Trusted | None:
    """What is certified, as far as this machine can prove that without asking anybody; None where it can not, and for a
    repository in clear. Raises as `Repository.authority`."""
    authority = repository.authority
    return None if authority is None else trusted_keys(repository.stored, repository.id, authority)


def signer_in_words(manifest: Manifest, trusted: Trusted | None) -> str | None:
    """Who signed a backup; None for one in clear, of which nobody can say it."""
    if manifest.encryption is None:
        return None
    if trusted is not None or manifest.signer is None:
        return (trusted or Trusted({})).said(manifest)
    return f"key {manifest.signer[:_SHOWN_CHARS]}; whether it is certified is not known here: give --identity"


def certify(
    objects: Objects, repository_id: str, identity: Identity, host: str, key: str, *, now: datetime
) -> Certificate:
    """Certify a public key (hex) for a host."""
    made = Certificate(repository=repository_id, host=host, key=key, certified_at=now.isoformat(timespec="seconds"))
    write_certificate(objects, made, authority_of(identity))
    return made


def signing_keys(catalog: Catalog, host: str) -> dict[str, int]:
    """The keys that have signed backups of a host, with the number of these backups."""
    counts: dict[str, int] = {}
    for found in catalog.manifests(host):
        if isinstance(found, Manifest) and found.signer is not None:
            counts[found.signer] = counts.get(found.signer, 0) + 1
    return counts


def choose_key(catalog: Catalog, host: str, wanted: str | None, confirm: Callable[[str], bool]) -> str:
    """The key of a host that is to be certified: the one that begins with `wanted`, or the only one, once a person has
    confirmed it.

    Raises NotFoundError where no backup of the host is signed, ConflictError, UsageError where nobody has confirmed.
    """
    keys = signing_keys(catalog, host)
    if not keys:
        raise NotFoundError(f"no backup of host {host} is signed", f"make one on {host} first, or see `volback list`")
    given = "".join((wanted or "").split()).lower()
    found = [key for key in keys if key.startswith(given)]
    if not found:
        raise NotFoundError(f"no backup of host {host} is signed by a key {wanted!r}", f"its keys: {_shown(keys)}")
    if len(found) > 1:
        raise ConflictError(
            f"backups of host {host} are signed by {len(found)} keys: {_shown(found)}",
            f"see on {host} which is its own: volback key host; then name it with --key",
        )
    if len(given) < _SHOWN_CHARS and not confirm(found[0]):
        hint = f"see on {host} which is its own: volback key host; then: volback key trust {host} --key KEY"
        raise UsageError(f"key {found[0][:_SHOWN_CHARS]} of host {host} was not confirmed", hint)
    return found[0]


def _shown(keys: list[str] | dict[str, int]) -> str:
    return ", ".join(key[:_SHOWN_CHARS] for key in keys)
