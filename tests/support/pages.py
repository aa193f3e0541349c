"""The documentation as tests see it: its pages, their blocks, links and anchors, and the commands that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.engine import PROJECT

INDEX = PROJECT / "docs/README.md"
PAGES = (
    *(PROJECT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
)

_HIDDEN = re.compile(r"<!-- run: (.*) -->")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a page and what the page says that it prints: lines `first` to `last` (excluded) of the page.

    A hidden one stands in a comment, `<!-- run: COMMAND -->`: it brings about what the page takes for granted.
    """

    command: str
    output: list[str]
    first: int
    last: int
    hidden: bool = False


def page_id(page: Path) -> str:
    """The page's path in the project."""
    return page.relative_to(PROJECT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [body for name, body in _BLOCK.findall(text) if name == language]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return _BLOCK.sub("", text)


def links(text: str) -> list[str]:
    """Targets of all links, those to other sites too."""
    return [target for _, target in _LINK.findall(prose(text))]


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them: lower case, punctuation dropped, spaces to hyphens."""
    found = set()
    for heading in _HEADING.findall(prose(text)):
        plain = re.sub(r"[^\w\- ]", "", _LINK.sub(r"\1", heading.lower()))
        found.add(plain.strip().replace(" ", "-"))
    return found


def steps(text: str) -> list[Step]:
    """The commands of all ```console blocks, in order, and the hidden ones between; a final backslash goes on."""
    found: list[Step] = []
    inside = False
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.startswith("```"):
            inside = line == "```console"
        elif match := _HIDDEN.fullmatch(line):
            found.append(Step(match[1], [], number, number, hidden=True))
        elif inside:
            assert line.startswith("$ "), f"a console block begins with output: {line!r}"
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + lines[number].lstrip()
                number += 1
            first = number
            while not lines[number].startswith(("$ ", "```")):
                number += 1
            found.append(Step(command, lines[first:number], first, number))
    return found


def rewritten(text: str, outputs: list[tuple[Step, list[str]]]) -> str:
    """The page with what commands print put in place of what it says that they print."""
    lines = text.splitlines()
    for step, output in reversed(outputs):
        lines[step.first : step.last] = output
    return "\n".join(lines) + "\n"


def command_lines(text: str) -> Iterator[str]:
    """Every `volback ...` that a page shows: in console and shell blocks, one that goes on in a further line joined."""
    for body in (*blocks(text, "console"), *blocks(text, "sh")):
        joined = re.sub(r"\\\n\s*", "", body)
        for line in joined.splitlines():
            match = re.match(r"(?:\$ )?((?:sudo )?volback .*)", line)
            if match:
                yield match[1].removeprefix("sudo ")
