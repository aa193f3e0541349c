"""Newest: the newest backup of each volume that this machine has seen in an encrypted repository.

To lose it does no harm by itself: an old state of a repository that is put back is then not noticed.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from volback.durable import write_whole
from volback.errors import StoreError
from volback.state.files import private_directory, usable

log = logging.getLogger(__name__)


def newest_seen(state: Path, repository_id: str, host: str, volume: str) -> str | None:
    """The id of the newest backup that was seen; None where none was."""
    try:
        return _path(state, repository_id, host, volume).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError as exc:
        log.debug("the newest backup of %s is not known: %s", volume, exc)
        return None


def note_newest(state: Path, repository_id: str, host: str, volume: str, id: str | None) -> None:
    """Remember the newest backup of a volume, or forget it. Where the state cannot be written, nothing is."""
    path = _path(state, repository_id, host, volume)
    try:
        if id is None:
            with usable(path):
                path.unlink(missing_ok=True)
            return
        private_directory(path.parent)
        with usable(path):
            write_whole(path, f"{id}\n".encode())
    except StoreError as exc:
        log.debug("the newest backup of %s is not remembered: %s", volume, exc.message)


def _path(state: Path, repository_id: str, host: str, volume: str) -> Path:
    digest = hashlib.sha256(repr((repository_id, host, volume)).encode(errors="backslashreplace")).hexdigest()
    return state / "newest" / digest
