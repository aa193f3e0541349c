"""Facts: results of operations as the JSON contract (schema 1) names them. A test fixes the keys and types."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import TYPE_CHECKING

from volback.masking import masked, masked_labels, masked_options

if TYPE_CHECKING:
    from volback.catalog.model import Manifest, Member, SetOf
    from volback.operations.overview import VolumeOverview

Facts = dict[str, object]


def backup_facts(manifest: Manifest, duration_s: float | None = None) -> Facts:
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
        "reused_bytes": manifest.reused_bytes,
        "duration_s": float(duration_s),
        "consistency": manifest.consistency,
        "digest": manifest.digest,
    }


def listed_facts(manifest: Manifest) -> Facts:
    """One backup as `list` shows it."""
    return {
        **backup_facts(manifest),
        "created_at": manifest.started_at,
        "tags": manifest.tags,
        "set": None if manifest.set is None else set_facts(manifest.set),
    }


def set_facts(made: SetOf) -> Facts:
    """The set to which a backup belongs."""
    return {"id": made.id, "project": made.project, "volumes": made.volumes}


def shown_facts(manifest: Manifest) -> Facts:
    """One backup as `show` shows it; what looks like a secret in a driver's options is masked."""
    source = manifest.source
    return {
        "backup": listed_facts(manifest),
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
        "depends_on": manifest.depends_on,
        "data_bytes": manifest.data.size_bytes,
        "index_bytes": manifest.index.size_bytes,
        "encryption": manifest.encryption,
        "format": manifest.format,
        "volback": manifest.volback,
        "warnings": [masked(warning) for warning in manifest.warnings],
    }


def entry_facts(member: Member) -> Facts:
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


def volume_facts(volume: VolumeOverview) -> Facts:
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
