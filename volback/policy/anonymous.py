"""Anonymous volumes: those that an engine named itself, with 64 hex digits, for a container that asked for none."""

from __future__ import annotations

import re

SHORT_CHARS = 12
"""As many digits as the engine shows of its own ids."""
_NAME = re.compile(r"[0-9a-f]{64}")
_BEGINNING = re.compile(rf"[0-9a-f]{{{SHORT_CHARS},63}}")


def is_anonymous(name: str) -> bool:
    """Whether that is the name of an anonymous volume."""
    return _NAME.fullmatch(name) is not None


def is_beginning(text: str) -> bool:
    """Whether people may mean an anonymous volume by the first digits of its name."""
    return _BEGINNING.fullmatch(text) is not None


def shown_volume(name: str) -> str:
    """The name for people at a terminal, who can type it so."""
    return name[:SHORT_CHARS] if is_anonymous(name) else name
