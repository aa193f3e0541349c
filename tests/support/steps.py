"""Which steps of a run a test strikes: a spread of them, and every one with `scripts/test long` (--every-step)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

Step = TypeVar("Step")

COUNT = 6
"""Of each test in the common run."""


def spread(steps: Sequence[Step], salt: str, count: int = COUNT) -> list[Step]:
    """`count` of the steps in their order: the first, the last, and one in each equal stretch between.

    Where in its stretch one lies depends on the salt alone, so that tests with other salts strike other steps.
    """
    if len(steps) <= count:
        return list(steps)
    dice = random.Random(salt)
    inner = len(steps) - 2
    edges = [1 + inner * number // (count - 2) for number in range(count - 1)]
    return [steps[0], *(steps[dice.randrange(start, end)] for start, end in pairwise(edges)), steps[-1]]
