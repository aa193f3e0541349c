"""The host key: the secret with which this machine signs the manifests of encrypted repositories.

It never leaves the state directory. If it is lost, a new one is made, which has to be certified again.
"""

from __future__ import annotations

import binascii
import logging
import secrets
from contextlib import suppress
from pathlib import Path

from volback.durable import write_new
from volback.errors import StoreError
from volback.state.files import private_directory, usable

log = logging.getLogger(__name__)

_BYTES = 32


def host_secret(state: Path) -> bytes:
    """The secret, 32 bytes; made on first use. Raises StoreError, also for a file that holds something else."""
    path = private_directory(state) / "host-key"
    with usable(path):
        if not path.exists():
            with suppress(FileExistsError):  # another run was first: its key counts
                write_new(path, [secrets.token_bytes(_BYTES).hex().encode() + b"\n"])
        text, mode = path.read_bytes(), path.stat().st_mode
    if mode & 0o077:
        log.warning("%s is the secret key of this host, and other users can read it: chmod 600 %s", path, path)
    try:
        secret = binascii.unhexlify(text.strip())
    except binascii.Error:
        secret = b""
    if len(secret) != _BYTES:
        raise StoreError(f"{path} is not a key of this host", "remove it: a new one is made, to be certified again")
    return secret
