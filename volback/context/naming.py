"""Naming: what people type for backups, and the plain references that it stands for.

A plain reference is read by `volback/catalog/reference.py`, and asks nobody. These ask what is in the repository:
VOLUME@latest, @latest~1 (the one before), @today, @yesterday, @2026-11-25 (a day of this machine's calendar), an id
without its volume, the first digits of an anonymous volume, and a glob for volumes. What is there under exactly the
name that was typed is always meant first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from volback.catalog.keys import BackupKey, is_id, is_id_prefix
from volback.catalog.reference import Reference, parse_reference
from volback.errors import NotFoundError, UsageError
from volback.latest import created_at
from volback.policy.anonymous import is_anonymous, is_beginning

if TYPE_CHECKING:
    from volback.context.repository import Repository

_GLOB = frozenset("*?[")
_LATEST = re.compile(r"latest(?:~([0-9]{1,4}))?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAMED_AT_MOST = 5


def one_named(repository: Repository, text: str) -> Reference:
    """The plain reference that `text` stands for. Raises UsageError where it stands for several, NotFoundError."""
    found = references_named(repository, text.removesuffix("@latest") if _is_latest(text) else text)
    if len(found) > 1:
        raise UsageError(f"{text!r} stands for {len(found)} {_what(found)}: {_first(map(str, found))}", "name one")
    return found[0]


def references_named(repository: Repository, text: str, *, all_hosts: bool = False) -> list[Reference]:
    """All plain references that `text` stands for, oldest first; never none. Raises NotFoundError, UsageError.

    Without a host it means this one, or every host.
    """
    return [one for each in spelled_out(repository, [text], all_hosts=all_hosts) for one in _read(repository, each)]


def spelled_out(repository: Repository, texts: Iterable[str], *, all_hosts: bool = False) -> list[str]:
    """The same texts, each glob replaced by the volumes that it matches. Raises NotFoundError where it matches none."""
    return [one for text in texts for one in (_matching(repository, text, all_hosts) if has_glob(text) else [text])]


def has_glob(text: str) -> bool:
    """Whether `text` is a pattern for volumes; directories are named as they are."""
    name = text.partition("@")[0]
    return not _GLOB.isdisjoint(name) and not name.startswith("/") and "//" not in name


def _matching(repository: Repository, text: str, all_hosts: bool) -> list[str]:
    name, at, rest = text.partition("@")
    named = parse_reference(name)
    is_any = all_hosts if named.host is None else not _GLOB.isdisjoint(named.host)
    host = None if is_any else named.host or repository.host
    keys = repository.catalog.backups(host)
    if any(named.volume == key.volume and named.host in (None, key.host) for key in keys):
        return [text]
    hosts = named.host or "*"
    places = {
        (None if named.host is None and not all_hosts else key.host, key.volume)
        for key in keys
        if fnmatchcase(key.volume, named.volume) and (host is not None or fnmatchcase(key.host, hosts))
    }
    if not places:
        raise NotFoundError(
            f"no volume that has backups matches {name!r}", "volback list --all-hosts shows every backup"
        )
    return [f"{Reference(*place)}{at}{rest}" for place in sorted(places, key=lambda place: (place[0] or "", place[1]))]


def _read(repository: Repository, text: str) -> list[Reference]:
    name, at, rest = text.partition("@")
    if at and (_LATEST.fullmatch(rest) or _days(repository, rest)):
        return _of_moment(repository, parse_reference(name), rest)
    plain = parse_reference(text)
    if plain.host is None and not plain.volume.startswith("/") and (_is_bare_id(text) or is_beginning(plain.volume)):
        return _of_digits(repository, plain) or [plain]
    return [plain]


def _is_latest(text: str) -> bool:
    return text.endswith("@latest")


def _is_bare_id(text: str) -> bool:
    return "T" in text and is_id_prefix(text)


def _of_digits(repository: Repository, plain: Reference) -> list[Reference]:
    """The backups whose ids begin so, or the anonymous volumes whose names do; none where a volume is named so."""
    keys, text = repository.catalog.backups(), plain.volume
    if any(key.volume == text for key in keys):
        return []
    if _is_bare_id(text) and plain.id_prefix is None:
        return [_exactly(key) for key in keys if key.id.startswith(text)]
    places = {(key.host, key.volume) for key in keys if is_anonymous(key.volume) and key.volume.startswith(text)}
    return [Reference(*place, plain.id_prefix) for place in sorted(places)]


def _of_moment(repository: Repository, named: Reference, moment: str) -> list[Reference]:
    host = named.host or repository.host
    keys = repository.catalog.backups(host, named.volume)
    if not keys:
        repository.catalog.find(named, host, now=repository.now())  # says where there are some
    if latest := _LATEST.fullmatch(moment):
        return [_exactly(_before_latest(repository, keys, named, int(latest[1] or 0)))]
    days = _days(repository, moment)
    found = [_exactly(key) for key in keys if created_at(key.id).astimezone().date() in days]
    if not found:
        raise NotFoundError(
            f"no backup of {named} is of {moment} ({days[0]})",
            f"its backups are {_first(key.id for key in keys[::-1])}",
        )
    return found


def _before_latest(repository: Repository, keys: Sequence[BackupKey], named: Reference, number: int) -> BackupKey:
    """The latest backup, or that many before it: neither safety copies nor what is from the future count."""
    key, left = keys[-1], list(keys)
    for before in range(number + 1):
        found = repository.catalog.newest(left, now=repository.now())
        if found is None:
            raise NotFoundError(
                f"there is no {named}@latest~{number}: {before} of its backups can be the latest",
                f"volback list {named}",
            )
        key, left = found, [other for other in left if other.id < found.id]
    return key


def _days(repository: Repository, text: str) -> tuple[date, ...]:
    """The day that is meant; none where `text` does not name one."""
    if text in ("today", "yesterday"):
        return (repository.now().astimezone().date() - timedelta(days=text == "yesterday"),)
    try:
        return (date.fromisoformat(text),) if _DAY.fullmatch(text) else ()
    except ValueError as exc:
        raise UsageError(f"there is no day {text}", "write YEAR-MONTH-DAY, like 2026-11-25") from exc


def _exactly(key: BackupKey) -> Reference:
    return Reference(key.host, key.volume, key.id)


def _what(found: Sequence[Reference]) -> str:
    return "backups" if all(one.id_prefix and is_id(one.id_prefix) for one in found) else "volumes"


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _NAMED_AT_MOST
    return ", ".join(listed[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
