"""What all commands say of themselves: a page of the documentation, a manual page, and the schema of their documents.

    python -m scripts.reference page    docs/reference/help.md
    python -m scripts.reference man     volback.1, for man
    python -m scripts.reference schema  docs/reference/json-schema.json

The first two are made from what `--help` prints, and the schema from the types of what `--json` writes, so they cannot
say anything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import typer

import volback
from volback.cli.app import parser
from volback.cli.documents.schema import schema

_HEAD = """\
# Help

What `--help` says of each command. [Commands](commands.md) has them in a table. As a manual page:
`python -m scripts.reference man >volback.1`, in a clone of the project.
"""


def helps(command: Any, name: str = "volback", parent: Any = None) -> Iterator[tuple[str, str]]:
    """Of a command and all below it: its path, like `volback schedule install`, and what its --help says."""
    context = typer.Context(command, parent, name, terminal_width=80)
    yield context.command_path, command.get_help(context)
    for below, its in getattr(command, "commands", {}).items():
        yield from helps(its, below, context)


def page() -> str:
    """The page in Markdown."""
    return _HEAD + "".join(f"\n## {path}\n\n```text\n{said.rstrip()}\n```\n" for path, said in helps(parser()))


def manual() -> str:
    """The manual page in roff: a section for each command, its lines as they are."""
    lines = [f'.TH VOLBACK 1 "" "volback {volback.__version__}"', ".SH NAME"]
    lines += [r"volback \- back up, restore and move Docker volumes"]
    for path, said in helps(parser()):
        lines += [f'.SH "{path.upper()}"', ".nf", *map(_escaped, said.rstrip().splitlines()), ".fi"]
    return "\n".join(lines) + "\n"


def json_schema() -> str:
    """The schema of every document of --json."""
    return json.dumps(schema(), indent=1) + "\n"


def _escaped(line: str) -> str:
    r"""As it is: a backslash and a hyphen mean something to roff, and a first dot or apostrophe (\& hides it)."""
    text = line.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    sys.stdout.write({"page": page, "man": manual, "schema": json_schema}[sys.argv[1]]())
