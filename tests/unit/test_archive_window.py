"""The window: whatever is peeked, skipped and taken, in buffers of whatever size, no byte is lost or moved."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.archive import pieces
from volback.archive.window import Window
from volback.errors import IntegrityError

DATA = bytes(number * number % 251 for number in range(5000))
STEPS = st.lists(st.tuples(st.sampled_from(["peek", "skip", "take", "take some", "last"]), st.integers(0, 700)))
BUFFERS = st.lists(st.integers(1, 900), min_size=1, max_size=4)


def _joined(parts: list[memoryview]) -> bytes:
    return b"".join(parts)


@settings(deadline=None, max_examples=200)
@given(STEPS, BUFFERS)
def test_what_is_peeked_taken_and_seen_again_are_the_bytes_at_their_place(
    steps: list[tuple[str, int]], buffers: list[int]
) -> None:
    window, taken, at = Window(pieces(DATA, buffers)), 0, 0
    for action, wanted in steps:
        held = at - taken
        if action == "peek" and at + wanted <= len(DATA):
            assert window.peek(wanted) == DATA[at : at + wanted]
        elif action == "skip" and at + wanted <= len(DATA):
            window.skip(wanted)
            at += wanted
        elif action == "take":
            assert _joined(window.take()) == DATA[taken:at]
            taken = at
        elif action == "take some":
            size = min(wanted, held)
            assert _joined(window.take(size)) == DATA[taken : taken + size]
            taken += size
        elif action == "last":
            size = min(wanted, held)
            assert bytes(window.last(size)) == DATA[at - size : at]
        assert (window.offset, window.held) == (at, at - taken)
    assert _joined(window.take()) == DATA[taken:at]


@pytest.mark.parametrize("buffers", [[5000], [1], [7], [999, 1]])
def test_the_last_bytes_are_seen_in_one_piece_and_still_held(buffers: list[int]) -> None:
    """However many buffers they came in, and after what was before them has been taken."""
    window = Window(pieces(DATA, buffers))
    window.skip(3000)
    assert bytes(window.last(3000)) == DATA[:3000]
    assert _joined(window.take(1000)) == DATA[:1000]
    assert bytes(window.last(2000)) == DATA[1000:3000]
    assert bytes(window.last(1)) == DATA[2999:3000]
    window.peek(1500)
    assert bytes(window.last(2000)) == DATA[1000:3000], "what was peeked is not stepped over"
    window.skip(500)
    assert bytes(window.last(600)) == DATA[2900:3500]
    assert _joined(window.take()) == DATA[1000:3500]


def test_what_was_seen_stays_as_it_was_while_the_window_moves_on() -> None:
    """Extents are looked at in threads, later."""
    window = Window(pieces(DATA, [600]))
    window.skip(550)
    seen, held = window.last(550), window.take()
    window.skip(3000)
    window.peek(1000)
    window.take()
    assert bytes(seen) == _joined(held) == DATA[:550]


def test_a_stream_that_ends_before_the_wanted_byte_is_refused() -> None:
    window = Window(pieces(DATA, [600]))
    window.skip(4999)
    with pytest.raises(IntegrityError, match="ended"):
        window.skip(2)
    window = Window(pieces(DATA, [600]))
    with pytest.raises(IntegrityError, match="ended"):
        window.peek(5001)
