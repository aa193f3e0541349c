"""Anonymous volumes: those that an engine named itself, with 64 hex digits, for a container that asked for none."""

from __future__ import annotations

import re
from collections.abc import Collection

from volback.measures import count

SHORT_CHARS = 12
"""As many digits as the engine shows of its own ids."""
_NAME = re.compile(r"[0-9a-f]{64}")
_BEGINNING = re.compile(rf"[0-9a-f]{{{SHORT_CHARS},63}}")


def is_anonymous(name: str) -> bool:
    """Whether that is the name of an anonymous volume."""
    return _NAME.fullmatch(name) is not None


def is_left_out(name: str, users: Collection[object]) -> bool:
    """Whether what takes all volumes leaves out this one unless it is asked: no container uses it, and none will."""
    return is_anonymous(name) and not users


def left_out_words(number: int, how: str, *, verb: str = "uses") -> str:
    """That some were left out; `how` says what takes them, too."""
    return f"{count(number, 'anonymous volume')} that no container {verb}: left out; {how}"


def is_beginning(text: str) -> bool:
    """Whether people may mean an anonymous volume by the first digits of its name."""
    return _BEGINNING.fullmatch(text) is not None


def shown_volume(name: str) -> str:
    """The name for people at a terminal, who can type it so."""
    return name[:SHORT_CHARS] if is_anonymous(name) else name
