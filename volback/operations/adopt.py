"""Adopt: an engine goes on in the place of others of its host name, whose backups are then counted with its own.

What is adopted is written into the repository, so that every machine that prunes it knows; no manifest changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from volback.catalog.adoptions import line_of, read_adoptions, write_adoptions
from volback.catalog.model import Manifest
from volback.context.repository import Repository
from volback.errors import NotFoundError, UsageError


@dataclass(frozen=True, slots=True)
class Adopted:
    """The engines that were adopted, with the number of their backups."""

    host: str
    engine_id: str
    engines: dict[str, int]


def adopt(repository: Repository, host: str, engine_id: str, *, wanted: Sequence[str] = ()) -> Adopted:
    """Let this engine adopt those whose backups are filed under `host`: all others, or those with ids that begin as one
    of `wanted`.

    Raises UsageError for another host than this engine's, NotFoundError where there are no backups, or not of an
    engine that is wanted.
    """
    if repository.host != host:
        hint = f"to go on under the name {host}, set VOLBACK_HOSTNAME={host}, here and for all later commands"
        raise UsageError(f"backups of this engine are filed under {repository.host}, not {host}", hint)
    _ = repository.info
    mine, known = engine_id, read_adoptions(repository.store, host)
    counts = Counter(found.engine_id for found in repository.catalog.manifests(host) if isinstance(found, Manifest))
    if not counts:
        raise NotFoundError(f"no backup of host {host} in {repository.store.url}", "see `volback list --all-hosts`")
    for prefix in wanted:
        if not any(id_.startswith(prefix) for id_ in counts):
            there = ", ".join(sorted(counts))
            raise NotFoundError(f"no backup of an engine {prefix!r} of host {host}", f"its engines are {there}")
    others = {
        id_: count
        for id_, count in counts.items()
        if line_of(id_, known) != line_of(mine, known) and (not wanted or id_.startswith(tuple(wanted)))
    }
    if others:
        heirs = {id_: heir for id_, heir in known.items() if id_ != mine}
        write_adoptions(repository.store, host, heirs | dict.fromkeys(others, mine))
    return Adopted(host, mine, others)
