"""Masking: the secrets of a URL (user, password, tokens in its path and query) never appear in a warning or a log."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

_SHORTEST = 4
"""A shorter part is not a secret, and would be found in many words."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)


def masked(text: str, url: str) -> str:
    """The text without any URL, and without any part of this one but its host."""
    text = _URL.sub("***", text)
    for part in sorted(_parts(url), key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def scheme_of(url: str) -> str:
    """`mailto` of `mailto://user:password@host`: the only part of a URL that may be shown."""
    scheme, colon, _ = url.partition(":")
    return scheme.lower() if colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", scheme) else "unknown"


def _parts(url: str) -> set[str]:
    rest = url.rpartition("://")[2]
    try:
        query, host = urlsplit(url).query, urlsplit(url).hostname or ""
    except ValueError:
        query, host = "", ""
    found = {rest, *re.split(r"[/?&=:@#,]", rest), *(value for _, value in parse_qsl(query))}
    found |= {unquote(part) for part in found}
    return {part for part in found if len(part) >= _SHORTEST and part.lower() != host}
