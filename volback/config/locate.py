"""Locate: the line on which each key of a TOML text stands. `tomllib` reports none, and no maintained library does.

The text has been parsed already, so it is valid: this module only distinguishes strings, comments and brackets.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping

Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r'''
    (?P<comment>\#[^\n]*)
    | (?P<string>"""(?:[^\\]|\\.)*?"""(?:"{0,2}) | \'\'\'.*?\'\'\'(?:'{0,2}) | "(?:[^"\\\n]|\\.)*" | '[^'\n]*')
    | (?P<newline>\n)
    | (?P<open>[\[{])
    | (?P<close>[\]}])
    | (?P<equals>=)
    | (?P<other>[^\n\[\]{}="'\#]+ | .)
    ''',
    re.VERBOSE | re.DOTALL,
)


class Lines:
    """Where the keys of one text stand."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        table: Path = ()
        for line, statement, key in _statements(text):
            if statement.startswith("["):
                table = self._table(statement)
                for length in range(1, len(table) + 1):
                    self._lines.setdefault(table[:length], line)
            elif key:
                path = table + _parts(key)
                for length in range(len(table) + 1, len(path) + 1):
                    self._lines.setdefault(path[:length], line)

    def line(self, path: Path) -> int | None:
        """The line of that key, or of the nearest table that contains it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return None

    def _table(self, header: str) -> Path:
        """A header's path; for one of an array of tables, with its number."""
        is_array = header.startswith("[[")
        path: Path = ()
        parts = _parts(header.strip("[] \t\r"))
        for number, part in enumerate(parts, 1):
            path += (part,)
            if is_array and number == len(parts):
                self._counts[path] = self._counts.get(path, -1) + 1
            if path in self._counts:
                path += (self._counts[path],)
        return path


def split_tables(text: str) -> Iterator[str]:
    """The text in pieces, each from one line that looks like a table's header to the next."""
    piece: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("[") and piece:
            yield "".join(piece)
            piece = []
        piece.append(line)
    yield "".join(piece)


def _statements(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, text without comments, and what stands before the first `=`, of each statement."""
    line, depth = 1, 0
    begun, parts, key = 1, list[str](), ""
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match[0]
        if kind == "newline" and depth == 0:
            yield begun, "".join(parts).strip(), key
            begun, parts, key = line + 1, [], ""
        elif kind == "equals" and not key:
            key = "".join(parts).strip()
        if kind in ("open", "close"):
            depth += 1 if kind == "open" else -1
        if kind not in ("comment", "newline"):
            parts.append(token)
        line += token.count("\n")
    yield begun, "".join(parts).strip(), key


def _parts(key: str) -> Path:
    """A dotted key's parts, as TOML itself reads them."""
    try:
        value: object = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return (key,)
    parts = []
    while isinstance(value, Mapping):
        part, value = next(iter(value.items()))
        parts.append(part)
    return tuple(parts)


def dotted(path: Path) -> str:
    """`jobs.nightly.exec_pre[0].user`; a part that is not a bare key is quoted."""
    words = (f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}" for part in path)
    return "".join(words).lstrip(".")


def _quoted(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"'
