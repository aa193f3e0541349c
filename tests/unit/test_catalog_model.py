"""A unit's own arithmetic: where its frames begin and where its members lie."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from volback.catalog.model import Frame, Member, Span, Unit

ID = "20261123T160254Z-3f9c"
ROOT = Member(b"", "d", 0, 0, 0, 1, 0o755, 0, 0, b"", 0)


@given(st.lists(st.integers(0, 5000), max_size=6), st.data())
def test_spans_cover_the_unit_from_its_first_member_on(sizes: list[int], data: st.DataObject) -> None:
    frames = [Frame(ID, number, 1, size, "") for number, size in enumerate(sizes)]
    offsets = data.draw(st.sets(st.integers(1, sum(sizes) - 1), max_size=9)) if sum(sizes) > 1 else set[int]()
    members = [ROOT._replace(path=b"%d" % at, offset=at) for at in sorted({0} | offsets)] if sizes else []
    unit = Unit("group", frames, members)
    assert unit.raw_bytes == sum(sizes)
    assert list(unit.starts()) == [sum(sizes[:number]) for number in range(len(sizes))]
    spans = list(unit.spans())
    assert [span.member for span in spans] == members
    assert [span.start for span in spans] == [member.offset for member in members]
    assert [span.stop for span in spans] == [span.start for span in spans[1:]] + [unit.raw_bytes] * bool(spans)


def test_unit_without_members_has_no_spans() -> None:
    assert list(Unit("end", [Frame(ID, 0, 9, 1024, "")], []).spans()) == []
    assert list(Unit("group", [], []).spans()) == []


def test_last_member_ends_where_the_unit_does() -> None:
    unit = Unit("group", [Frame(ID, 0, 9, 700, ""), Frame(ID, 9, 9, 324, "")], [ROOT])
    assert list(unit.spans()) == [Span(ROOT, 0, 1024)]
