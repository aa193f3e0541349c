"""Progress: draws the progress of a long stage on standard error; nothing where that is not a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from volback.cli.words import human_size, printable
from volback.progress import Progress, Silent

if TYPE_CHECKING:
    import rich.progress

_STAGE_CHARS = 14


@contextmanager
def make_progress(*, shown: bool) -> Iterator[Progress]:
    """A progress for one command; its line is cleared when the command prints something."""
    if not shown:
        yield Silent()
        return
    bar = Bar()
    try:
        yield bar
    finally:
        bar.stop()


class Bar:
    """One line for the current stage: bar, bytes, files, rate (of a move, at both ends), ratio, time left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # proofs report from several threads
        self._drawn: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._began = 0.0
        self._raw_bytes = self._stored_bytes = self._files = self._sent_bytes = 0

    def start(self, stage: str, *, total_bytes: int | None, total_files: int | None) -> None:
        """See Progress."""
        try:
            drawn = self._drawn or self._draw()
        except RuntimeError:  # the machine allows no further thread, and drawing needs one
            return
        if self._task is not None:
            drawn.remove_task(self._task)
        with self._lock:
            self._began = time.monotonic()
            self._raw_bytes = self._stored_bytes = self._files = self._sent_bytes = 0
        name = printable(stage)
        name = name if len(name) <= _STAGE_CHARS else name[: _STAGE_CHARS - 1] + "…"
        self._task = drawn.add_task(name, total=total_bytes, facts="", files=total_files)

    def advance(self, *, raw_bytes: int = 0, stored_bytes: int = 0, files: int = 0, sent_bytes: int = 0) -> None:
        """See Progress."""
        with self._lock:
            self._raw_bytes += raw_bytes
            self._stored_bytes += stored_bytes
            self._files += files
            self._sent_bytes += sent_bytes
            done, facts = self._raw_bytes, self._facts()
        if self._drawn is not None and self._task is not None:
            self._drawn.update(self._task, completed=done, facts=facts)

    def stop(self) -> None:
        """Wipe the line."""
        if self._drawn is not None:
            self._drawn.stop()

    def _draw(self) -> rich.progress.Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._drawn = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=5,
        )
        self._drawn.start()
        return self._drawn

    def _facts(self) -> str:
        seconds = max(time.monotonic() - self._began, 0.1)
        facts = [human_size(self._raw_bytes)]
        if self._files:
            facts.append(f"{self._files:,} files")
        rate, sent = (f"{human_size(int(size / seconds))}/s" for size in (self._raw_bytes, self._sent_bytes))
        facts += [f"{rate} read", f"{sent} sent"] if self._sent_bytes else [rate]
        if self._stored_bytes:
            facts.append(f"{self._raw_bytes / self._stored_bytes:.1f}x")
        return "  ".join(facts)
