"""Newest: the newest backup of each volume that this machine has seen in an encrypted repository.

To lose it does no harm by itself: an old state of a repository that is put back is then not noticed.
"""

from __future__ import annotations

from pathlib import Path

from volback.state.noted import read_note, write_note


def newest_seen(state: Path, repository_id: str, host: str, volume: str) -> str | None:
    """The id of the newest backup that was seen; None where none was."""
    return read_note(state / "newest", repository_id, host, volume)


def note_newest(state: Path, repository_id: str, host: str, volume: str, id: str | None) -> None:
    """Remember the newest backup of a volume, or forget it. Where the state cannot be written, nothing is."""
    write_note(state / "newest", repository_id, host, volume, text=id)
