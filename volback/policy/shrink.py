"""Shrink: when a backup is suspiciously small against the one before. Pure: an emptied volume, a mount that is missing
or a pattern that excludes too much looks like a good backup, and would let the rules remove those that hold the data.
"""

from __future__ import annotations

_LEAST_FILES = 20
_LEAST_BYTES = 1024 * 1024
"""Below these, a backup says too little about what the next one should hold."""


def is_suspicious(*, files: int, raw_bytes: int, files_before: int, raw_bytes_before: int, ratio: float) -> bool:
    """Whether a backup has less than `ratio` of the files or of the raw bytes that the one before had."""
    few = files_before >= _LEAST_FILES and files < ratio * files_before
    small = raw_bytes_before >= _LEAST_BYTES and raw_bytes < ratio * raw_bytes_before
    return few or small
