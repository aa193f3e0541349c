"""Segments: an increment takes those of its parent as they are, and rewrites those in which something changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from volback.archive.codec import compress_after, compress_lines
from volback.archive.segments import (
    AFTER_BYTES,
    SEGMENT_BYTES,
    IndexWriter,
    Segment,
    StoredIndex,
    compressed_after,
    runs_of,
    split,
)
from volback.catalog.model import INDEX_OBJECTS_MAX
from volback.catalog.units import Run
from volback.errors import FormatError, IntegrityError

NEW, OLD = "20261123T160254Z-3f9c", "20261122T160254Z-aaaa"


def _line(number: int, size: int = SEGMENT_BYTES // 2) -> bytes:
    """A line with as much as two digests that cannot be compressed, as every unit has."""
    return hashlib.shake_128(b"%d" % number).hexdigest(64).encode().ljust(size, b"x") + b"\n"


def _written(lines: Iterable[bytes], backup: str = OLD) -> tuple[StoredIndex, bytes]:
    writer = IndexWriter(backup, 3)
    for line in lines:
        writer.add(line)
    made = writer.end()
    return made, b"".join(made.buffers)


def _read(made: StoredIndex, objects: dict[str, bytes], backup: str = NEW) -> list[bytes]:
    """The lines of an index, as a reader finds them."""
    stored = b"".join(made.buffers)
    if not made.table_bytes:
        return [line for segment in split(backup, 0, memoryview(stored)) for line in segment.lines()]
    found = []
    for run in runs_of(memoryview(stored)[len(stored) - made.table_bytes :], what="it"):
        bytes_of_run = (objects | {backup: stored})[run.backup][run.offset : run.offset + run.stored_bytes]
        assert hashlib.sha256(bytes_of_run).digest() == run.digest
        found += [
            line for segment in split(run.backup, run.offset, memoryview(bytes_of_run)) for line in segment.lines()
        ]
    return found


def _segments(stored: bytes, backup: str = OLD) -> list[Segment]:
    return list(split(backup, 0, memoryview(stored)))


def _increment(segments: Sequence[Segment], changed: set[int]) -> StoredIndex:
    """Each line is used again but those whose numbers changed."""
    writer, at = IndexWriter(NEW, 3), 0
    for segment in segments:
        for number, line in enumerate(segment.lines()):
            if at in changed:
                writer.add(b"new " + line + b"\n")
            else:
                writer.add_unchanged(segment, number)
            at += 1
    return writer.end()


def test_a_full_index_is_its_segments_and_nothing_else() -> None:
    lines = [_line(number) for number in range(20)]
    made, stored = _written(lines)
    assert (made.table_bytes, made.used) == (0, {})
    assert [line + b"\n" for segment in _segments(stored) for line in segment.lines()] == lines
    assert len(_segments(stored)) == 10


@given(st.integers(0, 40), st.sets(st.integers(0, 39)))
def test_whatever_changed_the_lines_come_in_their_order(count: int, changed: set[int]) -> None:
    _, stored = _written(_line(number) for number in range(count))
    made = _increment(_segments(stored), changed)
    expected = [(b"new " if number in changed else b"") + _line(number)[:-1] for number in range(count)]
    assert _read(made, {OLD: stored}) == expected
    assert set(made.used) <= {OLD}


def test_where_nothing_changed_one_run_is_all() -> None:
    _, stored = _written(_line(number) for number in range(40))
    made = _increment(_segments(stored), set())
    assert made.digest.size_bytes == made.table_bytes < 150
    assert made.used == {OLD: len(stored)}


def test_a_changed_line_costs_its_segment() -> None:
    _, stored = _written(_line(number) for number in range(40))
    segments = _segments(stored)
    made = _increment(segments, {21})
    runs = runs_of(memoryview(b"".join(made.buffers))[-made.table_bytes :], what="it")
    assert [(run.backup, run.offset) for run in runs] == [(OLD, 0), (NEW, 0), (OLD, segments[11].offset)]
    assert made.used == {OLD: len(stored) - len(segments[10].stored)}


def test_an_index_of_too_many_objects_is_written_whole() -> None:
    parts = {
        f"20261101T0000{number:02}Z-0000": compress_lines(_line(number)) for number in range(INDEX_OBJECTS_MAX + 1)
    }
    writer = IndexWriter(NEW, 3)
    for backup, stored in parts.items():
        writer.add_unchanged(Segment(backup, 0, memoryview(stored)), 0)
    made = writer.end()
    assert made.used == {}
    assert [line + b"\n" for line in _read(made, {})] == [_line(number) for number in range(INDEX_OBJECTS_MAX + 1)]
    few = IndexWriter(NEW, 3)
    for backup, stored in list(parts.items())[:-1]:
        few.add_unchanged(Segment(backup, 0, memoryview(stored)), 0)
    assert len(few.end().used) == INDEX_OBJECTS_MAX


def test_small_segments_are_taken_into_new_ones() -> None:
    """Else each change would leave smaller ones behind."""
    small = Segment(OLD, 0, memoryview(compress_lines(_line(1, 130))))
    many = compress_lines(b"".join(_line(number, 130) for number in range(2, 12)))
    large = Segment(OLD, len(small.stored), memoryview(many))
    assert len(small.stored) < SEGMENT_BYTES // 16 < len(large.stored)
    for first, second in ((small, large), (large, small)):
        writer = IndexWriter(NEW, 3)
        writer.add(_line(0, 130))
        for segment in (first, second):
            for number in range(len(segment.lines())):
                writer.add_unchanged(segment, number)
        made = writer.end()
        own = [line for segment in _segments(b"".join(made.buffers)[: -made.table_bytes]) for line in segment.lines()]
        assert made.used[OLD] == len(large.stored) + (len(small.stored) if first is large else 0)
        assert [line + b"\n" for line in own] == [_line(0, 130), *([_line(1, 130)] if first is small else [])]


@pytest.mark.parametrize("checksum", [True, False])
def test_segments_are_split_whatever_blocks_they_consist_of(*, checksum: bool) -> None:
    """A large file's line is compressed into many blocks: some as they are, some of one byte repeated."""
    noise = hashlib.shake_128(b"noise").hexdigest(200_000).encode()
    texts = [_line(1), bytes(300_000) + noise + b"x" * 500_000 + b"\n", noise + b"\n", _line(2) + _line(3)]
    compressor = zstandard.ZstdCompressor(write_checksum=checksum)
    stored = b"".join(map(compressor.compress, texts))
    found = list(split(OLD, 7, memoryview(stored)))
    assert [b"".join(line + b"\n" for line in segment.lines()) for segment in found] == texts
    assert [segment.offset for segment in found] == [7, *(7 + sum(_sizes(found)[:at]) for at in (1, 2, 3))]
    assert sum(_sizes(found)) == len(stored)
    with pytest.raises(IntegrityError, match=f"index of backup {OLD} is damaged: a zstd frame is cut short"):
        list(split(OLD, 7, memoryview(stored)[:-1]))


