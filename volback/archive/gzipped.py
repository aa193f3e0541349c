"""Gzip: for programs that do not know zstd. The same stream gives the same bytes: it holds no name and no time."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

_GZIP = 16 + zlib.MAX_WBITS


def gzipped(buffers: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield the stream as gzip."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    for buffer in buffers:
        if packed := packer.compress(buffer):
            yield packed
    yield packer.flush()
