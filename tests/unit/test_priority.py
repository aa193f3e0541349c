"""The I/O class of this process: set for a block, also for threads that begin in it, and taken back."""

from __future__ import annotations

import threading

import pytest

from volback.errors import EXIT_DONE, WORST_FIRST, VolbackError, worst_first
from volback.priority import IoClass, current, io_class


@pytest.mark.parametrize(("name", "number"), [("idle", 3), ("best-effort", 2)])
def test_class_is_held_for_the_block(name: IoClass, number: int) -> None:
    before, seen = current(), list[int | None]()
    assert before is not None, "a machine that the tests know"
    with io_class(name) as failure:
        assert failure is None
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
        seen.append(current())
    assert [value and value >> 13 for value in seen] == [number, number]
    assert current() == before
    with io_class(None):
        assert current() == before


def test_every_exit_code_has_its_place_among_the_worst() -> None:
    def kinds(kind: type[VolbackError]) -> set[int]:
        return {kind.exit_code}.union(*(kinds(child) for child in kind.__subclasses__()))

    assert kinds(VolbackError) | {130, 143, 3, EXIT_DONE} == set(WORST_FIRST)
    errors = [kind("x") for kind in VolbackError.__subclasses__()]
    assert [error.exit_code for error in worst_first(errors)] == sorted(
        (error.exit_code for error in errors), key=WORST_FIRST.index
    )
