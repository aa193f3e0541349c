"""Packing: how a size and a share are written, for what is repacked."""

from __future__ import annotations

import re
from typing import Final

from volback.policy.invalid import InvalidValue

HALF: Final = 0.5
"""Objects of which less than this share is used are repacked, unless somebody says otherwise."""

_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(|[KMGT])(?:iB|B)?\s*")
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SHARE = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\s*")


def read_size(text: str) -> int:
    """`10GiB`, `500M` or `0` in bytes. Raises InvalidValue."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidValue("is not a size", "write a number and a unit, such as 10GiB")
    return int(float(found[1]) * _UNITS[found[2]])


def read_rate(text: str) -> int:
    """`20MiB` or `20MiB/s` in bytes a second. Raises InvalidValue."""
    rate = read_size(text.strip().removesuffix("/s"))
    if not rate:
        raise InvalidValue("is not a number of bytes a second", "write a number above 0 and a unit, such as 20MiB")
    return rate


def read_share(text: str) -> float:
    """`50%` as 0.5. Raises InvalidValue for what is not more than 0 and at most 100 percent."""
    found = _SHARE.fullmatch(text)
    if found is None or not 0 < float(found[1]) <= 100:
        raise InvalidValue("is not a share", "write a percentage from 1% to 100%, such as 50%")
    return float(found[1]) / 100
