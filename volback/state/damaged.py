"""Damaged: which stored frames a verification, or whatever read them, found damaged, by repository and volume.

The next backup takes nothing from them: it reads those files and stores them anew, so that it can be restored again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import msgspec

from volback.durable import write_whole
from volback.state.files import private_directory, usable

Frames = frozenset[tuple[str, int]]
"""Id of the backup in whose data object a frame lies, and its offset there, or WHOLE."""
WHOLE = -1
"""All of a data object: it is not what was written, and no frame of it shows that."""


def is_damaged(known: Collection[tuple[str, int]], backup: str, offset: int) -> bool:
    """Whether that frame is known to be damaged, or all of its data object."""
    return bool(known) and ((backup, offset) in known or (backup, WHOLE) in known)


def damaged_frames(state: Path, repository_id: str, host: str, volume: str) -> Frames:
    """Return what is known to be damaged of a volume's backups. Raises StoreError."""
    path = _path(state, repository_id, host, volume)
    with usable(path):
        try:
            return frozenset(msgspec.json.decode(path.read_bytes(), type=list[tuple[str, int]]))
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return frozenset()


def note_damaged(
    state: Path,
    repository_id: str,
    host: str,
    volume: str,
    *,
    found: Collection[tuple[str, int]],
    read: Collection[str] = (),
) -> None:
    """Keep what was found damaged; what was known of the data objects of `read`, which were read whole, is forgotten.

    Raises StoreError.
    """
    known = damaged_frames(state, repository_id, host, volume)
    now = frozenset(found) | {frame for frame in known if frame[0] not in read}
    if now != known:
        path = _path(state, repository_id, host, volume)
        private_directory(path.parent)
        with usable(path):
            write_whole(path, msgspec.json.encode(sorted(now)))


def _path(state: Path, repository_id: str, host: str, volume: str) -> Path:
    digest = hashlib.sha256(repr((repository_id, host, volume)).encode(errors="backslashreplace")).hexdigest()
    return state / "damaged" / f"{digest}.json"
