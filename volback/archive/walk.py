"""Walk a tar stream member by member and sign each: what two streams hold is compared by signature, path by path.

A signature covers type, link, mode, owner, mtime, device numbers, xattrs, ACLs, size, holes and data - everything that
tar carries except how it writes names. Attributes are signed one by one, as a restore may not be able to set each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from volback.archive import tar
from volback.archive.window import Buffer, Window

_STEP_BYTES = 1024 * 1024
_NAME_RECORDS = frozenset({b"path", b"linkpath", b"GNU.sparse.name"})


class Signature(NamedTuple):
    """What two members have in common if they are equal."""

    type: str
    content: bytes
    """Digest of everything but the attributes."""
    attributes: tuple[tuple[str, bytes], ...]
    """Name and digest of each, by name; none of a further name of an inode."""

    def lacks(self, other: Signature) -> list[str]:
        """Names of the attributes that `other` has and this one does not, if that is all that differs; else none."""
        if self.content != other.content or not set(self.attributes) < set(other.attributes):
            return []
        own = dict(self.attributes)
        return [name for name, _ in other.attributes if name not in own]


def walk(stream: Iterable[Buffer]) -> Iterator[tuple[tar.Header, Signature]]:
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
        yield header, Signature(header.type, signature.digest(), _attributes(header))


def _attributes(header: tar.Header) -> tuple[tuple[str, bytes], ...]:
    if header.type == "h":
        return ()
    named: dict[str, list[tuple[bytes, bytes]]] = {}
    for key, value in sorted(header.records.items()):
        name = tar.attribute_of(key)
        if name is not None:
            named.setdefault(name, []).append((key, value))
    return tuple((name, hashlib.sha256(repr(records).encode()).digest()) for name, records in sorted(named.items()))


def _canonical(header: tar.Header, block: bytes) -> bytes:
    head = block[header.header_bytes - tar.BLOCK : header.header_bytes]
    records = sorted(
        (key, value)
        for key, value in header.records.items()
        if key not in _NAME_RECORDS and tar.attribute_of(key) is None
    )
    mode_to_mtime, devices = head[100:124] + head[136:148], head[329:345]
    return repr((header.type, header.link, header.size_bytes, mode_to_mtime, devices, records)).encode()
