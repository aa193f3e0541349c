"""Files: a single file that containers mount, moved beside the volumes and directories of its project.

It is copied once, after the stop where there is one: into its part (see single_files), which takes the place of the
file when it is whole and on disk. So the target has the former file or the new one, whatever dies in between, and a
move that lost an engine writes the part anew.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from volback.archive.plan import Plan, learn
from volback.archive.verdicts import Verdicts
from volback.archive.walk import Signature
from volback.catalog.model import Source
from volback.engine.containers import Container
from volback.engine.streams import VolumeReader, VolumeWriter
from volback.errors import ConflictError, NotFoundError
from volback.live.quiesce import Quiesced
from volback.moving.again import is_untouched
from volback.moving.member import EXISTS_HINT, Member
from volback.moving.migrate import check_unwritten
from volback.moving.move import Moved, PassDone
from volback.moving.passes import NOTHING
from volback.moving.proof import digest_read, opened_digest, opened_proof
from volback.moving.sides import Side
from volback.moving.stopped import check_undisturbed, ended
from volback.moving.targets import safety_backup
from volback.moving.transfer import Transferred, read_arguments
from volback.operations.directories import make_directories
from volback.operations.in_use import UnusedStorage
from volback.operations.observe import Observer
from volback.operations.prove import Comparison, compare_signatures, signatures
from volback.operations.single_files import (
    REGULAR,
    Found,
    found_by,
    open_renamer,
    part_of,
    remove_part,
    rename_with,
)
from volback.operations.volumes import open_reader
from volback.policy.unchanged import is_settled
from volback.state.journal import NewFile

_IDENTICAL = Comparison([], [], [])


@dataclass(frozen=True, slots=True)
class _Helpers:
    """Those that wait while the containers are stopped."""

    reader: VolumeReader
    writer: VolumeWriter
    renamer: VolumeWriter
    prover: VolumeReader | None
    """Where a proof is wanted."""
    stack: ExitStack


class FileMember(Member):
    """One file of several volumes, directories and files, on its way."""

    _plan: Plan
    """Of the source as it was looked at first."""
    _observer: Observer
    _is_there = False
    """Whether something is there that may be replaced, or is the same."""
    _is_same = False
    """Whether that was what the source was then."""
    _safety: str | None = None
    _ready: _Helpers | None = None
    _started = False

    @property
    def _has_begun(self) -> bool:
        return self._started

    @property
    def _is_ready(self) -> bool:
        return self._ready is not None

    def _begin(self) -> None:
        self._began = time.monotonic()
        if self._options.stopping is None:
            check_unwritten(self._ctx, self.source)
        self._observer = Observer(self.source.engine, self.source.volume)
        self._is_same = self._compared()
        engine, path = self._target.engine, self._target.volume.name
        if self._is_same and self._options.stopping is None:
            UnusedStorage(engine, self._target.volume).check()
            self.moved = self._result(None, _IDENTICAL, [], pass_s=0.0)
            return
        if self._is_there:
            unused = UnusedStorage(engine, self._target.volume)
            self._making.enter_context(unused.replacing(done="filled", again="move it again"))
            if not self._is_same:
                self._allow_replacement()
        entry = NewFile(engine=engine.info.id, host=engine.info.name, path=part_of(path))
        self._making.enter_context(self._route.run.begun(entry, undo=self._undone))
        self._started = True

    def _undone(self) -> bool:
        """Whether nothing is left of what was written."""
        run, part = self._route.run, part_of(self._target.volume.name)
        if self._connections.gave_up:
            return False
        return remove_part(self._target.engine, part, run=run.id, directory=run.scratch("part"))

    def _compared(self) -> bool:
        """Whether both sides are the same bit for bit. What is there must be a file, or nothing; the directory above is
        made. Raises ConflictError, NotFoundError."""
        route, target = self._route, self._target
        with ExitStack() as helpers:
            here = helpers.enter_context(opened_digest(route, self.source))
            mine = _regular(self.source, found_by(here))
            self._plan = mine.plan
            try:
                there = helpers.enter_context(opened_digest(route, target))
            except NotFoundError:
                make_directories(self._ctx, target.engine, route.run, _above(target))
                return False
            found = found_by(there)
            if found is None:
                return False
            self._check_replaceable(mine, found)
            self._is_there = True
            if not _are_alike(mine, found):
                return False
            digests = [
                digest_read(self._ctx, one, plan.names()) for one, plan in ((here, mine.plan), (there, found.plan))
            ]
            # the header of a sparse file has its name
            return digests[0] == digests[1] or self._signatures(self.source) == self._signatures(target)

    def _check_replaceable(self, mine: Found, there: Found) -> None:
        target = self._target
        if there.what != REGULAR:
            raise ConflictError(
                f"{target.what} exists already, and is a {there.what}",
                "remove it there first, or name another place with --map",
            )
        ours, theirs = mine.entry, there.entry
        if (ours.inode, ours.ctime_ns) == (theirs.inode, theirs.ctime_ns):
            raise ConflictError(
                f"{target.what} is the same file on both engines: they are on one host",
                "leave out --with-binds, or name another place with --map",
            )

    def _allow_replacement(self) -> None:
        """Back up what is there, unless an earlier run has put it there. Raises ConflictError."""
        how = self._options.replace
        if how is None:
            if not is_untouched(self._ctx, self._route.run, self._target):
                raise ConflictError(f"{self._target.what} exists already, and is another one", EXISTS_HINT)
        elif how.safety_backup:
            self._safety = safety_backup(self._ctx, self._target, how)

    def _get_ready(self) -> None:
        if self._ready is None:
            self._ready = self._helping.enter_context(self._waiting())

    @contextmanager
    def _waiting(self) -> Iterator[_Helpers]:
        ready = self._connections.through(lambda again: self._opened(again=again))
        with ended(ready.stack), self._observer.observing():
            yield ready

    def _opened(self, *, again: bool) -> _Helpers:
        route, target = self._route, self._target
        with ExitStack() as opening:
            reader = opening.enter_context(route.opened_reader(rescan=True))
            learn(reader.scan(), Verdicts([]))
            writer = opening.enter_context(route.opened_writer())
            renaming = open_renamer(target.engine, route.run, target.volume, replace=self._is_there, may_be_done=again)
            renamer = opening.enter_context(renaming)
            prover = opening.enter_context(opened_proof(route)) if self._options.prove else None
            if prover is not None:
                learn(prover.scan(), Verdicts([]))
            return _Helpers(reader, writer, renamer, prover, opening.pop_all())

    def _helpers_now(self, *, again: bool) -> _Helpers:
        """Those that wait; `again`: new ones, as they went with an engine that was lost."""
        if again:
            self._ready = self._opened(again=True)
            self._helping.enter_context(ended(self._ready.stack))
        assert self._ready is not None
        return self._ready

    def _finish(self, quiesced: Quiesced | None) -> None:
        stopped, began = self.stopped(quiesced), time.monotonic()
        self._observer.begin()
        done = self._connections.through(lambda again: self._sent(self._helpers_now(again=again)))
        self._observer.end()
        if quiesced is not None:
            check_undisturbed(self._connections, self._observer, self.source, quiesced, stopped)
        proof = _IDENTICAL if self._options.prove else None
        if done is not None:
            proof = self._connections.through(lambda again: self._placed(done, self._helpers_now(again=again)))
        self._making.close()
        self.moved = self._result(done, proof, stopped, pass_s=time.monotonic() - began)

    def _sent(self, ready: _Helpers) -> Transferred | None:
        """Write the part; nothing where the same is there, and the source has not changed since."""
        found = _regular(self.source, found_by(ready.reader))
        if self._is_same and found.entry == self._plan.entry(0):
            plan = found.plan
            if is_settled(found.entry.ctime_ns, self._plan, plan.filesystem) or self._compared():
                return None
        return self._route.transfer(ready.reader, ready.writer, found.plan, digested=self._options.prove)

    def _placed(self, done: Transferred, ready: _Helpers) -> Comparison | None:
        """Let the part take the file's place, and compare what is there then."""
        rename_with(ready.renamer, self._target.volume)
        if ready.prover is None:
            return None
        found = found_by(ready.prover)
        if found is not None and digest_read(self._ctx, ready.prover, found.plan.names()) == done.digest:
            return _IDENTICAL
        unset = {name for name, _ in done.unset}
        return _named(
            self.source,
            compare_signatures(
                self._signatures(self.source), self._signatures(self._target), lambda name, path: name in unset
            ),
        )

    def _signatures(self, side: Side) -> dict[bytes, Signature]:
        route = self._route
        read = read_arguments(side.volume, route.drop)
        with open_reader(side.engine, route.run, side.volume, read=read) as reader:
            found = found_by(reader)
            return {} if found is None else signatures(reader.read(found.plan.names()))

    def _result(
        self, done: Transferred | None, proof: Comparison | None, stopped: list[Container], *, pass_s: float
    ) -> Moved:
        sent = done or NOTHING
        part, name = (posixpath.basename(path) for path in (part_of(self._target.volume.name), self.name))
        unset = [line.replace(part, name) for line in sent.unset_warnings]
        incomplete = (*sent.read_warnings, *unset)
        passes = () if done is None else (PassDone(False, sent.raw_bytes, sent.sent_bytes, pass_s),)
        return Moved(
            self.source.volume,
            self._target.volume,
            files=1,
            raw_bytes=sent.raw_bytes,
            sockets=0,
            consistency=self._observer.consistency("stopped"),
            containers=tuple(sorted(container.name for container in stopped)),
            proof=proof,
            sent_bytes=sent.sent_bytes,
            duration_s=time.monotonic() - self._began,
            passes=1,
            each_pass=passes,
            retries=self._connections.retries,
            safety_backup=self._safety,
            warnings=(*self._observer.notices(but=[]), *incomplete),
            was_there=done is None,
            incomplete=bool(incomplete),
        )


def _regular(side: Side, found: Found | None) -> Found:
    if found is None:
        raise NotFoundError(f"{side.what} does not exist any more")
    if found.what != REGULAR:
        raise ConflictError(f"{side.what} is a {found.what} now, and not moved", "move the project again")
    return found


def _are_alike(one: Found, other: Found) -> bool:
    """Whether both scans say the same of the file, but for where it lies."""
    facts = [
        (found.entry.mode, found.entry.uid, found.entry.gid, found.entry.mtime_ns, found.entry.size_bytes)
        for found in (one, other)
    ]
    return facts[0] == facts[1]


def _above(side: Side) -> Source:
    return Source(kind="directory", name=posixpath.dirname(side.volume.name))


def _named(side: Side, found: Comparison) -> Comparison:
    """With the file's own name, which the streams do not have."""
    name = [posixpath.basename(side.volume.name)]
    return replace(
        found,
        different=name if found.different else [],
        missing=name if found.missing else [],
        extra=name if found.extra else [],
        lacking=dict.fromkeys(found.lacking, name),
    )
