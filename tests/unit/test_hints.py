"""Hints name commands and options that exist: what they say to type is accepted by the parser."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from volback.cli.app import build

PACKAGE = Path(__file__).resolve().parents[2] / "volback"

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_COMMAND = re.compile(r"\bvolback((?: +[^\s`;,)]+)+)")
_PROSE = ("in", "runs", "is")
_OF_OTHERS = ("docker ", "docker run`", "kubectl ", "nomad ", "aws ", "systemctl ", "loginctl ", "age ")
"""Programs whose options are not volback's."""


def hints() -> Iterator[tuple[str, str]]:
    """Where it stands, and each text that is a hint, or names a command in backticks; `X` stands for what is put in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            where = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and _name(node.func).endswith(
                ("Error", "Unreachable", "Denied", "Repository")
            ):
                yield from ((where, text) for argument in node.args[1:2] for text in _texts(argument))
                yield from (
                    (where, text) for word in node.keywords if word.arg == "hint" for text in _texts(word.value)
                )
            elif isinstance(node, ast.Assign) and any("hint" in _name(target).lower() for target in node.targets):
                yield from ((where, text) for text in _texts(node.value))
            elif isinstance(node, ast.JoinedStr | ast.Constant):
                for text in _texts(node):
                    yield from ((where, quoted) for quoted in re.findall(r"`(volback [^`]+)`", text))


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _texts(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in parts)  # type: ignore[misc]
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body)
            yield from _texts(orelse)
        case ast.BinOp(left=left, right=right) | ast.BoolOp(values=[left, right]):
            yield from _texts(left)
            yield from _texts(right)


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


@cache
def parser() -> Any:
    return typer.main.get_command(build())


def complaints(text: str) -> list[str]:
    """What of a hint no command accepts."""
    app = parser()
    every = _options(app).union(*(_options(command) for command in _commands(app).values()))
    found = []
    for words in _COMMAND.findall(text):
        found += _wrong(app, words.split())
    if not any(program in text for program in _OF_OTHERS):
        found += [option for option in _OPTION.findall(text) if option not in every]
    return found


def _commands(app: Any) -> dict[str, Any]:
    found = {}
    for name, command in app.commands.items():
        found[name] = command
        found.update({f"{name} {inner}": one for inner, one in getattr(command, "commands", {}).items()})
    return found


def _wrong(app: Any, words: list[str]) -> list[str]:
    plain = [word for at, word in enumerate(words) if not word.startswith("-") and words[at - 1 : at] != ["--repo"]]
    if plain and plain[0] in _PROSE:
        return []
    if not plain:
        return [word for word in words if word not in _options(app)]
    commands = _commands(app)
    name = " ".join(plain[:2]) if " ".join(plain[:2]) in commands else plain[0]
    if name not in commands:
        return [f"volback {name}"]
    known = _options(app) | _options(commands[name])
    return [f"{name} {option}" for word in words for option in _OPTION.findall(word) if option not in known]


def test_every_hint_is_accepted_by_the_parser() -> None:
    found = list(hints())
    assert len(found) > 100
    assert [f"{where}: {wrong}" for where, text in found for wrong in complaints(text)] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("see `volback list db`, or give --all", []),
        ("run volback recover; volback --repo X restore X --as db --replace", []),
        ("volback schedule show", []),
        ("volback lst", ["volback lst"]),
        ("volback import x.tar --as db --replace", ["import --replace"]),
        ("try --nope", ["--nope"]),
    ],
)
def test_what_does_not_exist_is_found(text: str, wrong: list[str]) -> None:
    assert complaints(text) == wrong
