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

from volback.archive.codec import (
    FrameCodec,
    ZstdCodec,
    check_extents,
    compress_lines,
    decompress,
    frame_length,
    open_frame,
)
from volback.catalog.model import FRAME_MAX_BYTES
from volback.catalog.units import Frame, Piece
from volback.errors import IntegrityError

ID = "20261123T160254Z-3f9c"
CODEC = ZstdCodec()
CONTENTS = st.lists(st.binary(max_size=3000), min_size=1, max_size=12)


def _sealed(contents: list[bytes], codec: FrameCodec = CODEC) -> tuple[bytes, list[Frame]]:
    """A data object and its frames."""
    data, frames = b"", []
    for content in contents:
        stored = codec.seal(content)
        frames.append(Frame(ID, len(data), len(stored), len(content)))
        data += stored
    return data, frames


@settings(deadline=None)
@given(CONTENTS)
def test_frames_open_to_what_was_sealed_and_joined_are_one_zstd_file(contents: list[bytes]) -> None:
    data, frames = _sealed(contents)
    assert [open_frame(CODEC, frame, data[frame.offset :][: frame.stored_bytes]) for frame in frames] == contents
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    assert reader.read() == b"".join(contents)


def test_a_frame_opens_after_one_that_did_not() -> None:
    content = bytes(range(256)) * 1000
    stored = CODEC.seal(content)
    for damaged in (stored[:-5], stored[:100] + b"x" + stored[101:], stored + b"x", b"", stored[:5] + bytes(200)):
        with pytest.raises(IntegrityError):
            CODEC.unseal(damaged, len(content))
        assert CODEC.unseal(stored, len(content)) == content


@pytest.mark.programs
def test_zstd_itself_reads_the_frames() -> None:
    data, _ = _sealed([b"one", b"", b"two" * 100_000])
    assert (
        subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout == b"one" + b"two" * 100_000
    )


def _opened(frame: Frame, stored: bytes, content: bytes, codec: FrameCodec = CODEC) -> bytes:
    """Open a frame, and verify that it holds the content, as one extent."""
    raw = open_frame(codec, frame, stored)
    check_extents(Piece(frame, 0, [len(content)], hashlib.sha256(content).digest()), raw, 0, len(content))
    return raw


def test_every_flipped_byte_and_every_shorter_frame_is_refused() -> None:
    data, (frame,) = _sealed([b"some content " * 20])
    refused = 0
    for at in range(len(data)):
        for bit in range(8):
            try:
                raw = _opened(frame, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :], b"some content " * 20)
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
        {"stored_bytes": 1},
    ],
)
def test_frame_that_is_not_what_the_index_says_is_refused(change: dict[str, Any]) -> None:
    data, (frame,) = _sealed([b"some content " * 20])
    with pytest.raises(IntegrityError):
        open_frame(CODEC, frame._replace(**change), data)


def test_frame_that_holds_far_more_than_it_says_costs_nothing() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * 1024 * 1024))
    with pytest.raises(IntegrityError, match="damaged"):
        open_frame(CODEC, Frame(ID, 0, len(bomb), 1000), bomb)


def test_two_frames_where_one_must_be_are_refused() -> None:
    data, frames = _sealed([b"one", b"two"])
    both = frames[0]._replace(stored_bytes=len(data))
    with pytest.raises(IntegrityError):
        open_frame(CODEC, both, data)


@given(st.lists(st.binary(max_size=500), max_size=10))
def test_index_compresses_and_comes_back(parts: list[bytes]) -> None:
    stored = b"".join(map(compress_lines, parts))
    assert b"".join(decompress(stored, what="index")) == b"".join(parts)
    found, rest = [], memoryview(stored)
    while rest:
        length = frame_length(rest)
        found.append(b"".join(decompress(rest[:length], what="index")))
        rest = rest[length:]
    assert found == parts


def test_damaged_index_is_named() -> None:
    stored = bytearray(compress_lines(b"line\n" * 1000))
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
        _opened(frame, data, b"content", codec)
    assert _opened(frame, data, b"content", _Liar(b"content")) == b"content"


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
            barrier.wait(60)
        return CODEC.seal(contents[number])

    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(seal, range(64)))
    assert stored == [CODEC.seal(content) for content in contents]


@pytest.mark.parametrize("content", [b"", b"x" * 1_000_000, bytes(range(256)) * 3000], ids=["empty", "one", "many"])
@pytest.mark.parametrize("checksum", [True, False])
def test_the_length_of_any_frame_is_found_without_opening_it(content: bytes, *, checksum: bool) -> None:
    """Repeated bytes become a block that is one byte long; large content several blocks."""
    stored = zstandard.ZstdCompressor(write_checksum=checksum).compress(content)
    assert frame_length(memoryview(stored + b"what follows")) == len(stored)
    for size in range(len(stored)):
        with pytest.raises(IntegrityError):
            frame_length(memoryview(stored)[:size])


def test_an_extent_is_verified_where_it_is_wanted_and_only_there() -> None:
    parts = [b"one", b"two", b"three"]
    good = b"".join(hashlib.sha256(part).digest() for part in parts)
    frame, raw = Frame(ID, 0, 1, 13), b"__onetwothree"
    check_extents(Piece(frame, 2, [3, 3, 5], good), raw, 0, 11)
    bad = good[:32] + bytes(32) + good[64:]
    check_extents(Piece(frame, 2, [3, 3, 5], bad), raw, 0, 3)
    check_extents(Piece(frame, 2, [3, 3, 5], bad), raw, 6, 11)
    for start, stop in ((0, 4), (3, 6), (5, 7), (0, 11)):
        with pytest.raises(IntegrityError, match=f"frame at 0 of backup {ID} is damaged"):
            check_extents(Piece(frame, 2, [3, 3, 5], bad), raw, start, stop)
