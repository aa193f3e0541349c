"""Listings: a backup's files and its manifest, line by line, for people."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from volback.cli.words import count, human_duration, human_size, local_time
from volback.masking import masked, masked_labels, masked_options

if TYPE_CHECKING:
    from volback.catalog.model import Manifest, SetOf
    from volback.catalog.notes import Notes
    from volback.catalog.units import Member
    from volback.jobs.list import ListedJob

_TYPES = {"f": stat.S_IFREG, "h": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK}
_TYPES |= {"p": stat.S_IFIFO, "b": stat.S_IFBLK, "c": stat.S_IFCHR}


def entry_lines(members: Iterable[Member]) -> Iterator[str]:
    """One line per file, as in `ls -l`: mode, owner, size, time, name; then the target of a link."""
    for member in members:
        mode = stat.filemode(_TYPES[member.type] | member.mode)
        if member.type == "h":
            mode = "h" + mode[1:]  # as in tar: the first name may be a symlink or a device too
        owner = f"{member.uid}:{member.gid}"
        name = shown_name(member.path or b".")
        if member.link:
            arrow = "is the same file as" if member.type == "h" else "->"
            name += f" {arrow} {shown_name(member.link)}"
        yield f"{mode} {owner:>11} {member.size_bytes:>12} {shown_time(member.mtime_ns)} {name}"


def manifest_lines(manifest: Manifest, signer: str | None = None) -> Iterator[str]:
    """One line per fact; empty ones are left out. `signer` says in words who signed it."""
    for word, value in _manifest_facts(manifest, signer):
        if value:
            yield f"{word + ':':<14}{value}"
    for warning in manifest.warnings:
        yield f"{'warning:':<14}{masked(warning)}"


def notes_lines(manifest: Manifest, notes: Notes, text: str | None) -> Iterator[str]:
    """One line per fact; empty ones are left out."""
    fields = notes.fields
    since = "since " + local_time(datetime.fromisoformat(fields.held_at)) if fields.held_at else ""
    closed = "encrypted: give --identity" if fields.private is not None else ""
    facts = {
        "more tags": ", ".join(tag for tag in notes.tags if tag not in manifest.tags),
        "held": since or ("yes, as its notes cannot be read" if notes.is_held else ""),
        "note": closed if text is None else text,
        "verified": "" if fields.verified_at is None else local_time(datetime.fromisoformat(fields.verified_at)),
        "proven": "" if fields.proven_at is None else local_time(datetime.fromisoformat(fields.proven_at)),
        "notes": notes.damage or "",
    }
    return (f"{word + ':':<14}{value}" for word, value in facts.items() if value)


def _manifest_facts(manifest: Manifest, signer: str | None) -> Iterator[tuple[str, str]]:
    source = manifest.source
    started, ended = datetime.fromisoformat(manifest.started_at), datetime.fromisoformat(manifest.ended_at)
    yield "backup", manifest.id
    yield source.kind, manifest.volume
    yield "host", manifest.host
    yield "kind", manifest.kind
    yield "made", f"{local_time(started)}, in {human_duration((ended - started).total_seconds())}"
    yield "files", f"{manifest.files:,}"
    yield "raw", _size(manifest.raw_bytes)
    yield "stored", _size(manifest.stored_bytes)
    yield "shared", _shared(manifest) if manifest.reused_bytes else ""
    yield "consistency", manifest.consistency
    yield "containers", ", ".join(manifest.containers)
    yield "driver", source.driver if source.kind == "volume" else ""
    yield "options", _pairs(masked_options(source.options))
    yield "labels", _pairs(masked_labels(source.labels))
    yield "tags", ", ".join(manifest.tags)
    yield "set", _set(manifest.set) if manifest.set else ""
    yield "excluded", ", ".join(manifest.excludes) + (f": {manifest.excluded:,} left out" if manifest.excluded else "")
    yield "sockets", f"{manifest.sockets_skipped:,} left out" if manifest.sockets_skipped else ""
    yield "parent", manifest.parent or ""
    yield "needs", ", ".join(manifest.depends_on)
    yield "encryption", manifest.encryption or ""
    yield "signed by", signer or ""
    yield "digest", manifest.digest
    yield "written by", f"volback {manifest.volback}, format {manifest.format}"


def _shared(manifest: Manifest) -> str:
    others = count(len(manifest.depends_on), "earlier backup")
    return f"{_size(manifest.reused_bytes)}, {percent(manifest)} of it, with {others}"


def percent(manifest: Manifest) -> str:
    """How much of a backup's data other backups had already; `-` for none."""
    if not manifest.reused_bytes:
        return "-"
    return f"{min(100 * manifest.reused_bytes // max(manifest.raw_bytes, 1), 100)}%"


def _set(made: SetOf) -> str:
    project = f" of project {made.project}" if made.project else ""
    return f"{made.id}{project}: {', '.join(made.volumes)}"


def _size(size_bytes: int) -> str:
    return f"{human_size(size_bytes)} ({size_bytes:,} bytes)" if size_bytes >= 1024 else human_size(size_bytes)


def _pairs(pairs: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(pairs.items()))


def shown_name(name: bytes) -> str:
    """A name as text that keeps its bytes."""
    return name.decode("utf-8", "surrogateescape")


def shown_time(mtime_ns: int) -> str:
    """A file's time, in 16 characters."""
    try:
        return f"{datetime.fromtimestamp(mtime_ns // 1_000_000_000, UTC).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):  # a year that has more than four digits, or is before the first
        return f"@{mtime_ns // 1_000_000_000}".rjust(16)


def due_words(job: ListedJob, run_by: Mapping[str, str]) -> tuple[str, str]:
    """When a job runs next, if something runs it, and how often it was missed: two columns of a table."""
    next_run = "-" if job.next_at is None else local_time(job.next_at) if job.name in run_by else "not installed"
    return next_run, f"{len(job.missed):,}" if job.missed else "-"
