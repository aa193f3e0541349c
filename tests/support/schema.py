"""The published schema of the JSON documents, without leave: a key that it does not name is a fault."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from volback.cli.documents.schema import RESULTS, schema

_LARGE = 200_000
"""Characters of a document that takes too long, and has nothing but more of the same."""


def faults(document: Any, part: str = "") -> list[str]:
    """What is wrong with a document, or with a `part`, such as LogLine."""
    return [f"{error.json_path}: {error.message}"[:500] for error in _validator(part).iter_errors(document)]


def faults_of_said(stdout: str, stderr: str) -> list[str]:
    """What is wrong with the document that was written, if it is one, and with lines of a JSON log."""
    document = _read(stdout) if len(stdout) < _LARGE else None
    found = faults(document) if document else []
    lines = [line for text in stderr.splitlines() if (line := _read(text)) and "logger" in line]
    return found + [fault for line in lines[:100] for fault in faults(line, "LogLine")]


def _read(text: str) -> Any:
    """The object that the text is; None where it is another kind of text: tests say what they expect."""
    try:
        found = json.loads(text) if text.startswith("{") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@cache
def _validator(part: str) -> Any:
    import jsonschema  # here: the quickstart's stage uses this package, and has what volback needs alone

    whole = schema()
    for kind in [whole, *whole["$defs"].values()]:
        if kind.get("properties") is not None:
            kind["additionalProperties"] = False
    whole["properties"]["command"]["enum"] = ["", *RESULTS, "cat"]
    chosen = {"$defs": whole["$defs"], "$ref": f"#/$defs/{part}"} if part else whole
    return jsonschema.Draft202012Validator(chosen)
