"""TOML: writes a tree of tables as `config show` prints it. The standard library only reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def write_toml(tree: Mapping[str, object]) -> Iterator[str]:
    """The lines of a document that reads back as `tree`."""
    yield from _table(tree, ())


def _table(table: Mapping[str, object], path: tuple[str, ...]) -> Iterator[str]:
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping) and not _is_tables(value)}
    if path and (values or not table):
        yield f"[{_dotted(path)}]"
    for key, value in values.items():
        yield f"{bare_or_quoted(key)} = {_value(value)}"
    if values:
        yield ""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _table(value, (*path, key))
        elif _is_tables(value):
            yield from _array(value, (*path, key))


def _array(tables: object, path: tuple[str, ...]) -> Iterator[str]:
    assert isinstance(tables, Sequence)
    for table in tables:
        yield f"[[{_dotted(path)}]]"
        yield from (f"{bare_or_quoted(key)} = {_value(value)}" for key, value in table.items())
        yield ""


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case list():
            return f"[{', '.join(_value(item) for item in value)}]"
        case _:
            return str(value)


def quoted(text: str) -> str:
    """A basic string: JSON's escapes are valid in TOML too; a DEL, which JSON does not escape, is not."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def bare_or_quoted(key: str) -> str:
    """A key, in quotes where it needs them."""
    return key if _BARE.fullmatch(key) else quoted(key)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(bare_or_quoted(part) for part in path)
