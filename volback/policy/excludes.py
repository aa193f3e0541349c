"""Excludes: which paths of a volume a backup leaves out. Pure: patterns in, one expression out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from volback.errors import UsageError

_PATTERN_PARTS = re.compile(rb"\*\*/|\*+|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[", re.DOTALL)
_WILDCARDS = {b"**/": b"(?:.*/)?", b"*": b"[^/]*", b"**": b".*", b"?": b"[^/]"}


def exclusion(patterns: Iterable[str]) -> re.Pattern[bytes] | None:
    """Compile exclude patterns; None where there are none. A directory that matches is excluded with all below it.

    `*.log` matches a name at any depth; `cache/tmp` or `/cache` with a slash matches from the volume's root.
    `*`, `?` and `[...]` never match a slash; `**` between slashes is any number of directories, or none.
    Raises UsageError for an empty pattern, and for a range that runs backwards.
    """
    rules: list[bytes] = []
    for pattern in patterns:
        stem = pattern.rstrip("/")
        if not stem:
            raise UsageError(f"exclude pattern {pattern!r} would exclude everything", "name a file or directory")
        rooted = "/" in stem
        rule = _rule(stem.lstrip("/").encode("utf-8", "surrogateescape"))
        rules.append(_checked(rule if rooted else b"(?:.*/)?" + rule, pattern))
    if not rules:
        return None
    return re.compile(b"|".join(b"(?:%s)\\Z" % rule for rule in rules), re.DOTALL)


def _checked(rule: bytes, pattern: str) -> bytes:
    try:
        re.compile(rule)
    except re.error as exc:
        raise UsageError(f"exclude pattern {pattern!r} is not valid: {exc.msg}", "write [[] for a plain [") from exc
    return rule


def _rule(pattern: bytes) -> bytes:
    """The expression of one pattern. fnmatch.translate cannot be used: its star matches slashes."""
    return b"".join(
        _WILDCARDS.get(part)
        or (b"(?!/)[%s]" % _set_of(part) if len(part) > 2 and part[:1] == b"[" else re.escape(part))
        for part in _PATTERN_PARTS.findall(pattern)
    )


def _set_of(part: bytes) -> bytes:
    """What stands between the brackets; a `!` in front negates it."""
    negated = part[1:2] == b"!"
    inside = re.sub(rb"([\\^\[&~|])", rb"\\\1", part[2 if negated else 1 : -1])
    return b"^" + inside if negated else inside