def _sizes(segments: list[Segment]) -> list[int]:
    return [len(segment.stored) for segment in segments]


def test_what_is_not_a_segment_is_refused() -> None:
    with pytest.raises(IntegrityError):
        list(split(OLD, 0, memoryview(b"not zstd at all")))
    with pytest.raises(IntegrityError, match=f"index of backup {OLD} is cut short: it ends inside line 1"):
        Segment(OLD, 0, memoryview(compress_lines(b"no newline"))).lines()
    with pytest.raises(FormatError):
        runs_of(memoryview(compress_lines(b'{"runs":[["x",0,1,"AA=="]]}\n')), what="it")


def _large(number: int, extents: int, changed: tuple[int, ...] = ()) -> bytes:
    """The line of a large file: a digest for each extent, of which some changed."""
    return b"%d " % number + b"".join(
        hashlib.sha256(b"%d %d" % (extent, number if extent in changed else 0)).hexdigest().encode()
        for extent in range(extents)
    ) + b"\n"  # fmt: skip


def _night(line: bytes, former: Segment, backup: str) -> tuple[StoredIndex, Segment]:
    """An index with a small line and that of a large file, whose former line is known."""
    writer = IndexWriter(backup, 3)
    writer.add(_line(1, 200))
    writer.add(line, former)
    [segment] = writer.segments()
    return writer.end(), segment


