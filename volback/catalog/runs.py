"""Runs: of which segments of which index objects an increment's index consists. One JSON line; every byte read may be
hostile.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from volback.catalog.keys import is_object_id
from volback.catalog.units import DIGEST_BYTES, Run
from volback.errors import FormatError


class _Runs(msgspec.Struct):
    runs: list[Run]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Runs)


def encode_runs(runs: Sequence[Run]) -> bytes:
    """Return the runs of an increment's index as one line, its newline included."""
    return _encoder.encode({"runs": runs}) + b"\n"


def decode_runs(line: bytes) -> list[Run]:
    """Return the runs that a line holds, all of it checked: no byte is in two of them. Raises FormatError."""
    try:
        runs = _decoder.decode(line).runs
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise FormatError(f"the list of an index's runs cannot be read: {exc}") from exc
    for id_, offset, stored_bytes, digest in runs:
        if not (is_object_id(id_) and 0 <= offset < 2**63 and 0 < stored_bytes < 2**63 and len(digest) == DIGEST_BYTES):
            raise FormatError("the list of an index's runs names an impossible one")
    for one, other in pairwise(sorted(runs)):
        if one.backup == other.backup and one.offset + one.stored_bytes > other.offset:
            raise FormatError(f"the list of an index's runs names bytes of backup {one.backup} twice")
    return runs
