"""The recorder: what is stored, what the index says of it, and totals that add up."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from volback.archive.codec import ZstdCodec, decompress
from volback.archive.cut import Cut, RawFrame, Reused, UnitEnd
from volback.archive.record import Recorder
from volback.archive.seal import Sealed, SealedFrame, seal
from volback.catalog.index import read_units
from volback.catalog.model import Frame, Unit
from volback.progress import Silent

ID, OLD, OLDER = "20261123T160254Z-3f9c", "20261122T160254Z-aaaa", "20261121T160254Z-bbbb"
NEW = st.binary(min_size=1, max_size=30).map(
    lambda stored: SealedFrame(stored, 100 + len(stored), hashlib.sha256(stored).hexdigest())
)
KNOWN = st.builds(
    Frame,
    st.sampled_from([OLD, OLDER]),
    st.integers(0, 999),
    st.integers(1, 99),
    st.integers(1, 99),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
).map(Reused)
UNITS = st.lists(st.lists(NEW | KNOWN, min_size=1, max_size=4), max_size=5)


class _Counted(Silent):
    """Progress that adds up."""

    raw_bytes = stored_bytes = 0

    def advance(self, *, raw_bytes: int = 0, stored_bytes: int = 0, files: int = 0) -> None:
        self.raw_bytes += raw_bytes
        self.stored_bytes += stored_bytes


@given(UNITS)
def test_only_what_is_new_is_stored_and_the_index_has_all(made: list[list[SealedFrame | Reused]]) -> None:
    items: list[Sealed] = [item for unit in made for item in (*unit, UnitEnd("group", []))]
    progress = _Counted()
    recorder = Recorder(ID, progress)
    data = b"".join(recorder.data(item for item in items))
    buffers, index_digest = recorder.index()
    index = b"".join(buffers)
    assert data == b"".join(item.stored for item in items if isinstance(item, SealedFrame))
    assert recorder.data_digest().sha256 == hashlib.sha256(data).hexdigest()
    assert recorder.data_digest().size_bytes == recorder.stored_bytes == progress.stored_bytes == len(data)
    assert (index_digest.size_bytes, index_digest.sha256) == (len(index), hashlib.sha256(index).hexdigest())
    units = list(read_units(decompress(index, what="index")))
    assert [len(unit.frames) for unit in units] == [len(unit) for unit in made]
    frames = [frame for unit in units for frame in unit.frames]
    for frame, item in zip(frames, (item for unit in made for item in unit), strict=True):
        if isinstance(item, Reused):
            assert frame == item.frame
        else:
            assert data[frame.offset :][: frame.stored_bytes] == item.stored
            assert (frame.backup, frame.raw_bytes, frame.sha256) == (ID, item.raw_bytes, item.sha256)
    assert recorder.depends_on == {frame.backup for frame in frames} - {ID}
    assert recorder.reused_bytes == sum(frame.raw_bytes for frame in frames if frame.backup != ID)
    assert progress.raw_bytes == sum(frame.raw_bytes for frame in frames)
    assert recorder.stream_digest() == hashlib.sha256(bytes.fromhex("".join(f.sha256 for f in frames))).hexdigest()


def test_a_frame_of_this_backup_is_not_a_dependency() -> None:
    """A frame may come again within one backup."""
    recorder = Recorder(ID, Silent())
    again = Reused(Frame(ID, 0, 3, 9, hashlib.sha256(b"x").hexdigest()))
    items: list[Sealed] = [SealedFrame(b"abc", 9, hashlib.sha256(b"x").hexdigest()), again]
    assert list(recorder.data(item for item in items)) == [b"abc"]
    assert (recorder.depends_on, recorder.reused_bytes, recorder.stored_bytes) == (set(), 0, 3)


def test_index_of_nothing_is_empty() -> None:
    buffers, _ = Recorder(ID, Silent()).index()
    assert list[Unit](read_units(decompress(b"".join(buffers), what="index"))) == []


def test_closed_early_it_leaves_no_thread() -> None:
    """As where a store fails: what it reads from is closed too, down to the cutter."""
    closed: list[bool] = []

    def cuts() -> Iterator[Cut]:
        try:
            while True:
                yield RawFrame([memoryview(b"x" * 1000)])
        finally:
            closed.append(True)

    data = Recorder(ID, Silent()).data(seal(cuts(), ZstdCodec(), threads=2))
    assert next(data)
    data.close()
    assert closed == [True]
    assert [thread for thread in threading.enumerate() if thread.name.startswith("frames")] == []
