"""Quiesce: what happens to a volume's running containers while it is read."""

from __future__ import annotations

import math
from typing import Literal

How = Literal["stop", "pause"]
"""How a container is quiesced."""
Quiesce = Literal["stop", "pause", "none"]
"""What a call, a job or a label requests. `none` differs from no request: it overrides what others request."""

STRONGEST_FIRST: tuple[Quiesce, ...] = ("stop", "pause", "none")
"""If two containers disagree, the value that comes first here applies."""


def whole_grace_s(stop_timeout_s: float) -> int:
    """Return a grace time as the engine counts it, in whole seconds. Rounds up: 0 would kill the container at once."""
    return math.ceil(stop_timeout_s)
