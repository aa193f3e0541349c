"""Client id: distinguishes this client's helpers from those of other machines on the same engine."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from volback.durable import write_new
from volback.state.files import private_directory, usable


def client_id(state: Path) -> str:
    """Return this client's id, made on first use. Raises StoreError."""
    path = private_directory(state) / "client-id"
    with usable(path):
        if not path.exists():
            with suppress(FileExistsError):  # another run was first: its id counts
                write_new(path, [secrets.token_hex(16).encode()])
        return path.read_text()
