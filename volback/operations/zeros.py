"""Zeros: what of an encrypted object cannot be decrypted is read as zeros, so that all behind it is read too."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from volback.archive.age import PIECE_BYTES
from volback.errors import DamagedPiece, IntegrityError
from volback.store.base import Store

log = logging.getLogger(__name__)


def with_zeros(store: Store, key: str, at: int, stop: int) -> Iterator[bytes]:
    """Yield the stored bytes of an object. The digests of what lies in damaged pieces show that they are zeros."""
    while at < stop:
        try:
            for buffer in store.open(key, start=at, length=stop - at):
                at += len(buffer)
                yield buffer
        except IntegrityError as exc:
            damaged_to = (exc.number + 1) * PIECE_BYTES if isinstance(exc, DamagedPiece) else stop
            log.debug("%s", exc.message)
            zeros = bytes(min(max(damaged_to, at + 1), stop) - at)
            at += len(zeros)
            yield zeros
        else:
            return
