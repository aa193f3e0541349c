"""URLs: variables in the URLs of notifications. What comes in by `${NAME}` is data, and encoded: it arrives as it is.

A variable before the `://`, or that begins the text, is a part of the URL itself, or all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

Encode = Callable[[str, int, int, str], str]
"""From a text, the start and the stop of a variable in it, and the variable's value, to what stands there instead."""

_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


def as_it_is(_text: str, _start: int, _stop: int, value: str) -> str:
    """In texts that are not URLs."""
    return value


def in_message_url(text: str, start: int, stop: int, value: str) -> str:
    """In an apprise URL. Apprise decodes user, password and path once, and what stands behind the `?` twice."""
    if _is_url_itself(text, start, stop, value):
        return value
    return quote(value.replace("%", "%25") if "?" in text[:start] else value, safe="")


def in_ping_url(text: str, start: int, stop: int, value: str) -> str:
    """In the URL of a ping."""
    return value if _is_url_itself(text, start, stop, value) else quote(value, safe="")


def _is_url_itself(text: str, start: int, stop: int, value: str) -> bool:
    if not start or "://" in text[stop:]:
        return True
    is_host = text[:start].endswith(("@", "://")) and text[stop : stop + 1] in ("", "/", "?")
    return is_host and _HOST_AND_PORT.fullmatch(value) is not None
