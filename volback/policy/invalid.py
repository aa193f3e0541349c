"""Invalid: the one exception of the readers of this package, and of those that use them."""

from __future__ import annotations


class InvalidValue(ValueError):
    """A value of the command line, a label or `volback.toml` that cannot be read.

    Whoever reads the value puts its place and its text before the message: `--wait '5x' has the unknown unit 'x'`.
    """

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(f"{reason}: {hint}")
        self.reason = reason
        """What is wrong. It continues the sentence after the value: `has no unit`."""
        self.hint = hint
        """What to write instead."""
