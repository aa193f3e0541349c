"""The recorder: what is stored, what the index says of it, and totals that add up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tests.support.leftovers import Leftovers
from volback.archive.codec import ZstdCodec, decompress
from volback.archive.cut import Cut, RawFrame, UnitEnd
from volback.archive.lookup import Place
from volback.archive.record import Recorder
from volback.archive.seal import Extents, NewFrame, NewPlace, Sealed, seal
from volback.catalog.index import read_units
from volback.catalog.units import Frame, Unit
from volback.progress import Silent

ID, OLD, OLDER = "20261123T160254Z-3f9c", "20261122T160254Z-aaaa", "20261121T160254Z-bbbb"
KNOWN = st.builds(
    Place,
    st.builds(Frame, st.sampled_from([OLD, OLDER]), st.integers(0, 99), st.integers(1, 99), st.just(5000)),
    st.integers(0, 999),
)
EXTENT = st.tuples(st.integers(1, 99), st.binary(min_size=32, max_size=32), KNOWN | st.just("new"))
UNITS = st.lists(st.lists(EXTENT, min_size=1, max_size=6), max_size=6)


class _Counted(Silent):
    """Progress that adds up."""

    raw_bytes = stored_bytes = 0

    def advance(self, *, raw_bytes: int = 0, stored_bytes: int = 0, files: int = 0, sent_bytes: int = 0) -> None:
        self.raw_bytes += raw_bytes
        self.stored_bytes += stored_bytes


def _items(
    made: list[list[tuple[int, bytes, Place | str]]], frames_after: set[int]
) -> tuple[list[Sealed], list[NewFrame]]:
    """New extents lie in a frame that comes after some of the units, or after all of them."""
    items, frames, open_frame = list[Sealed](), list[NewFrame](), NewFrame()
    for number, unit in enumerate(made):
        places = list[Place | NewPlace]()
        for size, _, place in unit:
            if isinstance(place, Place):
                places.append(place)
            else:
                places.append(NewPlace(open_frame, open_frame.raw_bytes))
                open_frame.raw_bytes += size
        items += [Extents([size for size, _, _ in unit], [digest for _, digest, _ in unit], places)]
        items += [UnitEnd("group", [])]
        if open_frame.raw_bytes and (number in frames_after or number == len(made) - 1):
            open_frame.stored = b"frame %d" % number
            items.append(open_frame)
            frames.append(open_frame)
            open_frame = NewFrame()
    return items, frames


@given(UNITS, st.sets(st.integers(0, 5)))
def test_only_what_is_new_is_stored_and_the_index_has_all(
    made: list[list[tuple[int, bytes, Place | str]]], frames_after: set[int]
) -> None:
    items, frames = _items(made, frames_after)
    stored = [frame.stored for frame in frames]
    progress = _Counted()
    recorder = Recorder(ID, progress)
    assert list(recorder.hashed(recorder.data(item for item in items))) == stored
    data, index = b"".join(stored), recorder.index()
    assert recorder.data_digest().sha256 == hashlib.sha256(data).hexdigest()
    assert recorder.data_digest().size_bytes == recorder.stored_bytes == progress.stored_bytes == len(data)
    whole = b"".join(index.buffers)
    assert (index.digest.size_bytes, index.digest.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    units = list(read_units(decompress(whole, what="index")))
    assert [[size for piece in unit.pieces for size in piece.sizes] for unit in units] == [
        [size for size, _, _ in unit] for unit in made
    ]
    assert [b"".join(piece.digests for piece in unit.pieces) for unit in units] == [
        b"".join(digest for _, digest, _ in unit) for unit in made
    ]
    _check_places(units, made, data)
    used = {(frame.backup, frame.offset): frame.stored_bytes for unit in units for frame in _frames(unit)}
    assert set(recorder.used) == {backup for backup, _ in used} - {ID}
    assert recorder.reused_bytes == sum(size for unit in made for size, _, place in unit if place != "new")
    assert progress.raw_bytes == sum(size for unit in made for size, _, _ in unit)
    assert recorder.stream_digest() == hashlib.sha256(b"".join(unit.digest for unit in units)).hexdigest()


def _frames(unit: Unit) -> list[Frame]:
    return [piece.frame for piece in unit.pieces]


def _check_places(units: list[Unit], made: list[list[tuple[int, bytes, Place | str]]], data: bytes) -> None:
    for unit, extents in zip(units, made, strict=True):
        found = []
        for piece in unit.pieces:
            start = piece.start
            for size in piece.sizes:
                found.append((piece.frame, start))
                start += size
        for (frame, start), (size, _, place) in zip(found, extents, strict=True):
            if isinstance(place, Place):
                assert (frame, start) == place
            else:
                assert data[frame.offset :][: frame.stored_bytes].startswith(b"frame ")
                assert (frame.backup, start + size <= frame.raw_bytes) == (ID, True)


def test_the_bytes_of_a_frame_that_is_used_often_count_once() -> None:
    place = Place(Frame(OLD, 7, 40, 5000), 0)
    recorder = Recorder(ID, Silent())
    extents = Extents([10], [bytes(32)], [place])
    items: list[Sealed] = [extents, UnitEnd("group", []), extents, UnitEnd("group", [])]
    assert list(recorder.data(item for item in items)) == []
    assert (recorder.used, recorder.reused_bytes) == ({OLD: 40}, 20)


def test_index_of_nothing_is_empty() -> None:
    index = Recorder(ID, Silent()).index()
    assert list[Unit](read_units(decompress(b"".join(index.buffers), what="index"))) == []


def test_closed_early_it_leaves_no_thread(leftovers: Leftovers) -> None:
    """As where a store fails: what it reads from is closed too, down to the cutter."""
    closed: list[bool] = []

    def cuts() -> Iterator[Cut]:
        try:
            while True:
                yield RawFrame([memoryview(b"x" * 100_000)], [100_000])
        finally:
            closed.append(True)

    data = Recorder(ID, Silent()).data(seal(cuts(), ZstdCodec(), threads=2))
    assert next(data)
    data.close()
    assert closed == [True]
    assert leftovers.threads("frames") == []


def _file_of(number: int, frame: NewFrame) -> list[Sealed]:
    digest = hashlib.sha256(b"%d" % number).digest()
    return [Extents([100], [digest], [NewPlace(frame, 100 * number)]), UnitEnd("group", [])]


def test_a_resumed_recorder_goes_on_with_the_object_and_knows_its_units() -> None:
    first, second = NewFrame(b"first", raw_bytes=100), NewFrame(b"second", raw_bytes=200)
    killed, lines = Recorder(OLD, Silent()), list[bytes]()
    killed.on_line = lines.append
    assert b"".join(killed.hashed(killed.data(item for item in [*_file_of(0, first), first]))) == b"first"
    assert killed.given().sha256 == hashlib.sha256(b"first").hexdigest()
    recorder = Recorder(OLD, Silent())
    (segment,) = recorder.resume(hashlib.sha256(b"first"), 5, lines)
    assert segment.lines() == [line.rstrip(b"\n") for line in lines]
    assert list(recorder.hashed(recorder.data(item for item in [*_file_of(1, second), second]))) == [b"second"]
    assert second.offset == 5
    assert recorder.data_digest().sha256 == hashlib.sha256(b"firstsecond").hexdigest()
    assert (recorder.stored_bytes, recorder.unused_bytes) == (11, 5)


def test_what_is_stored_of_units_without_a_line_is_in_one_of_its_own() -> None:
    """Of one that waits for a frame, and of the one that is being read, what was not asked for before."""
    written, later = NewFrame(b"written", raw_bytes=300), NewFrame(raw_bytes=100)
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(4)]
    places = [NewPlace(written, 0), NewPlace(later, 0), NewPlace(written, 100), NewPlace(written, 200)]
    extents = [Extents([100], [digest], [place]) for digest, place in zip(digests, places, strict=True)]
    items: list[Sealed] = [written, extents[0], extents[1], UnitEnd("group", []), extents[2], extents[3]]
    recorder, found = Recorder(ID, Silent()), list[bytes | None]()
    recorder.on_stored = lambda: found.append(recorder.begun_line())
    for _ in recorder.data(item for item in items):
        pass
    asked = [b"".join(piece.digests for piece in next(read_units([line])).pieces) if line else b"" for line in found]
    assert asked == [
        b"", digests[0], b"", digests[0], digests[0] + digests[2], digests[0] + digests[3]
    ]  # fmt: skip
