"""Tables: one table of a TOML file, taken key by key, so that every problem of it is found, not only the first."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from volback.config.locate import Lines, dotted
from volback.config.locate import Path as KeyPath
from volback.config.places import Place, Problem
from volback.config.secrets import Secret
from volback.config.urls import Encode, as_it_is
from volback.config.values import TEXT, Kind
from volback.masking import HIDDEN, is_secret_key, masked_command
from volback.policy.invalid import InvalidValue

T = TypeVar("T")

_VARIABLE = re.compile(r"\$(\$\{|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_SHOWN_CHARS = 60


@dataclass(slots=True)
class Document:
    """One file being read: the lines of its keys, and the problems found in it."""

    file: Path
    lines: Lines
    environment: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    has_secrets: bool = False
    """Whether the file itself contains a secret."""

    def complain(self, path: KeyPath, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(self.place(path), message))

    def place(self, path: KeyPath) -> Place:
        """The place of that key, or where it should be."""
        return Place(str(self.file), self.lines.line(path), dotted(path))


class Table:
    """One table. `take` each key that is allowed, then `end`. `shown` is the result, with secrets hidden."""

    def __init__(self, document: Document, path: KeyPath, value: object) -> None:
        self.document = document
        self.path = path
        self.shown: dict[str, object] = {}
        self._known: list[str] = []
        self.is_table = isinstance(value, dict)
        self._values: dict[str, Any] = value if isinstance(value, dict) else {}
        if not self.is_table:
            self.complain(None, f"expected a table, not {_worded(value)}")

    def complain(self, key: str | None, message: str) -> None:
        """Note a problem of one key, or of the table."""
        self.document.complain(self.path if key is None else (*self.path, key), message)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._values

    def place(self, *parts: str | int) -> Place:
        """Where a key stands."""
        return self.document.place((*self.path, *parts))

    def has_secret(self, key: str) -> bool:
        """Whether one of `KEY`, `KEY_file`, `KEY_command` is there."""
        return any(key + form in self._values for form in ("", "_file", "_command"))

    def take(self, key: str, kind: Kind[T], default: object = None) -> T | None:
        """Read one value; the default is written as in TOML. None where there is none, or it is not valid."""
        self._known.append(key)
        given = self._values.get(key, default)
        if given is None:
            return None
        try:
            value = kind.read(self._expanded(given))
        except InvalidValue as exc:
            self.complain(key, f"{_worded(given)} {exc}")
        except ValueError:
            self.complain(key, f"expected {kind.expected}, not {_worded(given)}")
        except _Unset as exc:
            self.complain(key, str(exc))
        else:
            self.shown[key] = _shown(given, self.document.environment)
            return value
        return None

    def secret(
        self, key: str, *, shown: str = HIDDEN, encode: Encode = as_it_is, in_clear: bool = True
    ) -> Secret | None:
        """Read `KEY`, `KEY_file` or `KEY_command`; `encode` is how variables come into the first, which is allowed
        only with `in_clear`."""
        allowed = [*([key] if in_clear else []), f"{key}_file", f"{key}_command"]
        names = [name for name in allowed if name in self._values]
        self._known += allowed
        if not names:
            return None
        if len(names) > 1:
            self.complain(names[1], f"cannot be used together with {names[0]}")
            return None
        try:
            return self._secret(key, names[0], shown, encode)
        except (ValueError, _Unset) as exc:
            self.complain(names[0], str(exc))
        return None

    def secrets(self, key: str, shown: Callable[[str], str], *, encode: Encode = as_it_is) -> tuple[Secret, ...]:
        """Read `KEY`, a text or a list of texts, or `KEY_file`, or `KEY_command`."""
        given = self._values.get(key)
        if key not in self._values or self.has(f"{key}_file") or self.has(f"{key}_command"):
            one = self.secret(key)
            return () if one is None else (one,)
        self._known += [key, f"{key}_file", f"{key}_command"]
        items = given if isinstance(given, list) else [given]
        found: list[Secret] = []
        for number, item in enumerate(items):
            try:
                found.append(self._literal((key, number) if item is not given else (key,), item, encode))
            except (ValueError, _Unset) as exc:
                self.complain(key, str(exc))
        self.shown[key] = [shown(secret.text or "") for secret in found]
        return tuple(found)

    def table(self, key: str) -> Table | None:
        """A table in this one."""
        self._known.append(key)
        if key not in self._values:
            return None
        inner = Table(self.document, (*self.path, key), self._values[key])
        self.shown[key] = inner.shown
        return inner

    def array(self, key: str) -> list[Table]:
        """An array of tables; one table alone is an array of one."""
        self._known.append(key)
        given = self._values.get(key, [])
        items = given if isinstance(given, list) else [given]
        path: KeyPath = (*self.path, key)
        inner = [Table(self.document, (*path, number), item) for number, item in enumerate(items)]
        if inner:
            self.shown[key] = [table.shown for table in inner]
        return inner

    def each(self) -> Iterator[tuple[str, Table]]:
        """Every table in this one, by name."""
        for name, value in self._values.items():
            self._known.append(name)
            yield name, Table(self.document, (*self.path, name), value)

    def value_of(self, key: str) -> object:
        """What stands there, unread."""
        return self._values.get(key)

    def end(self) -> None:
        """Note as unknown what was not taken."""
        for key in self._values:
            if key not in self._known:
                self.complain(key, f"is unknown; {self._meant(key)}")

    def _meant(self, key: str) -> str:
        """The nearest of the keys that are allowed, or all of them."""
        lower = {name.lower(): name for name in self._known}
        near = difflib.get_close_matches(key.replace("-", "_").lower(), lower, 1, 0.6)
        if near:
            return f"did you mean {lower[near[0]]}?"
        base = {name: re.sub("_(file|command)$", "", name) for name in self._known}
        names = [name for name in self._known if base[name] == name or base[name] not in self._known]
        return f"there are {', '.join(sorted(names))}"

    def _secret(self, key: str, name: str, shown: str, encode: Encode) -> Secret:
        given = self._values[name]
        self.shown[name] = shown
        if name == key:
            return self._literal((name,), given, encode)
        expanded = self._expanded(given)
        if name.endswith("_command"):
            return Secret(self.place(name), command=_command(expanded))
        path = _checked(expanded, "the path of a file")
        self.shown[name] = path
        return Secret(self.place(name), file=Path(os.path.expanduser(path)))

    def _literal(self, path: KeyPath, given: object, encode: Encode) -> Secret:
        text = _checked(self._expanded(given, encode), "a text that is not empty")
        if text == given:
            self.document.has_secrets = True
        return Secret(self.place(*path), text=text)

    def _expanded(self, value: Any, encode: Encode = as_it_is) -> Any:
        if isinstance(value, list):
            return [self._expanded(item) for item in value]
        return _expand(value, self.document.environment, encode) if isinstance(value, str) else value


class _Unset(Exception):
    """A variable that the environment does not have."""


def _expand(text: str, environment: Mapping[str, str], encode: Encode = as_it_is) -> str:
    def value(match: re.Match[str]) -> str:
        if match[2] is None:
            return "${"
        if match[2] not in environment:
            raise _Unset(f"the environment has no variable {match[2]}; for the text itself write $${{{match[2]}}}")
        return encode(text, match.start(), match.end(), environment[match[2]])

    return _VARIABLE.sub(value, text)


def _shown(value: Any, environment: Mapping[str, str]) -> Any:
    """The value as `config show` has it: a variable with the name of a secret is not expanded, and what looks like a
    secret in a command or a URL is masked."""
    if isinstance(value, list):
        return [_shown(item, environment) for item in value]
    if not isinstance(value, str):
        return value
    shown = {name: HIDDEN if is_secret_key(name) else text for name, text in environment.items()}
    return masked_command(_expand(value, shown)).replace("${", "$${")


def _checked(value: object, expected: str) -> str:
    try:
        return TEXT.read(value)
    except ValueError:
        raise ValueError(f"expected {expected}") from None


def _command(value: object) -> tuple[str, ...]:
    """A list of arguments, or a line that is split as a shell does it."""
    expected = "expected a command: a list of arguments, or a line"
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as exc:
        raise ValueError(f"{expected} ({str(exc).lower()})") from None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words) or not words[0]:
        raise ValueError(expected)
    return tuple(words)


def _worded(value: object) -> str:
    """A value as its author knows it, shortened."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "a table"
        case list():
            return "a list that holds something else" if value else "an empty list"
        case str():
            text = masked_command(value)
            text = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
            return f'"{text}"'
        case _:
            return str(value)[:_SHOWN_CHARS]
