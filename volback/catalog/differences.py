"""Differences: two lists of states, each in the order of paths, become what differs between them. Neither is held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from volback.catalog.states import HeaderGroup, State, path_key

Change = Literal["type", "content", "link", "mode", "owner", "time", "attributes", "names"]


class Difference(NamedTuple):
    """One path that differs, or may differ; `before` is None where it was added, `after` where it was removed."""

    path: bytes
    before: State | None
    after: State | None
    changes: tuple[Change, ...] = ()
    """What changed of it; empty where it was added or removed, or is only `unclear`."""
    unclear: Literal["", "content", "attributes"] = ""
    """What may differ, and was not compared. Where content was not compared, attributes were not either."""


def differences(before: Iterable[State], after: Iterable[State]) -> Iterator[Difference]:
    """Yield what differs, by path."""
    for old, new in merged(before, after):
        if old is not None and new is not None:
            changes, unclear = changes_of(old, new), _unclear(old, new)
            if changes or unclear:
                yield Difference(new.member.path, old, new, changes, unclear)
        elif (either := new or old) is not None:
            yield Difference(either.member.path, old, new)


def merged(before: Iterable[State], after: Iterable[State]) -> Iterator[tuple[State | None, State | None]]:
    """Yield each path's two states, None where there is none."""
    olds, news = iter(before), iter(after)
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        old_key, new_key = _key(old), _key(new)
        takes_old = new_key is None or (old_key is not None and old_key <= new_key)
        takes_new = old_key is None or (new_key is not None and new_key <= old_key)
        yield (old if takes_old else None), (new if takes_new else None)
        old = next(olds, None) if takes_old else old
        new = next(news, None) if takes_new else new


def changes_of(old: State, new: State) -> tuple[Change, ...]:
    """What is known to have changed between two states of one path. A change of the ctime alone is none."""
    if old.member.type != new.member.type:
        return ("type",)
    return tuple(change for change, has_changed in _CHANGES.items() if has_changed(old, new))


def _key(state: State | None) -> bytes | None:
    return None if state is None else path_key(state.member.path)


def _content(old: State, new: State) -> bool:
    if old.member.type != "f":
        return False
    known = old.content is not None and new.content is not None
    return old.member.size_bytes != new.member.size_bytes or (known and old.content != new.content)


def _attributes(old: State, new: State) -> bool:
    """Known where nothing else in the header changed, and no other header in the same extents.

    Setting an attribute changes the ctime, so what has its inode and ctime still is not what changed there.
    """
    if not _may_have_attributes(old, new):
        return False
    assert old.header is not None
    assert new.header is not None
    if old.header.size_bytes != new.header.size_bytes:
        return True
    return _changed(old.header.group, new.header.group) == {old.header.path}


def _may_have_attributes(old: State, new: State) -> bool:
    """Whether the headers differ, and nothing that the index has of them does."""
    if old.header is None or new.header is None or old.header.path != new.header.path:
        return False
    if _content(old, new) or _facts(old) != _facts(new):
        return False
    one, other = old.header, new.header
    return one.size_bytes != other.size_bytes or (
        one.group.digests != other.group.digests and one.path in _changed(one.group, other.group)
    )


@lru_cache(4)
def _changed(old: HeaderGroup, new: HeaderGroup) -> set[bytes]:
    """The paths of which something differs, if only the inode or the ctime; a group of one has changed as a whole."""
    if old.members.keys() == new.members.keys() and len(old.members) == 1:
        return set(old.members)
    both = old.members.keys() | new.members.keys()
    return {path for path in both if old.members.get(path) != new.members.get(path)}


def _facts(state: State) -> tuple[object, ...]:
    member = state.member
    return member.mode, member.uid, member.gid, member.mtime_ns, member.size_bytes, member.link


def _unclear(old: State, new: State) -> Literal["", "content", "attributes"]:
    one, other = old.member, new.member
    same_inode = (one.inode, one.ctime_ns) == (other.inode, other.ctime_ns)
    if one.type != other.type or same_inode or one.size_bytes != other.size_bytes:
        return ""
    if one.type == "f" and one.size_bytes and (old.content is None or new.content is None):
        return "content"
    if old.header is None or new.header is None:
        return "attributes"
    return "attributes" if _may_have_attributes(old, new) and not _attributes(old, new) else ""


_CHANGES: dict[Change, Callable[[State, State], bool]] = {
    "content": _content,
    "link": lambda old, new: old.member.link != new.member.link,
    "mode": lambda old, new: old.member.mode != new.member.mode,
    "owner": lambda old, new: (old.member.uid, old.member.gid) != (new.member.uid, new.member.gid),
    "time": lambda old, new: old.member.mtime_ns != new.member.mtime_ns,
    "attributes": _attributes,
    "names": lambda old, new: old.is_linked != new.is_linked,
}
