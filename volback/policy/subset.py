"""Subset: which part of the stored data is verified in one night, so that a cycle of nights reads all of it."""

from __future__ import annotations

import re
from datetime import date
from hashlib import sha256
from typing import NamedTuple

from volback.policy.invalid import InvalidValue

BLOCK_BYTES = 16 * 1024 * 1024
"""A data object is divided into blocks of this size, which is what is read in one request."""
_OF_MAX = 366
_FORM = re.compile(r"(today|\d{1,3})/(\d{1,3})")
_HINT = "write it like 1/7 or today/7"


class Subset(NamedTuple):
    """Part `part` (from 1) of `of` parts."""

    part: int
    of: int

    def __str__(self) -> str:
        return f"{self.part}/{self.of}"

    def holds(self, key: str, offset: int) -> bool:
        """Whether what lies there in the object of that key belongs to it.

        It is so for exactly one of the parts, whatever is added or removed meanwhile.
        """
        digest = sha256(b"%s/%d" % (key.encode(), offset // BLOCK_BYTES)).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.part - 1


def part_of(day: date, of: int) -> Subset:
    """The part whose turn it is on a day."""
    return Subset(day.toordinal() % of + 1, of)


def read_subset(text: str, today: date) -> Subset:
    """Read `3/7`, or `today/7`: another part each day. Raises InvalidValue."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise InvalidValue("is not a part of the data", _HINT)
    of = int(found[2])
    if not 1 <= of <= _OF_MAX:
        raise InvalidValue(f"is not one of 1 to {_OF_MAX} parts", _HINT)
    if found[1] == "today":
        return part_of(today, of)
    if not 1 <= int(found[1]) <= of:
        raise InvalidValue(f"is not one of {of} parts", _HINT)
    return Subset(int(found[1]), of)


def read_turns(text: str) -> int:
    """Read `1/7`: how many parts there are, of which one is verified each day. Raises InvalidValue."""
    found = _FORM.fullmatch(text)
    if found is None or found[1] != "1" or not 1 <= int(found[2]) <= _OF_MAX:
        raise InvalidValue("is not a part of the data", f"write it like 1/7, up to 1/{_OF_MAX}")
    return int(found[2])