def test_the_line_of_a_large_file_is_stored_as_what_is_new_in_it() -> None:
    stored = compress_lines(_line(1, 200) + _large(1, 2000))
    first = Segment(OLD, 0, memoryview(stored))
    made, second = _night(_large(2, 2100, (7, 900)), first, NEW)
    assert made.digest.size_bytes < len(stored) // 10
    assert made.used == {OLD: len(stored)}
    [run] = runs_of(memoryview(b"".join(made.buffers))[-made.table_bytes :], what="it")
    assert run.dictionary == Run(OLD, 0, len(stored), hashlib.sha256(stored).digest())
    own = memoryview(b"".join(made.buffers))[: -made.table_bytes]
    found = compressed_after(NEW, 0, own, memoryview(stored), run.dictionary)
    assert [line + b"\n" for line in found.lines()] == [_line(1, 200), _large(2, 2100, (7, 900))]
    assert found.digest == second.digest != first.digest


def test_a_dictionary_has_no_dictionary() -> None:
    """So an index is read with one object more for each line, however many nights it changes."""
    first = Segment(OLD, 0, memoryview(compress_lines(_large(1, 2000))))
    _, second = _night(_large(2, 2100), first, NEW)
    made, third = _night(_large(3, 2200), second, "20261124T160254Z-bbbb")
    assert third.dictionary is first
    assert made.used == {OLD: len(first.stored)}
    assert third.lines()[1] + b"\n" == _large(3, 2200)


def test_a_line_with_little_of_its_former_state_is_stored_whole() -> None:
    first = Segment(OLD, 0, memoryview(compress_lines(_large(1, 2000))))
    _, segment = _night(_large(2, 2000, tuple(range(1000))), first, NEW)
    assert segment.dictionary is None
    short = _night(_large(2, AFTER_BYTES // 64 - 1), first, NEW)
    assert short[0].used == {}
    of_first_pass = _night(_large(2, 2000), Segment(NEW, 0, first.stored), NEW)
    assert of_first_pass[0].used == {}, "the index of a first pass is not stored"


def test_an_unchanged_segment_keeps_its_dictionary() -> None:
    first = Segment(OLD, 0, memoryview(compress_lines(_large(1, 2000))))
    _, second = _night(_large(2, 2001), first, NEW)
    writer = IndexWriter("20261124T160254Z-bbbb", 3)
    for number in range(second.count()):
        writer.add_unchanged(second, number)
    made = writer.end()
    assert made.used == {NEW: len(second.stored), OLD: len(first.stored)}
    assert len(made.buffers) == 1, "nothing but the list of runs"


def test_no_two_segments_have_one_dictionary() -> None:
    """A reader refuses that: it would hold more than is stored."""
    first = Segment(OLD, 0, memoryview(compress_lines(_large(1, 2000))))
    _, second = _night(_large(2, 2001), first, NEW)
    writer = IndexWriter("20261124T160254Z-bbbb", 3)
    writer.add(_large(3, 2002), first)
    for number in range(second.count()):
        writer.add_unchanged(second, number)
    writer.add(_large(4, 2002), first)
    segments = writer.segments()
    assert [segment.dictionary is first for segment in segments] == [True, False, False]
    lines = [line + b"\n" for segment in segments for line in segment.lines()]
    assert lines == [_large(3, 2002), _line(1, 200), _large(2, 2001), _large(4, 2002)]


def test_an_index_of_too_many_objects_has_no_dictionaries() -> None:
    writer, expected = IndexWriter(NEW, 3), []
    for number in range(INDEX_OBJECTS_MAX + 1):
        line = _large(number, 300 + number)
        writer.add(line, Segment(f"20261101T0000{number:02}Z-0000", 0, memoryview(compress_lines(line))))
        expected.append(line)
    made = writer.end()
    assert (made.used, made.table_bytes) == ({}, 0)
    assert [line + b"\n" for line in _read(made, {})] == expected


def test_what_is_not_one_segment_after_another_is_refused() -> None:
    one, two = compress_lines(_line(1)), compress_lines(_line(1)) + compress_lines(_line(2))
    place = Run(OLD, 0, len(one), hashlib.sha256(one).digest())
    for stored, dictionary in ((two, one), (one, two)):
        with pytest.raises(IntegrityError, match="a segment with a dictionary is not one"):
            compressed_after(NEW, 0, memoryview(stored), memoryview(dictionary), place)
    without = compressed_after(
        NEW, 0, memoryview(compress_after(_large(1, 300), _large(1, 299))), memoryview(one), place
    )
    with pytest.raises(IntegrityError, match=f"index of backup {NEW} is damaged"):
        without.lines()
