"""Printable: text of others - names, labels, messages, output - as it may be shown to people.

A name can hold anything: what moves a terminal's cursor, sets its title, hides text, turns its direction, or begins a
line that volback did not write. It is escaped where text leaves volback: on standard output and standard error
(`volback/cli/render.py`), in the log, in notifications, in the log of a guard.
"""

from __future__ import annotations

import re

_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
"""C0 and C1 controls, separators of lines, bidirectional controls (Unicode TR 9, UTS 55), tags, bytes that are not
UTF-8."""
_IN_JSON = re.compile(
    rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xaf]|\xef\xbb\xbf|\xef\xbf[\xb9-\xbb]"
)
"""Those of them that JSON allows in its strings as they are, in UTF-8."""


def printable(text: str) -> str:
    """Escape what would move a terminal's cursor, change its colour, begin a line, or reverse its text."""
    return _CONTROL.sub(lambda match: _escape(match[0]), text)


def printable_lines(text: str) -> str:
    """The same for text of several lines, which may have tabs."""
    return re.sub(r"[^\n\t]+", lambda match: printable(match[0]), text)


def has_control(text: str) -> bool:
    """Whether `printable` changes the text."""
    return _CONTROL.search(text) is not None


def printable_json(data: bytes) -> bytes:
    """A JSON document that says the same, and moves no terminal's cursor."""
    return _IN_JSON.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), data)


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python passes it on
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
