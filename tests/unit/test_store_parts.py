"""Sizes of parts: on paper up to 5 TiB, and parts cut from chunks of any size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volback.store.s3.parts import (
    OBJECT_MAX_BYTES,
    PART_MAX_BYTES,
    PART_MIN_BYTES,
    PartSizes,
    cut_parts,
    parallel_parts,
    plan_parts,
)

MIB = 1024 * 1024


@given(st.integers(5, 1024), st.integers(2000, 10_000))
@settings(max_examples=60, deadline=None)
def test_five_tebibytes_fit_in_parts_that_s3_takes(start_mib: int, max_parts: int) -> None:
    plan = plan_parts(start_mib * MIB, max_parts=max_parts)
    sizes = [plan.size(number) for number in range(1, max_parts + 1)]
    assert sum(sizes) == plan.capacity_bytes >= OBJECT_MAX_BYTES
    assert sizes == sorted(sizes)
    assert sizes[0] == start_mib * MIB
    assert min(sizes) >= PART_MIN_BYTES
    assert max(sizes) <= PART_MAX_BYTES


def test_parts_double_after_each_thousand_by_default() -> None:
    plan = plan_parts(8 * MIB)
    assert [plan.size(number) // MIB for number in (1, 1000, 1001, 2000, 2001, 10_000)] == [8, 8, 16, 16, 32, 4096]


def test_a_thousand_parts_hold_what_they_can() -> None:
    plan = plan_parts(8 * MIB, max_parts=1000)
    assert plan.capacity_bytes > OBJECT_MAX_BYTES // 2
    assert plan.size(1000) == PART_MAX_BYTES


def test_equal_parts_are_equal() -> None:
    plan = plan_parts(8 * MIB, equal=True)
    assert {plan.size(number) for number in range(1, 10_001)} == {8 * MIB}
    assert plan.capacity_bytes == 80_000 * MIB


@pytest.mark.parametrize(("size_mib", "count"), [(5, 4), (64, 4), (128, 2), (256, 1), (5120, 1)])
def test_large_parts_are_sent_fewer_at_once(size_mib: int, count: int) -> None:
    assert parallel_parts(size_mib * MIB, 4) == count


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 9))
def test_parts_joined_are_the_chunks(chunks: list[bytes], start: int) -> None:
    plan = PartSizes(start, 1000, 3, 3)
    parts = [bytes(part) for part in cut_parts(iter(chunks), plan)]
    assert b"".join(parts) == b"".join(chunks)
    assert [len(part) for part in parts[:-1]] == [plan.size(number) for number in range(1, len(parts))]
    assert len(parts[-1]) < plan.size(len(parts))
