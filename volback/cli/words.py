"""Words: sizes, ages, times, names and columns as people read them. Pure text, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from volback.errors import UsageError
from volback.measures import count, human_duration, human_size
from volback.policy.invalid import InvalidValue
from volback.printable import printable

T = TypeVar("T")

__all__ = ["count", "human_duration", "human_size", "printable"]
"""Re-exported for the other files of the cli, like what follows."""

_AGES = (
    (60, 1, "s"),
    (3600, 60, "min"),
    (2 * 86400, 3600, "h"),
    (90 * 86400, 86400, "d"),
    (730 * 86400, 2629800, "mo"),
)
_LEAST_CHARS = 12


def human_age(seconds: float) -> str:
    """`3 h ago`; `in 3 h` for a time that is still to come, by more than clocks usually differ."""
    if -600 <= seconds < 1:
        return "now"
    since = _since(abs(seconds))
    return f"in {since}" if seconds < 0 else f"{since} ago"


def _since(seconds: float) -> str:
    for limit, divisor, unit in _AGES:
        if seconds < limit:
            return f"{int(seconds / divisor)} {unit}"
    return f"{int(seconds / 31557600)} y"


def local_time(time: datetime) -> str:
    """A time in the reader's own zone."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def read_option(option: str, text: str, read: Callable[[str], T]) -> T:
    """Read the text of an option. Raises UsageError, which names the option, for an InvalidValue."""
    try:
        return read(text)
    except InvalidValue as exc:
        raise UsageError(f"{option} {text!r} {exc.reason}", exc.hint) from exc


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """Read `KEY=VALUE` texts of an option. Raises UsageError."""
    read: dict[str, str] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{option} {text!r} is not KEY=VALUE")
        read[key] = value
    return read


def columns(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: str = "",
    width: int | None = None,
    whole: str = "",
) -> Iterator[str]:
    """Lines of a table; columns whose headings are words of `right` stand right; the widest column is shortened to fit
    `width`, but never one whose heading is a word of `whole`."""
    cells = [[printable(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(headings))]
    if width is not None:
        _shrink(widths, width, [at for at, heading in enumerate(headings) if heading not in whole.split()])
    to_right = [heading in right.split() for heading in headings]
    for row in cells:
        line = (_cell(text, size, right=side) for text, size, side in zip(row, widths, to_right, strict=True))
        yield "  ".join(line).rstrip()


def _shrink(widths: list[int], width: int, which: Sequence[int]) -> None:
    """Take from the widest of these columns until the table fits, or each of them is short."""
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(which, key=lambda at: widths[at])
        if widths[widest] <= _LEAST_CHARS:
            return
        widths[widest] -= 1


def _cell(text: str, size: int, *, right: bool) -> str:
    if len(text) > size:
        text = text[: size - 1] + "…"
    return text.rjust(size) if right else text.ljust(size)
