"""Words: sizes, ages, times, names and columns as people read them. Pure text, no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from volback.errors import IntegrityError, UsageError, VolbackError, kind_of_all
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
_LISTED_AT_MOST = 20


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


def requests_line(facts: Mapping[str, object] | None) -> list[str]:
    """`12 requests (8 get, 4 list): 3.1 KiB received, 0 B sent`; nothing where none were sent."""
    if facts is None:
        return []
    numbers = {name: int(str(number)) for name, number in facts.items()}
    total, sent, received = (numbers.pop(name) for name in ("total", "sent_bytes", "received_bytes"))
    kinds = ", ".join(f"{number:,} {verb}" for verb, number in numbers.items() if number)
    named = f" ({kinds})" if kinds else ""
    return [f"{count(total, 'request')}{named}: {human_size(received)} received, {human_size(sent)} sent"]


def local_time(time: datetime) -> str:
    """A time in the reader's own zone."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def read_option(option: str, text: str, read: Callable[[str], T]) -> T:
    """Read the text of an option. Raises UsageError, which names the option, for an InvalidValue."""
    try:
        return read(text)
    except InvalidValue as exc:
        raise UsageError(f"{option} {text!r} {exc.reason}", exc.hint) from exc


def condemned_words(stored_bytes: int, until: datetime | None) -> str:
    """What a later prune frees, and when, if that is known."""
    when = "later prune" if until is None else f"prune after {local_time(until)}"
    return f"{human_size(stored_bytes)} condemned: a {when} frees it"


def unread_word(error: VolbackError | None) -> str:
    """What a backup is whose manifest cannot be read: what a store does not return may be intact."""
    return "damaged" if isinstance(error, IntegrityError) else "unreadable"


def unread_warning(name: str, error: VolbackError) -> str:
    """That a backup cannot be read, and why."""
    return f"backup {name} is {unread_word(error)}: {error.message}"


def unread_failure(errors: Sequence[VolbackError]) -> VolbackError:
    """The error for several backups that cannot be read; where none is damaged, with the hint of the first one."""
    kind, what = kind_of_all(errors), f"{count(len(errors), 'backup')} cannot be read"
    return kind(what, "check all backups: volback verify" if issubclass(kind, IntegrityError) else errors[0].hint)


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """Read `KEY=VALUE` texts of an option. Raises UsageError."""
    read: dict[str, str] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{option} {text!r} is not KEY=VALUE")
        read[key] = value
    return read


def first_of(paths: Sequence[str], heading: str) -> Iterator[str]:
    """A line for each path, as far as people read them, and how many more there are."""
    yield from (f"{heading}{path}" for path in paths[:_LISTED_AT_MOST])
    if len(paths) > _LISTED_AT_MOST:
        yield f"{heading}... and {len(paths) - _LISTED_AT_MOST:,} more: --json lists all"


def columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "", width: int | None = None
) -> Iterator[str]:
    """Lines of a table that fits `width`; columns whose headings are words of `right` stand right.

    The first column names what the next command is to work on: a name that is too long stands on a line of its own. The
    last one goes on below itself. Where that is not enough, cells between them are shortened.
    """
    cells = [[printable(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(headings))]
    if width is not None:
        _shrink(widths, width, longest=max(len(part.strip()) for row in cells for part in _pieces(row[-1])))
    to_right = [heading in right.split() for heading in headings]
    for row in cells:
        for parts in _line_parts(row, widths):
            line = (_cell(text, size, right=side) for text, size, side in zip(parts, widths, to_right, strict=True))
            yield "  ".join(line).rstrip()


def _shrink(widths: list[int], width: int, *, longest: int) -> None:
    """Take from the first and the last column, then from those between, until the table fits or each is short.

    `longest` is the widest text of the last column that stays whole: it needs that much before the first one does.
    """
    last, others = len(widths) - 1, range(1, len(widths) - 1)
    for which, least in (((0, last), longest), ((0,), 0), ((0, last), 0), (others, 0)):
        floors = {at: max(least if at == last else 0, _LEAST_CHARS) for at in which}
        while sum(widths) + 2 * last > width:
            above = [at for at in which if widths[at] > floors[at]]
            if not above:
                break
            widths[max(above, key=lambda at: widths[at])] -= 1


def _line_parts(row: list[str], widths: list[int]) -> Iterator[list[str]]:
    """The lines of one row, as cells."""
    name, *middle, last = row
    if len(name) > widths[0]:
        yield [name, *[""] * (len(row) - 1)]
        name = ""
    short = [_shortened(text, size) for text, size in zip(middle, widths[1:-1], strict=True)]
    first, *more = _wrapped(last, widths[-1])
    yield [name, *short, first]
    yield from ([""] * (len(row) - 1) + [text] for text in more)


def _wrapped(text: str, size: int) -> list[str]:
    """The text in lines that end after a comma; what has none stays whole."""
    lines = [""]
    for word in _pieces(text):
        if lines[-1] and len((lines[-1] + word).rstrip()) > size:
            lines.append("")
        lines[-1] += word.lstrip() if not lines[-1] else word
    return [line.rstrip() for line in lines]


def _pieces(text: str) -> list[str]:
    return re.split(r"(?<=,)", text)


def _shortened(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _cell(text: str, size: int, *, right: bool) -> str:
    return text.rjust(size) if right else text.ljust(size)
