"""What a failed restore may have written, from an index that is damaged itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from volback.catalog.units import Member
from volback.errors import IntegrityError, StoreError
from volback.operations.removal import paths_written


def _index_that_ends_in(error: Exception) -> Iterator[Member]:
    for path in (b"a", b"b"):
        yield Member(path, "f", 0, 1, 1, 1, 0o644, 0, 0, b"", 0)
    raise error


def test_what_lies_before_the_damage_may_have_been_written() -> None:
    assert list(paths_written(_index_that_ends_in(IntegrityError("damaged")))) == [b"a", b"b"]


def test_a_store_that_fails_does_not_end_the_index() -> None:
    with pytest.raises(StoreError):
        list(paths_written(_index_that_ends_in(StoreError("cannot be read"))))
