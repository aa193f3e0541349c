"""Condemned objects: those that no manifest references any more, of a store that other machines may use too.

Such an object is not deleted at once: a backup that another machine is making may use it, a restore may read it. An
empty object beside the backups says that it is condemned, and for how long; a later prune deletes both, if that time is
over and still no manifest references it. Times are the store's own, of the last write of these empty objects: clocks of
machines are never compared with them.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from volback.ahead import read_ahead
from volback.catalog.keys import (
    TIME_KEY,
    condemned_key,
    condemned_prefix,
    deleting_key,
    deleting_prefix,
    parse_condemned_key,
)
from volback.catalog.listing import Listing
from volback.catalog.objects import StoredObject
from volback.errors import NotFoundError, ObjectLocked

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")

GRACE_S = 86_400
"""Longer than a backup or a restore takes."""
_LISTED_AT_ONCE = 10_000
"""Objects in a list of what is being deleted."""
_LIST_MAX_BYTES = 16 * 1024 * 1024
"""Keys have at most 1,024 bytes."""


@dataclass(frozen=True, slots=True)
class Condemnation:
    """That one object was condemned: when, by the store's clock, and for how long at least it stays."""

    key: str
    """Of the empty object."""
    name: str
    """The key of the object that is condemned."""
    at: datetime
    grace_s: int

    def until(self, grace_s: int = 0) -> datetime:
        """When the object may be deleted, by a prune with that grace time."""
        return self.at + timedelta(seconds=max(self.grace_s, grace_s))

    def is_usable(self, at: datetime) -> bool:
        """Whether a manifest that is written then keeps the object, as each prune that may delete it sees it before.

        A quarter of the grace time is left for servers of one store whose clocks differ.
        """
        return at < self.at + timedelta(seconds=self.grace_s * 3 / 4)


Locked = dict[str, ObjectLocked]
"""What an object lock keeps, by the key of the object."""
Condemned = Mapping[str, Sequence[Condemnation]]
"""The condemnations of each object, by its key. The object stays until all of them allow to delete it."""


def _is_old(stored: StoredObject, now: datetime) -> bool:
    """Whether no prune lives any more that has written this list."""
    return stored.modified_at + timedelta(seconds=GRACE_S) < now


def condemnation_of(stored: StoredObject) -> Condemnation | None:
    """Return what an object of a listing condemns; None for any other object."""
    found = parse_condemned_key(stored.key)
    return found and Condemnation(stored.key, found[0], stored.modified_at, found[1])


def by_name(found: Iterable[Condemnation]) -> dict[str, list[Condemnation]]:
    """Return them by the key of the object that each condemns."""
    names: dict[str, list[Condemnation]] = {}
    for one in found:
        names.setdefault(one.name, []).append(one)
    return names


def until(condemnations: Iterable[Condemnation], grace_s: int = 0) -> datetime:
    """When an object may be deleted that has these condemnations, by a prune with that grace time."""
    return max(one.until(grace_s) for one in condemnations)


def are_usable(condemnations: Iterable[Condemnation], at: datetime) -> bool:
    """Whether a manifest that is written then keeps the object that has these condemnations."""
    return any(one.is_usable(at) for one in condemnations)


@dataclass(slots=True)
class Verdicts:
    """What is to be done with condemned objects, by their keys."""

    lift: list[str] = field(default_factory=list)
    """They are referenced."""
    forget: list[str] = field(default_factory=list)
    """They are gone."""
    free: list[str] = field(default_factory=list)
    shorten: list[str] = field(default_factory=list)
    """They would wait longer than if they were condemned only now."""
    wait: list[str] = field(default_factory=list)


def judge(
    condemned: Condemned, *, there: Container[str], needed: Container[str], now: datetime, grace_s: int
) -> Verdicts:
    """Decide on each condemned object. `needed` was listed after `now`, which is the store's time; nothing is `there`
    that is not stored."""
    verdicts, soonest = Verdicts(), now + timedelta(seconds=grace_s)
    for name, found in condemned.items():
        if name in needed:
            verdicts.lift.append(name)
        elif name not in there:
            verdicts.forget.append(name)
        elif until(found, grace_s) <= now:
            verdicts.free.append(name)
        elif until(found) > soonest and any(one.grace_s > grace_s for one in found):
            verdicts.shorten.append(name)
        else:
            verdicts.wait.append(name)
    return verdicts


def unless_locked(delete: Callable[[str], None], locked: Locked | None) -> Callable[[str], None]:
    """Let `locked` get what a lock keeps; None raises the error."""

    def attempt(name: str) -> None:
        try:
            delete(name)
        except ObjectLocked as exc:
            if locked is None:
                raise
            locked[name] = exc

    return attempt


