"""Bech32 as age uses it (BIP 173, without its limit of 90 characters): a prefix, data in 5-bit digits, a checksum."""

from __future__ import annotations

from collections.abc import Iterable

_DIGITS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_DIGITS = 6


def encode(prefix: str, data: bytes) -> str:
    """Return `data` as bech32 in lower case."""
    digits = list(_regrouped(data, 8, 5, pad=True))
    rest = _polymod([*_expanded(prefix), *digits, *[0] * _CHECKSUM_DIGITS]) ^ 1
    checksum = [rest >> 5 * (_CHECKSUM_DIGITS - 1 - i) & 31 for i in range(_CHECKSUM_DIGITS)]
    return f"{prefix}1{''.join(_DIGITS[digit] for digit in [*digits, *checksum])}"


def decode(text: str) -> tuple[str, bytes]:
    """Return prefix (in lower case) and data. Raises ValueError; its message holds nothing of the text."""
    if text not in (text.lower(), text.upper()):
        raise ValueError("it mixes upper and lower case")
    prefix, mark, rest = text.lower().rpartition("1")
    digits = [_DIGITS.find(char) for char in rest]
    if not (prefix and mark) or len(digits) < _CHECKSUM_DIGITS or -1 in digits:
        raise ValueError("it is not bech32")
    if _polymod([*_expanded(prefix), *digits]) != 1:
        raise ValueError("its checksum is wrong: a character is missing or mistyped")
    return prefix, bytes(_regrouped(digits[:-_CHECKSUM_DIGITS], 5, 8, pad=False))


def _expanded(prefix: str) -> list[int]:
    return [*(ord(char) >> 5 for char in prefix), 0, *(ord(char) & 31 for char in prefix)]


def _polymod(digits: Iterable[int]) -> int:
    rest = 1
    for digit in digits:
        top = rest >> 25
        rest = (rest & 0x1FFFFFF) << 5 ^ digit
        for i, generator in enumerate(_GENERATORS):
            rest ^= generator if top >> i & 1 else 0
    return rest


def _regrouped(values: Iterable[int], width: int, wanted: int, *, pad: bool) -> Iterable[int]:
    """The bits of `values` in groups of `wanted` bits. Raises ValueError for padding that no encoder makes."""
    bits, count = 0, 0
    for value in values:
        bits, count = bits << width | value, count + width
        while count >= wanted:
            count -= wanted
            yield bits >> count
            bits &= (1 << count) - 1
    if pad and count:
        yield bits << wanted - count
    elif not pad and (count >= width or bits):
        raise ValueError("its padding is wrong")
