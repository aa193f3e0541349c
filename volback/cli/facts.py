"""Facts: results of operations as the JSON contract (schema 1) names them. A test fixes the keys and types."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from volback.masking import masked, masked_labels, masked_options

if TYPE_CHECKING:
    from volback.catalog.differences import Difference
    from volback.catalog.model import Manifest, SetOf
    from volback.catalog.notes import Notes
    from volback.catalog.units import Member
    from volback.cli.documents import backups, keeping, machine
    from volback.cli.documents.common import Compared, Requests
    from volback.context.repository import Repository
    from volback.jobs.list import ListedJob
    from volback.operations.backup import BackupResult
    from volback.operations.diff import Totals
    from volback.operations.overview import VolumeOverview
    from volback.operations.prove import Comparison
    from volback.operations.search import Epoch, Version
    from volback.operations.trust import Trusted
    from volback.operations.usage import Usage


def utc_fact(time: datetime | None) -> str | None:
    """A time in whole seconds."""
    return None if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}"


def backup_facts(manifest: Manifest, duration_s: float | None = None) -> backups.Stored:
    """One backup."""
    if duration_s is None:
        duration_s = (_time(manifest.ended_at) - _time(manifest.started_at)).total_seconds()
    return {
        "id": manifest.id,
        "host": manifest.host,
        "volume": manifest.volume,
        "kind": manifest.kind,
        "files": manifest.files,
        "raw_bytes": manifest.raw_bytes,
        "stored_bytes": manifest.stored_bytes,
        "shared_bytes": manifest.shared_bytes,
        "reused_bytes": manifest.reused_bytes,
        "duration_s": float(duration_s),
        "consistency": manifest.consistency,
        "digest": manifest.digest,
    }


def made_facts(made: BackupResult) -> backups.Made:
    """One backup that was made just now."""
    return {
        **backup_facts(made.manifest, made.duration_s),
        "passes": made.passes,
        "unused_bytes": made.unused_bytes,
        "resumed_bytes": made.resumed_bytes,
    }


def listed_facts(manifest: Manifest, notes: Notes, text: str | None, trusted: Trusted | None) -> backups.Listed:
    """One backup as `list` shows it. `certified` is null where that is not known, as in a repository in clear."""
    return {
        **backup_facts(manifest),
        "created_at": manifest.started_at,
        "set": None if manifest.set is None else set_facts(manifest.set),
        **noted_facts(manifest, notes),
        "note": text,
        "signed_by": manifest.signer,
        "certified": None if trusted is None else trusted.is_certified(manifest),
    }


def noted_facts(manifest: Manifest, notes: Notes) -> backups.Noted:
    """Tags of a backup, and what its notes say besides."""
    return {
        "tags": notes.tags_with(manifest.tags),
        "held": notes.is_held,
        "held_at": notes.fields.held_at,
        "verified_at": notes.fields.verified_at,
        "proven_at": notes.fields.proven_at,
    }


def set_facts(made: SetOf) -> backups.SetOf:
    """The set to which a backup belongs."""
    return {"id": made.id, "project": made.project, "volumes": made.volumes}


def shown_facts(manifest: Manifest, notes: Notes, text: str | None, trusted: Trusted | None) -> backups.Shown:
    """One backup as `show` shows it; what looks like a secret in a driver's options is masked."""
    source = manifest.source
    return {
        "backup": listed_facts(manifest, notes, text, trusted),
        "ended_at": manifest.ended_at,
        "source": {
            "kind": source.kind,
            "name": source.name,
            "driver": source.driver,
            "options": masked_options(source.options),
            "labels": masked_labels(source.labels),
        },
        "engine_id": manifest.engine_id,
        "containers": manifest.containers,
        "sockets_skipped": manifest.sockets_skipped,
        "excludes": manifest.excludes,
        "parent": manifest.parent,
        "depends_on": manifest.depends_on,
        "uses": [
            {"id": used.id, "name": used.name, "size_bytes": used.size_bytes, "used_bytes": used.used_bytes}
            for used in manifest.uses
        ],
        "data_bytes": manifest.data.size_bytes,
        "index_bytes": manifest.index.size_bytes,
        "encryption": manifest.encryption,
        "format": manifest.format,
        "volback": manifest.volback,
        "warnings": [masked(warning) for warning in manifest.warnings],
    }


