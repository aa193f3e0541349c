"""First pass: a source is read and stored while its containers still run, so that only what has changed since has to be
read while they are down.

What it stores is compared with the parent; the second pass is compared with what it has read. Both make one backup: one
data object, and the second pass's index. What the first pass found changed or vanished does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime

from volback.archive import tar
from volback.archive.codec import ZstdCodec
from volback.archive.cut import Cutter, PrivilegedAttribute
from volback.archive.parent import EarlierBackup, Parent, begins_of
from volback.archive.plan import Plan
from volback.archive.record import Recorder
from volback.archive.seal import seal
from volback.archive.segments import Segment
from volback.catalog.keys import BackupKey
from volback.catalog.model import ScanFacts, Source
from volback.context import Context
from volback.context.repository import Repository
from volback.engine.streams import VolumeReader
from volback.feed import Feed
from volback.operations.parent import ChosenParent, Comparing, facts_of, set_ignored, settled
from volback.operations.upload import data_upload
from volback.operations.volumes import scan, unreadable

Note = Callable[[Recorder, ScanFacts, Mapping[str, PrivilegedAttribute]], None]
"""Called before a source is read: with what records it, its scan, and the attributes that will be found."""


def note_nothing(_recorder: Recorder, _scan: ScanFacts, _found: Mapping[str, PrivilegedAttribute]) -> None:
    """What is stored is not noted."""


@dataclass(frozen=True, slots=True)
class FirstPass:
    """What was read and stored of a source while its containers ran."""

    began: datetime
    recorder: Recorder
    """It goes on with the second pass."""
    upload: Feed[bytes]
    """Of the data object, which the second pass ends."""
    segments: list[Segment]
    scan: ScanFacts
    privileged: dict[str, PrivilegedAttribute]
    """The attributes that it found: the second pass does not see those of files that it does not read."""
    passes: int = 1
    """0: it is what a killed backup had stored. Units that were not settled have no fingerprint then."""
    resumed_bytes: int = 0
    """What of its data object a killed backup had stored."""

    def compared(self, plan: Plan, comparing: Comparing) -> Parent:
        """Compare the second pass's plan with it: also where every file is to be read, as it has just been."""
        set_ignored(plan, comparing)
        is_settled = settled(self.scan, plan.filesystem) if self.passes else lambda _: True
        reread = self.scan.filesystem != plan.filesystem or (comparing.reread and not self.passes)
        return EarlierBackup(begins_of(self.segments), plan, is_settled, reread=reread)


@dataclass(frozen=True, slots=True)
class FirstReading:
    """What a first pass reads, and how."""

    source: Source
    key: BackupKey
    parent: ChosenParent
    comparing: Comparing
    excludes: list[str]
    level: int
    start: Callable[[], AbstractContextManager[VolumeReader]]
    """Starts a helper, which is removed when the pass has ended."""
    note: Note = note_nothing
    resumed: FirstPass | None = None
    """What a killed backup had stored."""


@contextmanager
def first_pass(ctx: Context, repository: Repository, wanted: FirstReading) -> Iterator[FirstPass]:
    """Read and store; if it is left before the upload has ended, nothing is. Raises EngineError, StoreError."""
    began, resumed = ctx.now(), wanted.resumed
    recorder = resumed.recorder if resumed else Recorder(wanted.key.id, ctx.progress, wanted.level)
    with (
        nullcontext(resumed.upload) if resumed else data_upload(repository.store, wanted.key.increment, recorder)
    ) as upload:
        with wanted.start() as reader:
            plan = scan(reader, wanted.excludes)
            parent = (resumed or wanted.parent).compared(plan, wanted.comparing)
            cutter = Cutter(plan, parent)
            found = cutter.report.privileged
            wanted.note(recorder, facts_of(plan), found)
            ctx.progress.start(
                f"{wanted.source.name}, first pass", total_bytes=plan.total_bytes, total_files=len(plan.records)
            )
            cuts = cutter.cut(reader.read(plan.names(parent.is_read)))
            sealed = seal(cuts, ZstdCodec(wanted.level), in_stream_order=False)
            with closing(recorder.data(sealed, parent)) as data:
                upload.add(data)
            _, failures = tar.read_warnings(reader.messages())
        if failures:
            raise unreadable(failures)
        if resumed:
            found = {**found, **resumed.privileged}
        yield FirstPass(
            began, recorder, upload, recorder.again(), facts_of(plan), found,
            resumed_bytes=resumed.resumed_bytes if resumed else 0,
        )  # fmt: skip