class Condemnations(Listing):
    """Condemns objects, and lifts it. Every method may raise StoreError or StoreUnreachable."""

    @property
    def is_shared(self) -> bool:
        """Whether other machines may use the repository too: else nothing is condemned, but deleted at once."""
        return self._objects.is_shared

    def condemned(self, host: str, volume: str) -> dict[str, list[Condemnation]]:
        """Return all condemnations of a volume, by the key of the object; one listing. None where nothing is shared."""
        if not self.is_shared:
            return {}
        listed = self._objects.list(condemned_prefix(host, volume))
        return by_name(one for stored in listed if (one := condemnation_of(stored)))

    def condemn(self, names: Iterable[str], grace_s: int, note: Callable[[str], None] = lambda _: None) -> None:
        """Condemn these objects from now on, also those that are condemned already; `note` gets each."""

        def condemn(name: str) -> None:
            self._objects.put(condemned_key(name, grace_s), [])
            note(name)

        self._each(condemn, names)

    def renew(self, condemned: Condemned, names: Iterable[str]) -> list[str]:
        """Condemn anew those of these objects that are condemned: they then stay for another grace time.

        Return those for which it is too late, as a prune may be about to delete them, or has deleted them just now.
        """
        late = []
        for name in names:
            if found := condemned.get(name, ()):
                for one in found:
                    self._objects.put(one.key, [])
                renewed_at = self._time_of(found[0].key)
                if renewed_at is None or not are_usable(found, renewed_at):
                    late.append(name)
        return late

    def _time_of(self, key: str) -> datetime | None:
        """When an object was written; None where it is not there."""
        try:
            return self._objects.stat(key).modified_at
        except NotFoundError:
            return None

    def condemned_until(self, name: str, grace_s: int) -> datetime:
        """When an object may be deleted that was condemned just now, by the store's clock."""
        key = condemned_key(name, grace_s)
        return Condemnation(key, name, self._objects.stat(key).modified_at, grace_s).until()

    def lift(self, condemnations: Iterable[Condemnation]) -> None:
        """Delete condemnations. One that a lock keeps stays, and does no harm."""
        self._each(unless_locked(self._objects.delete, {}), (one.key for one in condemnations))

    def free(
        self, condemned: Condemned, names: Iterable[str], note: Callable[[str], None], locked: Locked | None = None
    ) -> None:
        """Delete these objects of one volume, and their condemnations after them; `note` gets each. One whose
        condemnations are not as they were listed stays: who needs it has renewed or lifted them. `locked` gets what a
        lock keeps.

        Who renews one between the look at it and the deletion sees in a list that it is too late. The list stays where
        this fails, as a request may still be carried out.
        """
        names = list(names)
        for start in range(0, len(names), _LISTED_AT_ONCE):
            self._free_some(condemned, names[start : start + _LISTED_AT_ONCE], note, locked)

    def _free_some(
        self, condemned: Condemned, names: list[str], note: Callable[[str], None], locked: Locked | None
    ) -> None:
        list_key = deleting_key(names[0], secrets.token_hex(8))
        self._objects.put(list_key, ["\n".join(names).encode()])

        def free(name: str) -> None:
            if all(map(self._is_current, condemned[name])):
                self._objects.delete(name)
                note(name)
                self.lift(condemned[name])

        self._each(unless_locked(free, locked), names)
        unless_locked(self._objects.delete, {})(list_key)

    def drop_lists(self, lists: Iterable[StoredObject], now: datetime) -> None:
        """Delete those lists that prunes have left which were killed a day ago or more; `now` is the store's time."""
        self._each(unless_locked(self._objects.delete, {}), [one.key for one in lists if _is_old(one, now)])

    def being_deleted(self, host: str, volume: str, names: Collection[str], renewed: Condemnation) -> set[str]:
        """Return those of some objects of a volume that prunes are deleting, or were when they were killed. To be asked
        once the objects were renewed, of which `renewed` shows the store's time: what is not among it, and is there,
        stays."""
        found, now = set[str](), self._time_of(renewed.key)
        for stored in self._objects.list(deleting_prefix(host, volume)):
            if now is not None and _is_old(stored, now):
                continue
            try:
                listed = b"".join(self._objects.open(stored.key, length=_LIST_MAX_BYTES + 1))
            except NotFoundError:
                log.debug("the deletion of %s has ended", stored.key)
                continue
            if len(listed) > _LIST_MAX_BYTES:  # no prune has written it, so it may say anything
                return set(names)
            found.update(set(names).intersection(listed.decode(errors="replace").split("\n")))
        return found

    def _is_current(self, one: Condemnation) -> bool:
        return self._time_of(one.key) == one.at

    def store_time(self) -> datetime:
        """The time by the store's clock, which a small object shows that is written for that; it stays, as another
        machine may be asking too."""
        self._objects.put(TIME_KEY, [])
        return self._objects.stat(TIME_KEY).modified_at

    def _each(self, act: Callable[[_Item], None], items: Iterable[_Item]) -> None:
        """Do it for each; in a distant store for several at once, so in any order."""

        def unless_stopped(item: _Item, stop: threading.Event) -> None:
            if not stop.is_set():
                act(item)

        with closing(read_ahead(unless_stopped, items, ahead=self.at_once)) as done:
            for _ in done:
                pass
