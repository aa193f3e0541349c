"""Adoptions: which engine goes on in the place of another one of the same host name, as after a reinstall.

One document for each host, beside its volumes. It changes no manifest: what it says applies wherever backups of one
engine are counted together. No volume's key is like this one: names are encoded with digits after a `%`.
"""

from __future__ import annotations

import msgspec

from volback.catalog.keys import host_prefix
from volback.catalog.model import FORMAT
from volback.catalog.objects import Objects
from volback.catalog.sealed import open_document, read_document, seal_document
from volback.errors import NotFoundError

ADOPTIONS_NAME = "%adoptions.json"


class Adoptions(msgspec.Struct, frozen=True, kw_only=True):
    """By the id of an engine that is gone: the id of the one that goes on in its place."""

    format: int
    engines: dict[str, str]


def read_adoptions(objects: Objects, host: str) -> dict[str, str]:
    """The adoptions of a host; none where nothing was adopted. Raises FormatError."""
    key = host_prefix(host) + ADOPTIONS_NAME
    try:
        data = read_document(objects, key)
    except NotFoundError:
        return {}
    return open_document(data, Adoptions, key).engines


def write_adoptions(objects: Objects, host: str, engines: dict[str, str]) -> None:
    """Replace the adoptions of a host."""
    objects.put(host_prefix(host) + ADOPTIONS_NAME, [seal_document(Adoptions(format=FORMAT, engines=engines))])


def line_of(engine_id: str, adoptions: dict[str, str]) -> str:
    """The id of the engine that goes on for `engine_id`: itself, if it was not adopted. Ends also in a circle."""
    seen = {engine_id}
    while (heir := adoptions.get(engine_id)) is not None and heir not in seen:
        seen.add(heir)
        engine_id = heir
    return max(seen) if heir is not None else engine_id
