"""Priority: the I/O class of this process, as `ionice` sets it. Linux only; where it cannot be set, the reason is
returned."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

IoClass = Literal["idle", "best-effort"]

_NUMBERS = {"x86_64": (251, 252), "aarch64": (30, 31), "riscv64": (30, 31), "armv7l": (314, 315),
            "ppc64le": (273, 274), "s390x": (282, 283)}  # fmt: skip
"""Of ioprio_set and ioprio_get, which no C library wraps: ioprio_set(2)."""
_OF_PROCESS = 1
_SHIFT = 13
_VALUES = {"best-effort": 2 << _SHIFT | 7, "idle": 3 << _SHIFT}
"""Best effort at its lowest level."""


@contextmanager
def io_class(name: IoClass | None) -> Iterator[str | None]:
    """Hold the class for the block, also in threads that begin in it; yield why it cannot be set, None if it can."""
    if name is None:
        yield None
        return
    before = _call(1, 0)
    failure = None if before is None else _set(_VALUES[name])
    try:
        yield "this machine's kind is not known" if before is None else failure
    finally:
        if before is not None and failure is None:
            _set(before)


def current() -> int | None:
    """The value as the kernel has it: class << 13 | level."""
    return _call(1, 0)


def _set(value: int) -> str | None:
    return os.strerror(ctypes.get_errno()) if _call(0, value) == -1 else None


def _call(which: int, value: int) -> int | None:
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        return None
    arguments = (_OF_PROCESS, 0, value) if which == 0 else (_OF_PROCESS, 0)
    return int(ctypes.CDLL(None, use_errno=True).syscall(numbers[which], *arguments))
