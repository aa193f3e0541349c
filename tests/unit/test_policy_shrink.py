"""When a backup is suspiciously small against the one before."""

from __future__ import annotations

import pytest

from volback.policy.shrink import is_suspicious

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("files", "raw_bytes", "files_before", "raw_bytes_before", "expected"),
    [
        (1, 10_240, 1000, 50 * MIB, True),
        (19, 50 * MIB, 100, 50 * MIB, True),
        (20, 50 * MIB, 100, 50 * MIB, False),
        (100, 9 * MIB, 100, 50 * MIB, True),
        (100, 10 * MIB, 100, 50 * MIB, False),
        (1, 10_240, 19, MIB - 1, False),
        (2000, 80 * MIB, 1000, 50 * MIB, False),
    ],
)
def test_less_than_a_fifth_of_files_or_bytes_is_suspicious(
    files: int, raw_bytes: int, files_before: int, raw_bytes_before: int, *, expected: bool
) -> None:
    found = is_suspicious(
        files=files, raw_bytes=raw_bytes, files_before=files_before, raw_bytes_before=raw_bytes_before, ratio=0.2
    )
    assert found is expected


def test_a_ratio_of_none_accepts_everything() -> None:
    assert not is_suspicious(files=0, raw_bytes=0, files_before=1000, raw_bytes_before=50 * MIB, ratio=0)
