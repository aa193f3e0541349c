"""What an engine says of itself, in the words of several engines."""

from __future__ import annotations

import pytest

from volback.engine.image import is_same_processor


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("x86_64", "x86_64", True),
        ("x86_64", "amd64", True),
        ("aarch64", "arm64", True),
        ("riscv64", "riscv64", True),
        ("x86_64", "arm64", False),
        ("aarch64", "amd64", False),
    ],
)
def test_one_processor_has_two_names(first: str, second: str, same: bool) -> None:
    assert is_same_processor(first, second) is same
    assert is_same_processor(second, first) is same
