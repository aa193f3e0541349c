"""Removing: backups out of the repository, manifest first; what others depend on stays."""

from __future__ import annotations

from volback.catalog.model import Manifest
from volback.catalog.reference import Reference, parse_reference
from volback.catalog.repository import DamagedManifest
from volback.errors import EngineUnreachable, FormatError, UsageError
from volback.operations.session import Session
from volback.state.runs import lock

Found = Manifest | DamagedManifest


def find_all(session: Session, references: list[str]) -> list[Found]:
    """Return the backups to remove, each once, the newest first, so that one goes before what it depends on.

    Raises NotFoundError, UsageError for a reference without an id: a volume's name alone is too broad.
    A damaged backup is found by its whole id.
    """
    found = [_find(session, reference) for reference in references]
    unique = {(backup.id, backup.host, backup.volume): backup for backup in found}
    return [unique[key] for key in sorted(unique, reverse=True)]


def remove(session: Session, backup: Found) -> str:
    """Remove one backup and return its name.

    Raises ConflictError if others depend on it, LockedError while another run backs up or restores its volume.
    """
    with lock(session.settings.state, f"{_engine_id(session, backup)}-{backup.volume}", f"volume {backup.volume!r}"):
        session.catalog.remove(backup)
    return name_of_found(backup)


def name_of_found(backup: Found) -> str:
    """A backup's full name."""
    return str(Reference(backup.host, backup.volume, backup.id))


def _engine_id(session: Session, backup: Found) -> str:
    """The engine that the backup is of, whose id is in the lock's name; it need not answer now."""
    if isinstance(backup, Manifest):
        return backup.engine_id
    others = session.catalog.manifests(backup.host, backup.volume)
    known = [other.engine_id for other in others if isinstance(other, Manifest)]
    if known:
        return known[-1]
    try:
        return session.engine.info.id
    except EngineUnreachable:
        return ""  # nobody backs up an engine that is not there


def _find(session: Session, text: str) -> Found:
    parsed = parse_reference(text)
    if parsed.id_prefix is None:
        raise UsageError(f"{text!r} names all backups of a volume", f"say which: {text}@ID; see `volback list {text}`")
    try:
        return session.find(text)
    except FormatError:
        for backup in session.catalog.manifests(parsed.host or session.host, parsed.volume):
            if backup.id == parsed.id_prefix and isinstance(backup, DamagedManifest):
                return backup
        raise
