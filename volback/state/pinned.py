"""Pinned: for whom this machine encrypts, by repository. Another recipient there is noticed before anything is written.

Without these files the recipient that is found is believed, and remembered: to lose them does no harm by itself.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from volback.durable import write_whole
from volback.errors import StoreError
from volback.state.files import private_directory, usable

log = logging.getLogger(__name__)

CLEAR = ""
"""What is pinned of a repository that is not encrypted."""

_AUTHORITY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Pin:
    """What is pinned of one repository."""

    recipient: str
    """Or CLEAR."""
    authority: str | None = None
    """The public key (hex) with which who holds its identity signs; None where none was seen, or proven."""


def pinned(state: Path, repository_id: str) -> Pin | None:
    """What is pinned; None where this machine has not used that repository yet."""
    try:
        text = _path(state, repository_id).read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        log.debug("no recipient is pinned for repository %s: %s", repository_id, exc)
        return None
    recipient, _, rest = text.partition("\n")
    authority = rest.strip()
    return Pin(recipient.strip(), authority if _AUTHORITY.fullmatch(authority) else None)


def write_pin(state: Path, repository_id: str, pin: Pin) -> None:
    """Pin a recipient, or CLEAR, in place of another. Raises StoreError."""
    path = _path(state, repository_id)
    private_directory(path.parent)
    with usable(path):
        write_whole(path, f"{pin.recipient}\n{pin.authority or ''}".rstrip("\n").encode() + b"\n")


def remember_pin(state: Path, repository_id: str, pin: Pin) -> None:
    """Pin at the first use. Where the state directory cannot be written, as by a user who may only read, nothing is."""
    try:
        write_pin(state, repository_id, pin)
    except StoreError as exc:
        log.debug("the recipient of repository %s is not remembered: %s", repository_id, exc.message)


def _path(state: Path, repository_id: str) -> Path:
    return state / "recipients" / repository_id