def requests_facts(*repositories: Repository) -> Requests | None:
    """The requests that were sent to repositories; None where there were none, as to a directory."""
    counted = [found for found in (repository.store.requests for repository in repositories) if found is not None]
    if not counted:
        return None
    return {
        "total": sum(one.total for one in counted),
        "get": sum(one.by_verb["get"] for one in counted),
        "head": sum(one.by_verb["head"] for one in counted),
        "list": sum(one.by_verb["list"] for one in counted),
        "put": sum(one.by_verb["put"] for one in counted),
        "delete": sum(one.by_verb["delete"] for one in counted),
        "sent_bytes": sum(one.sent_bytes for one in counted),
        "received_bytes": sum(one.received_bytes for one in counted),
    }


def entry_facts(member: Member) -> backups.Entry:
    """One file of a backup. `path` is for people; where it is not UTF-8, `path_base64` holds its bytes."""
    return {
        "path": member.path.decode(errors="backslashreplace"),
        "path_base64": _base64_unless_text(member.path),
        "type": member.type,
        "size_bytes": member.size_bytes,
        "mode": f"{member.mode:04o}",
        "uid": member.uid,
        "gid": member.gid,
        "mtime_ns": member.mtime_ns,
        "link": member.link.decode(errors="backslashreplace") if member.link else None,
    }


def difference_facts(found: Difference) -> backups.Difference:
    """One path that differs between two backups, or between a backup and a volume."""
    return {
        "path": found.path.decode(errors="backslashreplace"),
        "path_base64": _base64_unless_text(found.path),
        "kind": _kind(found),
        "changes": list(found.changes),
        "unclear": found.unclear or None,
        "before": None if found.before is None else entry_facts(found.before.member),
        "after": None if found.after is None else entry_facts(found.after.member),
    }


def _kind(found: Difference) -> Literal["added", "removed", "changed", "unclear"]:
    if found.before is None:
        return "added"
    if found.after is None:
        return "removed"
    return "changed" if found.changes else "unclear"


def totals_facts(totals: Totals) -> backups.Totals:
    """How much differs."""
    return {
        "added": totals.added,
        "added_bytes": totals.added_bytes,
        "removed": totals.removed,
        "removed_bytes": totals.removed_bytes,
        "changed": totals.changed,
        "changed_from_bytes": totals.changed_from_bytes,
        "changed_to_bytes": totals.changed_to_bytes,
        "unclear": totals.unclear.total(),
    }


def version_facts(version: Version) -> backups.Version:
    """One content of one path, and the backups that have it, oldest first."""
    return {
        "host": version.host,
        "volume": version.volume,
        "backups": version.backups,
        "entry": entry_facts(version.state.member),
    }


def epoch_facts(epoch: Epoch) -> backups.Epoch:
    """What a path was in backups that follow one another."""
    return {
        "backups": epoch.backups,
        "changes": list(epoch.changes),
        "entry": None if epoch.state is None else entry_facts(epoch.state.member),
    }


def comparison_facts(found: Comparison) -> Compared:
    """What a proof found."""
    return {
        "identical": found.identical,
        "different": found.different,
        "missing": found.missing,
        "extra": found.extra,
        "lacking": found.lacking,
    }


def usage_facts(usage: Usage) -> backups.Usage:
    """What backups take."""
    return {
        "backups": [
            {
                "id": backup.key.id,
                "host": backup.key.host,
                "volume": backup.key.volume,
                "stored_bytes": backup.stored_bytes,
                "frees_bytes": backup.frees_bytes,
                "needed_by": backup.needed_by,
            }
            for volume in usage.volumes
            for backup in volume.backups
        ],
        "volumes": [
            {
                "host": volume.host,
                "volume": volume.volume,
                "stored_bytes": volume.stored_bytes,
                "condemned_bytes": volume.condemned_bytes,
            }
            for volume in usage.volumes
        ],
        "stored_bytes": usage.stored_bytes,
    }


def volume_facts(volume: VolumeOverview) -> machine.Volume:
    """One volume of the engine."""
    last = volume.last_backup
    return {
        "name": volume.name,
        "driver": volume.driver,
        "size_bytes": volume.size_bytes,
        "containers": [
            {"name": user.name, "state": user.state, "writable": user.writable} for user in volume.users
        ],
        "last_backup": None if last is None else {"id": last.id, "age_s": volume.age_s},
        "project": volume.project,
    }  # fmt: skip


def _base64_unless_text(name: bytes) -> str | None:
    try:
        name.decode()
    except UnicodeDecodeError:
        return base64.b64encode(name).decode()
    return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def job_facts(job: ListedJob, run_by: Mapping[str, str]) -> keeping.Job:
    """A job, and who runs it at its times."""
    return {
        "job": job.name,
        "schedule": job.schedule,
        "problem": job.problem,
        "next_at": None if job.next_at is None else job.next_at.isoformat(),
        "missed": [time.isoformat() for time in job.missed],
        "run_by": run_by.get(job.name),
    }
