"""What of an earlier backup is known: each frame of its units by digest, and nothing else."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from volback.archive.parent import known_frames, no_frame, no_unit
from volback.archive.plan import PlannedUnit
from volback.catalog.model import Frame, Unit

ID = "20261122T160254Z-aaaa"
DIGESTS = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(20)]
FRAMES = st.builds(Frame, st.just(ID), st.integers(0, 10**9), st.integers(1, 99), st.just(7), st.sampled_from(DIGESTS))
UNITS = st.lists(st.builds(Unit, st.just("file"), st.lists(FRAMES, max_size=5), st.just([])), max_size=5)


@given(UNITS)
def test_each_digest_gives_the_first_frame_that_has_it(units: list[Unit]) -> None:
    known = known_frames(iter(units))
    frames = [frame for unit in units for frame in unit.frames]
    for digest in DIGESTS:
        assert known(digest) == next((frame for frame in frames if frame.sha256 == digest), None)


def test_by_default_nothing_is_known() -> None:
    assert known_frames([])(DIGESTS[0]) is None
    assert no_frame(DIGESTS[0]) is None
    assert no_unit(PlannedUnit("file", 0, 1)) is None
