"""A sparse member's data becomes the file again, and a map that lies is refused."""

from __future__ import annotations

import os
import subprocess
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volback.archive import sparse, tar
from volback.errors import IntegrityError


def packed(pieces: list[tuple[int, bytes]]) -> bytes:
    numbers = [len(pieces), *(number for offset, data in pieces for number in (offset, len(data)))]
    lines = b"".join(b"%d\n" % number for number in numbers)
    return lines.ljust(tar.padded(len(lines)), b"\0") + b"".join(data for _, data in pieces)


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=2000)), max_size=60),
    st.integers(0, 3_000_000),
    st.integers(1, 700),
)
def test_pieces_stand_where_the_map_says_and_zeros_elsewhere(
    gaps: list[tuple[int, bytes]], tail: int, cut: int
) -> None:
    expected = b""
    pieces = []
    for gap, data in gaps:
        pieces.append((len(expected) + gap, data))
        expected += bytes(gap) + data
    expected += bytes(tail)
    stream = packed(pieces)
    buffers = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    assert b"".join(sparse.expand(buffers, len(expected))) == expected


def test_it_reads_what_gnu_tar_writes(tmp_path: Path) -> None:
    path = tmp_path / "holes"
    with path.open("wb") as file:
        for at in range(0, 40_000_000, 1_000_000):  # a map of more than one block
            os.pwrite(file.fileno(), b"piece at %d" % at, at)
        os.truncate(file.fileno(), 45_000_000)
    done = subprocess.run(
        ["tar", "--create", "--format=posix", "--sparse", "-C", tmp_path, "holes"], capture_output=True, check=True
    )
    header = tar.read_header(done.stdout)
    assert sparse.is_sparse(header)
    data = done.stdout[header.header_bytes : header.header_bytes + header.data_bytes]
    assert len(data) < 1_000_000
    assert b"".join(sparse.expand([data], header.size_bytes)) == path.read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1\n0\n",
        b"x\n".ljust(512, b"\0"),
        b"9" * 600,
        b"-1\n".ljust(512, b"\0"),
        packed([(0, b"a"), (0, b"b")]),
        packed([(90, b"past the end of the file")]),
        packed([(0, b"cut short")])[:-3],
    ],
)
def test_a_map_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        list(sparse.expand([data], 100))


def test_another_sparse_format_is_refused_by_name() -> None:
    header = tar.Header(b"f", "f", b"", 0, 512, 0, {b"GNU.sparse.realsize": b"1", b"GNU.sparse.major": b"0"})
    with pytest.raises(IntegrityError, match="unknown tar format"):
        sparse.is_sparse(header)


def test_a_map_of_more_pieces_than_a_file_may_have_is_refused_at_once() -> None:
    endless = repeat(b"%d\n" % (sparse.PIECES_MAX + 1) + b"0\n" * 1000)
    with pytest.raises(IntegrityError, match="a sparse file of 8388609 pieces"):
        next(sparse.expand(endless, 10))
