"""Sizes of the parts of a multipart upload of unknown length; pure, used by store.s3.store.

S3 takes 10,000 parts of 5 MiB to 5 GiB for an object of up to 5 TiB
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html), so parts double in size as they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from volback.store.base import Buffer

_MIB = 1024 * 1024
OBJECT_MAX_BYTES = 5 * 1024 * 1024 * _MIB
PART_MIN_BYTES = 5 * _MIB
PART_MAX_BYTES = 5 * 1024 * _MIB
_FULL_PARALLEL_BYTES = 64 * _MIB


@dataclass(frozen=True, slots=True)
class PartSizes:
    """The plan: `per_step` parts of each size, which then doubles; `steps` sizes in all."""

    start_bytes: int
    max_parts: int
    per_step: int
    steps: int

    def size(self, number: int) -> int:
        """Bytes of part `number`, counted from 1."""
        step = min((number - 1) // self.per_step, self.steps - 1)
        return min(self.start_bytes << step, max(PART_MAX_BYTES, self.start_bytes))

    @property
    def capacity_bytes(self) -> int:
        """The largest object that fits."""
        whole = sum(self.size(step * self.per_step + 1) for step in range(self.steps)) * self.per_step
        return whole + (self.max_parts - self.per_step * self.steps) * self.size(self.max_parts)


def plan_parts(start_bytes: int, *, max_parts: int = 10_000, equal: bool = False) -> PartSizes:
    """The plan with the fewest doublings that holds 5 TiB; where none does, the one that holds most."""
    if equal:
        return PartSizes(start_bytes, max_parts, max_parts, 1)
    plans = [PartSizes(start_bytes, max_parts, max_parts // steps, steps) for steps in range(1, min(max_parts, 40) + 1)]
    enough = (plan for plan in plans if plan.capacity_bytes >= OBJECT_MAX_BYTES)
    return next(enough, None) or max(plans, key=lambda plan: plan.capacity_bytes)


def parallel_parts(size_bytes: int, parallel: int) -> int:
    """How many parts of that size are sent at once: fewer as they grow past 64 MiB, which bounds the memory."""
    return max(1, min(parallel, parallel * _FULL_PARALLEL_BYTES // size_bytes))


def cut_parts(chunks: Iterable[Buffer], sizes: PartSizes, *, first: int = 1) -> Iterator[memoryview]:
    """Join chunks into parts, from number `first` on, each in a buffer of its own. There is at least one; the last may
    be shorter, or empty."""
    number, filled = first, 0
    part = memoryview(bytearray(sizes.size(first)))
    for chunk in chunks:
        view = memoryview(chunk)
        view = view.cast("B") if view.nbytes else view
        while view.nbytes:
            count = min(view.nbytes, part.nbytes - filled)
            part[filled : filled + count] = view[:count]
            filled, view = filled + count, view[count:]
            if filled == part.nbytes:
                yield part
                number, filled = number + 1, 0
                part = memoryview(bytearray(sizes.size(number)))
    yield part[:filled]
