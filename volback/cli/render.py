"""Render: a command's outcome as text for people or as one JSON document, and its exit code."""

from __future__ import annotations

import shutil
import signal
import sys
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING

from volback.cli.call import Call, Outcome
from volback.cli.log import write_error, write_line
from volback.errors import EXIT_DONE, EXIT_WARNINGS, Failure, Interrupted, StoreError, as_failure
from volback.masking import masked, masked_mount
from volback.printable import printable, printable_json, printable_lines
from volback.streams import OutputClosed

if TYPE_CHECKING:
    from volback.cli.documents.common import Error

SCHEMA = 1
EXIT_OUTPUT_CLOSED = 128 + signal.SIGPIPE
"""As a shell shows it for a program that has nobody to write to, like `ls | head`."""

_SHOWING = frozenset({
    "config check", "config show", "diff", "du", "find", "history", "jobs", "list", "ls", "schedule show", "show",
    "status", "version", "volumes",
})  # fmt: skip
"""Commands that only print: if that fails, they have failed."""


def outcome(call: Call, done: Outcome | None) -> int:
    """Print what a command did and return the exit code.

    What cannot be printed makes a command fail only if it does nothing else but show: a backup that was made is made.
    """
    if done is None:
        _warnings(call, [])
        return EXIT_DONE
    code = _code(done)
    shown = {error.message for error in done.errors}
    call.logged = [warning for warning in call.logged if warning not in shown]  # an error is not repeated as a warning
    try:
        _result(call, done)
    except OutputClosed:
        code = EXIT_OUTPUT_CLOSED if call.command in _SHOWING and not code else code
        call.json = False  # warnings and errors go to standard error then
    except StoreError as unwritten:
        if call.command in _SHOWING:
            raise
        call.logged.append(unwritten.message)
        call.json, code = False, code or EXIT_WARNINGS
    if not call.json:
        _warnings(call, _shown_warnings(call, done, code))
        for error in done.errors:
            _error(call, error)
    return code


def _result(call: Call, done: Outcome) -> None:
    """Write the result to standard output. Raises OutputClosed, StoreError."""
    if call.json:
        _document(call, _body(call, done))
    else:
        _lines(() if call.quiet else done.text, is_verbatim=done.is_verbatim)


def failure(call: Call, exc: Exception | Interrupted) -> int:
    """Print why a command failed and return the exit code."""
    error = exc if isinstance(exc, Failure) else as_failure(exc)
    if call.json:
        try:
            _document(call, {"ok": False, "error": error_facts(error)})
        except (OutputClosed, StoreError):  # the reason must still reach somebody
            _error(call, error)
        if call.debug:
            _traceback(exc)
    else:
        _warnings(call, [])
        _error(call, error, exc)
    return error.exit_code


def terminal_width() -> int | None:
    """How wide a table may be; None where it goes into a file or a pipe, and nothing is cut off."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else None


def _code(done: Outcome) -> int:
    if done.errors:
        return done.errors[0].exit_code
    return EXIT_WARNINGS if done.incomplete else EXIT_DONE


def _shown_warnings(call: Call, done: Outcome, code: int) -> list[str]:
    """The warnings that are still to be printed; with --quiet none, unless something failed."""
    if call.quiet:
        return done.warnings if code else []
    return [] if done.warned_in_text else done.warnings


def _body(call: Call, done: Outcome) -> dict[str, object]:
    body: dict[str, object] = {"ok": not done.errors, "result": done.result}
    warnings = done.warnings + call.logged + [error.message for error in done.errors[1:]]
    body["warnings"] = [masked(warning) for warning in warnings]
    if done.errors:
        body["error"] = error_facts(done.errors[0])
    return body


def error_facts(error: Failure) -> Error:
    """An error."""
    return {"kind": error.kind, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}


def _document(call: Call, body: dict[str, object]) -> None:
    import msgspec  # not above: it takes a quarter of the time that --help has

    document = {"schema": SCHEMA, "command": call.command, **body}
    try:
        data = msgspec.json.encode(document)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_valid(document))
    sys.stdout.buffer.write(printable_json(data) + b"\n")
    sys.stdout.buffer.flush()


def _valid(value: object) -> object:
    """The same, with bytes of names and arguments that are not UTF-8 escaped."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_valid(key): _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, list) else value


def _lines(text: Iterable[str], *, is_verbatim: bool) -> None:
    for line in text:
        shown = line if is_verbatim else printable(line)
        sys.stdout.buffer.write(shown.encode(errors="surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


def _warnings(call: Call, warnings: list[str]) -> None:
    for warning in map(masked, warnings + call.logged):
        if call.log_json:
            write_line("WARNING", "volback", warning)
            continue
        print(f"warning: {printable(warning)}", file=sys.stderr)


def _error(call: Call, error: Failure, exc: BaseException | None = None) -> None:
    if call.debug:
        _traceback(exc or error)
    if call.log_json:
        write_error(error)
        return
    print(f"error: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {printable(error.hint)}", file=sys.stderr)


def _traceback(exc: BaseException) -> None:
    print(printable_lines(masked_mount("".join(traceback.format_exception(exc)))), file=sys.stderr, end="")
