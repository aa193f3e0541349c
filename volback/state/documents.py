"""Documents of repositories, by their ids: copies of volback.json as it was last read and accepted on this machine.

`repair` puts a lost one back from here. They hold no secret; to lose them does no harm.
"""

from __future__ import annotations

import logging
from pathlib import Path

from volback.durable import write_whole
from volback.errors import StoreError
from volback.state.files import private_directory, usable

log = logging.getLogger(__name__)


def kept_document(state: Path, repository_id: str) -> bytes | None:
    """The copy; None where there is none."""
    try:
        return _path(state, repository_id).read_bytes()
    except OSError as exc:
        log.debug("no document is kept of repository %s: %s", repository_id, exc)
        return None


def keep_document(state: Path, repository_id: str, document: bytes) -> None:
    """Keep a copy, in place of an earlier one. Where the state directory cannot be written, as by a user who may only
    read, none is kept."""
    if kept_document(state, repository_id) == document:
        return
    path = _path(state, repository_id)
    try:
        private_directory(path.parent)
        with usable(path):
            write_whole(path, document)
    except StoreError as exc:
        log.debug("the document of repository %s is not kept: %s", repository_id, exc.message)


def _path(state: Path, repository_id: str) -> Path:
    return state / "documents" / f"{repository_id}.json"
