"""Project parts: what `backup --project` shows of compose files, and of what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volback.cli.documents.backups import FilesKept
    from volback.cli.documents.common import LeftOut
    from volback.operations.backup import BackupResult
    from volback.operations.project_parts import ProjectParts


def compose_files_lines(parts: ProjectParts | None, made: BackupResult | None, *, is_encrypted: bool) -> Iterator[str]:
    """Which compose files were kept."""
    from volback.operations.compose_files import is_environment

    if parts is None or parts.files is None or made is None:
        return
    yield f"{made.manifest.volume}@{made.manifest.id}  {', '.join(sorted(parts.files.paths))}"
    secret = sorted(name for name in parts.files.paths if is_environment(name))
    if secret:
        how = "encrypted, as all of it" if is_encrypted else "in clear, as all of this repository"
        yield f"  {', '.join(secret)} may hold secrets: stored {how}"


def compose_files_facts(parts: ProjectParts | None, made: BackupResult | None) -> FilesKept | None:
    """The backup of the compose files, and their paths in it."""
    if parts is None or parts.files is None or made is None:
        return None
    return {"volume": made.manifest.volume, "id": made.manifest.id, "paths": sorted(parts.files.paths)}


def left_out_lines(parts: ProjectParts | None) -> list[str]:
    """What of the project was not backed up, and why."""
    return [] if parts is None else [f"left out: {left.path} {left.why}" for left in parts.left_out]


def left_out_facts(parts: ProjectParts | None) -> list[LeftOut]:
    """What of the project was not backed up, and why."""
    return [] if parts is None else [{"path": left.path, "why": left.why} for left in parts.left_out]
