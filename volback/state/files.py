"""Files of the state directory: private directories, and one error for what the system refuses there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volback.errors import StoreError


def private_directory(directory: Path) -> Path:
    """Create the directory, mode 0700, if it does not exist. Raises StoreError."""
    with usable(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Translate an OSError of the block, which works on `path`. Raises StoreError."""
    try:
        yield
    except OSError as exc:
        raise StoreError(
            f"state directory cannot be used: {path}: {exc.strerror}", "name another with VOLBACK_STATE_DIR"
        ) from exc
