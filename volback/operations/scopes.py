"""Scopes: which volumes of which hosts a command means that works on whole volumes."""

from __future__ import annotations

from collections.abc import Sequence

from volback.context.naming import references_named
from volback.context.repository import Repository
from volback.errors import UsageError

Scope = tuple[str | None, str | None]
"""Host and volume; None is all of them."""
REMOVE_ONE = "to remove one backup: volback remove"
VERIFY_ONE = "for one backup: volback verify"


def scopes_of(
    repository: Repository, volumes: Sequence[str], *, all_hosts: bool, for_one: str = REMOVE_ONE
) -> list[Scope]:
    """Return what the names mean (`VOLUME` or `HOST/VOLUME`, or globs), or all of this host, or of every host.

    Raises UsageError for the name of one backup; `for_one` says what to do with one.
    """
    scopes: list[Scope] = []
    for text in volumes:
        for named in references_named(repository, text, all_hosts=all_hosts):
            if named.id_prefix is not None:
                raise UsageError(f"{text!r} names one backup", f"name a volume; {for_one}")
            scopes.append((named.host or (None if all_hosts else repository.host), named.volume))
    return list(dict.fromkeys(scopes)) or [(None if all_hosts else repository.host, None)]
