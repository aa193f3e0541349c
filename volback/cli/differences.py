"""Differences as people read them: one line for each path, what changed of it, and how much it is in all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from volback.cli.listings import shown_name, shown_time
from volback.cli.words import count, first_of, human_size

if TYPE_CHECKING:
    from volback.catalog.differences import Change, Difference
    from volback.catalog.states import State
    from volback.catalog.units import Member
    from volback.operations.diff import Totals
    from volback.operations.prove import Comparison
    from volback.operations.search import Epoch

_TYPES = {
    "f": "file", "d": "directory", "l": "symlink", "p": "FIFO", "b": "block device", "c": "character device",
    "h": "hard link",
}  # fmt: skip


def difference_lines(found: Iterable[Difference]) -> Iterator[str]:
    """One line per path; what may differ, and was not compared, is only counted, unless something else changed."""
    for item in found:
        name = shown_name(item.path or b".")
        if item.before is None and item.after is not None:
            yield f"added    {name}{_size(item.after)}"
        elif item.after is None and item.before is not None:
            yield f"removed  {name}{_size(item.before)}"
        elif item.changes and item.before is not None and item.after is not None:
            rest = "; content not compared" if item.unclear == "content" else ""
            yield f"changed  {name}: {changes_text(item.changes, item.before, item.after)}{rest}"


def comparison_lines(found: Comparison) -> Iterator[str]:
    """The files that a proof found to differ, the first of each kind."""
    for word, paths in (("differs", found.different), ("missing", found.missing), ("extra  ", found.extra)):
        yield from first_of(paths, f"{word}  ")


def totals_lines(totals: Totals, *, is_live: bool, was_read: bool) -> Iterator[str]:
    """How much differs, and what was not compared."""
    parts = [
        (totals.added, f"{totals.added:,} added ({human_size(totals.added_bytes)})"),
        (totals.removed, f"{totals.removed:,} removed ({human_size(totals.removed_bytes)})"),
        (totals.changed, f"{totals.changed:,} changed{_growth(totals)}"),
    ]
    yield ", ".join(text for number, text in parts if number) or "no differences"
    content, attributes = totals.unclear["content"], totals.unclear["attributes"]
    if content and is_live and not was_read:
        yield f"{count(content, 'file')} of the same size and time may have changed: --data reads and compares them"
    elif content:
        yield f"content not compared: {count(content, 'file')}"
    if attributes:
        yield f"attributes (ACLs, extended attributes) not compared: {count(attributes, 'path')}"


def changes_text(changes: Iterable[Change], before: State, after: State) -> str:
    """What changed, with the values before and after where they are short."""
    old, new = before.member, after.member
    return ", ".join(_TEXTS[change](old, new) if change in _TEXTS else _plain(change, after) for change in changes)


def epoch_text(epoch: Epoch, *, is_first: bool) -> str:
    """What a path was in some backups, and what had changed."""
    if epoch.state is None:
        return "absent" if is_first else "removed"
    if epoch.before is not None:
        return changes_text(epoch.changes, epoch.before, epoch.state)
    member = epoch.state.member
    what = human_size(member.size_bytes) if member.type == "f" else _TYPES[member.type]
    return f"{'present' if is_first else 'added'}: {what}, {shown_time(member.mtime_ns).strip()}"


def _plain(change: Change, after: State) -> str:
    if change == "names":
        return "has another name now" if after.is_linked else "has no other name now"
    return change


def _size(state: State) -> str:
    if state.member.type != "f":
        return f" ({_TYPES[state.member.type]})"
    return f" ({human_size(state.member.size_bytes)})"


def _growth(totals: Totals) -> str:
    if not totals.changed_from_bytes and not totals.changed_to_bytes:
        return ""
    return f" ({_sizes(totals.changed_from_bytes, totals.changed_to_bytes)})"


def _sizes(old: int, new: int) -> str:
    """`1.0 KiB -> 2.0 KiB`; in bytes where that would say nothing; once where they are equal."""
    if old == new:
        return human_size(old)
    if human_size(old) == human_size(new):
        return f"{old:,} -> {new:,} B"
    return f"{human_size(old)} -> {human_size(new)}"


def _content(old: Member, new: Member) -> str:
    return f"content ({_sizes(old.size_bytes, new.size_bytes)})"


_TEXTS: dict[Change, Callable[[Member, Member], str]] = {
    "content": _content,
    "type": lambda old, new: f"{_TYPES[old.type]} -> {_TYPES[new.type]}",
    "mode": lambda old, new: f"mode {old.mode:04o} -> {new.mode:04o}",
    "owner": lambda old, new: f"owner {old.uid}:{old.gid} -> {new.uid}:{new.gid}",
    "link": lambda old, new: f"target {shown_name(old.link)} -> {shown_name(new.link)}",
}
