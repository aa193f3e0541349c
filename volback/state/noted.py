"""Noted: one line of text about a thing, that later runs of this machine look up by the thing's names.

To lose one does no harm by itself.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from volback.durable import write_whole
from volback.errors import StoreError
from volback.state.files import private_directory, usable

log = logging.getLogger(__name__)


def read_note(directory: Path, *names: str) -> str | None:
    """What was noted; None where nothing was."""
    try:
        return _path(directory, names).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError as exc:
        log.debug("nothing is known of %s: %s", names, exc)
        return None


def write_note(directory: Path, *names: str, text: str | None) -> None:
    """Note it, or forget what was noted. Where the state cannot be written, nothing is."""
    path = _path(directory, names)
    try:
        if text is None:
            with usable(path):
                path.unlink(missing_ok=True)
            return
        private_directory(path.parent)
        with usable(path):
            write_whole(path, f"{text}\n".encode())
    except StoreError as exc:
        log.debug("%s is not remembered: %s", names, exc.message)


def _path(directory: Path, names: tuple[str, ...]) -> Path:
    return directory / hashlib.sha256(repr(names).encode(errors="backslashreplace")).hexdigest()
