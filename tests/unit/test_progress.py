"""The line of progress: what it says of a stage."""

from __future__ import annotations

from rich.progress import Progress

from volback.cli.progress import Bar

GIB = 1 << 30


def facts(bar: Bar) -> str:
    drawn = bar._drawn
    assert isinstance(drawn, Progress)
    (task,) = drawn.tasks
    return str(task.fields["facts"])


def test_a_move_shows_the_rates_of_both_ends() -> None:
    bar = Bar()
    try:
        bar.start("move db", total_bytes=10 * GIB, total_files=None)
        bar.advance(raw_bytes=3 * GIB)
        assert facts(bar).count("/s") == 1
        bar.advance(sent_bytes=GIB)
        said = facts(bar)
    finally:
        bar.stop()
    size, read, sent = said.split("  ")
    assert (size, read.endswith("/s read"), sent.endswith("/s sent")) == ("3.0 GiB", True, True)
    assert read.split()[0] != sent.split()[0]
