"""Foreign archives: recognized by their first bytes, whole or refused, and never more in memory than is said."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from volback.archive.decompress import ForeignArchive
from volback.errors import FormatError, IntegrityError, VolbackError

MIB = 1024 * 1024
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": bz2.compress,
}


def _tar(size: int = 5000) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = size
        archive.addfile(info, io.BytesIO(b"x" * size))
    return out.getvalue()


def _read(data: bytes) -> tuple[str, bytes, bool]:
    archive = ForeignArchive(io.BytesIO(data), "archive x")
    return archive.compression, b"".join(archive.stream()), archive.has_end


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("size", [0, 5000, 3 * MIB + 1])
def test_archive_comes_out_as_it_went_in(name: str, size: int) -> None:
    assert _read(COMPRESSIONS[name](_tar(size))) == (name, _tar(size), True)


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
def test_streams_laid_end_to_end_are_one_archive(name: str) -> None:
    compress, data = COMPRESSIONS[name], _tar()
    joined = b"".join(compress(data[at : at + 700]) for at in range(0, len(data), 700))
    assert _read(joined) == (name, data, True)


def test_zstd_frames_without_data_are_passed_over() -> None:
    skippable = b"\x5a\x2a\x4d\x18\x05\0\0\0hello"
    compressed = COMPRESSIONS["zstd"](_tar())
    assert _read(skippable + compressed + skippable) == ("zstd", _tar(), True)


def test_xz_padding_is_passed_over() -> None:
    assert _read(COMPRESSIONS["xz"](_tar()) + bytes(8)) == ("xz", _tar(), True)


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
def test_compressed_archive_cut_anywhere_is_refused(name: str) -> None:
    whole = COMPRESSIONS[name](_tar())
    for size in range(1, len(whole)):
        with pytest.raises((IntegrityError, FormatError)):
            _read(whole[:size])


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
def test_garbage_behind_is_never_read_as_data(name: str) -> None:
    try:
        _, data, _ = _read(COMPRESSIONS[name](_tar()) + b"garbage that is not a stream")
    except IntegrityError:
        return
    assert data == _tar()


def test_plain_archive_that_ends_between_members_has_no_end() -> None:
    assert _read(_tar()[: 512 + 5120])[2] is False
    assert _read(_tar())[2] is True


def test_empty_archive_is_one() -> None:
    assert _read(bytes(10_240)) == ("", bytes(10_240), True)


@given(st.binary(max_size=2000) | st.binary(max_size=2000).map(lambda data: b"\x28\xb5\x2f\xfd" + data))
def test_garbage_gives_only_our_errors(data: bytes) -> None:
    with pytest.raises(VolbackError, match="archive x"):
        _read(data)


@pytest.mark.parametrize(
    ("name", "size_mib", "peak_mib"), [("gzip", 100, 32), ("zstd", 300, 150), ("xz", 100, 64), ("bzip2", 100, 32)]
)
def test_bomb_is_read_in_bounded_memory(name: str, size_mib: int, peak_mib: int) -> None:
    """A window of zstd may be 128 MiB, so its bomb is larger."""
    bomb = COMPRESSIONS[name](_tar(size_mib * MIB))
    assert len(bomb) < MIB
    tracemalloc.start()
    try:
        archive = ForeignArchive(io.BytesIO(bomb), "bomb")
        size = sum(len(buffer) for buffer in archive.stream())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > size_mib * MIB
    assert peak < peak_mib * MIB


def test_zstd_window_beyond_128_mib_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stored = compressor.compress(_tar(1000)) + compressor.flush()
    with pytest.raises(IntegrityError, match="damaged or cut short"):
        _read(stored)
