"""Walk a tar stream member by member and sign each: what two streams hold is compared by signature, path by path.

A signature covers type, link, mode, owner, mtime, device numbers, xattrs, ACLs, size, holes and data - everything that
tar carries except how it writes names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from volback.archive import tar
from volback.archive.window import Buffer, Window

_STEP_BYTES = 1024 * 1024
_NAME_RECORDS = frozenset({b"path", b"linkpath", b"GNU.sparse.name"})


def walk(stream: Iterable[Buffer]) -> Iterator[tuple[tar.Header, bytes]]:
    """Yield each member's header and signature, in stream order. Raises IntegrityError for a damaged or cut stream."""
    window = Window(stream)
    while True:
        extended = window.peek_extended()
        block = bytes(window.peek(extended + tar.BLOCK))
        if not extended and tar.is_end(block):
            window.expect_zeros()
            return
        header = tar.read_header(block)
        window.skip(header.header_bytes)
        window.take()
        signature = hashlib.sha256(_canonical(header, block))
        left = header.data_bytes
        while left:
            step = min(left, _STEP_BYTES)
            window.skip(step)
            left -= step
            for piece in window.take():
                signature.update(piece)
        yield header, signature.digest()


def _canonical(header: tar.Header, block: bytes) -> bytes:
    head = block[header.header_bytes - tar.BLOCK : header.header_bytes]
    records = sorted((key, value) for key, value in header.records.items() if key not in _NAME_RECORDS)
    mode_to_mtime, devices = head[100:124] + head[136:148], head[329:345]
    return repr((header.type, header.link, header.size_bytes, mode_to_mtime, devices, records)).encode()
