"""A helper that is closed lets go of its pipe: whoever still works for it writes nowhere."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from volback.engine.helper import Helper, HelperSpec
from volback.errors import EngineError


def test_giving_up_a_closed_helper_writes_into_no_other_file(tmp_path: Path) -> None:
    helper = Helper(None, HelperSpec(role="read", image="none", script="", mounts=[], capabilities=()), bytes)
    pipe = helper.ended
    helper.close(failed=True)
    with ExitStack() as files:
        opened = [files.enter_context(open(tmp_path / str(number), "wb")) for number in range(8)]
        assert pipe in {file.fileno() for file in opened}, "the numbers of the pipe are used again"
        helper.give_up(EngineError("too late"))
        assert helper.has_ended()
    assert [os.path.getsize(tmp_path / str(number)) for number in range(8)] == [0] * 8
