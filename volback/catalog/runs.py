"""Runs: of which segments of which index objects an increment's index consists. One JSON line; every byte read may be
hostile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

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
    return _encoder.encode({"runs": [_fields(run) for run in runs]}) + b"\n"


def decode_runs(line: bytes) -> list[Run]:
    """Return the runs that a line holds, all of it checked: no byte is in two of them, nor in two dictionaries.

    Raises FormatError.
    """
    try:
        runs = _decoder.decode(line).runs
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise FormatError(f"the list of an index's runs cannot be read: {exc}") from exc
    dictionaries = [run.dictionary for run in runs if run.dictionary is not None]
    if not all(map(_is_possible, chain(runs, dictionaries))) or any(one.dictionary for one in dictionaries):
        raise FormatError("the list of an index's runs names an impossible one")
    _check_disjoint(runs)
    _check_disjoint(dictionaries)
    return runs


def _fields(run: Run) -> Sequence[object]:
    """Without a dictionary it has four."""
    if run.dictionary is None:
        return run[:4]
    return *run[:4], _fields(run.dictionary)


def _is_possible(run: Run) -> bool:
    is_place = is_object_id(run.backup) and 0 <= run.offset < 2**63 and 0 < run.stored_bytes < 2**63
    return is_place and len(run.digest) == DIGEST_BYTES


def _check_disjoint(runs: Iterable[Run]) -> None:
    """So what is read is no more than what is stored, twice."""
    for one, other in pairwise(sorted(runs, key=_place)):
        if one.backup == other.backup and one.offset + one.stored_bytes > other.offset:
            raise FormatError(f"the list of an index's runs names bytes of backup {one.backup} twice")


def _place(run: Run) -> tuple[str, int]:
    return run.backup, run.offset
