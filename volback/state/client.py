"""Client id: tells this client's helpers from those of other machines on the same engine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from volback.state.files import private_directory, usable


def client_id(state: Path) -> str:
    """Return this client's id, made on first use. Raises StoreError."""
    path = private_directory(state) / "client-id"
    with usable(path):
        if not path.exists():
            part = path.with_name(f"client-id.{secrets.token_hex(4)}")
            part.write_text(secrets.token_hex(16))
            try:
                os.link(part, path)
            except FileExistsError:
                pass  # another run was first; its id counts
            finally:
                part.unlink()
        return path.read_text()
