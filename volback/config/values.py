"""Values: how single values of `volback.toml` are read. Pure; a value that is not valid raises ValueError."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo

from volback.config.times import check_cron
from volback.policy.durations import read_calendar, read_grace, read_seconds
from volback.policy.invalid import InvalidValue
from volback.policy.keep import read_count
from volback.policy.packing import read_share, read_size
from volback.policy.subset import read_turns

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value: how to read it, and the words for what is expected."""

    read: Callable[[Any], T]
    """Raises InvalidValue, which says what is expected, or another ValueError."""
    expected: str = ""


_SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        value = [value]
    return tuple(dict.fromkeys(_text(item) for item in value))


def _recipient(value: Any) -> str:
    if not re.fullmatch(r"age1[02-9ac-hj-np-z]{58}", _text(value)):
        raise ValueError
    return str(value)


def _absolute_path(value: Any) -> str:
    text = _text(value)
    if not text.startswith("/"):
        raise ValueError
    return text.rstrip("/") or "/"


def _absolute_paths(value: Any) -> tuple[str, ...]:
    return tuple(_absolute_path(item) for item in _texts(value))


def _time_limit(value: Any) -> float:
    seconds = read_seconds(value)
    if not seconds:
        raise InvalidValue("is not a time limit", "write a time above 0, such as 10m")
    return seconds


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(|[KMGT])(?:iB|B)?(?:/s)?\s*", value)
        if match is None:
            raise ValueError
        value = int(float(match[1]) * _SIZES[match[2]])
    if not 0 < value < 2**62:
        raise ValueError
    return int(value)


def _memory(value: Any) -> int:
    """An engine refuses less than 6 MiB."""
    size = _size(value)
    if size < 6 * 1024**2:
        raise ValueError
    return size


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _cpus(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 4096:
        raise ValueError
    return float(value)


def _ratio(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError
    return float(value)


def _zone(value: Any) -> str:
    try:
        return ZoneInfo(_text(value)).key
    except (OSError, ValueError, KeyError) as exc:  # ZoneInfoNotFoundError is a KeyError; a directory's name an OSError
        raise ValueError from exc


def _cron(value: Any) -> str:
    expression = " ".join(_text(value).split())
    check_cron(expression)
    return expression


def whole(lowest: int, highest: int) -> Kind[int]:
    """A whole number in a range."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError
        return value

    return Kind(read, f"a whole number from {lowest} to {highest}")


def one_of(*words: str) -> Kind[Any]:
    """One of some words."""

    def read(value: Any) -> str:
        if value not in words or not isinstance(value, str):
            raise ValueError
        return value

    return Kind(read, _listed(words))


def some_of(*words: str) -> Kind[Any]:
    """One or several of some words."""

    def read(value: Any) -> tuple[str, ...]:
        found = _texts(value)
        if not set(found) <= set(words):
            raise ValueError
        return found

    return Kind(read, f"one or a list of {_listed(words)}")


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


TEXT = Kind(_text, "a text that is not empty")
TEXTS = Kind(_texts, "a text, or a list of texts")
RECIPIENT = Kind(_recipient, "a recipient of age, which begins with age1")
DIRECTORIES = Kind(_absolute_paths, "an absolute path, or a list of them")
FILE = Kind(lambda value: Path(_absolute_path(value)), "an absolute path")
COUNT = Kind(read_count)
WITHIN = Kind(read_calendar)
DURATION = Kind(read_seconds)
GRACE = Kind(read_grace)
BYTES = Kind(read_size)
SHARE = Kind(read_share)
TIME_LIMIT = Kind(_time_limit)
MEMORY = Kind(_memory, "a size of 6 MiB or more, such as 512MiB")
SIZE = Kind(_size, "bytes a second, such as 10MiB")
FLAG = Kind(_flag, "true or false")
CPUS = Kind(_cpus, "a number of processors, such as 1.5")
RATIO = Kind(_ratio, "a number from 0 to 1, such as 0.2")
TURNS = Kind(read_turns)
ZONE = Kind(_zone, "a time zone such as Europe/Berlin")
CRON = Kind(_cron, 'a cron expression such as "30 2 * * *" or @daily')
