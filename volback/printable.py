"""Printable: text of others - names, labels, messages, output - as it may be shown to people.

A name can hold anything: what moves a terminal's cursor, sets its title, hides text, turns its direction, or begins a
line that volback did not write. It is escaped where text leaves volback: on standard output and standard error
(`volback/cli/render.py`), in the log, in notifications, in the log of a guard.
"""

from __future__ import annotations

import json
import re

_ALSO_IN_JSON = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
"""What JSON allows in its strings as it is: DEL and C1 controls, separators of lines, bidirectional controls (Unicode
TR 9, UTS 55), tags."""
_CONTROL = re.compile(rf"[\x00-\x1f{_ALSO_IN_JSON}\ud800-\udfff]")
"""These, C0 controls, and bytes that are not UTF-8."""
_IN_JSON = re.compile(f"[{_ALSO_IN_JSON}]")


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
    return _IN_JSON.sub(lambda match: json.dumps(match[0])[1:-1], data.decode()).encode()


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python passes it on
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
