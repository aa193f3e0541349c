"""Rest: what a target that holds a part of the source still lacks, after a connection was lost or a run died.

What the scans of both sides say alike is read on both, each on its own host, and compared by digest. All else is sent,
and what the source does not have is removed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack

from volback.archive.plan import Plan
from volback.engine.streams import VolumeReader
from volback.errors import VolbackError
from volback.moving.delta import Delta, above, remainder
from volback.moving.proof import compare_whole, digest_read, opened_digest, prove_delta
from volback.moving.transfer import Route, Transferred
from volback.operations.prove import Comparison
from volback.operations.removal import remove_paths
from volback.operations.volumes import scan
from volback.threads import in_thread

log = logging.getLogger(__name__)

_PARTS = 16
"""Where content differs, it is compared once more in so many parts, and those that differ are sent."""
_NAMES = 1000


def send_rest(
    route: Route, reader: VolumeReader, plan: Plan, unproven: Set[bytes] | None = None, *, digested: bool
) -> tuple[Delta, Transferred]:
    """Bring the target to what the plan says. Raises EngineError.

    `unproven`: paths whose content is compared; None: that of all.
    """
    rest = _compared(route, plan, unproven)
    route.traffic.missing_bytes = rest.raw_bytes
    if rest.gone:
        remove_paths(route.target.engine, route.run, route.target.volume, rest.gone)
    if not rest.sent:
        return rest, Transferred(len(plan.records), 0, plan.sockets, b"")
    with route.opened_writer() as writer:
        return rest, route.transfer(reader, writer, plan, rest, digested=digested)


def prove_sent(route: Route, changed: Delta, done: Transferred) -> bool:
    """Whether the target has the content that was sent; the source may have changed since. Raises EngineError."""
    if not changed.sent:
        return True
    with opened_digest(route, route.target) as reader:
        return digest_read(route.ctx, reader, changed.names(scan(reader, []))) == done.digest


def prove_rest(route: Route, plan: Plan, changed: Delta, done: Transferred) -> Comparison:
    """Compare both sides once what was missing is sent: what was there already has been compared by content.

    Raises EngineError.
    """
    with opened_digest(route, route.target) as reader:
        if prove_delta(route, reader, plan, changed, done):
            return Comparison([], [], [])
    return compare_whole(route, done.unset)


def _compared(route: Route, plan: Plan, unproven: Set[bytes] | None) -> Delta:
    with opened_digest(route, route.target) as there:
        found = remainder(plan, scan(there, []))
        alike = [number for number in found.alike if unproven is None or plan.entry(number).path in unproven]
        log.debug("%d files differ, %d are compared by content", len(found.delta.sent), len(alike))
        if _are_equal(route, plan, alike, there):
            return found.delta
    differing = list[int]()
    for part in _parts(plan, alike):
        with opened_digest(route, route.target) as there:
            scan(there, [])
            differing += [] if _are_equal(route, plan, part, there) else part
    return _and_also(found.delta, plan, differing)


def _are_equal(route: Route, plan: Plan, numbers: Sequence[int], there: VolumeReader) -> bool:
    """Whether both sides give the same stream of these records."""
    if not numbers:
        return True
    route.ctx.progress.start(f"compare {route.target.volume.name}", total_bytes=None, total_files=None)
    theirs, errors = list[bytes](), list[VolbackError]()

    def digest() -> None:
        try:
            theirs.append(digest_read(None, there, _names(plan, numbers)))
        except VolbackError as exc:
            errors.append(exc)

    with ExitStack() as stack:
        here = stack.enter_context(opened_digest(route, route.source))
        scan(here, [])
        joined = in_thread(digest, "digest-target", daemon=True)
        ours = digest_read(route.ctx, here, _names(plan, numbers))
        joined()
    if errors:
        raise errors[0]
    return theirs == [ours]


def _parts(plan: Plan, numbers: Sequence[int]) -> Iterator[list[int]]:
    """Yield them in parts of about the same size; names of one inode stay together."""
    limit = max(1, sum(1 + plan.entry(number).size_bytes for number in numbers) // _PARTS)
    part, size, last = list[int](), 0, None
    for number in numbers:
        entry = plan.entry(number)
        inode = (entry.device, entry.inode)
        if size >= limit and inode != last:
            yield part
            part, size = [], 0
        part.append(number)
        size, last = size + 1 + entry.size_bytes, inode
    if part:
        yield part


def _and_also(delta: Delta, plan: Plan, numbers: Sequence[int]) -> Delta:
    entries = [plan.entry(number) for number in numbers]
    sent = set(delta.sent)
    for entry in entries:
        sent.update((entry.path, *above(entry.path)))
    return Delta(frozenset(sent), delta.gone, delta.raw_bytes + sum(entry.size_bytes for entry in entries))


def _names(plan: Plan, numbers: Sequence[int]) -> Iterator[bytes]:
    """Yield what tar reads from its list."""
    for start in range(0, len(numbers), _NAMES):
        yield b"".join(b"./%s\0" % plan.entry(number).path for number in numbers[start : start + _NAMES])
