"""States: what each path of a backup was, as far as its index says it; no data is read.

The index has a digest of each extent. So equal content is known, and equal headers are; what a header holds that the
index does not - extended attributes, ACLs, device numbers - is known to be equal or different, and not what it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from volback.catalog.units import DIGEST_BYTES, Member, Span, Unit
from volback.errors import IntegrityError

_AHEAD_MAX = 4
"""Units of one inode each that are looked at together."""
_BLOCK = 512
"""Of a tar stream: headers and data begin at its multiples."""


@dataclass(frozen=True, slots=True, eq=False)
class HeaderGroup:
    """Members whose headers lie, entirely or partly, in the same extents."""

    digests: bytes
    """Of these extents."""
    members: dict[bytes, Member]
    """By path."""


class Header(NamedTuple):
    """Where the header of a path's inode lies."""

    path: bytes
    """The name that it has there: the first name of the inode."""
    size_bytes: int
    group: HeaderGroup


class State(NamedTuple):
    """One path, and what it was."""

    member: Member
    """A further name of an inode is what its first name is: a file, not a hard link."""
    is_linked: bool
    """Whether its inode has other names."""
    content: bytes | None
    """Digests of what a file holds; None where they are not known."""
    header: Header | None
    """None where it is not known."""
    is_further_name: bool
    """Whether its data is counted with another name."""


def states_of(unit: Unit) -> Iterator[State]:
    """Yield the state of each member of a unit, in stream order. All names of an inode are in one unit."""
    layout = _Layout(unit)
    firsts = {span.member.path: (span, data) for span, data in layout.members()}
    linked = {member.link for member in unit.members if member.type == "h"}
    for member in unit.members:
        path, is_further_name = member.path, member.type == "h" and member.link in firsts
        span, data = firsts[member.link if is_further_name else path]
        yield State(
            span.member._replace(path=path, offset=0),
            is_further_name or path in linked,
            layout.content(data, span.stop),
            layout.header(span, data),
            is_further_name,
        )


def in_order(units: Iterable[Iterable[State]], what: str) -> Iterator[State]:
    """Yield the states of all units by the parts of their paths; what a directory holds comes right after it.

    In the stream, further names of an inode come where its first name is: they wait here for their turn. Raises
    IntegrityError, which names `what`, where the units are not in order.
    """
    waiting: list[tuple[bytes, State]] = []
    last = b""
    for states, bound in _with_bounds(units):
        waiting += states
        waiting.sort(key=_key)
        stop = len(waiting) if bound is None else bisect_left(waiting, bound, key=_key)
        if stop and waiting[0][0] < last:
            raise IntegrityError(f"the index of {what} is not in the order of paths")
        for last, state in waiting[:stop]:  # noqa: B007
            yield state
        del waiting[:stop]


def path_key(path: bytes) -> bytes:
    """Sorts a path by its parts: `/` sorts before every byte of a name."""
    return path.replace(b"/", b"\0")


class _Layout:
    """Where headers and data of a unit's members lie, and in which extents."""

    def __init__(self, unit: Unit) -> None:
        self._digests = b"".join(piece.digests for piece in unit.pieces)
        self._starts = [0]
        for piece in unit.pieces:
            for size in piece.sizes:
                self._starts.append(self._starts[-1] + size)
        self._stop = self._starts.pop()
        self._spans = list(unit.spans())
        self._data = [self._data_start(span) for span in self._spans]
        self._groups: dict[tuple[int, int], HeaderGroup] = {}

    def members(self) -> Iterator[tuple[Span, int]]:
        """Yield each member, and where its header ends."""
        return zip(self._spans, self._data, strict=True)

    def content(self, start: int, stop: int) -> bytes:
        """The digests of the extents that begin between `start` and `stop`."""
        first, last = bisect_left(self._starts, start), bisect_left(self._starts, stop)
        return self._digests[first * DIGEST_BYTES : last * DIGEST_BYTES]

    def header(self, span: Span, data: int) -> Header:
        """The header between the start of a member and its data."""
        first = max(bisect_left(self._starts, span.start + 1) - 1, 0)
        last = bisect_left(self._starts, data)
        group = self._groups.get((first, last))
        if group is None:
            group = self._groups[first, last] = self._group(first, last)
        return Header(span.member.path, data - span.start, group)

    def _group(self, first: int, last: int) -> HeaderGroup:
        low = self._starts[first] if first < len(self._starts) else self._stop
        high = self._starts[last] if last < len(self._starts) else self._stop
        begin = max(bisect_left(self._spans, low, key=_start) - 1, 0)
        end = bisect_left(self._spans, high, key=_start)
        members = {
            span.member.path: span.member._replace(offset=0)
            for span, data in zip(self._spans[begin:end], self._data[begin:end], strict=True)
            if data > low
        }
        return HeaderGroup(self._digests[first * DIGEST_BYTES : last * DIGEST_BYTES], members)

    def _data_start(self, span: Span) -> int:
        """Where the data of a member begins; its stop where it has none.

        A file's data ends where its span does. Of a sparse file less is stored than its size: its header ends where an
        extent does.
        """
        member = span.member
        if member.type != "f" or not member.size_bytes:
            return span.stop
        padded = -(-member.size_bytes // _BLOCK) * _BLOCK
        if span.start + _BLOCK <= span.stop - padded:
            return span.stop - padded
        after = bisect_left(self._starts, span.start + 1)
        return min(self._starts[after], span.stop) if after < len(self._starts) else span.stop


def _key(waiting: tuple[bytes, State]) -> bytes:
    return waiting[0]


def _start(span: Span) -> int:
    return span.start


def _with_bounds(units: Iterable[Iterable[State]]) -> Iterator[tuple[list[tuple[bytes, State]], bytes | None]]:
    """The states of each unit that has some, with their keys, and the lowest key of the units after it.

    Those of several inodes come in order. A large file is a unit of its own, and one whose first name vanished while it
    was backed up stands where that was: it says nothing of what comes after it.
    """
    ahead = deque[list[tuple[bytes, State]]]()
    for unit in units:
        if states := [(path_key(state.member.path), state) for state in unit]:
            ahead.append(states)
            if len(ahead) > _AHEAD_MAX or not _is_one_inode(states):
                yield from _bounded(ahead, leave=1)
    yield from _bounded(ahead, leave=0)


def _bounded(
    ahead: deque[list[tuple[bytes, State]]], *, leave: int
) -> Iterator[tuple[list[tuple[bytes, State]], bytes | None]]:
    while len(ahead) > leave:
        states = ahead.popleft()
        yield states, min((key for after in ahead for key, _ in after), default=None)


def _is_one_inode(states: list[tuple[bytes, State]]) -> bool:
    return sum(not state.is_further_name for _, state in states) < 2
