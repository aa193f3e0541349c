"""Excludes: which paths of a volume a backup leaves out, and `find` looks for. Pure: patterns in, one expression out.

Patterns and names both come from others, so no pattern may take long on any name. An expression that tries every place
of every star takes exponential time. Here the text after a star is taken where it is found first, and that choice is
final (an atomic group): the next star can match all that this one left out. Only in which name the text after a `**`
begins is open: what is not found from its first place in a name on is not found from a later one either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from volback.errors import UsageError

_PATTERN_PARTS = re.compile(rb"\*+|\?|/|\[!?\]?[^\]]*\]|[^*?/\[]+|\[", re.DOTALL)
_STAR = b"[^/]*"

_Lead = Literal["start", "directories", "text"]
_FEW_NAMES, _MANY_NAMES = b"(?:[^/]*+/)*?", b"(?:[^/]*+/)*"


def exclusion(patterns: Iterable[str]) -> re.Pattern[bytes] | None:
    """Compile exclude patterns; None where there are none. A directory that matches is excluded with all below it.

    `*.log` matches a name at any depth; `cache/tmp`, `/cache` or `./cache` with a slash matches from the volume's root.
    `*`, `?` and `[...]` never match a slash; `**` between slashes is any number of directories, or none, and elsewhere
    any text. The time is linear in the path: a byte is passed once for each slash of the pattern, plus once.
    Raises UsageError for a pattern that names nothing below the root, and for a range that runs backwards.
    """
    rules = [compile_pattern(pattern, "exclude pattern").pattern for pattern in patterns]
    if not rules:
        return None
    return re.compile(b"|".join(b"(?:%s)" % rule for rule in rules), re.DOTALL)


def compile_pattern(pattern: str, what: str) -> re.Pattern[bytes]:
    """Compile one pattern, which errors call `what`. Raises UsageError."""
    try:
        return re.compile(_rule(b"".join(_rooted(pattern, what))), re.DOTALL)
    except re.error as exc:
        raise UsageError(f"{what} {pattern!r} is not valid: {exc.msg}", "write [[] for a plain [") from exc


def _rooted(pattern: str, what: str) -> list[bytes]:
    """The parts of a pattern from the volume's root on; empty names and `.` are left out, as in a path."""
    parts = _PATTERN_PARTS.findall(pattern.rstrip("/").encode("utf-8", "surrogateescape"))
    names = [list(group) for is_slash, group in groupby(parts, key=b"/".__eq__) if not is_slash]
    kept = [name for name in names if name != [b"."]]
    if [b".."] in kept:
        raise UsageError(f"{what} {pattern!r} leads out of the volume", "write it from the volume's root")
    if not kept:
        raise UsageError(f"{what} {pattern!r} matches everything", "name a file or directory")
    found = [b"**", b"/"] if b"/" not in parts else []
    for name in kept:
        found += [*name, b"/"]
    return found[:-1]


@dataclass(frozen=True, slots=True)
class _Section:
    """The part of a pattern up to the next `**`: expressions of a fixed length, with a star between each two."""

    lead: _Lead
    """What may stand before it: nothing, any directories, or any text."""
    texts: list[bytes]


def _rule(pattern: bytes) -> bytes:
    """The expression of one pattern, from a path's start to its end.

    fnmatch.translate cannot be used: its star matches slashes.
    """
    *sections, last = _sections(pattern)
    first = b"".join(b"(?>%s%s)" % (_names(section, _FEW_NAMES), _found_first(section)) for section in sections)
    return first + _names(last, _MANY_NAMES) + _found_at_end(last)


def _names(section: _Section, some: bytes) -> bytes:
    """The expression of the whole names that may stand before a section."""
    return b"" if section.lead == "start" else some


def _found_first(section: _Section) -> bytes:
    first, *others = section.texts
    if section.lead == "text":
        first = b"(?>%s?%s)" % (_STAR, first)
    return first + b"".join(b"(?>%s?%s)" % (_STAR, text) for text in others)


def _found_at_end(section: _Section) -> bytes:
    *others, last = section.texts
    if others:
        return _found_first(replace(section, texts=others)) + _STAR + last + rb"\Z"
    return (_STAR if section.lead == "text" else b"") + last + rb"\Z"


def _sections(pattern: bytes) -> list[_Section]:
    """Cut a pattern at each `**`."""
    sections = [_Section("start", [b""])]
    parts = _PATTERN_PARTS.findall(pattern)
    for at, part in enumerate(parts):
        texts = sections[-1].texts
        if part == b"*":
            texts.append(b"")
        elif not part.startswith(b"*"):
            if not _ends_directories(parts, at):
                texts[-1] += _fixed(part)
        elif _is_alone(parts, at):
            sections.append(_Section("directories", [b""]))
        else:
            sections.append(_Section("text", [b""]))
    return sections


def _is_alone(parts: list[bytes], at: int) -> bool:
    """Whether a `**` stands between slashes; what it matches ends with the slash after it, then."""
    return (at == 0 or parts[at - 1] == b"/") and parts[at + 1 : at + 2] == [b"/"]


def _ends_directories(parts: list[bytes], at: int) -> bool:
    return parts[at] == b"/" and at > 0 and parts[at - 1].startswith(b"**") and _is_alone(parts, at - 1)


def _fixed(part: bytes) -> bytes:
    """The expression of a part that matches one fixed number of bytes."""
    if part == b"?":
        return b"[^/]"
    if len(part) > 2 and part[:1] == b"[":
        return b"(?!/)[%s]" % _set_of(part)
    return re.escape(part)


def _set_of(part: bytes) -> bytes:
    """What stands between the brackets; a `!` in front negates it."""
    negated = part[1:2] == b"!"
    inside = re.sub(rb"([\\^\[&~|])", rb"\\\1", part[2 if negated else 1 : -1])
    return b"^" + inside if negated else inside
