"""A unit's own arithmetic: where its frames begin and where its members lie."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from volback.catalog.units import Frame, Member, Piece, Span, Unit

ID = "20261123T160254Z-3f9c"


def piece(offset: int, size: int) -> Piece:
    return Piece(Frame(ID, offset, 1, size), 0, [size], bytes(32))


def of_size(size: int) -> bytes:
    """A digest that says which extent it is of."""
    return b"%032d" % size


def extents(offset: int, sizes: list[int]) -> Piece:
    return Piece(Frame(ID, offset, 1, sum(sizes)), 0, sizes, b"".join(map(of_size, sizes)))


ROOT = Member(b"", "d", 0, 0, 0, 1, 0o755, 0, 0, b"", 0)


@given(st.lists(st.integers(0, 5000), max_size=6), st.data())
def test_spans_cover_the_unit_from_its_first_member_on(sizes: list[int], data: st.DataObject) -> None:
    pieces = [piece(number, size) for number, size in enumerate(sizes)]
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
    assert list(Unit("end", [piece(0, 1024)], []).spans()) == []
    assert list(Unit("group", [], []).spans()) == []


def test_last_member_ends_where_the_unit_does() -> None:
    unit = Unit("group", [piece(0, 700), piece(9, 324)], [ROOT])
    assert list(unit.spans()) == [Span(ROOT, 0, 1024)]


UNITS = st.lists(st.lists(st.integers(1, 900), min_size=1, max_size=4), min_size=1, max_size=4)


@given(UNITS)
def test_the_digest_of_a_unit_does_not_depend_on_where_its_extents_lie(sizes: list[list[int]]) -> None:
    apart = Unit("group", [extents(number, each) for number, each in enumerate(sizes)], [ROOT])
    together = Unit("group", [extents(0, [size for each in sizes for size in each])], [ROOT])
    other = apart._replace(pieces=[apart.pieces[0]._replace(digests=bytes(32 * len(sizes[0]))), *apart.pieces[1:]])
    assert apart.raw_bytes == together.raw_bytes == sum(map(sum, sizes))
    same = [piece._replace(digests=b"".join(map(of_size, piece.sizes))) for piece in together.pieces]
    assert apart.digest == together._replace(pieces=same).digest
    assert other.digest != apart.digest


@given(UNITS, st.integers(0, 5000))
def test_extents_of_a_piece_follow_one_another_each_with_its_digest(sizes: list[list[int]], start: int) -> None:
    for number, each in enumerate(sizes):
        piece = extents(number, each)._replace(start=start)
        found = list(piece.extents())
        assert [(extent.size, extent.digest) for extent in found] == [(size, of_size(size)) for size in each]
        stops = [extent.start + extent.size for extent in found]
        assert [extent.start for extent in found] == [start, *stops[:-1]]
        assert stops[-1] == start + piece.raw_bytes
        assert b"".join(extent.digest for extent in found) == piece.digests
