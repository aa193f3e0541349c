"""Which units can hold a path: never is one left out that does, and few are named that do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from volback.catalog.paths import PathRanges
from volback.catalog.units import Member, Unit

PARTS = st.sampled_from([b"a", b"a-b", b"a.b", b"b", b"\x01", b"\xff", b"\xff\xff", b"a\xff"])
PATHS = st.lists(PARTS, max_size=4).map(b"/".join)
UNITS = st.lists(st.lists(PATHS, max_size=5), max_size=8)


def _unit(paths: list[bytes]) -> Unit:
    return Unit("group", [], [Member(path, "f", 0, 0, 0, 1, 0o644, 0, 0, b"", at) for at, path in enumerate(paths)])


def _known(units: list[list[bytes]]) -> PathRanges:
    ranges = PathRanges()
    for number, paths in enumerate(units):
        ranges.note(number, _unit(paths))
    return ranges


@given(UNITS, st.lists(PATHS, max_size=3), st.lists(PATHS, max_size=3), st.integers(0, 8))
def test_no_unit_that_holds_what_is_looked_for_is_left_out(
    units: list[list[bytes]], paths: list[bytes], below: list[bytes], known: int
) -> None:
    """In whatever order the units stand, and however many of them have been seen."""
    can_hold = _known(units[:known]).around(paths, below=below)
    trees = tuple(path + b"/" for path in below if path)
    for number, held in enumerate(units):
        if any(path in paths or path in below or path.startswith(trees) or b"" in below for path in held):
            assert can_hold(number)
        if number >= known:
            assert can_hold(number)


def test_of_a_sorted_stream_one_unit_is_named_for_a_file() -> None:
    units = [[b"d%02d/f%d" % (unit, number) for number in range(9)] for unit in range(50)]
    ranges = _known(units)
    named = [number for number in range(50) if ranges.around([b"d17/f5"])(number)]
    assert named == [17]
    assert [number for number in range(50) if ranges.around([], below=[b"d17"])(number)] == [17]
    assert [number for number in range(50) if ranges.around([b"elsewhere"])(number)] == []


def test_what_lies_below_a_directory_is_not_what_begins_like_it() -> None:
    ranges = _known([[b"a", b"a/b"], [b"a-b", b"a-b/c"], [b"a0"]])
    assert [number for number in range(3) if ranges.around([], below=[b"a"])(number)] == [0]
    assert [number for number in range(3) if ranges.around([], below=[b""])(number)] == [0, 1, 2]


def test_a_unit_that_was_not_the_next_one_stays_unknown() -> None:
    ranges = PathRanges()
    ranges.note(1, _unit([b"z"]))
    assert ranges.around([b"a"])(0)
    assert ranges.around([b"a"])(1)
    ranges.note(0, _unit([b"x"]))
    ranges.note(0, _unit([b"a"]))
    assert not ranges.around([b"a"])(0)


def test_the_end_of_the_archive_holds_nothing() -> None:
    assert not _known([[]]).around([b"a"], below=[b"b"])(0)
