"""Pinned: for whom this machine encrypts, by repository. Another recipient there is noticed before anything is written.

Without these files the recipient that is found is believed, and remembered: to lose them does no harm by itself.
"""

from __future__ import annotations

import logging
from pathlib import Path

from volback.durable import write_whole
from volback.errors import StoreError
from volback.state.files import private_directory, usable

log = logging.getLogger(__name__)

CLEAR = ""
"""What is pinned of a repository that is not encrypted."""


def pinned_recipient(state: Path, repository_id: str) -> str | None:
    """The recipient that is pinned, or CLEAR; None where this machine has not used that repository yet."""
    try:
        return _path(state, repository_id).read_text(encoding="utf-8", errors="replace").strip()
    except OSError as exc:
        log.debug("no recipient is pinned for repository %s: %s", repository_id, exc)
        return None


def pin_recipient(state: Path, repository_id: str, recipient: str) -> None:
    """Pin a recipient, or CLEAR, in place of another. Raises StoreError."""
    path = _path(state, repository_id)
    private_directory(path.parent)
    with usable(path):
        write_whole(path, f"{recipient}\n".encode())


def remember_recipient(state: Path, repository_id: str, recipient: str) -> None:
    """Pin at the first use. Where the state directory cannot be written, as by a user who may only read, nothing is."""
    try:
        pin_recipient(state, repository_id, recipient)
    except StoreError as exc:
        log.debug("the recipient of repository %s is not remembered: %s", repository_id, exc.message)


def _path(state: Path, repository_id: str) -> Path:
    return state / "recipients" / repository_id
