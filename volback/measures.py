"""Measures: sizes and durations as people read them, in the output of the cli and in notifications."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED_AT_MOST = 5
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB")


def human_size(size_bytes: int) -> str:
    """`12.3 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    value = size_bytes / 1024
    larger = iter(_UNITS)
    unit = next(larger)
    while value >= 1023.95:
        value, unit = value / 1024, next(larger)
    return f"{value:.1f} {unit}"


def human_duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`, `9 d 3 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def named(paths: Sequence[str]) -> str:
    """`a, b, c, d, e, ...`: the first few."""
    return ", ".join(paths[:_NAMED_AT_MOST]) + (", ..." if len(paths) > _NAMED_AT_MOST else "")
