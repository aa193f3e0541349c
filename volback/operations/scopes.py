"""Scopes: which volumes of which hosts a command means that works on whole volumes."""

from __future__ import annotations

from collections.abc import Sequence

from volback.catalog.reference import parse_reference
from volback.context.repository import Repository
from volback.errors import UsageError

Scope = tuple[str | None, str | None]
"""Host and volume; None is all of them."""


def scopes_of(repository: Repository, volumes: Sequence[str], *, all_hosts: bool) -> list[Scope]:
    """Return what the names mean (`VOLUME` or `HOST/VOLUME`), or all of this host, or of every host.

    Raises UsageError for the name of one backup.
    """
    scopes: list[Scope] = []
    for text in volumes:
        named = parse_reference(text)
        if named.id_prefix is not None:
            raise UsageError(f"{text!r} names one backup", "name a volume; to remove one backup: volback remove")
        scopes.append((named.host or (None if all_hosts else repository.host), named.volume))
    return list(dict.fromkeys(scopes)) or [(None if all_hosts else repository.host, None)]
