"""The codec of frames: what is sealed opens again, and nothing else ever comes out of a frame, whatever the codec."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from volback.archive.codec import Compressor, FrameCodec, ZstdCodec, decompress, open_frame
from volback.catalog.model import FRAME_MAX_BYTES, Frame
from volback.errors import IntegrityError

ID = "20261123T160254Z-3f9c"
CODEC = ZstdCodec()
CONTENTS = st.lists(st.binary(max_size=3000), min_size=1, max_size=12)


def _sealed(contents: list[bytes], codec: FrameCodec = CODEC) -> tuple[bytes, list[Frame]]:
    """A data object and its frames."""
    data, frames = b"", []
    for content in contents:
        stored = codec.seal(content)
        frames.append(Frame(ID, len(data), len(stored), len(content), hashlib.sha256(content).hexdigest()))
        data += stored
    return data, frames


@settings(deadline=None)
@given(CONTENTS)
def test_frames_open_to_what_was_sealed_and_joined_are_one_zstd_file(contents: list[bytes]) -> None:
    data, frames = _sealed(contents)
    assert [open_frame(CODEC, frame, data[frame.offset :][: frame.stored_bytes]) for frame in frames] == contents
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    assert reader.read() == b"".join(contents)


@pytest.mark.programs
def test_zstd_itself_reads_the_frames() -> None:
    data, _ = _sealed([b"one", b"", b"two" * 100_000])
    assert (
        subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout == b"one" + b"two" * 100_000
    )


def test_every_flipped_byte_and_every_shorter_frame_is_refused() -> None:
    data, (frame,) = _sealed([b"some content " * 20])
    refused = 0
    for at in range(len(data)):
        for bit in range(8):
            try:
                raw = open_frame(CODEC, frame, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            except IntegrityError:
                refused += 1
            else:  # a bit that means nothing to zstd, of which there are few: what comes out is right
                assert raw == b"some content " * 20
        with pytest.raises(IntegrityError, match="cut short"):
            open_frame(CODEC, frame, data[:at])
    assert refused > 7.5 * len(data)


@pytest.mark.parametrize(
    "change",
    [
        {"raw_bytes": 259},
        {"raw_bytes": 261},
        {"raw_bytes": FRAME_MAX_BYTES + 1},
        {"sha256": hashlib.sha256(b"other").hexdigest()},
        {"stored_bytes": 1},
    ],
)
def test_frame_that_is_not_what_the_index_says_is_refused(change: dict[str, Any]) -> None:
    data, (frame,) = _sealed([b"some content " * 20])
    with pytest.raises(IntegrityError):
        open_frame(CODEC, frame._replace(**change), data)


def test_frame_that_holds_far_more_than_it_says_costs_nothing() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * 1024 * 1024))
    honest = hashlib.sha256(b"x").hexdigest()
    with pytest.raises(IntegrityError, match="damaged"):
        open_frame(CODEC, Frame(ID, 0, len(bomb), 1000, honest), bomb)


def test_two_frames_where_one_must_be_are_refused() -> None:
    data, frames = _sealed([b"one", b"two"])
    both = frames[0]._replace(stored_bytes=len(data))
    with pytest.raises(IntegrityError):
        open_frame(CODEC, both, data)


@given(st.lists(st.binary(max_size=500), max_size=10))
def test_index_compresses_and_comes_back(parts: list[bytes]) -> None:
    compressor = Compressor()
    for part in parts:
        compressor.feed(part)
    stored = b"".join(compressor.end())
    assert b"".join(decompress(stored, what="index")) == b"".join(parts)


def test_damaged_index_is_named() -> None:
    compressor = Compressor()
    compressor.feed(b"line\n" * 1000)
    stored = bytearray(b"".join(compressor.end()))
    stored[len(stored) // 2] ^= 0x40
    with pytest.raises(IntegrityError, match="index of volume"):
        list(decompress(bytes(stored), what="index of volume"))


class _Liar:
    """A codec that gives back something else than was sealed, and says nothing of it."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def seal(self, raw: bytes | memoryview) -> bytes:
        return bytes(raw)

    def unseal(self, stored: bytes | memoryview, raw_bytes: int) -> bytes:
        return self._answer


@pytest.mark.parametrize("answer", [b"", b"conten", b"contenT", b"content ", b"content" * 10**6])
def test_no_codec_is_believed(answer: bytes) -> None:
    codec: FrameCodec = _Liar(answer)
    data, (frame,) = _sealed([b"content"], codec)
    with pytest.raises(IntegrityError, match=f"frame at 0 of backup {ID} is damaged"):
        open_frame(codec, frame, data)
    assert open_frame(_Liar(b"content"), frame, data) == b"content"


@settings(deadline=None, max_examples=20)
@given(CONTENTS, st.sampled_from([1, 3, 19]))
def test_every_level_opens_with_one_reader(contents: list[bytes], level: int) -> None:
    data, frames = _sealed(contents, ZstdCodec(level))
    assert [open_frame(CODEC, frame, data[frame.offset :][: frame.stored_bytes]) for frame in frames] == contents


def test_one_codec_serves_many_threads_at_once() -> None:
    """A zstd compressor must not be shared by two threads: the codec has one for each."""
    contents = [bytes([number % 251]) * 300_000 + b"%d" % number for number in range(64)]
    barrier = threading.Barrier(8)

    def seal(number: int) -> bytes:
        if number < 8:
            barrier.wait(10)
        return CODEC.seal(contents[number])

    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(seal, range(64)))
    assert stored == [CODEC.seal(content) for content in contents]
