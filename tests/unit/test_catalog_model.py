"""A unit's own arithmetic: where its pieces begin, where its members lie, which digests are of which bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from volback.catalog.model import DIGEST_BYTES, Frame, Member, Piece, Span, Unit

ID = "20261123T160254Z-3f9c"
ROOT = Member(b"", "d", 0, 0, 0, 1, 0o755, 0, 0, b"", 0)


def _piece(size: int, number: int = 0) -> Piece:
    """Two extents, or one."""
    sizes = [size // 2, size - size // 2] if size > 1 else [size]
    return Piece(Frame(ID, number, 1, size), 0, sizes, bytes([number]) * DIGEST_BYTES * len(sizes))


@given(st.lists(st.integers(1, 5000), max_size=6), st.data())
def test_spans_cover_the_unit_from_its_first_member_on(sizes: list[int], data: st.DataObject) -> None:
    pieces = [_piece(size, number) for number, size in enumerate(sizes)]
    offsets = data.draw(st.sets(st.integers(1, sum(sizes) - 1), max_size=9)) if sum(sizes) > 1 else set[int]()
    members = [ROOT._replace(path=b"%d" % at, offset=at) for at in sorted({0} | offsets)] if sizes else []
    unit = Unit("group", pieces, members)
    assert unit.raw_bytes == sum(sizes)
    assert list(unit.starts()) == [sum(sizes[:number]) for number in range(len(sizes))]
    spans = list(unit.spans())
    assert [span.member for span in spans] == members
    assert [span.start for span in spans] == [member.offset for member in members]
    assert [span.stop for span in spans] == [span.start for span in spans[1:]] + [unit.raw_bytes] * bool(spans)


def test_unit_without_members_has_no_spans() -> None:
    assert list(Unit("end", [_piece(1024)], []).spans()) == []
    assert list(Unit("group", [], []).spans()) == []


def test_last_member_ends_where_the_unit_does() -> None:
    unit = Unit("group", [_piece(700), _piece(324, 9)], [ROOT])
    assert list(unit.spans()) == [Span(ROOT, 0, 1024)]


def test_the_digests_of_some_bytes_are_those_of_the_extents_within_them() -> None:
    first, second = (Piece(Frame(ID, 0, 1, 99), 0, [10, 20], bytes([number]) * 64) for number in (1, 2))
    unit = Unit("group", [first, second], [])
    assert unit.digests_of(0, 60) == first.digests + second.digests
    assert unit.digests_of(10, 40) == first.digests[32:] + second.digests[:32]
    assert unit.digests_of(1, 40) == first.digests[32:] + second.digests[:32]
    assert unit.digests_of(11, 29) == b""
