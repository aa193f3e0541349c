"""Notes: hold, release, tag backups, and say something about them; note when one was last verified or proven.

Notes lie beside the manifests (volback/catalog/notes.py) and can be written by whoever can write to the repository.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from volback.catalog.keys import BackupKey
from volback.catalog.model import Manifest
from volback.catalog.notes import NO_NOTES, Notes, text_of, with_text
from volback.catalog.reference import Reference
from volback.context import Context
from volback.context.naming import spelled_out
from volback.context.repository import Repository
from volback.errors import ConflictError, IdentityNeeded, IntegrityError, StoreError, UsageError
from volback.latest import SAFETY_TAG

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Noted:
    """A backup and its notes."""

    manifest: Manifest
    notes: Notes

    @property
    def tags(self) -> list[str]:
        """Those of the manifest, and those that were added later."""
        return self.notes.tags_with(self.manifest.tags)


def hold(ctx: Context, repository: Repository, references: Iterable[str]) -> list[Noted]:
    """Hold backups: they are not removed until they are released. Notes that cannot be read are written anew."""
    now = f"{ctx.now():%Y-%m-%dT%H:%M:%SZ}"
    return [
        _replaced(repository, found, lambda notes: notes if notes.fields.held_at else notes.with_(held_at=now))
        for found in _all(repository, references)
    ]


def release(repository: Repository, references: Iterable[str]) -> list[Noted]:
    """Let held backups be removed again. Notes that cannot be read are written anew."""
    return [
        _replaced(repository, found, lambda notes: notes.with_(held_at=None))
        for found in _all(repository, references)
    ]  # fmt: skip


def add_tags(repository: Repository, reference: str, tags: list[str]) -> Noted:
    """Add tags to a backup. Raises UsageError for what cannot be one, IntegrityError."""
    _check_tags(tags)
    found = repository.find(reference)
    added = [tag for tag in dict.fromkeys(tags) if tag not in found.tags]
    return _changed(repository, found, lambda notes: notes.with_(tags=list(dict.fromkeys([*notes.tags, *added]))))


def remove_tags(repository: Repository, reference: str, tags: list[str]) -> Noted:
    """Take tags away that were added later. Raises ConflictError for one that the manifest has, IntegrityError."""
    found = repository.find(reference)
    for tag in tags:
        if tag in found.tags:
            raise ConflictError(
                f"tag {tag!r} of backup {found.name} was given when it was made, and stays in its manifest"
            )
    return _changed(
        repository, found, lambda notes: notes.with_(tags=[tag for tag in notes.tags if tag not in set(tags)])
    )


def set_text(repository: Repository, reference: str, text: str) -> Noted:
    """Say something about a backup, in place of what was said; an empty text says nothing. Raises IntegrityError."""
    found = repository.find(reference)
    return _changed(repository, found, lambda notes: with_text(notes, text, found.key, repository.encryption))


def read_notes(repository: Repository, manifest: Manifest) -> Noted:
    """A backup with its notes."""
    return Noted(manifest, repository.catalog.notes.read(manifest.key))


def text_for_people(repository: Repository, key: BackupKey, notes: Notes) -> str | None:
    """What was said about a backup; None where nothing was, or no identity was given that opens it."""
    if notes.fields.private is not None and not repository.has_identities:
        return None
    try:
        return text_of(notes, key, repository.encryption)
    except (IdentityNeeded, IntegrityError) as exc:
        log.warning("%s", exc.message)
        return None


def note_text(repository: Repository, manifest: Manifest, text: str) -> None:
    """Say something about a backup that was made just now, and has no notes yet: nothing is read, so a key that may
    only write can do it. The backup is there in any case: a failure is a warning."""
    if not text:
        return
    try:
        repository.catalog.notes.replace(manifest.key, with_text(NO_NOTES, text, manifest.key, repository.encryption))
    except (StoreError, IntegrityError, UsageError) as exc:
        log.warning("the note of backup %s was not written: %s", manifest.name, exc.message)


def note_verified(ctx: Context, repository: Repository, key: BackupKey) -> None:
    """Note that all data of a backup was read and is intact, if this machine may write there."""
    _note_time(ctx, repository, key, "verified_at")


def note_proven(ctx: Context, repository: Repository, key: BackupKey) -> None:
    """Note that a volume equals a backup, if this machine may write there."""
    _note_time(ctx, repository, key, "proven_at")


def check_not_held(backups: Iterable[BackupKey], notes: dict[BackupKey, Notes]) -> None:
    """Raises ConflictError where one of the backups is held."""
    for key in backups:
        if (found := notes.get(key)) is None or not found.is_held:
            continue
        name = Reference(key.host, key.volume, key.id)
        why = (
            f"since {found.fields.held_at}" if found.damage is None else f"as its notes cannot be read: {found.damage}"
        )
        raise ConflictError(f"backup {name} is held {why}", f"volback release {name}")


def _note_time(ctx: Context, repository: Repository, key: BackupKey, what: str) -> None:
    now = f"{ctx.now():%Y-%m-%dT%H:%M:%SZ}"
    try:
        repository.catalog.notes.change(key, lambda notes: notes.with_(**{what: now}))
    except (StoreError, IntegrityError) as exc:
        log.info("%s of backup %s is not noted: %s", what, key.id, exc.message)


def _all(repository: Repository, references: Iterable[str]) -> list[Manifest]:
    return [repository.find(reference) for reference in spelled_out(repository, references)]


def _changed(repository: Repository, found: Manifest, change: Callable[[Notes], Notes]) -> Noted:
    return Noted(found, repository.catalog.notes.change(found.key, change))


def _replaced(repository: Repository, found: Manifest, change: Callable[[Notes], Notes]) -> Noted:
    """As `_changed`, also where the notes cannot be read."""
    notes = repository.catalog.notes
    return Noted(found, notes.replace(found.key, change(notes.read(found.key))))


def _check_tags(tags: list[str]) -> None:
    for tag in tags:
        if not tag or "," in tag or "\n" in tag:
            raise UsageError(f"{tag!r} is not a tag", "a tag is a word without commas")
        if tag == SAFETY_TAG:
            raise UsageError(f"tag {tag!r} is for what `volback restore --replace` replaces")
