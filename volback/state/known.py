"""Known repositories: the ids that the repository at each address had. So another one there, or none, is noticed.

A file for each id, in a directory for each address: nothing is ever replaced, so runs beside each other need no lock.
Without these files, whatever is found is believed: to lose them does no harm.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from pathlib import Path

from volback.durable import write_new
from volback.errors import StoreError
from volback.state.files import private_directory, usable

log = logging.getLogger(__name__)


def known_ids(state: Path, address: str) -> list[str]:
    """The ids that were remembered for that address, in no order. A directory that cannot be read remembers none."""
    try:
        return [path.name for path in _directory(state, address).iterdir() if not path.name.startswith(".")]
    except OSError as exc:
        log.debug("no repository is known at %s: %s", address, exc)
        return []


def remember_id(state: Path, address: str, id: str) -> None:
    """Add an id to those of that address. Where the state directory cannot be written, as by a user who may only read,
    it is not remembered."""
    directory = _directory(state, address)
    try:
        private_directory(directory)
        with usable(directory), suppress(FileExistsError):
            write_new(directory / id, [f"{address}\n".encode()])
    except StoreError as exc:
        log.debug("repository %s at %s is not remembered: %s", id, address, exc.message)


def _directory(state: Path, address: str) -> Path:
    return state / "repositories" / hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()[:32]
