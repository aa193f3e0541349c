"""What every benchmark measures with: a command's time and peak memory, bytes below a directory, ratios with spread.

Peak memory is the kernel's (ru_maxrss) over the process and those that it waited for; it begins at what the caller has
itself, about 39 MiB, so smaller ones show as that.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MIB = 1024 * 1024


class Options(NamedTuple):
    """What was asked for."""

    runs: int
    scale: float
    """Of files and bytes."""
    directory: Path
    """For what has no place in memory."""
    only: tuple[str, ...]
    """Of the case `increments`."""


class Sample(NamedTuple):
    """One run of a command."""

    seconds: float
    peak_bytes: int


class Ratio(NamedTuple):
    """Of two medians, and the least and most of the rounds' own ratios."""

    of_medians: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.of_medians:.2f} ({self.least:.2f} - {self.most:.2f})"


def measure(command: Sequence[str], environment: dict[str, str]) -> Sample:
    """Run a command; ends this process if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: {' '.join(command)} ended with {process.returncode}")
    return Sample(seconds, usage.ru_maxrss * 1024)


def output_of(command: Sequence[str], environment: dict[str, str]) -> str:
    """What a command writes to stdout; ends this process if it fails."""
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}")
    return done.stdout


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Both in the order of the rounds."""
    each = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ours) / statistics.median(theirs), min(each), max(each))


def spread(values: Sequence[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def verdict(reached: bool) -> str:
    return "reached" if reached else "MISSED"


def bytes_below(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(path) for name in names)
