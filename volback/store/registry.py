"""Which kinds of stores there are: each is registered under the scheme of its URLs. Used by store.locate.

A new kind of store is one file, and one call of `register` in store.locate. Nothing above store/ knows its settings:
they go from its `read_settings` to its `open` unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from volback.store.base import Store

S = TypeVar("S")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def _accept(_: Collection[str]) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class StoreKeys:
    """What a table [repositories.NAME] of volback.toml may hold for a store, beside its url."""

    credentials: tuple[str, ...] = ()
    """Keys of the table. Each is a secret, and is given to `open`."""
    variables: tuple[str, ...] = ()
    """Keys of its `environment`. They are passed to `read_settings`, and override the process's own environment."""
    secret_variables: frozenset[str] = frozenset()
    """Those of the variables whose value is never shown."""
    check: Callable[[Collection[str]], str | None] = _accept
    """Returns what is wrong with a set of `credentials`; None if nothing is."""


@dataclass(frozen=True, slots=True)
class StoreKind(Generic[S]):
    """One kind of store; see `register`."""

    form: str
    read_settings: Callable[[str, Mapping[str, str]], S]
    open: Callable[[S, Mapping[str, str]], Store]
    address: Callable[[S], str]
    keys: StoreKeys = field(default=StoreKeys())


_KINDS: dict[str, StoreKind[Any]] = {}
"""By scheme, in lower case. Filled while store.locate is imported."""


def register(
    scheme: str,
    *,
    form: str,
    read_settings: Callable[[str, Mapping[str, str]], S],
    open: Callable[[S, Mapping[str, str]], Store],
    address: Callable[[S], str],
    keys: StoreKeys | None = None,
) -> None:
    """Register a kind of store under `scheme`://; its URLs look like `form`. Raises ValueError for a scheme that is
    taken.

    `read_settings(url, environment)` is pure: it imports nothing slow and connects to nothing. It raises UsageError
    for an address that is not valid, and never repeats what may be a secret. `open(settings, credentials)` makes the
    store, which connects at its first call. It imports what it needs itself, so that commands without it stay fast.
    `address(settings)` is the same text for all ways to write one place, and contains no secret.
    """
    if scheme in _KINDS:
        raise ValueError(f"the scheme {scheme}:// is registered already")
    _KINDS[scheme] = StoreKind(form, read_settings, open, address, keys or StoreKeys())


def scheme_of(url: str) -> str | None:
    """The scheme in lower case; None for a path."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else None


def kind_of(scheme: str) -> StoreKind[Any] | None:
    """The kind of store that is registered under a scheme."""
    return _KINDS.get(scheme)


def forms() -> str:
    """What the addresses of all kinds of stores look like: `A, B or C`."""
    *others, last = [kind.form for kind in _KINDS.values()]
    return f"{', '.join(others)} or {last}" if others else last


def all_keys() -> StoreKeys:
    """The keys of every kind of store."""
    every = [kind.keys for kind in _KINDS.values()]

    def check(given: Collection[str]) -> str | None:
        complaints = (keys.check([key for key in given if key in keys.credentials]) for keys in every)
        return next((complaint for complaint in complaints if complaint), None)

    return StoreKeys(
        tuple(dict.fromkeys(key for keys in every for key in keys.credentials)),
        tuple(dict.fromkeys(variable for keys in every for variable in keys.variables)),
        frozenset(variable for keys in every for variable in keys.secret_variables),
        check,
    )
